//! Secrets: the configuration says where they are, and no error repeats anything of them.

use std::path::PathBuf;

use super::errors::Fault;
use super::kinds::{FilePath, Kind, NONEMPTY};
use super::model::Secret;
use super::reader::{Context, Spot};
use super::tree::{Item, Value};

/// A secret, which the configuration names and never holds: `{ env = "NAME" }` or `{ file = "path" }`.
pub(super) struct SecretSource;

impl SecretSource {
    /// The errors do not repeat the name or path: it may be the secret itself, put in the wrong place.
    fn resolve(context: &Context<'_>, spot: &Spot, source: Source) -> Option<Secret> {
        let value = match source {
            Source::Variable(name) => match context.variables.get(&name) {
                Some(value) => value.clone(),
                None => {
                    context.fail(spot, Fault::Secret, "names a variable that is not set");
                    return None;
                }
            },
            Source::File(path) => match std::fs::read_to_string(&path) {
                Ok(mut text) => {
                    if text.ends_with('\n') {
                        text.pop();
                        if text.ends_with('\r') {
                            text.pop();
                        }
                    }
                    text
                }
                Err(error) => {
                    context.fail(spot, Fault::Secret, format!("names a file that cannot be read: {error}"));
                    return None;
                }
            },
        };
        if value.is_empty() {
            context.fail(spot, Fault::Secret, "is empty");
            return None;
        }
        Some(Secret::new(value))
    }
}

enum Source {
    Variable(String),
    File(PathBuf),
}

impl Kind for SecretSource {
    type Value = Secret;

    fn expected(&self) -> String {
        "{ env = \"NAME\" } or { file = \"path\" }".to_owned()
    }

    fn read(&self, context: &Context<'_>, spot: &Spot, item: Item) -> Option<Secret> {
        let origin = item.origin;
        let value = item.value.settled(&origin);
        if !matches!(value, Value::Table(_)) {
            context.fail(spot, Fault::Secret, format!("a secret does not stand in a configuration: must be {}", self.expected()));
            return None;
        }
        let source = context.table(spot, Item::new(value, origin), |table| {
            let both = table.has("env") == table.has("file");
            let variable = table.optional("env", NONEMPTY).map(Source::Variable);
            let file = table.optional("file", FilePath).map(Source::File);
            if both {
                table.context.fail(spot, Fault::Conflict, format!("must be one of {}", self.expected()));
                return None;
            }
            variable.or(file)
        })?;
        Self::resolve(context, spot, source)
    }

    #[cfg(test)]
    fn word(&self) -> String {
        "secret".to_owned()
    }
}
