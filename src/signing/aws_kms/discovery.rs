//! Which keys there are: listings paged to their end, and only secp256k1 keys that sign.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyState as AwsState, KeyUsageType};
use futures_util::future;
use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use super::errors::Fault;
use super::{AwsKms, incomplete};
use crate::config::KeySelection;
use crate::signing::{FoundKey, KeyArn, KeyState, KeyStoreError, SignClass};

/// Keys that are looked at at the same time: enough for the quotas at 100 ms a call. The paces keep the calls within them.
const CONCURRENCY: usize = 256;
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

/// What came of looking at one key.
enum Look {
    /// It is another kind of key.
    NoSigner,
    /// The key, if it is one of those that are wanted.
    Seen(Option<FoundKey>),
    /// It cannot be looked at.
    PassedOver(KeyStoreError),
}

/// Whether a listing could look at any of its signing keys.
#[derive(Default)]
struct Looks {
    found: AtomicBool,
    refused: Mutex<Option<KeyStoreError>>,
}

impl Looks {
    fn note(&self, look: Result<Look, KeyStoreError>) -> Result<Option<FoundKey>, KeyStoreError> {
        match look? {
            Look::NoSigner => Ok(None),
            Look::Seen(found) => {
                self.found.store(true, Ordering::Relaxed);
                Ok(found)
            }
            Look::PassedOver(error) => {
                if error.class == SignClass::Credentials {
                    *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
                Ok(None)
            }
        }
    }

    /// An error if keys were refused and none could be looked at: a right that was taken away is not the end of all keys.
    fn verdict(&self) -> Option<KeyStoreError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused.filter(|_| !self.found.load(Ordering::Relaxed))
    }
}

impl AwsKms {
    /// The keys that the selection names. Each is one chain of calls, many side by side: the operations' quotas are used at the same
    /// time, not one after the other.
    pub(super) fn stream<'a>(&'a self, selection: &'a KeySelection) -> BoxStream<'a, Result<FoundKey, KeyStoreError>> {
        match selection {
            KeySelection::Ids(ids) => stream::iter(ids.iter().map(|id| self.named(id))).buffer_unordered(CONCURRENCY).boxed(),
            KeySelection::All => self.listed(None),
            KeySelection::Tags(wanted) => self.listed(Some(wanted)),
        }
    }

    /// One DescribeKey. An alias is resolved here, once: from now on the ARN is the name.
    async fn named(&self, id: &str) -> Result<FoundKey, KeyStoreError> {
        let mut key = self.describe(id).await.map_err(|fault| named_error(id, fault))?.into_signer()?;
        if let Some(alias) = alias_name(id) {
            key.aliases.push(alias.to_owned());
        }
        Ok(key)
    }

    /// Every key that signs, or those of them that carry the tags.
    fn listed<'a>(&'a self, wanted: Option<&'a BTreeMap<String, String>>) -> BoxStream<'a, Result<FoundKey, KeyStoreError>> {
        let looks = Arc::new(Looks::default());
        let end = Arc::clone(&looks);
        let look = move |arn| {
            let looks = Arc::clone(&looks);
            async move { looks.note(self.look(arn, wanted).await) }
        };
        let found = self.pages().map_ok(look).try_buffer_unordered(CONCURRENCY).try_filter_map(|found| future::ready(Ok(found)));
        found.chain(stream::once(async move { end.verdict() }).filter_map(|error| future::ready(error.map(Err)))).boxed()
    }

    /// The ARN's key, if it is one that signs and that carries the tags.
    async fn look(&self, arn: String, wanted: Option<&BTreeMap<String, String>>) -> Result<Look, KeyStoreError> {
        let mut key = match self.describe(&arn).await.map(Description::into_signer) {
            Ok(Ok(key)) => key,
            Ok(Err(_)) => return Ok(Look::NoSigner),
            Err(fault) => return self.passed_over(&arn, fault),
        };
        let Some(wanted) = wanted else { return Ok(Look::Seen(Some(key))) };
        match self.tags_of(&key.arn).await {
            Ok(tags) => key.tags = tags,
            Err(fault) => return self.passed_over(&arn, fault),
        }
        let carries = wanted.iter().all(|(name, value)| key.tags.get(name) == Some(value));
        Ok(Look::Seen(carries.then_some(key)))
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
            marker = next?;
            if marker.is_none() {
                return Ok(tags);
            }
        }
    }

    /// A key that is not ours to read, or was deleted since it was listed, does not end the listing.
    fn passed_over(&self, arn: &str, fault: Fault) -> Result<Look, KeyStoreError> {
        if !fault.concerns_one_key() {
            return Err(fault.into());
        }
        tracing::warn!(configuration = self.name, arn, detail = fault.detail, "the key is left out");
        Ok(Look::PassedOver(fault.into()))
    }

    pub(super) async fn describe(&self, id: &str) -> Result<Description, Fault> {
        description(self.metadata(id).await?).map_err(Fault::from)
    }

    /// What DescribeKey says.
    pub(super) async fn metadata(&self, id: &str) -> Result<KeyMetadata, Fault> {
        let answer = self.patiently("DescribeKey", |client| client.describe_key().key_id(id).send()).await?;
        answer.key_metadata.ok_or_else(|| incomplete("DescribeKey", "KeyMetadata").into())
    }

    /// The ARNs of the listing, page by page: those of one are looked at while the next one is asked.
    fn pages(&self) -> impl Stream<Item = Result<String, KeyStoreError>> + Send + '_ {
        let pages = stream::try_unfold(Some((Paging::new(), None)), move |at| async move {
            let Some((mut paging, marker)) = at else { return Ok::<_, KeyStoreError>(None) };
            let page = self
                .patiently("ListKeys", |client| {
                    let marker: Option<String> = marker.clone();
                    client.list_keys().limit(KEYS_PER_PAGE).set_marker(marker).send()
                })
                .await?;
            let next = paging.next("ListKeys", page.truncated, page.next_marker)?;
            let arns = page.keys.unwrap_or_default().into_iter().filter_map(|key| key.key_arn).map(Ok);
            Ok(Some((stream::iter(arns), next.map(|marker| (paging, Some(marker))))))
        });
        pages.try_flatten()
    }
}

/// `alias/…` of an alias name or alias ARN.
fn alias_name(id: &str) -> Option<&str> {
    if id.starts_with("alias/") { Some(id) } else { id.split_once(":alias/").map(|(arn, _)| &id[arn.len() + 1..]) }
}

fn named_error(id: &str, fault: Fault) -> KeyStoreError {
    KeyStoreError { class: fault.class, detail: format!("{id}: {}", fault.detail) }
}
