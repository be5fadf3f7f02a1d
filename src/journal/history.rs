//! What clients read back of the journal: the life of their transactions, as events in order of commit, and what became of
//! each. Every read is of one [`Scope`] and sees nothing else (I11).

use std::sync::Arc;
use std::time::SystemTime;

use alloy_primitives::{Address, B256};
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::{Account, AttemptState, BlockRef, JournalError, Kind, Pauses, Purpose, TransactionId};

/// How the detail of an inclusion begins whose execution failed.
pub const REVERTED: &str = "reverted";

/// The detail of an inclusion whose execution failed, with the reason where it is known.
pub fn reverted(reason: Option<&str>) -> String {
    reason.map_or_else(|| REVERTED.to_owned(), |reason| format!("{REVERTED}: {reason}"))
}

/// Whether the detail of an inclusion says that its execution failed.
pub fn is_reverted(detail: &str) -> bool {
    detail.strip_prefix(REVERTED).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

/// The detail of an acknowledged transaction that a restore of the journal ended.
pub const ENDED_BY_RESTORE: &str =
    "the journal was restored from a backup: whether this was paid since is not known, so it is not sent again";

/// The longest receipt that is put on record, in bytes. An inclusion whose receipt is longer is on record without it.
pub const MAX_RECEIPT: usize = 1 << 20;

/// What one principal of one service may see: its own transactions on the service's chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// EIP-155 id of the service's chain.
    pub chain_id: u64,
    /// Name of the service.
    pub service: Arc<str>,
    /// Name of the principal.
    pub principal: Arc<str>,
}

/// A change of state on record.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its place in the order of commit, over all accounts.
    pub position: i64,
    /// Whose slot.
    pub account: Account,
    /// Its number among the events of the account, dense from 1.
    pub sequence: u64,
    /// Which transaction.
    pub transaction: TransactionId,
    /// Which attempt; `None` while the transaction has none.
    pub hash: Option<B256>,
    /// What the attempt pays for; `Request` without an attempt.
    pub purpose: Purpose,
    /// Which slot; `None` without an attempt.
    pub nonce: Option<u64>,
    /// The state that was reached.
    pub state: AttemptState,
    /// The block of the inclusion; of an orphaned attempt the one that it was in, where that was told.
    pub block: Option<BlockRef>,
    /// Why, for people; [`reverted`] for an inclusion whose execution failed.
    pub detail: Option<String>,
    /// The receipt of exactly this inclusion, byte for byte as the node gave it.
    pub receipt: Option<Arc<RawValue>>,
    /// When it was written.
    pub at: SystemTime,
}

impl StoredEvent {
    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        /// The event without what has no fixed size.
        const FIXED: usize = 256;
        FIXED + self.receipt.as_ref().map_or(0, |receipt| receipt.get().len()) + self.detail.as_ref().map_or(0, String::len)
    }
}

/// Bounds of one read: it ends behind the item that reaches one of them, and has one item at least if there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items.
    pub items: usize,
    /// Bytes, about.
    pub bytes: usize,
}

/// A transaction on record, with the attempt that speaks for it: the one that is confirmed, else the one that is included, else
/// the newest that was not refused, else the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransaction {
    /// Its id.
    pub id: TransactionId,
    /// What it came from.
    pub kind: Kind,
    /// Its account.
    pub account: Account,
    /// When it was acknowledged, or its first attempt written.
    pub created_at: SystemTime,
    /// Hash and nonce of its attempt. `None` while it is queued, if it was ended without one, and once the same bytes, refused
    /// here, were taken up by another transaction.
    pub attempt: Option<(B256, u64)>,
    /// What the attempt pays for; `Request` without an attempt.
    pub purpose: Purpose,
    /// The attempt's state; without an attempt `Queued` or `Refused`.
    pub state: AttemptState,
    /// The block of its inclusion, while it is included or confirmed.
    pub block: Option<BlockRef>,
}

impl StoredTransaction {
    /// What is shown as its state.
    pub fn shown(&self) -> Shown {
        match (self.purpose, self.state) {
            (Purpose::Cancel, AttemptState::Included | AttemptState::Confirmed) => Shown::Cancelled,
            (_, state) => Shown::Attempt(state),
        }
    }
}

/// The state of a transaction as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// That of the attempt that speaks for it.
    Attempt(AttemptState),
    /// Its cancel is in a block: nothing that it asked for is mined.
    Cancelled,
}

impl Shown {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempt(state) => state.as_str(),
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        if word == Self::Cancelled.as_str() { Some(Self::Cancelled) } else { AttemptState::parse(word).map(Self::Attempt) }
    }

    /// Every word.
    pub fn words() -> Vec<&'static str> {
        AttemptState::ALL.map(AttemptState::as_str).into_iter().chain([Self::Cancelled.as_str()]).collect()
    }
}

/// One attempt of a transaction, as its life lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTry {
    /// Its hash.
    pub hash: B256,
    /// What it pays for.
    pub purpose: Purpose,
    /// Its state.
    pub state: AttemptState,
    /// The block of its inclusion, while it is included or confirmed.
    pub block: Option<BlockRef>,
    /// The payload of the slot that it replaced, also one of another transaction.
    pub replaces: Option<B256>,
}

/// Everything that is on record of one transaction.
#[derive(Debug, Clone)]
pub struct Life {
    /// The transaction.
    pub transaction: StoredTransaction,
    /// The client's request as JSON; `{}` where there was none.
    pub request: String,
    /// Its newest attempts, oldest first, 100 at most.
    pub attempts: Vec<StoredTry>,
    /// Its newest events, oldest first, 100 at most, without their receipts.
    pub events: Vec<StoredEvent>,
    /// The receipt of the block that it is in, where it is in one and the receipt is on record.
    pub receipt: Option<Arc<RawValue>>,
}

/// How a client names a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// By its id.
    Id(TransactionId),
    /// By the hash of one of its attempts.
    Hash(B256),
}

/// Which transactions are listed, in the order of their ids, which is that of their arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Of this account alone.
    pub from: Option<Address>,
    /// In this state alone.
    pub state: Option<Shown>,
    /// Oldest first; newest first otherwise.
    pub ascending: bool,
    /// Behind this one, in that order.
    pub after: Option<TransactionId>,
    /// Items, at most.
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// What was found.
    pub transactions: Vec<StoredTransaction>,
    /// The last one that was looked at, if there may be more behind it. A page may be short, or empty, and not be the last: a
    /// read looks at a bounded number of transactions, whether they are wanted or not.
    pub next: Option<TransactionId>,
}

/// An account as its journal rows show it to one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountRecord {
    /// The nonce at which its slots began, or went on after foreign use of the key.
    pub floor: u64,
    /// The nonce after every slot on record.
    pub next_nonce: u64,
    /// Why it is stopped, if it is.
    pub pauses: Pauses,
    /// Slots that are not final, lowest nonce first; a bounded number of them.
    pub open: Vec<OpenSlot>,
    /// How many slots are not final, by the state of their payload, in the order of [`AttemptState::ALL`].
    pub counts: Vec<(AttemptState, u64)>,
}

/// A slot that is not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSlot {
    /// Its nonce.
    pub nonce: u64,
    /// The state of its payload.
    pub state: AttemptState,
    /// Transaction and hash, if they are of the scope that asks.
    pub own: Option<(TransactionId, B256)>,
}

/// What a read brings.
pub type Answer<T> = BoxFuture<'static, Result<T, JournalError>>;

/// The reads.
pub trait History: Send + Sync + std::fmt::Debug + 'static {
    /// Changes after each group of commits that wrote something: whoever follows the journal reads on then.
    fn commits(&self) -> watch::Receiver<u64>;

    /// Events of the scope behind `position`, in order of commit. Nothing that is committed later ever comes before an event
    /// that was read.
    fn events(&self, scope: Scope, position: i64, bounds: Bounds) -> Answer<Vec<StoredEvent>>;

    /// The event of the scope that has this number in its account.
    fn event(&self, scope: Scope, address: Address, sequence: u64) -> Answer<Option<StoredEvent>>;

    /// The newest event of the scope.
    fn last_event(&self, scope: Scope) -> Answer<Option<StoredEvent>>;

    /// The position before the first event of each of these transactions of the scope; an error's value names one that is not
    /// the scope's.
    fn begin_of(&self, scope: Scope, ids: Vec<TransactionId>) -> Answer<Result<i64, TransactionId>>;

    /// One transaction of the scope.
    fn life(&self, scope: Scope, name: Name) -> Answer<Option<Life>>;

    /// The hash of the attempt that is in a block in place of the attempt with this hash: one of the same transaction that pays for what it
    /// asked for, too. Whosever it is: what a node has of a hash is open to all.
    fn mined_instead(&self, chain_id: u64, hash: B256) -> Answer<Option<B256>>;

    /// Transactions of the scope.
    fn list(&self, scope: Scope, query: ListQuery) -> Answer<ListPage>;

    /// The account, if it is on record.
    fn account_record(&self, scope: Scope, address: Address) -> Answer<Option<AccountRecord>>;
}
