//! Signatures from keys that Sluice never holds: the key store, the schedule of Signs, and the one step that turns an
//! answer into a checked signature.

pub mod aws_kms;
mod backoff;
pub mod directory;
pub mod key;
pub mod keystore;
pub mod scheduler;
pub mod signature;
mod stores;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, TryStreamExt as _};

pub use self::directory::{Directory, DirectoryError, Draft, Finding, ServiceKeys};
pub use self::key::{Holder, Key};
pub use self::scheduler::{MESSAGE, Progress, Scheduler, SignLimits, SignTicket};
pub use self::stores::build_store;
use crate::config::KeySelection;

/// Longest wait for one answer of a key store: three times the longest that people report across Regions.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// How a key store names a key, for life: an ARN for AWS KMS, `local:0x…` for a keystore file. Never an alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyArn(pub Arc<str>);

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What shares one quota of Signs: an AWS account in one Region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuotaGroup(pub Arc<str>);

/// Whether a key can sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// It can.
    Enabled,
    /// It cannot now; the provider's own word for why (`Disabled`, `PendingDeletion`, …).
    Unusable(String),
}

impl KeyState {
    /// One word for people and programs: `enabled`, the provider's own in lower case (`disabled`, `pending_deletion`, `unavailable`,
    /// …), or `unusable` where it has no single word for it.
    pub fn word(&self) -> String {
        match self {
            Self::Enabled => "enabled".to_owned(),
            Self::Unusable(why) if !why.is_empty() && why.chars().all(|c| c.is_ascii_alphabetic()) => snake_case(why),
            Self::Unusable(_) => "unusable".to_owned(),
        }
    }
}

/// The provider's own word, as the journal keeps it.
impl From<&KeyState> for String {
    fn from(state: &KeyState) -> Self {
        match state {
            KeyState::Enabled => ENABLED.to_owned(),
            KeyState::Unusable(why) => why.clone(),
        }
    }
}

impl From<String> for KeyState {
    fn from(word: String) -> Self {
        if word == ENABLED { Self::Enabled } else { Self::Unusable(word) }
    }
}

const ENABLED: &str = "Enabled";

fn snake_case(word: &str) -> String {
    let mut snake = String::with_capacity(word.len() + 4);
    for (position, c) in word.chars().enumerate() {
        if c.is_ascii_uppercase() && position > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// A key as discovery finds it.
#[derive(Debug, Clone)]
pub struct FoundKey {
    /// Its pinned name.
    pub arn: KeyArn,
    /// Whether it can sign.
    pub state: KeyState,
    /// Alias names and tags, as far as discovery had to read them; for people.
    pub aliases: Vec<String>,
    /// Tags, as far as discovery had to read them; for people.
    pub tags: BTreeMap<String, String>,
}

/// A signature as the key store gives it: not yet trusted.
#[derive(Debug, Clone)]
pub enum RawSignature {
    /// ASN.1 DER of (r, s).
    Der(Vec<u8>),
    /// r ‖ s, 32 bytes each.
    Compact([u8; 64]),
}

/// The signature of one Sign call, with the key that really made it.
#[derive(Debug, Clone)]
pub struct SignAnswer {
    /// The key that the store says it used; compared with the pinned one.
    pub arn: KeyArn,
    /// The signature.
    pub signature: RawSignature,
}

/// What to do about a key store's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignClass {
    /// The quota: try again inside the deadline, never the key's fault.
    Throttled,
    /// A passing fault: try again inside the deadline.
    Transient,
    /// The key cannot sign now.
    KeyDown,
    /// Credentials are missing, expired or not allowed.
    Credentials,
    /// The request can never work: unknown key, wrong usage.
    Configuration,
    /// What came back is not a signature of the pinned key over this digest.
    BadSignature,
    /// The deadline passed.
    Deadline,
}

impl SignClass {
    /// Whether the same digest may be asked again.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient | Self::BadSignature)
    }
}

/// Why there is no signature (or no answer) from a key store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct KeyStoreError {
    /// What to do about it.
    pub class: SignClass,
    /// For logs: the provider's code and words, without key material or credentials.
    pub detail: String,
}

impl KeyStoreError {
    /// Tells the log that a signature by this account did not come: the one place that does. A quota that is used up refuses many at
    /// once, and the pace tells of it.
    pub fn tell(&self, account: Address) {
        let class = self.class;
        if class == SignClass::Throttled {
            tracing::debug!(error = %self, %account, ?class, "no signature");
        } else {
            tracing::warn!(error = %self, %account, ?class, "no signature");
        }
    }
}

/// A source of keys. It signs digests and never gives a private key.
pub trait KeyStore: Send + Sync + fmt::Debug + 'static {
    /// The keys that the selection names, as they are found, paged to the end; one that has several names may come several times.
    fn find<'a>(&'a self, selection: &'a KeySelection) -> BoxStream<'a, Result<FoundKey, KeyStoreError>>;

    /// All of them, sorted by their pinned names, each once.
    fn discover<'a>(&'a self, selection: &'a KeySelection) -> BoxFuture<'a, Result<Vec<FoundKey>, KeyStoreError>> {
        Box::pin(async move {
            let mut keys = BTreeMap::<KeyArn, FoundKey>::new();
            let mut finding = self.find(selection);
            while let Some(key) = finding.try_next().await? {
                match keys.get_mut(&key.arn) {
                    Some(known) => known.aliases.extend(key.aliases),
                    None => drop(keys.insert(key.arn.clone(), key)),
                }
            }
            Ok(keys.into_values().collect())
        })
    }

    /// Where its keys are, in one text: what it found is kept on disk under it, and not used by a store of another text. None if there
    /// is nothing to keep, because it finds its keys at once.
    fn source(&self) -> Option<String> {
        None
    }

    /// The public key as SubjectPublicKeyInfo DER. Asked once per key for life (I4): the directory keeps it on disk.
    fn public_key<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<Vec<u8>, KeyStoreError>>;

    /// One Sign of a 32-byte digest: one attempt, no retry inside.
    fn sign_digest<'a>(&'a self, key: &'a KeyArn, digest: B256) -> BoxFuture<'a, Result<SignAnswer, KeyStoreError>>;

    /// Proves without a signature that the key could sign now.
    fn probe<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<(), KeyStoreError>>;

    /// Which quota the key's Signs count against.
    fn quota_group(&self, key: &KeyArn) -> QuotaGroup;

    /// Keeps what Signs need at hand, connections for example, from now on and as long as the store lives; said when the key is
    /// about to be served, perhaps again and again. Must be called in a tokio runtime.
    fn keep_ready(&self, _key: &KeyArn) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::captured::Captured;

    #[test]
    fn a_quota_that_is_used_up_floods_no_log() {
        let log = Captured::begin(tracing::Level::WARN);
        super::testing::failure(SignClass::Throttled).tell(Address::ZERO);
        assert_eq!(log.text(), "");
        super::testing::failure(SignClass::Deadline).tell(Address::ZERO);
        assert_eq!(log.text().lines().count(), 1, "{}", log.text());
    }

    #[test]
    fn states_are_single_words() {
        let word = |why: &str| KeyState::Unusable(why.to_owned()).word();
        assert_eq!(KeyState::Enabled.word(), "enabled");
        assert_eq!((word("Disabled"), word("PendingDeletion")), ("disabled".to_owned(), "pending_deletion".to_owned()));
        assert_eq!(word("PendingReplicaDeletion"), "pending_replica_deletion");
        assert_eq!((word("the state of arn:… is X, not Enabled"), word("")), ("unusable".to_owned(), "unusable".to_owned()));
    }
}
