//! The types that a key can have: how each is read, and what an error says would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;

use super::errors::Fault;
use super::reader::{Context, Spot};
use super::tree::{Item, Value};

/// A type of value.
pub(super) trait Kind {
    type Value;

    /// What would be right, as the end of a sentence.
    fn expected(&self) -> String;

    /// The value, or nothing and an error in the context.
    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<Self::Value>;

    /// The type in the reference.
    #[cfg(test)]
    fn word(&self) -> String;

    /// The bounds in the reference.
    #[cfg(test)]
    fn bounds(&self) -> String {
        String::new()
    }
}

impl<K: Kind> Kind for &K {
    type Value = K::Value;

    fn expected(&self) -> String {
        (*self).expected()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<K::Value> {
        (*self).read(context, spot, item)
    }

    #[cfg(test)]
    fn word(&self) -> String {
        (*self).word()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        (*self).bounds()
    }
}

fn wrong_type<T>(kind: &impl Kind, context: &Context<'_>, spot: &Spot, found: &Value) -> Option<T> {
    context.fail(spot, Fault::Type, format!("must be {}, not {}", kind.expected(), found.kind()));
    None
}

/// `true` or `false`.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<bool> {
        match item.value.settled(&item.origin) {
            Value::Boolean(flag) => Some(flag),
            other => wrong_type(self, context, spot, &other),
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "boolean".to_owned()
    }
}

/// A whole number within bounds.
pub(super) struct Count<T>(pub(super) RangeInclusive<T>);

impl<T: TryFrom<i128> + PartialOrd + Display> Kind for Count<T> {
    type Value = T;

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<T> {
        match item.value.settled(&item.origin) {
            Value::Integer(number) => {
                let value = T::try_from(number).ok().filter(|value| self.0.contains(value));
                if value.is_none() {
                    context.fail(spot, Fault::Value, format!("must be {}, not {number}", self.expected()));
                }
                value
            }
            other => wrong_type(self, context, spot, &other),
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "integer".to_owned()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        format!("{} to {}", self.0.start(), self.0.end())
    }
}

/// A whole number within bounds, or one word that stands for something else.
pub(super) struct CountOr(pub(super) RangeInclusive<u64>, pub(super) &'static str);

impl Kind for CountOr {
    /// `None` is the word.
    type Value = Option<u64>;

    fn expected(&self) -> String {
        format!("a whole number from {} to {}, or \"{}\"", self.0.start(), self.0.end(), self.1)
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<Option<u64>> {
        match item.value.settled(&item.origin) {
            Value::Text(text) if text == self.1 => Some(None),
            Value::Integer(number) => {
                let value = u64::try_from(number).ok().filter(|value| self.0.contains(value));
                if value.is_none() {
                    context.fail(spot, Fault::Value, format!("must be {}, not {number}", self.expected()));
                }
                value.map(Some)
            }
            Value::Text(_) => {
                context.fail(spot, Fault::Value, format!("must be {}", self.expected()));
                None
            }
            other => wrong_type(self, context, spot, &other),
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "integer or text".to_owned()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        format!("{} to {}, or \"{}\"", self.0.start(), self.0.end(), self.1)
    }
}

/// A duration within bounds, always with its unit.
pub(super) struct Time(pub(super) RangeInclusive<Duration>);

impl Kind for Time {
    type Value = Duration;

    fn expected(&self) -> String {
        format!("a duration from {} to {} with its unit, such as \"30s\"", format_duration(*self.0.start()), format_duration(*self.0.end()))
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<Duration> {
        let text = match item.value {
            Value::Text(text) | Value::Raw(text) => text,
            Value::Integer(number) => {
                context.fail(spot, Fault::Type, format!("{number} has no unit: must be {}", self.expected()));
                return None;
            }
            other => return wrong_type(self, context, spot, &other),
        };
        // humantime takes a bare 0, which has no unit either.
        if text.trim().chars().all(|c| c.is_ascii_digit() || c == '.') {
            context.fail(spot, Fault::Type, format!("has no unit: must be {}", self.expected()));
            return None;
        }
        match humantime::parse_duration(&text) {
            Ok(duration) if self.0.contains(&duration) => Some(duration),
            Ok(duration) => {
                context.fail(spot, Fault::Value, format!("must be {}, not {}", self.expected(), format_duration(duration)));
                None
            }
            Err(_) => {
                context.fail(spot, Fault::Type, format!("cannot be read: must be {}", self.expected()));
                None
            }
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "duration".to_owned()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        format!("{} to {}", format_duration(*self.0.start()), format_duration(*self.0.end()))
    }
}

/// A text that `parse` makes a value of, or says what is wrong with it without repeating it.
pub(super) struct Parsed<T> {
    /// The type in the reference.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test of the reference compares it"))]
    pub(super) word: &'static str,
    /// What would be right.
    pub(super) expected: &'static str,
    /// The value, or why it is none.
    pub(super) parse: fn(&str) -> Result<T, String>,
}

impl<T> Kind for Parsed<T> {
    type Value = T;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<T> {
        match item.value {
            Value::Text(text) | Value::Raw(text) => match (self.parse)(&text) {
                Ok(value) => Some(value),
                Err(why) => {
                    context.fail(spot, Fault::Value, format!("{why}: must be {}", self.expected));
                    None
                }
            },
            other => wrong_type(self, context, spot, &other),
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        self.word.to_owned()
    }
}

/// An amount: whole wei, or a number with its unit.
pub(super) struct Wei;

/// Units of ether, by the digits that they have behind the point.
const UNITS: [(&str, usize); 3] = [("wei", 0), ("gwei", 9), ("ether", 18)];

/// Wei of `"100 gwei"`, `"0.5 ether"` or `"21000"`.
fn wei(text: &str) -> Option<u128> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit = unit.trim();
    let (_, decimals) = UNITS.into_iter().find(|(name, _)| *name == unit || (unit.is_empty() && *name == "wei"))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > decimals || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    // More than 39 digits are beyond 128 bits, and fail to parse.
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

impl Kind for Wei {
    type Value = u128;

    fn expected(&self) -> String {
        "an amount of at least 1 wei: whole wei, or a number with its unit, such as \"100 gwei\" or \"0.5 ether\"".to_owned()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<u128> {
        let amount = match item.value {
            Value::Text(text) | Value::Raw(text) => wei(&text),
            Value::Integer(number) => u128::try_from(number).ok(),
            other => return wrong_type(self, context, spot, &other),
        };
        let amount = amount.filter(|amount| *amount > 0);
        if amount.is_none() {
            context.fail(spot, Fault::Value, format!("must be {}", self.expected()));
        }
        amount
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "amount".to_owned()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        "1 wei or more".to_owned()
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T> Choice<T> {
    fn words(&self) -> String {
        self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
    }
}

impl<T: Copy> Kind for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        self.words()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<T> {
        match item.value {
            Value::Text(text) | Value::Raw(text) => {
                let choice = self.0.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
                if choice.is_none() {
                    context.fail(spot, Fault::Value, format!("must be {}", self.expected()));
                }
                choice
            }
            other => wrong_type(self, context, spot, &other),
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "text".to_owned()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        self.words()
    }
}

/// A path; a relative one is relative to the folder of the file.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn expected(&self) -> String {
        "a path".to_owned()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<PathBuf> {
        match item.value {
            Value::Text(text) | Value::Raw(text) if text.is_empty() => {
                context.fail(spot, Fault::Value, "is empty: must be a path");
                None
            }
            Value::Text(text) | Value::Raw(text) => Some(context.base.join(text)),
            other => wrong_type(self, context, spot, &other),
        }
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "path".to_owned()
    }
}

/// A list in which nothing is there twice.
pub(super) struct ListOf<K> {
    pub(super) element: K,
    /// Whether an empty one is wrong.
    pub(super) filled: bool,
}

impl<K: Kind> Kind for ListOf<K>
where
    K::Value: Ord + Clone,
{
    type Value = Vec<K::Value>;

    fn expected(&self) -> String {
        format!("a list{}, each {}", if self.filled { " of at least one" } else { "" }, self.element.expected())
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<Self::Value> {
        let items = match item.value.settled(&item.origin) {
            Value::List(items) => items,
            other => return wrong_type(self, context, spot, &other),
        };
        if items.is_empty() && self.filled {
            context.fail(spot, Fault::Missing, format!("is empty: must be {}", self.expected()));
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut values = Vec::with_capacity(items.len());
        let mut right = true;
        for (index, item) in items.into_iter().enumerate() {
            let element = Spot { path: spot.path.index(index), origin: item.origin.clone() };
            match self.element.read(context, &element, item) {
                Some(value) if !seen.insert(value.clone()) => {
                    context.fail(&element, Fault::Duplicate, "is in this list already");
                    right = false;
                }
                Some(value) => values.push(value),
                None => right = false,
            }
        }
        right.then_some(values)
    }

    #[cfg(test)]
    fn word(&self) -> String {
        format!("list of {}", self.element.word())
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        if self.filled { "at least one".to_owned() } else { String::new() }
    }
}

/// A table from names of the operator's choice to texts, at least one.
pub(super) struct Tags;

impl Kind for Tags {
    type Value = BTreeMap<String, String>;

    fn expected(&self) -> String {
        "a table of at least one tag, such as { app = \"payments\" }".to_owned()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<Self::Value> {
        let entries = match item.value.settled(&item.origin) {
            Value::Table(entries) => entries,
            other => return wrong_type(self, context, spot, &other),
        };
        if entries.is_empty() {
            context.fail(spot, Fault::Missing, format!("is empty: must be {}", self.expected()));
            return None;
        }
        let mut tags = Some(BTreeMap::new());
        for (key, item) in entries {
            match item.value {
                Value::Text(value) | Value::Raw(value) => {
                    if let Some(tags) = &mut tags {
                        tags.insert(key, value);
                    }
                }
                other => {
                    let entry = Spot { path: spot.path.key(&key), origin: item.origin };
                    context.fail(&entry, Fault::Type, format!("must be a text, not {}", other.kind()));
                    tags = None;
                }
            }
        }
        tags
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "table of text".to_owned()
    }

    #[cfg(test)]
    fn bounds(&self) -> String {
        "at least one".to_owned()
    }
}

/// Any text that is not empty.
pub(super) const NONEMPTY: Parsed<String> = Parsed {
    word: "text",
    expected: "a text that is not empty",
    parse: |text| if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) },
};

#[cfg(test)]
mod tests {
    use super::wei;

    #[test]
    fn amounts_have_units_and_no_more_digits_than_wei() {
        let gwei = 1_000_000_000;
        for (text, amount) in [
            ("21000", 21_000),
            ("7 wei", 7),
            ("100 gwei", 100 * gwei),
            ("1.5gwei", gwei * 3 / 2),
            ("0.5 ether", gwei * gwei / 2),
            ("0.000000000000000001 ether", 1),
        ] {
            assert_eq!(wei(text), Some(amount), "{text}");
        }
        for text in ["", "gwei", "1 finney", "1.5", "1. gwei", ".5 gwei", "1.0000000001 gwei", "-1", "1 2", "0x1", "1e3", &"9".repeat(40)] {
            assert_eq!(wei(text), None, "{text}");
        }
    }
}
