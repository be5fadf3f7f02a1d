//! What is wrong with a configuration: every error at once, each with its key path and place.

use std::fmt;
use std::sync::Arc;

/// What kind of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file cannot be read.
    Unreadable,
    /// It is not TOML.
    Syntax,
    /// No such name.
    Unknown,
    /// A value that has no default is absent, or a list is empty.
    Missing,
    /// Another type or unit is needed.
    Type,
    /// The right type, and a value that cannot be meant.
    Value,
    /// What has to be unique is there twice.
    Duplicate,
    /// It names something that does not exist.
    Reference,
    /// Two values that exclude each other.
    Conflict,
    /// It would be served to everybody.
    Unsafe,
    /// A secret that cannot be had, or that stands where it must not.
    Secret,
}

/// Where the mistake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file; both count from 1, columns in characters.
    File {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// Nowhere in the file: something is missing from it.
    Absent,
    /// In a variable of this name.
    Variable(Arc<str>),
    /// In the arguments of `sluice dev`.
    Arguments,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line, column } => write!(f, "line {line}, column {column}"),
            Self::Absent => f.write_str("not in the file"),
            Self::Variable(name) => f.write_str(name),
            Self::Arguments => f.write_str("arguments"),
        }
    }
}

/// One mistake. It never holds a secret, a URL or another value that may contain one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key path, such as `environment.dev.nodes[0].url`; empty for what concerns the whole file.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// What kind of mistake it is.
    pub fault: Fault,
    /// What is wrong and what would be right; for people.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), self.fault) {
            ("", Fault::Unreadable) => f.write_str(&self.message),
            ("", _) => write!(f, "{}: {}", self.place, self.message),
            (key, _) => write!(f, "{key} ({}): {}", self.place, self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Every mistake of a configuration, in the order in which they appear: the file from its top, then what is absent from it, then
/// the variables by name. Never empty. It prints as one line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
