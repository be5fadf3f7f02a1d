//! Keys, signatures, and the record of what was signed.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use k256::PublicKey;
use k256::ecdsa::{Signature, hazmat::SignPrimitive};
use k256::pkcs8::EncodePublicKey;
use k256::sha2::Sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::errors::KmsError;
use super::faults::Fault;
use crate::faults::Faults;
use crate::random::{Delays, Random, digest};
use crate::wallet::Wallet;

/// Everything about one simulated KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Keys, delays, chances and the nonces of signatures come from it.
    pub seed: u64,
    /// Keys that there are from the start.
    pub keys: u64,
    /// Tags of those keys.
    pub tags: BTreeMap<String, String>,
    /// The Region in the ARNs.
    pub region: String,
    /// The account in the ARNs, 12 digits.
    pub account: String,
    /// How long answers take.
    pub delays: Delays,
}

impl Settings {
    /// So many keys without tags in us-east-1, and answers without delay.
    pub fn new(seed: u64, keys: u64) -> Self {
        let (tags, region, account) = (BTreeMap::new(), "us-east-1".into(), "111122223333".into());
        Self { seed, keys, tags, region, account, delays: Delays::default() }
    }

    /// The same, with one more tag on each key that there is from the start.
    #[must_use]
    pub fn with_tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }
}

/// Whether a key can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// It can.
    Enabled,
    /// An operator has disabled it.
    Disabled,
    /// It will be deleted.
    PendingDeletion,
    /// It is there in seconds.
    Creating,
}

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key itself.
    pub wallet: Wallet,
    /// Its id (a UUID).
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// Whether it can sign.
    pub state: KeyState,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Key {
    /// Its public key as SPKI DER.
    pub fn spki(&self) -> Vec<u8> {
        let der = PublicKey::from(self.wallet.key().verifying_key()).to_public_key_der();
        der.map(|der| der.into_vec()).unwrap_or_default()
    }

    /// The address of its accounts.
    pub fn address(&self) -> Address {
        self.wallet.address()
    }
}

/// One Sign that KMS has made, whether or not its answer arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// When it was asked for, in milliseconds on the clock of KMS.
    pub milliseconds: u64,
    /// The key's ARN.
    pub arn: String,
    /// What was signed.
    pub digest: B256,
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Beyond the time of the call.
    pub after: Duration,
    /// What it is.
    pub body: ReplyBody,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// HTTP 200 with this JSON.
    Ok(Value),
    /// An error.
    Error(KmsError),
    /// The connection is cut.
    Cut,
}

/// A simulated KMS: a state machine without clock, sockets or chance of its own. The same settings and the same calls at the same
/// times give the same bytes. Times are since the start of its clock.
#[derive(Debug, Clone)]
pub struct Kms {
    pub(super) settings: Settings,
    pub(super) keys: Vec<Key>,
    /// Index of the key, by name (`alias/…`).
    pub(super) aliases: BTreeMap<String, usize>,
    pub(super) faults: Faults<Fault>,
    /// Decides chances.
    pub(super) luck: Random,
    /// Decides delays.
    pub(super) pace: Random,
    /// Makes signatures differ.
    nonces: Random,
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) signed: Vec<Signed>,
}

/// How a signature is to be wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Twist {
    pub(super) high_s: bool,
    pub(super) other_digest: bool,
}

impl Kms {
    /// A KMS with its keys.
    pub fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        let (luck, pace, nonces) = (Random::new(seed, "faults"), Random::new(seed, "delays"), Random::new(seed, "signatures"));
        let (count, tags) = (settings.keys, settings.tags.clone());
        let mut kms = Self {
            settings,
            keys: Vec::new(),
            aliases: BTreeMap::new(),
            faults: Faults::default(),
            luck,
            pace,
            nonces,
            calls: BTreeMap::new(),
            signed: Vec::new(),
        };
        (0..count).for_each(|_| drop(kms.create_key(tags.clone())));
        kms
    }

    /// One more key. Key n of a seed, counted from 0, is `Wallet::new(seed, n)`.
    pub fn create_key(&mut self, tags: BTreeMap<String, String>) -> Key {
        let number = self.keys.len() as u64;
        let hex = alloy_primitives::hex::encode(digest(self.settings.seed, "key id", number));
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
        let id = [part(0, 8), part(8, 12), format!("4{}", part(13, 16)), format!("a{}", part(17, 20)), part(20, 32)].join("-");
        let arn = format!("arn:aws:kms:{}:{}:key/{id}", self.settings.region, self.settings.account);
        let wallet = Wallet::new(self.settings.seed, number);
        let key = Key { wallet, id, arn, state: KeyState::Enabled, tags };
        self.keys.push(key.clone());
        key
    }

    /// Its keys, in the order of their creation.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Every Sign that was made, in order.
    pub fn signed(&self) -> &[Signed] {
        &self.signed
    }

    /// How often each operation was called, faults included.
    pub fn calls(&self) -> &BTreeMap<String, u64> {
        &self.calls
    }

    /// How often an operation was called, faults included.
    pub fn calls_of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }

    /// What is to go wrong from now on, instead of what was.
    pub fn set_faults(&mut self, faults: Faults<Fault>) {
        self.faults = faults;
    }

    /// How long answers take from now on.
    pub fn set_delays(&mut self, delays: Delays) {
        self.settings.delays = delays;
    }

    /// Whether a key can sign from now on; the key by id, ARN or alias.
    pub fn set_key_state(&mut self, name: &str, state: KeyState) -> Result<(), KmsError> {
        let index = self.find(name)?;
        if let Some(key) = self.keys.get_mut(index) {
            key.state = state;
        }
        Ok(())
    }

    /// The place of the key with this id, ARN, alias or alias ARN.
    pub(super) fn find(&self, name: &str) -> Result<usize, KmsError> {
        let alias = name.split_once(":alias/").map(|(_, alias)| format!("alias/{alias}"));
        let by_alias = self.aliases.get(alias.as_deref().unwrap_or(name)).copied();
        let place = by_alias.or_else(|| self.keys.iter().position(|key| key.id == name || key.arn == name));
        place.ok_or_else(|| KmsError::not_found(name))
    }

    /// The key with this id, ARN, alias or alias ARN.
    pub fn key(&self, name: &str) -> Result<&Key, KmsError> {
        self.keys.get(self.find(name)?).ok_or_else(|| KmsError::not_found(name))
    }

    /// A signature as KMS makes it: DER, a nonce of its own each time, S high about half the time.
    pub(super) fn signature(&mut self, key: &Key, digest: B256, twist: Twist) -> Option<Vec<u8>> {
        let digest = if twist.other_digest { alloy_primitives::keccak256(digest) } else { digest };
        let (entropy, is_high) = (self.nonces.hash(), self.nonces.below(2) == 1 || twist.high_s);
        let secret = key.wallet.key().as_nonzero_scalar();
        let (low, _) = secret.try_sign_prehashed_rfc6979::<Sha256>(&(*digest).into(), entropy.as_slice()).ok()?;
        let signature = if is_high { Signature::from_scalars(low.r(), -low.s()).ok()? } else { low };
        Some(signature.to_der().as_bytes().to_vec())
    }
}
