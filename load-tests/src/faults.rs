//! Which calls go wrong: by a script (the next so many) or by chance (decided by the seed).

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The name that stands for every call in [`Scripted::of`] and [`Chance::of`].
pub const ANY: &str = "*";

/// The next `count` calls named `of` get this fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripted<F> {
    /// The method or operation; [`ANY`] for every one.
    pub of: String,
    /// How many calls.
    pub count: u64,
    /// What happens to them.
    pub fault: F,
}

/// So many of 10,000 calls named `of` get this fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chance<F> {
    /// The method or operation; [`ANY`] for every one.
    pub of: String,
    /// How many of 10,000; what a call's chances are beyond 10,000 together never happens.
    pub per_10_000: u64,
    /// What happens to them.
    pub fault: F,
}

/// What is to go wrong. The script comes first, line by line; where none of its lines fits, the chances decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults<F> {
    /// Used up from the front.
    pub script: Vec<Scripted<F>>,
    /// They stay.
    pub chances: Vec<Chance<F>>,
}

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self { script: Vec::new(), chances: Vec::new() }
    }
}

impl<F: Clone> Faults<F> {
    /// One more line for the script.
    #[must_use]
    pub fn then(mut self, of: &str, count: u64, fault: F) -> Self {
        self.script.push(Scripted { of: of.into(), count, fault });
        self
    }

    /// One more chance.
    #[must_use]
    pub fn sometimes(mut self, of: &str, per_10_000: u64, fault: F) -> Self {
        self.chances.push(Chance { of: of.into(), per_10_000, fault });
        self
    }

    /// What happens to this call; a line of the script is used up by it. A number is drawn only where a chance concerns the call.
    pub fn next(&mut self, of: &str, random: &mut Random) -> Option<F> {
        let fits = |wanted: &str| wanted == of || wanted == ANY;
        self.script.retain(|line| line.count > 0);
        if let Some(line) = self.script.iter_mut().find(|line| fits(&line.of)) {
            line.count -= 1;
            return Some(line.fault.clone());
        }
        let mut chances = self.chances.iter().filter(|chance| fits(&chance.of)).peekable();
        chances.peek()?;
        let mut drawn = random.below(10_000);
        for chance in chances {
            if drawn < chance.per_10_000 {
                return Some(chance.fault.clone());
            }
            drawn -= chance.per_10_000;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_comes_first_and_is_used_up() {
        let mut random = Random::new(1, "faults");
        let mut faults = Faults::default().then("a", 2, 1).then(ANY, 1, 2).sometimes("a", 10_000, 3);
        let names = ["b", "a", "a", "a", "b"];
        let drawn: Vec<Option<i32>> = names.iter().map(|name| faults.next(name, &mut random)).collect();
        assert_eq!(drawn, [Some(2), Some(1), Some(1), Some(3), None]);
    }

    #[test]
    fn chances_are_about_as_many_as_they_say() {
        let mut random = Random::new(2, "faults");
        let mut faults = Faults::default().sometimes("a", 1_000, 'x').sometimes("a", 3_000, 'y');
        let drawn: Vec<char> = (0..10_000).filter_map(|_| faults.next("a", &mut random)).collect();
        let x = drawn.iter().filter(|fault| **fault == 'x').count();
        let y = drawn.len() - x;
        assert!((900..1_100).contains(&x) && (2_800..3_200).contains(&y), "{x} {y}");
    }
}
