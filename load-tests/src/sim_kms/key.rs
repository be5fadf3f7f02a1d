//! One key: its material, its state, and what is said about it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use alloy_primitives::Address;
use k256::PublicKey;
use k256::pkcs8::EncodePublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::errors::KmsError;
use super::settings::Place;
use crate::wallet::Wallet;

/// Whether a key can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// It can.
    Enabled,
    /// An operator has disabled it.
    Disabled,
    /// It will be deleted.
    PendingDeletion,
    /// Its replicas go first.
    PendingReplicaDeletion,
    /// It has no material yet, or no more.
    PendingImport,
    /// It is there in seconds.
    Creating,
    /// It changes; it is back in seconds.
    Updating,
    /// Its custom key store is disconnected.
    Unavailable,
}

/// Where the material of a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// KMS has made it.
    #[serde(rename = "AWS_KMS")]
    AwsKms,
    /// It is imported.
    #[serde(rename = "EXTERNAL")]
    External,
}

/// What a key signs with.
#[derive(Debug, Clone)]
pub(super) enum Material {
    /// Nothing.
    Missing,
    /// Key `number` of `seed`, derived when it is first needed.
    Seeded { seed: u64, number: u64, wallet: OnceLock<Wallet> },
    /// What was imported.
    Imported(Wallet),
}

/// Whether a key can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was created, and not everything knows of it yet.
    Lagging,
    Present,
    Deleted,
}

/// One key. Times are on the clock of KMS.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id: a UUID, or `mrk-…` of a multi-Region key.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// The account and the Region.
    pub place: Place,
    /// Whether it can sign.
    pub state: KeyState,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Where its material comes from.
    pub origin: Origin,
    pub(super) material: Material,
    pub(super) presence: Presence,
    pub(super) description: String,
    pub(super) created: Duration,
    /// How long it waits before it is deleted.
    pub(super) window: Duration,
    /// When it is deleted.
    pub(super) deletion: Option<Duration>,
    /// When its material expires.
    pub(super) expires: Option<Duration>,
    /// The address of what was imported first: nothing else can be imported again.
    pub(super) bound: Option<Address>,
    /// The Region of the primary key, of a multi-Region key.
    pub(super) primary_region: Option<String>,
}

impl Key {
    /// What it signs with; `None` while its material is missing.
    pub fn wallet(&self) -> Option<&Wallet> {
        match &self.material {
            Material::Missing => None,
            Material::Seeded { seed, number, wallet } => Some(wallet.get_or_init(|| Wallet::new(*seed, *number))),
            Material::Imported(wallet) => Some(wallet),
        }
    }

    /// Its public key as SPKI DER; empty while its material is missing.
    pub fn spki(&self) -> Vec<u8> {
        let der = self.wallet().map(|wallet| PublicKey::from(wallet.key().verifying_key()).to_public_key_der());
        der.and_then(Result::ok).map(|der| der.into_vec()).unwrap_or_default()
    }

    /// The address of its accounts; zero while its material is missing.
    pub fn address(&self) -> Address {
        self.wallet().map(Wallet::address).unwrap_or_default()
    }

    pub(super) fn has_material(&self) -> bool {
        !matches!(self.material, Material::Missing)
    }

    /// Whether it is a multi-Region key that replicas are made of.
    pub(super) fn is_primary(&self) -> bool {
        self.primary_region.as_ref() == Some(&self.place.region)
    }

    /// Whether it may sign now; otherwise why not.
    pub(super) fn usable(&self) -> Result<(), KmsError> {
        match self.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(KmsError::new("DisabledException", format!("{} is disabled.", self.arn))),
            _ => Err(self.in_state()),
        }
    }

    /// The refusal that its state is the reason of.
    pub(super) fn in_state(&self) -> KmsError {
        let state = match self.state {
            KeyState::Enabled => "enabled",
            KeyState::Disabled => "disabled",
            KeyState::PendingDeletion => "pending deletion",
            KeyState::PendingReplicaDeletion => "pending replica deletion",
            KeyState::PendingImport => "pending import",
            KeyState::Creating => "creating",
            KeyState::Updating => "updating",
            KeyState::Unavailable => "unavailable",
        };
        KmsError::new("KMSInvalidStateException", format!("{} is {state}.", self.arn))
    }

    /// Its `KeyMetadata`; `epoch` is the zero of the clock in Unix time, `replicas` the Regions of its replicas.
    pub(super) fn metadata(&self, epoch: Duration, replicas: &[String]) -> Value {
        let mut metadata = json!({
            "KeyId": self.id,
            "Arn": self.arn,
            "AWSAccountId": self.place.account,
            "CreationDate": date(epoch, self.created),
            "Description": self.description,
            "Enabled": self.state == KeyState::Enabled,
            "KeyState": self.state,
            "KeySpec": "ECC_SECG_P256K1",
            "CustomerMasterKeySpec": "ECC_SECG_P256K1",
            "KeyUsage": "SIGN_VERIFY",
            "KeyManager": "CUSTOMER",
            "Origin": self.origin,
            "MultiRegion": self.primary_region.is_some(),
            "SigningAlgorithms": ["ECDSA_SHA_256"],
        });
        if let Some(at) = self.deletion.filter(|_| self.state == KeyState::PendingDeletion) {
            metadata["DeletionDate"] = date(epoch, at);
        }
        if self.origin == Origin::External && self.has_material() {
            metadata["ExpirationModel"] =
                json!(if self.expires.is_some() { "KEY_MATERIAL_EXPIRES" } else { "KEY_MATERIAL_DOES_NOT_EXPIRE" });
            if let Some(at) = self.expires {
                metadata["ValidTo"] = date(epoch, at);
            }
        }
        if let Some(primary) = &self.primary_region {
            let member = |region: &String| {
                let arn = Place::new(&self.place.account, region).arn(&format!("key/{}", self.id));
                json!({ "Arn": arn, "Region": region })
            };
            metadata["MultiRegionConfiguration"] = json!({
                "MultiRegionKeyType": if self.is_primary() { "PRIMARY" } else { "REPLICA" },
                "PrimaryKey": member(primary),
                "ReplicaKeys": replicas.iter().map(member).collect::<Vec<_>>(),
            });
        }
        metadata
    }
}

/// A time as KMS says it: Unix seconds.
pub(super) fn date(epoch: Duration, at: Duration) -> Value {
    json!((epoch + at).as_secs_f64())
}
