//! A reader that tracks where it is, takes keys out of tables, collects errors and reports what is left as unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::errors::{ConfigError, ConfigErrors, Fault};
use super::kinds::{Kind, Parsed};
use super::tree::{Item, Origin, Value};

/// A key path.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyPath(Vec<Segment>);

#[derive(Debug, Clone)]
enum Segment {
    Key(String),
    Index(usize),
    Name(String),
}

impl KeyPath {
    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    pub(super) fn name(&self, name: &str) -> Self {
        self.with(Segment::Name(name.to_owned()))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The same key of every table of its kind: `environment[].nodes[].url`.
    #[cfg(test)]
    fn pattern(&self) -> String {
        let anonymous = |segment: &Segment| match segment {
            Segment::Key(key) => format!(".{key}"),
            Segment::Index(_) | Segment::Name(_) => "[]".to_owned(),
        };
        self.0.iter().map(anonymous).collect::<String>().trim_start_matches('.').to_owned()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) | Segment::Name(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
                    if bare { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// A key path and where its value stands.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) path: KeyPath,
    pub(super) origin: Origin,
}

/// What is known of a key, for the test that compares the reference with the code.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFacts {
    pub(super) word: String,
    pub(super) default: String,
    pub(super) bounds: String,
    pub(super) given: bool,
}

/// What one reading needs from outside, and the errors that it has met.
pub(super) struct Context<'a> {
    /// For `{ env = "NAME" }`.
    pub(super) variables: &'a BTreeMap<String, String>,
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    errors: RefCell<Vec<(Origin, ConfigError)>>,
    #[cfg(test)]
    pub(super) facts: RefCell<BTreeMap<String, KeyFacts>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(variables: &'a BTreeMap<String, String>, base: &'a Path) -> Self {
        Self {
            variables,
            base,
            errors: RefCell::default(),
            #[cfg(test)]
            facts: RefCell::default(),
        }
    }

    pub(super) fn fail(&self, spot: &Spot, fault: Fault, message: impl Into<String>) {
        let error = ConfigError { key: spot.path.to_string(), place: super::errors::Place::Absent, fault, message: message.into() };
        self.errors.borrow_mut().push((spot.origin.clone(), error));
    }

    /// The errors in the order of their appearance, if there are any; `text` is the file.
    pub(super) fn finish(self, text: &str) -> Option<ConfigErrors> {
        let mut errors = self.errors.into_inner();
        errors.sort_by(|(left, _), (right, _)| left.cmp(right));
        let errors: Vec<_> = errors.into_iter().map(|(origin, error)| ConfigError { place: origin.place(text), ..error }).collect();
        (!errors.is_empty()).then_some(ConfigErrors(errors))
    }

    /// Reads a table; what the reader does not take out of it is unknown.
    pub(super) fn table<T>(&self, spot: &Spot, item: Item, read: impl FnOnce(&mut Table<'_, 'a>) -> Option<T>) -> Option<T> {
        match item.value.settled(&item.origin) {
            Value::Table(entries) => {
                let mut table = Table { context: self, spot: spot.clone(), entries, known: Vec::new(), taken: BTreeMap::new() };
                let result = read(&mut table);
                table.report_unknown();
                result
            }
            other => {
                self.fail(spot, Fault::Type, format!("must be a table, not {}", other.kind()));
                None
            }
        }
    }
}

/// A table from which keys are taken.
pub(super) struct Table<'t, 'a> {
    pub(super) context: &'t Context<'a>,
    pub(super) spot: Spot,
    entries: BTreeMap<String, Item>,
    known: Vec<&'static str>,
    taken: BTreeMap<&'static str, Origin>,
}

impl<'a> Table<'_, 'a> {
    /// Where a key of this table stands, or the table if it is absent.
    pub(super) fn spot(&self, key: &str) -> Spot {
        let given = self.entries.get(key).map(|item| &item.origin).or_else(|| self.taken.get(key));
        Spot { path: self.spot.path.key(key), origin: given.unwrap_or(&self.spot.origin).clone() }
    }

    /// Whether the key is given, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.taken.contains_key(key) || self.entries.contains_key(key)
    }

    pub(super) fn fail(&self, key: &str, fault: Fault, message: impl Into<String>) {
        self.context.fail(&self.spot(key), fault, message);
    }

    fn take(&mut self, key: &'static str) -> Option<Item> {
        self.known.push(key);
        let item = self.entries.remove(key)?;
        self.taken.insert(key, item.origin.clone());
        Some(item)
    }

    /// Notes the key for the test of the reference.
    #[cfg(test)]
    fn record(&self, key: &str, kind: &impl Kind, default: &str) {
        let mut facts = self.context.facts.borrow_mut();
        let path = self.spot.path.key(key).pattern();
        let given = self.entries.contains_key(key) || facts.get(&path).is_some_and(|facts| facts.given);
        facts.insert(path, KeyFacts { word: kind.word(), default: default.to_owned(), bounds: kind.bounds(), given });
    }

    /// A key that may be absent; also nothing if its value is wrong, which has been reported then.
    pub(super) fn optional<K: Kind>(&mut self, key: &'static str, kind: K) -> Option<K::Value> {
        #[cfg(test)]
        self.record(key, &kind, "none");
        let item = self.take(key)?;
        kind.read(self.context, &self.spot(key), item)
    }

    /// A key that must be there.
    pub(super) fn required<K: Kind>(&mut self, key: &'static str, kind: K) -> Option<K::Value> {
        #[cfg(test)]
        self.record(key, &kind, "required");
        match self.take(key) {
            Some(item) => kind.read(self.context, &self.spot(key), item),
            None => {
                self.fail(key, Fault::Missing, format!("is missing: {}", kind.expected()));
                None
            }
        }
    }

    /// A key with a default, which is written as in a variable and read like any value.
    pub(super) fn or<K: Kind>(&mut self, key: &'static str, kind: K, default: &str) -> Option<K::Value> {
        #[cfg(test)]
        self.record(key, &kind, default);
        let item = self.take(key).unwrap_or_else(|| Item::new(Value::Raw(default.to_owned()), self.spot.origin.clone()));
        kind.read(self.context, &self.spot(key), item)
    }

    /// A table that may be absent: its keys then have their defaults.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'_, 'a>) -> Option<T>) -> Option<T> {
        let item = self.take(key).unwrap_or_else(|| Item::new(Value::Table(BTreeMap::new()), self.spot.origin.clone()));
        self.context.table(&self.spot(key), item, read)
    }

    /// A table that means something by being there.
    pub(super) fn optional_section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'_, 'a>) -> Option<T>) -> Option<T> {
        let item = self.take(key)?;
        self.context.table(&self.spot(key), item, read)
    }

    /// A list of tables, at least one.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        what: &str,
        mut read: impl FnMut(&mut Table<'_, 'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (spot, items) = self.list_of_tables(key, what)?;
        let mut all = Some(Vec::with_capacity(items.len()));
        for (index, item) in items.into_iter().enumerate() {
            let element = Spot { path: spot.path.index(index), origin: item.origin.clone() };
            let value = self.context.table(&element, item, &mut read);
            all = all.zip(value).map(|(mut all, value)| {
                all.push(value);
                all
            });
        }
        all
    }

    /// An array of tables that are known by their `name`, at least one. The name is read here; `read` gets it.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        kind: Parsed<String>,
        mut read: impl FnMut(&mut Table<'_, 'a>, String) -> Option<T>,
    ) -> Vec<T> {
        let Some((spot, items)) = self.list_of_tables(key, &format!("at least one [[{key}]]")) else { return Vec::new() };
        let mut seen: Vec<String> = Vec::new();
        let mut all = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let name = name_of(&item).map(str::to_owned);
            let twin = name.as_ref().and_then(|name| seen.iter().find(|other| fold(other) == fold(name)).cloned());
            let segment = match (&name, &twin) {
                (Some(name), None) if !name.is_empty() => Segment::Name(name.clone()),
                _ => Segment::Index(index),
            };
            let element = Spot { path: spot.path.with(segment), origin: item.origin.clone() };
            let value = self.context.table(&element, item, |table| {
                let checked = table.required("name", &kind);
                if let Some(twin) = &twin {
                    let rule = "names must differ in more than case, and - and _";
                    table.fail("name", Fault::Duplicate, format!("there is already the {key} `{twin}`: {rule}"));
                }
                // A wrong name has been reported; what refers to it should not be reported as well.
                read(table, checked.or_else(|| name.clone()).unwrap_or_default())
            });
            all.extend(value);
            seen.extend(name);
        }
        all
    }

    fn list_of_tables(&mut self, key: &'static str, what: &str) -> Option<(Spot, Vec<Item>)> {
        let Some(item) = self.take(key) else {
            self.fail(key, Fault::Missing, format!("is missing: {what} is needed"));
            return None;
        };
        let spot = self.spot(key);
        match item.value.settled(&item.origin) {
            Value::List(items) if items.is_empty() => {
                self.context.fail(&spot, Fault::Missing, format!("is empty: {what} is needed"));
                None
            }
            Value::List(items) => Some((spot, items)),
            other => {
                self.context.fail(&spot, Fault::Type, format!("must be a list of tables, not {}", other.kind()));
                None
            }
        }
    }

    /// Takes keys that do not belong here although they exist, and says where they do.
    pub(super) fn foreign(&mut self, keys: &[&'static str], belongs: &str) {
        for key in keys {
            if self.entries.contains_key(*key) {
                self.fail(key, Fault::Conflict, format!("belongs {belongs}"));
                self.entries.remove(*key);
            }
        }
    }

    /// Takes keys without a look at them: which of them are right depends on a value that was wrong.
    pub(super) fn ignore(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.take(key);
        }
    }

    fn report_unknown(&self) {
        for (key, item) in &self.entries {
            let spot = Spot { path: self.spot.path.key(key), origin: item.origin.clone() };
            let advice = advice(key, self.known.iter().copied());
            self.context.fail(&spot, Fault::Unknown, format!("is not a known key{advice}"));
        }
    }
}

/// The `name` of a table of an array.
pub(super) fn name_of(item: &Item) -> Option<&str> {
    match &item.value {
        Value::Table(entries) => match &entries.get("name")?.value {
            Value::Text(name) | Value::Raw(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// How variables see a name: without case, and `-` is `_`.
pub(super) fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// The end of an error about a name: the nearest one that exists, else all of them.
pub(super) fn advice<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> String {
    let candidates: Vec<&str> = candidates.collect();
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(&fold(name), &fold(candidate));
    let near = candidates.iter().min_by_key(distance).filter(|near| distance(near) <= 1 + name.len() / 4);
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None if candidates.is_empty() => String::new(),
        None => format!("; there is `{}`", candidates.join("`, `")),
    }
}
