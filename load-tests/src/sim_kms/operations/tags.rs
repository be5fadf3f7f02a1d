//! TagResource, UntagResource.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::core::Kms;
use super::super::errors::KmsError;
use super::super::key::KeyState;
use super::{Call, done};

/// Tags that a key can have.
const MOST: usize = 50;

impl Kms {
    pub(super) fn tag_resource(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let added = tags(call)?;
        let index = self.taggable(call)?;
        if let Some(key) = self.keys.get_mut(index) {
            let mut all = key.tags.clone();
            all.extend(added);
            if all.len() > MOST {
                return Err(KmsError::new("LimitExceededException", format!("a key has {MOST} tags at most")));
            }
            key.tags = all;
        }
        done()
    }

    pub(super) fn untag_resource(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let names = call.body.get("TagKeys").and_then(Value::as_array).ok_or_else(|| KmsError::missing("TagKeys"))?;
        let index = self.taggable(call)?;
        if let Some(key) = self.keys.get_mut(index) {
            key.tags.retain(|name, _| !names.iter().any(|gone| gone == name));
        }
        done()
    }

    fn taggable(&self, call: Call<'_>) -> Result<usize, KmsError> {
        let (index, key) = self.owned(call)?;
        let is_leaving = matches!(key.state, KeyState::PendingDeletion | KeyState::PendingReplicaDeletion);
        if is_leaving { Err(key.in_state()) } else { Ok(index) }
    }
}

/// The tags that a call brings.
pub(super) fn tags(call: Call<'_>) -> Result<BTreeMap<String, String>, KmsError> {
    let mut tags = BTreeMap::new();
    for tag in call.body.get("Tags").and_then(Value::as_array).into_iter().flatten() {
        let part = |field: &str| tag.get(field).and_then(Value::as_str).ok_or_else(|| KmsError::missing(field));
        let (name, value) = (part("TagKey")?, part("TagValue")?);
        if name.is_empty() || name.len() > 128 || name.starts_with("aws:") || value.len() > 256 {
            return Err(KmsError::new("TagException", format!("the tag {name} is not valid")));
        }
        if tags.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(KmsError::new("TagException", format!("Duplicate tag keys: {name}")));
        }
    }
    if tags.len() > MOST {
        return Err(KmsError::new("LimitExceededException", format!("a key has {MOST} tags at most")));
    }
    Ok(tags)
}
