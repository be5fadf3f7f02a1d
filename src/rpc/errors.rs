//! JSON-RPC errors: geth's code and wording where geth has one, and always a stable `data.reason`.

use std::time::Duration;

use jsonrpsee::types::ErrorObjectOwned;
use serde::{Deserialize, Serialize};

/// The stable word in `data.reason`. Clients match on it; wording may change, this does not. docs/errors.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request is not JSON-RPC 2.0, or not JSON.
    InvalidRequest,
    /// The parameters break the method's rules.
    InvalidParams,
    /// No such method, or a namespace that does not pass through.
    MethodNotFound,
    /// A method or kind that this transport cannot serve (subscribing over HTTP or in a batch), or that is not built.
    Unsupported,
    /// More items, bytes, calls in flight or subscriptions than allowed.
    LimitExceeded,
    /// More calls per second than the service allows.
    RateLimited,
    /// Nothing of this name is on record for this service and principal.
    NotFound,
    /// What became of the transaction is not known here any more: it was final and pruned, or acknowledged and ended by a restore.
    Forgotten,
    /// The cursor is none, or not of this stream or list.
    InvalidCursor,
    /// `from` is no address that this service may sign for.
    UnknownAccount,
    /// The account is paused, see the alarm in the log.
    AccountPaused,
    /// The account's nonces are used by somebody else as well; new ones wait.
    ForeignNonce,
    /// The account's queue is full; nothing was promised.
    QueueFull,
    /// The request waited its whole deadline; nothing was promised.
    QueueDeadline,
    /// A given nonce is above the next one, and what is below it did not come in time.
    NonceGap,
    /// A given nonce is in use by a transaction that is not final.
    NonceHeld,
    /// A given nonce is used up.
    NonceTooLow,
    /// The balance does not cover value and fees of what is not included yet and this transaction.
    InsufficientFunds,
    /// The transaction breaks a rule of the chain (type, fees, gas).
    InvalidTransaction,
    /// The price is above a ceiling of the service.
    FeeCeiling,
    /// What is to be replaced is mined already.
    AlreadyMined,
    /// What is to be replaced cannot be.
    NotReplaceable,
    /// Every endpoint that got the signed bytes refused them for good; they are never sent again. Or an acknowledged transaction
    /// was ended, or a cancel of it is final.
    Refused,
    /// The idempotency key stands for another request.
    IdempotencyConflict,
    /// The state that was waited for was not reached in time; the transaction goes on.
    Timeout,
    /// No endpoint of the environment answers.
    NodeUnavailable,
    /// The node is on another chain than the pinned one.
    ChainMismatch,
    /// The key store does not answer.
    KeyStoreUnavailable,
    /// The key store's quota is used up for longer than the deadline.
    KeyStoreThrottled,
    /// The key store refuses Sluice's credentials or permissions.
    KeyStoreDenied,
    /// The key is disabled, deleted or cannot sign.
    KeyUnavailable,
    /// The journal cannot write, or be read; nothing was promised.
    JournalUnavailable,
    /// The gateway is draining before it ends.
    ShuttingDown,
    /// The service is no longer served; what it had taken is finished.
    ServiceRemoved,
    /// A fault inside Sluice; the log has it.
    Internal,
}

impl Reason {
    /// Every reason, in the order of the page.
    pub const ALL: [Self; 35] = [
        Self::InvalidRequest,
        Self::InvalidParams,
        Self::MethodNotFound,
        Self::Unsupported,
        Self::LimitExceeded,
        Self::RateLimited,
        Self::NotFound,
        Self::Forgotten,
        Self::InvalidCursor,
        Self::UnknownAccount,
        Self::AccountPaused,
        Self::ForeignNonce,
        Self::QueueFull,
        Self::QueueDeadline,
        Self::NonceGap,
        Self::NonceHeld,
        Self::NonceTooLow,
        Self::InsufficientFunds,
        Self::InvalidTransaction,
        Self::FeeCeiling,
        Self::AlreadyMined,
        Self::NotReplaceable,
        Self::Refused,
        Self::IdempotencyConflict,
        Self::Timeout,
        Self::NodeUnavailable,
        Self::ChainMismatch,
        Self::KeyStoreUnavailable,
        Self::KeyStoreThrottled,
        Self::KeyStoreDenied,
        Self::KeyUnavailable,
        Self::JournalUnavailable,
        Self::ShuttingDown,
        Self::ServiceRemoved,
        Self::Internal,
    ];

    /// The word that clients see.
    pub fn word(self) -> String {
        serde_json::to_string(&self).map(|word| word.trim_matches('"').to_owned()).unwrap_or_default()
    }
}

/// What a client is told when a call fails.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// JSON-RPC code: geth's, or EIP-1474's.
    pub code: i32,
    /// For people; geth's words where geth has them.
    pub message: String,
    /// For programs.
    pub reason: Reason,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Transaction hash, where one exists.
    pub hash: Option<alloy_primitives::B256>,
    /// The transaction, where one is on record that the caller may want to look up.
    pub transaction: Option<OnRecord>,
}

/// A transaction as an error tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnRecord {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: &'static str,
}

/// EIP-7966: the receipt did not come in time.
pub const TIMEOUT: i32 = 4;
/// EIP-1474: resource not found.
pub const RESOURCE_NOT_FOUND: i32 = -32001;
/// EIP-1474: resource unavailable.
pub const RESOURCE_UNAVAILABLE: i32 = -32002;
/// EIP-1474: limit exceeded.
pub const LIMIT_EXCEEDED: i32 = -32005;
/// geth's code for everything that a transaction can get wrong.
pub const SERVER_ERROR: i32 = -32000;
/// JSON-RPC: invalid parameters.
pub const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: method not found.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: invalid request.
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: internal error.
pub const INTERNAL: i32 = -32603;

#[derive(Serialize)]
struct Data {
    reason: Reason,
    #[serde(rename = "retryAfterMs", skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<alloy_primitives::B256>,
    #[serde(flatten)]
    transaction: Option<OnRecord>,
}

impl RpcError {
    /// An error without hints.
    pub fn new(code: i32, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason, retry_after: None, hash: None, transaction: None }
    }

    /// -32602.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, Reason::InvalidParams, message)
    }

    /// A fault of ours: the message says no more than that.
    pub fn internal() -> Self {
        Self::new(INTERNAL, Reason::Internal, "internal error")
    }

    /// Adds a hint when to try again.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        let data = Data {
            reason: error.reason,
            retry_after_ms: error.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            hash: error.hash,
            transaction: error.transaction,
        };
        Self::owned(error.code, error.message, Some(data))
    }
}
