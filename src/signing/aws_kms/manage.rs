//! What people do with keys from the command line: create one, name it, see aliases, wait for a state. Nothing here is on the way of a
//! transaction.

use std::collections::BTreeMap;

use std::time::Duration;

use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyState as AwsState, KeyUsageType, Tag};
use tokio::time::Instant;

use super::discovery::{Paging, description};
use super::errors::Fault;
use super::{AwsKms, incomplete};
use crate::signing::{FoundKey, KeyArn, KeyStoreError, SignClass};

/// Largest page that AWS gives.
const ALIASES_PER_PAGE: i32 = 100;
/// Longest wait for a key to come into a state; AWS takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tags in the SDK's words; none where there are none.
pub(super) fn tag_list(tags: &BTreeMap<String, String>) -> Result<Option<Vec<Tag>>, KeyStoreError> {
    let list = tags.iter().map(|(name, value)| Tag::builder().tag_key(name).tag_value(value).build());
    let list = list
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| KeyStoreError { class: SignClass::Configuration, detail: format!("a tag cannot be built: {error}") })?;
    Ok(Some(list).filter(|list| !list.is_empty()))
}

impl AwsKms {
    /// Creates an ECC_SECG_P256K1 key for SIGN_VERIFY, with tags (needs kms:TagResource) and an alias; `alias/` is put
    /// before the name when it is missing. Each call is one attempt: asked again, it could create twice.
    pub async fn create_key(&self, tags: &BTreeMap<String, String>, alias: Option<&str>) -> Result<FoundKey, KeyStoreError> {
        let list = tag_list(tags)?;
        let answer = self
            .once("CreateKey", |client| {
                let call = client.create_key().key_spec(KeySpec::EccSecgP256K1).key_usage(KeyUsageType::SignVerify);
                call.set_tags(list).send()
            })
            .await?;
        let metadata = answer.key_metadata.ok_or_else(|| incomplete("CreateKey", "KeyMetadata"))?;
        let mut key = description(metadata)?.into_signer()?;
        key.tags = tags.clone();
        if let Some(alias) = alias {
            let created = self.add_alias(&key.arn, alias).await;
            // The key is there and costs money: its name must not be lost.
            key.aliases.push(created.map_err(|fault| KeyStoreError {
                class: fault.class,
                detail: format!("{} was created without {alias}: {}", key.arn, fault.detail),
            })?);
        }
        Ok(key)
    }

    /// Points a new alias to a key, and says its whole name.
    pub(super) async fn add_alias(&self, key: &KeyArn, alias: &str) -> Result<String, Fault> {
        let alias = if alias.starts_with("alias/") { alias.to_owned() } else { format!("alias/{alias}") };
        self.once("CreateAlias", |client| client.create_alias().alias_name(&alias).target_key_id(&*key.0).send()).await?;
        Ok(alias)
    }

    /// Waits until the key is in one of these states. One that is new may not be found at first.
    pub(super) async fn settled(&self, id: &str, is_new: bool, states: &[AwsState]) -> Result<KeyMetadata, KeyStoreError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let detail = match self.metadata(id).await {
                Ok(metadata) if metadata.key_state.as_ref().is_some_and(|state| states.contains(state)) => return Ok(metadata),
                Ok(metadata) => {
                    let state = metadata.key_state.as_ref().map_or("unknown", AwsState::as_str);
                    let passes = matches!(metadata.key_state, Some(AwsState::Creating | AwsState::Updating | AwsState::PendingImport));
                    let detail = format!("the state of {id} is {state}");
                    if !passes {
                        return Err(KeyStoreError { class: SignClass::KeyDown, detail });
                    }
                    detail
                }
                Err(fault) if is_new && fault.code.as_deref() == Some("NotFoundException") => fault.detail,
                Err(fault) => return Err(fault.into()),
            };
            if Instant::now() >= until {
                return Err(KeyStoreError { class: SignClass::Transient, detail: format!("{detail} for {} s", PATIENCE.as_secs()) });
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// The tags of a key (needs kms:ListResourceTags).
    pub async fn describe_tags(&self, key: &KeyArn) -> Result<BTreeMap<String, String>, KeyStoreError> {
        Ok(self.tags_of(key).await?)
    }

    /// Every alias of the account and Region that points to a key, by the key's ARN; for people.
    pub async fn describe_aliases(&self) -> Result<BTreeMap<KeyArn, Vec<String>>, KeyStoreError> {
        let mut paging = Paging::new();
        let (mut aliases, mut marker) = (BTreeMap::<KeyArn, Vec<String>>::new(), None);
        loop {
            let page = self
                .patiently("ListAliases", |client| client.list_aliases().limit(ALIASES_PER_PAGE).set_marker(marker.clone()).send())
                .await?;
            for entry in page.aliases.unwrap_or_default() {
                // AWS's own aliases may have no target yet.
                let (Some(name), Some(arn), Some(target)) = (entry.alias_name, entry.alias_arn, entry.target_key_id) else { continue };
                if let Some((account, _)) = arn.split_once(":alias/") {
                    aliases.entry(KeyArn(format!("{account}:key/{target}").into())).or_default().push(name);
                }
            }
            marker = paging.next("ListAliases", page.truncated, page.next_marker)?;
            if marker.is_none() {
                return Ok(aliases);
            }
        }
    }
}
