//! What people do with keys from the command line: create one, see aliases. Nothing here is on the way of a transaction.

use std::collections::BTreeMap;

use aws_sdk_kms::types::{KeySpec, KeyUsageType, Tag};

use super::discovery::{Paging, description};
use super::{AwsKms, incomplete};
use crate::signing::{FoundKey, KeyArn, KeyStoreError, SignClass};

/// Largest page that AWS gives.
const ALIASES_PER_PAGE: i32 = 100;

impl AwsKms {
    /// Creates an ECC_SECG_P256K1 key for SIGN_VERIFY, with tags (needs kms:TagResource) and an alias; `alias/` is put
    /// before the name when it is missing. Each call is one attempt: asked again, it could create twice.
    pub async fn create_key(&self, tags: &BTreeMap<String, String>, alias: Option<&str>) -> Result<FoundKey, KeyStoreError> {
        let tag_list = tags.iter().map(|(name, value)| Tag::builder().tag_key(name).tag_value(value).build());
        let tag_list = tag_list
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| KeyStoreError { class: SignClass::Configuration, detail: format!("a tag cannot be built: {error}") })?;
        let answer = self
            .once("CreateKey", |client| {
                let call = client.create_key().key_spec(KeySpec::EccSecgP256K1).key_usage(KeyUsageType::SignVerify);
                call.set_tags(Some(tag_list).filter(|list| !list.is_empty())).send()
            })
            .await?;
        let metadata = answer.key_metadata.ok_or_else(|| incomplete("CreateKey", "KeyMetadata"))?;
        let mut key = description(metadata)?.into_signer()?;
        key.tags = tags.clone();
        if let Some(alias) = alias {
            let alias = if alias.starts_with("alias/") { alias.to_owned() } else { format!("alias/{alias}") };
            let created =
                self.once("CreateAlias", |client| client.create_alias().alias_name(&alias).target_key_id(&*key.arn.0).send()).await;
            // The key is there and costs money: its name must not be lost.
            created.map_err(|fault| KeyStoreError {
                class: fault.class,
                detail: format!("{} was created without {alias}: {}", key.arn, fault.detail),
            })?;
            key.aliases.push(alias);
        }
        Ok(key)
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
