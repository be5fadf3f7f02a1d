//! Which keys there are: listings paged to their end, and only secp256k1 keys that sign.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyState as AwsState, KeyUsageType};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::errors::Fault;
use super::{AwsKms, incomplete};
use crate::config::KeySelection;
use crate::signing::{FoundKey, KeyArn, KeyState, KeyStoreError, SignClass};

/// DescribeKey and ListResourceTags calls at the same time: far below their 2,000 a second.
const CONCURRENCY: usize = 16;
/// Largest pages that AWS gives.
const KEYS_PER_PAGE: i32 = 1000;
const TAGS_PER_PAGE: i32 = 50;

/// One page's words about the next one.
pub(super) struct Paging {
    seen: BTreeSet<String>,
}

impl Paging {
    pub(super) fn new() -> Self {
        Self { seen: BTreeSet::new() }
    }

    /// The marker to go on with; none at the end. A page that says `Truncated` without a marker is the last (an emulator
    /// does that); a marker that was there before would go round for ever.
    pub(super) fn next(&mut self, operation: &str, truncated: bool, marker: Option<String>) -> Result<Option<String>, KeyStoreError> {
        let Some(marker) = marker.filter(|_| truncated) else { return Ok(None) };
        if !self.seen.insert(marker.clone()) {
            let detail = format!("AWS KMS {operation}: the listing repeats its NextMarker");
            return Err(KeyStoreError { class: SignClass::Configuration, detail });
        }
        Ok(Some(marker))
    }
}

/// What DescribeKey says, as far as it matters.
#[derive(Debug)]
pub(super) struct Description {
    arn: KeyArn,
    is_secp256k1_signer: bool,
    state: KeyState,
    /// Spec and usage in AWS's words.
    what: String,
}

impl Description {
    /// The key, if it is a secp256k1 key for signing.
    pub(super) fn into_signer(self) -> Result<FoundKey, KeyStoreError> {
        if !self.is_secp256k1_signer {
            let detail = format!("{} is {}, not ECC_SECG_P256K1 for SIGN_VERIFY", self.arn, self.what);
            return Err(KeyStoreError { class: SignClass::Configuration, detail });
        }
        Ok(FoundKey { arn: self.arn, state: self.state, aliases: Vec::new(), tags: BTreeMap::new() })
    }
}

pub(super) fn description(metadata: KeyMetadata) -> Result<Description, KeyStoreError> {
    let arn = metadata.arn.ok_or_else(|| incomplete("DescribeKey", "Arn"))?;
    let spec = metadata.key_spec.as_ref().map_or("of an unknown spec", KeySpec::as_str);
    let usage = metadata.key_usage.as_ref().map_or("an unknown usage", KeyUsageType::as_str);
    let state = match metadata.key_state {
        Some(AwsState::Enabled) => KeyState::Enabled,
        Some(other) => KeyState::Unusable(other.as_str().to_owned()),
        None => KeyState::Unusable("unknown".to_owned()),
    };
    Ok(Description {
        arn: KeyArn(arn.into()),
        is_secp256k1_signer: metadata.key_spec == Some(KeySpec::EccSecgP256K1) && metadata.key_usage == Some(KeyUsageType::SignVerify),
        state,
        what: format!("{spec} for {usage}"),
    })
}

impl AwsKms {
    /// The keys that the selection names, sorted by ARN, each once.
    pub(super) async fn find(&self, selection: &KeySelection) -> Result<Vec<FoundKey>, KeyStoreError> {
        let found = match selection {
            KeySelection::Ids(ids) => self.named(ids).await?,
            KeySelection::All => self.all().await?,
            KeySelection::Tags(wanted) => self.tagged(wanted).await?,
        };
        let mut by_arn = BTreeMap::<KeyArn, FoundKey>::new();
        for key in found {
            match by_arn.get_mut(&key.arn) {
                Some(known) => known.aliases.extend(key.aliases),
                None => drop(by_arn.insert(key.arn.clone(), key)),
            }
        }
        Ok(by_arn.into_values().collect())
    }

    /// One DescribeKey each. An alias is resolved here, once: from now on the ARN is the name.
    async fn named(&self, ids: &[String]) -> Result<Vec<FoundKey>, KeyStoreError> {
        let lookups: Vec<_> = ids
            .iter()
            .map(|id| async move {
                let mut key = self.describe(id).await.map_err(|fault| named_error(id, fault))?.into_signer()?;
                if let Some(alias) = alias_name(id) {
                    key.aliases.push(alias.to_owned());
                }
                Ok::<_, KeyStoreError>(key)
            })
            .collect();
        stream::iter(lookups).buffer_unordered(CONCURRENCY).try_collect().await
    }

    async fn all(&self) -> Result<Vec<FoundKey>, KeyStoreError> {
        let lookups: Vec<_> = self.list_keys().await?.into_iter().map(|arn| self.signer(arn)).collect();
        let found: Vec<Option<FoundKey>> = stream::iter(lookups).buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn tagged(&self, wanted: &BTreeMap<String, String>) -> Result<Vec<FoundKey>, KeyStoreError> {
        let lookups: Vec<_> = self.all().await?.into_iter().map(|key| self.with_tags(key)).collect();
        let found: Vec<Option<FoundKey>> = stream::iter(lookups).buffer_unordered(CONCURRENCY).try_collect().await?;
        let carries = |key: &FoundKey| wanted.iter().all(|(name, value)| key.tags.get(name) == Some(value));
        Ok(found.into_iter().flatten().filter(carries).collect())
    }

    /// The ARN's key, if it is one that signs and that we may look at.
    async fn signer(&self, arn: String) -> Result<Option<FoundKey>, KeyStoreError> {
        match self.describe(&arn).await {
            Ok(description) => Ok(description.into_signer().ok()),
            Err(fault) => self.passed_over(&arn, fault),
        }
    }

    async fn with_tags(&self, mut key: FoundKey) -> Result<Option<FoundKey>, KeyStoreError> {
        match self.tags_of(&key.arn).await {
            Ok(tags) => {
                key.tags = tags;
                Ok(Some(key))
            }
            Err(fault) => self.passed_over(&key.arn.0, fault),
        }
    }

    pub(super) async fn tags_of(&self, arn: &KeyArn) -> Result<BTreeMap<String, String>, Fault> {
        let mut paging = Paging::new();
        let (mut tags, mut marker) = (BTreeMap::new(), None);
        loop {
            let page = self
                .patiently("ListResourceTags", |client| {
                    client.list_resource_tags().key_id(&*arn.0).limit(TAGS_PER_PAGE).set_marker(marker.clone()).send()
                })
                .await?;
            tags.extend(page.tags.unwrap_or_default().into_iter().map(|tag| (tag.tag_key, tag.tag_value)));
            let next = paging.next("ListResourceTags", page.truncated, page.next_marker);
            marker = next.map_err(|error| Fault { class: error.class, code: None, detail: error.detail })?;
            if marker.is_none() {
                return Ok(tags);
            }
        }
    }

    /// A key that is not ours to read, or was deleted since it was listed, does not end the listing.
    fn passed_over(&self, arn: &str, fault: Fault) -> Result<Option<FoundKey>, KeyStoreError> {
        if !fault.concerns_one_key() {
            return Err(fault.into());
        }
        tracing::warn!(configuration = self.name, arn, detail = fault.detail, "the key is left out");
        Ok(None)
    }

    pub(super) async fn describe(&self, id: &str) -> Result<Description, Fault> {
        let answer = self.patiently("DescribeKey", |client| client.describe_key().key_id(id).send()).await?;
        let described = answer.key_metadata.ok_or_else(|| incomplete("DescribeKey", "KeyMetadata")).and_then(description);
        described.map_err(|error| Fault { class: error.class, code: None, detail: error.detail })
    }

    async fn list_keys(&self) -> Result<Vec<String>, KeyStoreError> {
        let mut paging = Paging::new();
        let (mut arns, mut marker) = (Vec::new(), None);
        loop {
            let page =
                self.patiently("ListKeys", |client| client.list_keys().limit(KEYS_PER_PAGE).set_marker(marker.clone()).send()).await?;
            arns.extend(page.keys.unwrap_or_default().into_iter().filter_map(|key| key.key_arn));
            marker = paging.next("ListKeys", page.truncated, page.next_marker)?;
            if marker.is_none() {
                return Ok(arns);
            }
        }
    }
}

/// `alias/…` of an alias name or alias ARN.
fn alias_name(id: &str) -> Option<&str> {
    if id.starts_with("alias/") { Some(id) } else { id.split_once(":alias/").map(|(arn, _)| &id[arn.len() + 1..]) }
}

fn named_error(id: &str, fault: Fault) -> KeyStoreError {
    KeyStoreError { class: fault.class, detail: format!("{id}: {}", fault.detail) }
}
