//! The durable store of accounts, slots, attempts and events. Nothing leaves the process before it is in here (I2).

mod discoveries;
pub mod engine;
pub mod history;
pub mod inspect;
pub mod keys_only;
pub mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use alloy_primitives::{Address, B256, Bytes, U256};
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use self::discoveries::{DiscoveredKey, DiscoveryChange, DiscoveryName};
pub use self::engine::{Engine, JournalStatus};

/// One address on one chain: the unit of nonce order and of ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The address.
    pub address: Address,
}

/// A transaction's id for life, whatever is signed again (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub Uuid);

impl TransactionId {
    /// A new id; later ids sort later.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for TransactionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `eth_sendTransaction`.
    Send,
    /// `eth_signTransaction`: the client has the bytes, Sluice does not send them.
    SignOnly,
    /// `eth_sendRawTransaction` of bytes that were signed elsewhere with a managed key.
    Raw,
    /// Made by Sluice to close a slot below committed ones.
    Filler,
}

impl Kind {
    /// The word in the journal and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::SignOnly => "sign_only",
            Self::Raw => "raw",
            Self::Filler => "filler",
        }
    }
}

/// What an attempt pays for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// What the transaction asked for.
    #[default]
    Request,
    /// Nothing: a payment of nothing to oneself, so that the transaction's other attempts are never mined.
    Cancel,
}

impl Purpose {
    /// The word in the journal and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Cancel => "cancel",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Request, Self::Cancel].into_iter().find(|purpose| purpose.as_str() == word)
    }
}

/// Who stopped an account. Each has a reason of its own on record, and each goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PauseBy {
    /// An operator: `sluice account pause`.
    Operator,
    /// A refused filler.
    Filler,
    /// A restored journal: nothing is sent until the chain has settled.
    Reconcile,
}

impl PauseBy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Filler, Self::Reconcile];

    /// The word in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Filler => "filler",
            Self::Reconcile => "reconcile",
        }
    }
}

/// Why an account is stopped, by who stopped it; it goes on when nobody has a reason any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses(BTreeMap<PauseBy, String>);

impl Pauses {
    /// Sets a reason, or takes it away.
    pub fn set(&mut self, by: PauseBy, reason: Option<String>) {
        match reason {
            Some(reason) => drop(self.0.insert(by, reason)),
            None => drop(self.0.remove(&by)),
        }
    }

    /// The reason of one of them.
    pub fn by(&self, by: PauseBy) -> Option<&str> {
        self.0.get(&by).map(String::as_str)
    }

    /// Who has one, and which; the operator first.
    pub fn iter(&self) -> impl Iterator<Item = (PauseBy, &str)> {
        self.0.iter().map(|(by, reason)| (*by, reason.as_str()))
    }

    /// Every reason, the operator's first; `None` if there is none.
    pub fn words(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.values().map(String::as_str).collect::<Vec<_>>().join("; "))
    }
}

/// Where an attempt is in its life; and before it has one, where its transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttemptState {
    /// Acknowledged before there is an attempt: a state of transactions and their events, never of an attempt.
    Queued,
    /// Durable; perhaps sent.
    Committed,
    /// The client holds the bytes (`eth_signTransaction`) and the slot waits for them.
    Held,
    /// A node took it or knew it.
    Broadcast,
    /// Every endpoint that got the bytes refused them for good, or a hold is over: the slot is open.
    Refused,
    /// In a block of the canonical chain.
    Included,
    /// Its block was orphaned; it waits to be included again.
    Orphaned,
    /// Included deep enough: final.
    Confirmed,
    /// Another payload of the same slot is confirmed: final.
    Replaced,
}

impl AttemptState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Committed,
        Self::Held,
        Self::Broadcast,
        Self::Refused,
        Self::Included,
        Self::Orphaned,
        Self::Confirmed,
        Self::Replaced,
    ];

    /// The word in the journal, in events and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Committed => "committed",
            Self::Held => "held",
            Self::Broadcast => "broadcast",
            Self::Refused => "refused",
            Self::Included => "included",
            Self::Orphaned => "orphaned",
            Self::Confirmed => "confirmed",
            Self::Replaced => "replaced",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing can change it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Replaced)
    }
}

/// A block, by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Number.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

/// One signed byte string for a slot, with the transaction that it is an attempt of.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Whose slot.
    pub account: Account,
    /// Which slot.
    pub nonce: u64,
    /// The transaction's id.
    pub transaction: TransactionId,
    /// What the transaction came from.
    pub kind: Kind,
    /// Name of the service that took the request.
    pub service: Arc<str>,
    /// Name of the principal that made it.
    pub principal: Arc<str>,
    /// The client's request as JSON; `{}` for a filler.
    pub request: Arc<str>,
    /// What it pays for.
    pub purpose: Purpose,
    /// Transaction hash.
    pub hash: B256,
    /// Signed bytes (EIP-2718). In no log, error or metric (I10).
    pub raw: Bytes,
    /// value + gas × max fee, in wei.
    pub cost: U256,
    /// Until when a `Held` attempt keeps its slot.
    pub hold_until: Option<SystemTime>,
    /// Slots of other nonces that this attempt uses up when it is mined: its EIP-7702 authorisations by managed accounts.
    pub authorisations: Vec<(Account, u64)>,
}

/// An attempt as the journal holds it.
#[derive(Debug, Clone)]
pub struct StoredAttempt {
    /// The attempt.
    pub attempt: Attempt,
    /// Its state.
    pub state: AttemptState,
    /// The block of its inclusion, while it is included or confirmed.
    pub block: Option<BlockRef>,
    /// Whether it is the slot's current payload (the newest; older ones were replaced on record).
    pub current: bool,
}

/// An account as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccount {
    /// Which account.
    pub account: Account,
    /// The nonce after every slot on record: max(floor, highest slot + 1).
    pub next_nonce: u64,
    /// Why the account is stopped, if it is.
    pub pauses: Pauses,
}

/// A transaction that is acknowledged before it has an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The account that is to send it.
    pub account: Account,
    /// Its id.
    pub transaction: TransactionId,
    /// Name of the service that took the request.
    pub service: Arc<str>,
    /// Name of the principal that made it.
    pub principal: Arc<str>,
    /// The client's request as JSON.
    pub request: Arc<str>,
}

/// A client's idempotency key, with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's text.
    pub key: Arc<str>,
    /// Digest of what was asked for: the same key with another one is another request.
    pub digest: B256,
}

/// An idempotency key on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredIdempotencyKey {
    /// Digest of what was asked for.
    pub digest: B256,
    /// The transaction that came of it.
    pub transaction: TransactionId,
    /// Hash of the transaction's first attempt; `None` if it has none (yet), or is not on record any more.
    pub first: Option<B256>,
}

/// A tenure of an account, by number: each new one is higher. What is written under a lower one than the account's is refused (I9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// That of an account which is not on record yet.
    pub const FIRST: Self = Self(1);
}

/// One durable fact. Those of one `commit` become durable together or not at all.
#[derive(Debug, Clone)]
pub enum Record {
    /// The batch is of the account's owner in this tenure: if that is over, nothing of the batch is written
    /// ([`JournalError::NotOwner`]). An account's task begins every batch with it.
    Tenure {
        /// Which account.
        account: Account,
        /// The answer of [`Journal::own`].
        epoch: Epoch,
    },
    /// The account's slots begin at (or, after foreign use of the key, continue at) this nonce. Never lowers what is on record.
    Floor {
        /// Which account.
        account: Account,
        /// The next nonce to hand out.
        nonce: u64,
    },
    /// A new attempt. Takes its slot (and those of `authorisations`): a slot that has a payload already is an error
    /// ([`JournalError::SlotTaken`]) unless `replaces` is that payload's hash (I1).
    Attempt {
        /// What was signed.
        attempt: Box<Attempt>,
        /// `Committed` or `Held`.
        state: AttemptState,
        /// Hash of the slot's payload that this one replaces.
        replaces: Option<B256>,
        /// Hashes of the payloads that slots of its authorisations have on record, and that it replaces there.
        takes_over: Vec<B256>,
    },
    /// A transaction is acknowledged and has no attempt yet: an event without a hash. From here on it has to be finished.
    Intent(Box<Intent>),
    /// The acknowledged transaction gets its first attempt in this commit. An error if it has one already, or was ended
    /// ([`JournalError::NotQueued`]): what is acknowledged once is paid once.
    Taken {
        /// Which transaction.
        transaction: TransactionId,
    },
    /// An acknowledged transaction ends without an attempt: an event `Refused` without a hash. Nothing if it has an attempt or
    /// an end already.
    Ended {
        /// Which transaction.
        transaction: TransactionId,
        /// For people and streams: why.
        detail: String,
    },
    /// An idempotency key of a service's principal stands for this transaction from now on. An error if it stands for another
    /// one ([`JournalError::KeyTaken`]).
    Key {
        /// EIP-155 id of the transaction's chain.
        chain_id: u64,
        /// The service.
        service: Arc<str>,
        /// The principal.
        principal: Arc<str>,
        /// The key.
        key: IdempotencyKey,
        /// The transaction that it stands for.
        transaction: TransactionId,
    },
    /// An attempt reached a state: an event. To a state that it has already: nothing, unless the block differs.
    State {
        /// Which account's.
        account: Account,
        /// Which attempt.
        hash: B256,
        /// The new state.
        state: AttemptState,
        /// The block, for `Included` and `Confirmed`.
        block: Option<BlockRef>,
        /// For people and streams: why.
        detail: Option<String>,
        /// The receipt of that block's inclusion, for `Included`.
        receipt: Option<Arc<RawValue>>,
    },
    /// The chain used the slot up by an EIP-7702 authorisation in another account's attempt, deep enough to be final. The
    /// attempt's own confirmation does not say so: an authorisation that is out of turn is skipped.
    Used {
        /// Whose slot.
        account: Account,
        /// Which slot.
        nonce: u64,
    },
    /// The account stops or (with `None`) goes on, as far as this one is concerned.
    Pause {
        /// Which account.
        account: Account,
        /// Who says so.
        by: PauseBy,
        /// Why.
        reason: Option<String>,
    },
}

/// The identity of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPin {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of block 0.
    pub genesis: B256,
}

/// A public key on record, for life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Pinned name of the key.
    pub arn: String,
    /// SubjectPublicKeyInfo DER, as the key store gave it.
    pub spki: Vec<u8>,
    /// The address derived from it.
    pub address: Address,
}

/// Counts for `sluice journal inspect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSummary {
    /// The account.
    pub account: StoredAccount,
    /// Attempts by state, in the order of [`AttemptState::ALL`]; those without any are left out.
    pub attempts: Vec<(AttemptState, u64)>,
}

/// Why the journal did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Nothing of the batch was written; it may be tried again.
    #[error("the journal cannot write: {0}")]
    NotWritten(String),
    /// The slot has another payload and `replaces` does not name it. Nothing was written: the caller is wrong, or there is another writer.
    #[error("nonce {nonce} of {address} has another payload on record")]
    SlotTaken {
        /// The address.
        address: Address,
        /// The nonce.
        nonce: u64,
    },
    /// The idempotency key of this transaction stands for another one. Nothing was written.
    #[error("the idempotency key of transaction {transaction} stands for another transaction")]
    KeyTaken {
        /// The transaction that came too late.
        transaction: TransactionId,
    },
    /// The acknowledged transaction has an attempt or an end already. Nothing was written.
    #[error("transaction {transaction} does not wait for its first attempt any more")]
    NotQueued {
        /// Which transaction.
        transaction: TransactionId,
    },
    /// Somebody else has become the account's owner since. Nothing of the batch was written, and nothing ever will be in this tenure.
    #[error("{address} has another owner by now")]
    NotOwner {
        /// The address.
        address: Address,
    },
    /// The file is used by another process, is of a newer Sluice, is gone, or cannot be opened.
    #[error("{0}")]
    Unusable(String),
    /// The file is damaged. Nothing may be sent on its word.
    #[error("{0}")]
    Damaged(String),
    /// A read failed.
    #[error("the journal cannot be read: {0}")]
    NotRead(String),
    /// The writer is gone; the process is about to end.
    #[error("the journal is closed")]
    Closed,
}

/// The store. One engine is embedded (SQLite); the trait leaves room for one that several replicas share.
pub trait Journal: Send + Sync + fmt::Debug + 'static {
    /// Makes the records durable, all or nothing, in order with the batches before it; batches that arrive together share
    /// one group commit. Answers the positions in commit order of the events that the records made (one each for `Attempt` and
    /// `Intent`, and for `State` and `Ended` where they changed anything).
    fn commit(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<i64>, JournalError>>;

    /// Begins a tenure of the account, behind every batch that was committed before this call; those of an earlier tenure that come
    /// later are refused.
    fn own(&self, account: Account) -> BoxFuture<'static, Result<Epoch, JournalError>>;

    /// Every account of the chain.
    fn accounts(&self, chain_id: u64) -> BoxFuture<'static, Result<Vec<StoredAccount>, JournalError>>;

    /// One account.
    fn account(&self, account: Account) -> BoxFuture<'static, Result<Option<StoredAccount>, JournalError>>;

    /// All attempts of the account's slots that have no confirmed payload yet, in order of nonce and commit.
    fn unfinished(&self, account: Account) -> BoxFuture<'static, Result<Vec<StoredAttempt>, JournalError>>;

    /// The lowest nonce from `from` up that has a slot on record, final ones included.
    fn next_slot(&self, account: Account, from: u64) -> BoxFuture<'static, Result<Option<u64>, JournalError>>;

    /// The attempt with this hash.
    fn attempt(&self, chain_id: u64, hash: B256) -> BoxFuture<'static, Result<Option<StoredAttempt>, JournalError>>;

    /// The current attempts of this service's principal that are not final, oldest first; fillers left out.
    fn unconfirmed(
        &self,
        chain_id: u64,
        service: Arc<str>,
        principal: Arc<str>,
    ) -> BoxFuture<'static, Result<Vec<StoredAttempt>, JournalError>>;

    /// Transactions of the account that are acknowledged and have neither an attempt nor an end, in order; the first `limit` of them.
    fn queued_ids(&self, account: Account, limit: usize) -> BoxFuture<'static, Result<Vec<TransactionId>, JournalError>>;

    /// How many there are.
    fn queued_count(&self, account: Account) -> BoxFuture<'static, Result<u64, JournalError>>;

    /// The transaction, if it is acknowledged and has neither an attempt nor an end.
    fn intent(&self, transaction: TransactionId) -> BoxFuture<'static, Result<Option<Intent>, JournalError>>;

    /// Whether something that the account was asked for before this transaction waits for its first attempt, or has an attempt that waits for a
    /// block. Ids are in the order of their requests. What another payload of its slot was mined instead of is waited for by nobody.
    fn waits_ahead(&self, account: Account, transaction: TransactionId) -> BoxFuture<'static, Result<bool, JournalError>>;

    /// What an idempotency key of this service's principal stands for.
    fn idempotency_key(
        &self,
        service: Arc<str>,
        principal: Arc<str>,
        key: Arc<str>,
    ) -> BoxFuture<'static, Result<Option<StoredIdempotencyKey>, JournalError>>;

    /// The pinned identity of a chain.
    fn chain(&self, chain_id: u64) -> BoxFuture<'static, Result<Option<ChainPin>, JournalError>>;

    /// Pins a chain; an error if another genesis is pinned already.
    fn pin_chain(&self, pin: ChainPin) -> BoxFuture<'static, Result<(), JournalError>>;

    /// Removes the pin and every account, slot, attempt, idempotency key and event of the chain; public keys stay. Answers how many attempts went.
    fn forget_chain(&self, chain_id: u64) -> BoxFuture<'static, Result<u64, JournalError>>;

    /// Every public key on record.
    fn keys(&self) -> BoxFuture<'static, Result<Vec<StoredKey>, JournalError>>;

    /// Puts a public key on record; an error if the ARN has another one.
    fn put_key(&self, key: StoredKey) -> BoxFuture<'static, Result<(), JournalError>>;

    /// The keys that a discovery found last, sorted by ARN; none if no complete one of this name is on record.
    fn discovery(&self, name: DiscoveryName) -> BoxFuture<'static, Result<Option<Vec<DiscoveredKey>>, JournalError>>;

    /// Puts on record what a discovery found otherwise than the one before it.
    fn change_discovery(&self, change: DiscoveryChange) -> BoxFuture<'static, Result<(), JournalError>>;

    /// Removes every discovery but those of these names.
    fn keep_discoveries(&self, names: Vec<DiscoveryName>) -> BoxFuture<'static, Result<(), JournalError>>;

    /// Counts by account.
    fn summary(&self) -> BoxFuture<'static, Result<Vec<AccountSummary>, JournalError>>;
}
