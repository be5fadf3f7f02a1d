//! ListKeys, ListAliases, ListResourceTags: pages and markers.

use std::ops::Range;

use serde_json::{Value, json};

use super::super::core::Kms;
use super::super::errors::KmsError;
use super::super::faults::Fault;
use super::super::key::{Key, Presence};
use super::Call;

impl Kms {
    pub(super) fn list_keys(&self, call: Call<'_>) -> Result<Value, KmsError> {
        let indices = self.by_place.get(call.from).map(Vec::as_slice).unwrap_or_default();
        let of = |index: &usize| self.keys.get(*index).filter(|key| key.presence == Presence::Present);
        let keys: Vec<&Key> = indices.iter().filter_map(of).collect();
        page(call, "Keys", &keys, 100, 1_000, |key| json!({ "KeyId": key.id, "KeyArn": key.arn }))
    }

    pub(super) fn list_aliases(&self, call: Call<'_>) -> Result<Value, KmsError> {
        let wanted = call.optional("KeyId").map(|name| self.find(call.from, name)).transpose()?;
        let all = self.aliases.get(call.from).into_iter().flatten();
        let aliases: Vec<(&String, &Option<usize>)> = all.filter(|(_, target)| wanted.is_none() || wanted == **target).collect();
        page(call, "Aliases", &aliases, 50, 100, |(name, target)| {
            let mut alias = json!({ "AliasName": name, "AliasArn": call.from.arn(name) });
            if let Some(key) = target.and_then(|index| self.keys.get(index)) {
                alias["TargetKeyId"] = json!(key.id);
            }
            alias
        })
    }

    pub(super) fn list_resource_tags(&self, call: Call<'_>) -> Result<Value, KmsError> {
        let (_, key) = self.owned(call)?;
        let tags: Vec<(&String, &String)> = key.tags.iter().collect();
        page(call, "Tags", &tags, 50, 50, |(name, value)| json!({ "TagKey": name, "TagValue": value }))
    }
}

/// One page of a listing; its marker is the place of the next item.
fn page<T>(call: Call<'_>, name: &str, items: &[T], usual: u64, most: u64, view: impl Fn(&T) -> Value) -> Result<Value, KmsError> {
    let limit = match call.body.get("Limit") {
        None | Some(Value::Null) => usual,
        Some(limit) => limit.as_u64().filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
            let bound = if limit.as_u64().is_some_and(|limit| limit > most) { "less" } else { "greater" };
            let edge = if bound == "less" { most } else { 1 };
            KmsError::validation(format!(
                "1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must have value {bound} than or equal to {edge}"
            ))
        })?,
    };
    let limit = if let Some(Fault::ShortPage { items }) = call.fault { limit.min(*items).max(1) } else { limit };
    let from: usize = match call.optional("Marker") {
        Some(marker) => marker.parse().map_err(|_| KmsError::new("InvalidMarkerException", "The marker is not valid."))?,
        None => 0,
    };
    let next = from.saturating_add(usize::try_from(limit).unwrap_or(usize::MAX));
    let range: Range<usize> = from.min(items.len())..next.min(items.len());
    let mut page = json!({ "Truncated": next < items.len() });
    page[name] = items.get(range).unwrap_or_default().iter().map(view).collect();
    if call.fault == Some(&Fault::RepeatedMarker) {
        page["Truncated"] = json!(true);
        page["NextMarker"] = json!(from.to_string());
    } else if next < items.len() {
        page["NextMarker"] = json!(next.to_string());
    }
    Ok(page)
}
