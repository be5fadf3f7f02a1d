//! Why a transaction is not accepted. Each variant says what the caller may do: try again, give up, or look.

use std::time::Duration;

use alloy_primitives::{Address, B256, U256};

use crate::journal::{JournalError, TransactionId};
use crate::node::{CallError, NodeError};
use crate::signing::SignClass;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Nothing was promised; the same request may work later.
    Retry,
    /// The request can never work as it is.
    Reject,
    /// The outcome is on record: look it up before anything else.
    Reconcile,
}

/// An error before or after the commit; either way a promise that no bytes of this request will be mined.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransactionError {
    /// `from` is no key of the service (geth's words).
    #[error("unknown account")]
    UnknownAccount,
    /// The request breaks a rule, in geth's words where geth has them.
    #[error("{0}")]
    Invalid(String),
    /// The transaction's type is not signed here.
    #[error("{0}")]
    Unsupported(String),
    /// The balance is too small (geth's words).
    #[error("insufficient funds for gas * price + value: balance {balance}{queued_words}, tx cost {cost}, overshot {overshot}", queued_words = queued_words(*.queued))]
    InsufficientFunds {
        /// Balance in wei.
        balance: U256,
        /// value + gas × max fee in wei.
        cost: U256,
        /// How much is missing in wei.
        overshot: U256,
        /// What transactions before this one may cost in wei.
        queued: U256,
    },
    /// The account's queue is full.
    #[error("the queue of this account is full")]
    QueueFull,
    /// As many requests of the account wait as begin within their queue deadline.
    #[error("as many requests of this account wait as can be started within {0:?}")]
    Crowded(Duration),
    /// As many transactions of the account are acknowledged, and have no attempt yet, as may.
    #[error("{0} acknowledged transactions of this account wait, and no more of them may")]
    AcknowledgedFull(u64),
    /// It waited its deadline.
    #[error("the request waited {0:?} and was not started")]
    QueueDeadline(Duration),
    /// It waited its deadline for lower nonces.
    #[error("nonce {nonce} is above the next one, and the nonces below it did not come in time")]
    NonceGap {
        /// The given nonce.
        nonce: u64,
    },
    /// The given nonce is in use.
    #[error("nonce {nonce} is held by a transaction of this account that is not final")]
    NonceHeld {
        /// The given nonce.
        nonce: u64,
    },
    /// The given nonce is used up (geth's words).
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The next nonce.
        next: u64,
        /// The given nonce.
        nonce: u64,
    },
    /// These very bytes are on record (geth's words).
    #[error("already known")]
    AlreadyKnown {
        /// Their hash.
        hash: B256,
    },
    /// What is to be replaced is in a block, or its nonce is used up otherwise.
    #[error("the transaction is mined already")]
    AlreadyMined {
        /// Hash of the attempt that was mined, where it is known.
        hash: Option<B256>,
    },
    /// What is to be replaced cannot be.
    #[error("{0}")]
    NotReplaceable(String),
    /// The price is above a ceiling of the service.
    #[error("{words}")]
    FeeCeiling {
        /// What is above what.
        words: String,
        /// Whether the client gave the price; one that is filled may be below the ceiling at another time.
        is_given: bool,
    },
    /// An authorisation by another managed account cannot have its nonce (EIP-7702).
    #[error("authorisation by {authority}: {error}")]
    Authorisation {
        /// The account that authorises.
        authority: Address,
        /// Why.
        error: Box<TransactionError>,
    },
    /// The account is paused.
    #[error("the account is paused: {0}")]
    Paused(String),
    /// Somebody else uses the key.
    #[error("the nonces of this account are used outside of Sluice as well; new ones wait until the chain has settled")]
    ForeignNonce,
    /// No signature.
    #[error("{}", sign_words(*.0))]
    Sign(SignClass),
    /// Every endpoint that got the bytes refused them for good.
    #[error("{message}")]
    Refused {
        /// The node's code.
        code: i64,
        /// The node's words.
        message: String,
        /// Hash of the bytes that are never sent again.
        hash: B256,
        /// The transaction that they were an attempt of.
        transaction: TransactionId,
    },
    /// The node answered a question of the preparation with an error of its own (an estimate that reverts): passed on as it is.
    #[error("{}", .0.message)]
    Node(NodeError),
    /// The node cannot be asked.
    #[error("{0}")]
    Call(CallError),
    /// The journal did not write.
    #[error("the journal cannot write")]
    Journal(JournalError),
    /// The idempotency key got on record for another request meanwhile; its outcome is that one's.
    #[error("the idempotency key is in use by another request")]
    KeyTaken,
    /// The acknowledged transaction has an attempt already, or was ended.
    #[error("the transaction does not wait for its first attempt any more")]
    NotQueued,
    /// The gateway drains.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// The account's task ended before it could answer; nothing of the request was committed.
    #[error("internal error")]
    Internal,
}

impl TransactionError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Authorisation { error, .. } => error.class(),
            Self::QueueFull
            | Self::Crowded(_)
            | Self::AcknowledgedFull(_)
            | Self::QueueDeadline(_)
            | Self::NonceGap { .. }
            | Self::ForeignNonce
            | Self::Paused(_)
            | Self::Sign(_)
            | Self::Call(_)
            | Self::Journal(_)
            | Self::ShuttingDown => ErrorClass::Retry,
            Self::Internal
            | Self::KeyTaken
            | Self::NotQueued
            | Self::AlreadyKnown { .. }
            | Self::NonceHeld { .. }
            | Self::NonceTooLow { .. }
            | Self::AlreadyMined { .. } => ErrorClass::Reconcile,
            Self::UnknownAccount
            | Self::Invalid(_)
            | Self::Unsupported(_)
            | Self::InsufficientFunds { .. }
            | Self::NotReplaceable(_)
            | Self::FeeCeiling { .. }
            | Self::Refused { .. }
            | Self::Node(_) => ErrorClass::Reject,
        }
    }
}

impl From<CallError> for TransactionError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Node(error) => Self::Node(error),
            other => Self::Call(other),
        }
    }
}

fn queued_words(queued: U256) -> String {
    if queued.is_zero() { String::new() } else { format!(", queued cost {queued}") }
}

fn sign_words(class: SignClass) -> &'static str {
    match class {
        SignClass::Throttled => "the key store's quota is used up",
        SignClass::Transient | SignClass::Deadline => "the key store does not answer",
        SignClass::KeyDown => "the key cannot sign now",
        SignClass::Credentials => "the key store refuses this gateway",
        SignClass::Configuration => "the key store does not know this key",
        SignClass::BadSignature => "the key store's signature is not one of this key",
    }
}
