//! The texts that the table does not have, each told once: a node that answers something new to every send must not fill the log, and
//! operators must see that it does.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Different texts that are remembered; what comes after them is counted and not told any more.
const TEXTS: usize = 256;
/// Characters of a text that are remembered and told.
const LENGTH: usize = 200;

/// The texts of one environment.
#[derive(Debug, Default)]
pub struct Unrecognised(Mutex<HashSet<String>>);

impl Unrecognised {
    /// The text as it is told, if it was not told before. Numbers, hashes and addresses do not make it another one; what may be signed
    /// bytes is left out.
    pub fn first(&self, message: &str) -> Option<String> {
        let text = normal(message);
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (told.len() < TEXTS && told.insert(text.clone())).then_some(text)
    }
}

/// Lower case, and each word that begins with a digit as `#`.
fn normal(message: &str) -> String {
    let mut text = String::new();
    for part in message.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_alphanumeric());
        if word.starts_with(|c: char| c.is_ascii_digit()) || word.len() > 40 {
            text.push('#');
            text.push_str(part.strip_prefix(word).unwrap_or_default());
        } else {
            text.push_str(part);
        }
        if text.len() >= LENGTH {
            break;
        }
    }
    text.to_lowercase().chars().take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_once_whatever_its_numbers_are() {
        let texts = Unrecognised::default();
        assert_eq!(texts.first("Quota of 0xabCD used: 17 of 20").as_deref(), Some("quota of # used: # of #"));
        assert_eq!(texts.first("quota of 0x1234 used: 3 of 4"), None);
        assert!(texts.first("another one").is_some());
    }

    #[test]
    fn what_is_remembered_and_told_is_bounded() {
        let texts = Unrecognised::default();
        let word = |number: usize| format!("w{}", "x".repeat(number % 30)) + &" y".repeat(number / 30);
        let told = (0..10 * TEXTS).filter(|number| texts.first(&word(*number)).is_some()).count();
        assert_eq!(told, TEXTS);
        let long = Unrecognised::default().first(&"word ".repeat(1_000)).unwrap();
        assert_eq!(long.len(), LENGTH);
        let bytes = Unrecognised::default().first(&format!("bad bytes {}", "f8".repeat(200))).unwrap();
        assert_eq!(bytes, "bad bytes #");
    }
}
