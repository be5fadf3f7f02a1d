//! Moving in: an AWS KMS key whose material is a private key that exists already, so that its address keeps funds and nonce.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use alloy_primitives::Address;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{ExpirationModelType, KeyMetadata, KeySpec, KeyState as AwsState, KeyUsageType, OriginType};
use k256::ecdsa::SigningKey;

use super::discovery::description;
use super::manage::tag_list;
use super::{AwsKms, incomplete, wrapping};
use crate::config::Secret;
use crate::signing::signature::PinnedKey;
use crate::signing::{FoundKey, KeyArn, KeyStoreError, SignClass, keystore};

/// A private key that is to be imported, in memory only and wiped when dropped.
pub struct Material {
    key: SigningKey,
    address: Address,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Material {
    /// Decrypts an encrypted V3 keystore file.
    pub async fn open(file: &Path, password: Secret) -> Result<Self, KeyStoreError> {
        Ok(Self::of(keystore::decrypt(file.to_owned(), password).await?))
    }

    fn of(key: SigningKey) -> Self {
        let address = Address::from_public_key(key.verifying_key());
        Self { key, address }
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.address
    }
}

/// The key that is to hold the material.
#[derive(Debug, Clone)]
pub enum Import {
    /// A new one.
    Create {
        /// Its tags.
        tags: BTreeMap<String, String>,
        /// What AWS shows of it; none: the address, and by whom it was imported, so that a key that was left half made can be told.
        description: Option<String>,
        /// Whether it can be replicated to other Regions: that cannot be changed later.
        multi_region: bool,
    },
    /// One that is there: id, ARN or alias of a key that was made for import. Goes on where an import ended.
    Resume(String),
}

/// Why there is no imported key, and what there is.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing was changed.
    #[error("{0}; nothing was changed")]
    Nothing(KeyStoreError),
    /// The answer of CreateKey is lost.
    #[error(
        "{error}; AWS may have made a key all the same: one in the state PendingImport with the description {description:?}, which holds \
         nothing"
    )]
    Unknown {
        /// What happened.
        error: KeyStoreError,
        /// Of the key that there may be.
        description: String,
    },
    /// The key is there, and it is not known to work.
    #[error("{error}; the key {arn} is there, and is not known to hold {address}")]
    Half {
        /// The key.
        arn: KeyArn,
        /// What it was to hold.
        address: Address,
        /// What happened.
        error: KeyStoreError,
    },
    /// The key holds something else.
    #[error("the key {arn} holds {found}, not {address} of the keystore; nothing may be paid to it by this keystore's name")]
    Foreign {
        /// The key.
        arn: KeyArn,
        /// What it was to hold.
        address: Address,
        /// What it holds.
        found: Address,
    },
    /// The key works and has no alias.
    #[error("{error}; the key {arn} holds {address} and works, without {alias}")]
    Unnamed {
        /// The key.
        arn: KeyArn,
        /// What it holds.
        address: Address,
        /// What it was to be called.
        alias: String,
        /// What happened.
        error: KeyStoreError,
    },
}

impl AwsKms {
    /// Imports the material: a key made for it, material wrapped here and taken by KMS, its public key compared with the keystore's
    /// address, and the alias last. It is done only when this gives the key.
    pub async fn import(&self, material: &Material, target: &Import, alias: Option<&str>) -> Result<FoundKey, ImportError> {
        let address = material.address;
        let (id, tags) = match target {
            Import::Resume(id) => (id.clone(), BTreeMap::new()),
            Import::Create { tags, description, multi_region } => {
                let description = description.clone().unwrap_or_else(|| format!("{address}, imported by sluice"));
                (self.create_for_import(tags, &description, *multi_region).await?.to_string(), tags.clone())
            }
        };
        let is_new = matches!(target, Import::Create { .. });
        let metadata = self.settled(&id, is_new, &[AwsState::PendingImport, AwsState::Enabled]).await;
        let checked = metadata.and_then(|metadata| Ok((check(&metadata)?, metadata.key_state)));
        let (arn, state) = checked.map_err(|error| match is_new {
            true => ImportError::Half { arn: KeyArn(id.as_str().into()), address, error },
            false => ImportError::Nothing(error),
        })?;
        let half = |error| ImportError::Half { arn: arn.clone(), address, error };
        if state == Some(AwsState::PendingImport) {
            self.hand_over(&arn, material).await.map_err(half)?;
        }
        let spki = self.get_public_key(&arn).await.map_err(half)?;
        let pinned = PinnedKey::from_spki(arn.clone(), &spki);
        let pinned = pinned.map_err(|error| half(KeyStoreError { class: SignClass::Configuration, detail: error.to_string() }))?;
        if pinned.address() != address {
            return Err(ImportError::Foreign { arn, address, found: pinned.address() });
        }
        let mut key = FoundKey { arn: arn.clone(), state: crate::signing::KeyState::Enabled, aliases: Vec::new(), tags };
        if let Some(alias) = alias {
            match self.add_alias(&arn, alias).await {
                Ok(alias) => key.aliases.push(alias),
                Err(fault) => return Err(ImportError::Unnamed { arn, address, alias: alias.to_owned(), error: fault.into() }),
            }
        }
        Ok(key)
    }

    /// One attempt: asked again, it could create twice.
    async fn create_for_import(
        &self,
        tags: &BTreeMap<String, String>,
        description: &str,
        multi_region: bool,
    ) -> Result<KeyArn, ImportError> {
        let tags = tag_list(tags).map_err(ImportError::Nothing)?;
        let created = self
            .once("CreateKey", |client| {
                let call = client.create_key().key_spec(KeySpec::EccSecgP256K1).key_usage(KeyUsageType::SignVerify);
                call.origin(OriginType::External).multi_region(multi_region).description(description).set_tags(tags).send()
            })
            .await;
        let unknown = |error| ImportError::Unknown { error, description: description.to_owned() };
        match created {
            Ok(answer) => match answer.key_metadata.and_then(|metadata| metadata.arn) {
                Some(arn) => Ok(KeyArn(arn.into())),
                None => Err(unknown(incomplete("CreateKey", "Arn"))),
            },
            // What KMS refused for its credentials, it did not do, whether or not others may be there by now.
            Err(fault) if fault.class == SignClass::Transient && !fault.has_stale_credentials() => Err(unknown(fault.into())),
            Err(fault) => Err(ImportError::Nothing(fault.into())),
        }
    }

    /// The same material under the same token can be handed over again: KMS takes no other once it has some.
    async fn hand_over(&self, arn: &KeyArn, material: &Material) -> Result<(), KeyStoreError> {
        let parameters = self
            .patiently("GetParametersForImport", |client| {
                let call = client.get_parameters_for_import().key_id(&*arn.0);
                call.wrapping_algorithm(wrapping::ALGORITHM).wrapping_key_spec(wrapping::KEY_SPEC).send()
            })
            .await?;
        let public_key = parameters.public_key.ok_or_else(|| incomplete("GetParametersForImport", "PublicKey"))?;
        let token = parameters.import_token.ok_or_else(|| incomplete("GetParametersForImport", "ImportToken"))?;
        let wrapped = wrapping::wrap(public_key.as_ref(), &material.key)
            .map_err(|error| KeyStoreError { class: SignClass::Configuration, detail: error.to_string() })?;
        self.patiently("ImportKeyMaterial", |client| {
            let call = client.import_key_material().key_id(&*arn.0).import_token(token.clone());
            let call = call.encrypted_key_material(Blob::new(wrapped.as_slice()));
            call.expiration_model(ExpirationModelType::KeyMaterialDoesNotExpire).send()
        })
        .await?;
        self.settled(&arn.0, false, &[AwsState::Enabled]).await.map(drop)
    }
}

/// That it is a key for Ethereum, made for import.
fn check(metadata: &KeyMetadata) -> Result<KeyArn, KeyStoreError> {
    let key = description(metadata.clone())?.into_signer()?;
    match &metadata.origin {
        Some(OriginType::External) => Ok(key.arn),
        other => {
            let origin = other.as_ref().map_or("unknown", OriginType::as_str);
            let detail = format!("{} takes no material: its origin is {origin}, not EXTERNAL", key.arn);
            Err(KeyStoreError { class: SignClass::Configuration, detail })
        }
    }
}

#[cfg(test)]
mod tests;
