//! The file as a tree in which every value knows where it came from, so that an override is one more value of the same tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::errors::Place;

/// Where a value came from; its order is the order in which errors are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A byte of the file.
    File(usize),
    /// Not in the file.
    Absent,
    /// A variable.
    Variable(Arc<str>),
    /// The arguments of `sluice dev`.
    Arguments,
}

impl Origin {
    /// The same for people; `text` is the file.
    pub(super) fn place(self, text: &str) -> Place {
        match self {
            Self::File(offset) => {
                let before = text.get(..offset).unwrap_or(text);
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                Place::File { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
            }
            Self::Absent => Place::Absent,
            Self::Variable(name) => Place::Variable(name),
            Self::Arguments => Place::Arguments,
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Item {
    pub(super) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// A table of these entries, with one origin for all.
    pub(super) fn table<const N: usize>(entries: [(&str, Value); N], origin: &Origin) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), Self::new(value, origin.clone()))).collect();
        Self::new(Value::Table(entries), origin.clone())
    }
}

/// A value, as far as the configuration needs to tell them apart.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// The value of a variable: what it means depends on the type that its key wants.
    Raw(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Item>),
    Table(BTreeMap<String, Item>),
    /// What no key wants, in words.
    Other(&'static str),
}

impl Value {
    /// What it is, in words for an error, without the value itself.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    /// For keys that do not want a text: a variable's value read as TOML, or as a text if it is not.
    pub(super) fn settled(self, origin: &Origin) -> Self {
        match self {
            Self::Raw(text) => match DeValue::parse(text.trim()) {
                Ok(value) => convert(value.into_inner(), &|_| origin.clone()),
                Err(_) => Self::Text(text),
            },
            other => other,
        }
    }
}

/// A syntax error: where, and what.
pub(super) type SyntaxError = (Origin, String);

/// Reads a file; after a syntax error nothing of it is used, since what follows from a guess would only mislead.
pub(super) fn read(text: &str) -> Result<Item, Vec<SyntaxError>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Item::new(convert(DeValue::Table(table.into_inner()), &Origin::File), Origin::Absent));
    }
    let position = |error: &toml::de::Error| Origin::File(error.span().map_or(0, |span| span.start));
    Err(errors.iter().map(|error| (position(error), error.message().to_owned())).collect())
}

fn convert(value: DeValue<'_>, origin: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number that is too large"),
        },
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| (origin(item.span().start), item))
                .map(|(at, item)| Item::new(convert(item.into_inner(), origin), at))
                .collect(),
        ),
        DeValue::Table(entries) => Value::Table(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = origin(key.span().start);
                    (key.into_inner().into_owned(), Item::new(convert(value.into_inner(), origin), at))
                })
                .collect(),
        ),
    }
}
