//! CreateAlias, UpdateAlias, DeleteAlias.

use serde_json::Value;

use super::super::core::Kms;
use super::super::errors::KmsError;
use super::super::key::KeyState;
use super::{Call, done};

impl Kms {
    pub(super) fn create_alias(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (name, target) = (alias_name(call)?, self.target(call)?);
        let aliases = self.aliases.entry(call.from.clone()).or_default();
        if aliases.contains_key(name) {
            let words = format!("An alias with the name {} already exists", call.from.arn(name));
            return Err(KmsError::new("AlreadyExistsException", words));
        }
        aliases.insert(name.to_owned(), Some(target));
        done()
    }

    pub(super) fn update_alias(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (name, target) = (alias_name(call)?, self.target(call)?);
        *self.alias(call, name)? = Some(target);
        done()
    }

    pub(super) fn delete_alias(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let name = alias_name(call)?;
        self.alias(call, name)?;
        if let Some(aliases) = self.aliases.get_mut(call.from) {
            aliases.remove(name);
        }
        done()
    }

    fn alias(&mut self, call: Call<'_>, name: &str) -> Result<&mut Option<usize>, KmsError> {
        let alias = self.aliases.get_mut(call.from).and_then(|aliases| aliases.get_mut(name));
        alias.ok_or_else(|| KmsError::new("NotFoundException", format!("Alias {} is not found.", call.from.arn(name))))
    }

    /// The key that an alias is to point at: one of the caller's own that stays.
    fn target(&self, call: Call<'_>) -> Result<usize, KmsError> {
        let name = call.text("TargetKeyId")?;
        if name.contains("alias/") {
            return Err(KmsError::validation("Aliases must refer to keys. Not aliases"));
        }
        let index = self.find(call.from, name)?;
        let key = self.keys.get(index).filter(|key| key.place == *call.from).ok_or_else(|| KmsError::not_found(name))?;
        match key.state {
            KeyState::PendingDeletion | KeyState::PendingReplicaDeletion => Err(key.in_state()),
            _ => Ok(index),
        }
    }
}

fn alias_name<'a>(call: Call<'a>) -> Result<&'a str, KmsError> {
    let name = call.text("AliasName")?;
    let Some(rest) = name.strip_prefix("alias/") else {
        return Err(KmsError::validation("Alias must start with the prefix \"alias/\"."));
    };
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
    if rest.is_empty() || name.len() > 256 || !rest.chars().all(is_legal) {
        return Err(KmsError::new("InvalidAliasNameException", format!("{name} is not a legal alias name")));
    }
    if rest.starts_with("aws/") {
        return Err(KmsError::new("NotAuthorizedException", format!("{name} is an alias of AWS")));
    }
    Ok(name)
}
