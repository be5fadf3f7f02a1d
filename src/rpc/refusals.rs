//! How an error of the transactions' room is told to a client.

use std::time::Duration;

use jsonrpsee::types::ErrorObjectOwned;

use super::errors::{INTERNAL, INVALID_PARAMS, LIMIT_EXCEEDED, OnRecord, RESOURCE_UNAVAILABLE, Reason, RpcError, SERVER_ERROR};
use super::pass_through::call_error;
use crate::journal::AttemptState;
use crate::signing::SignClass;
use crate::transactions::errors::TransactionError;

/// When a request that found no room may find some.
const SOON: Duration = Duration::from_secs(1);

/// The JSON-RPC error of a transaction that is not accepted.
pub fn refusal(error: TransactionError) -> ErrorObjectOwned {
    let message = error.to_string();
    let error = match error {
        TransactionError::Authorisation { error, .. } => *error,
        other => other,
    };
    let told = |code, reason| RpcError::new(code, reason, message.clone());
    let rpc = match error {
        TransactionError::Node(node) => return call_error(&crate::node::CallError::Node(node)),
        TransactionError::Call(call) => return call_error(&call),
        TransactionError::UnknownAccount => told(SERVER_ERROR, Reason::UnknownAccount),
        TransactionError::Invalid(_) => told(SERVER_ERROR, Reason::InvalidTransaction),
        TransactionError::Unsupported(_) => told(SERVER_ERROR, Reason::Unsupported),
        TransactionError::InsufficientFunds { .. } => told(SERVER_ERROR, Reason::InsufficientFunds),
        TransactionError::QueueFull | TransactionError::Crowded(_) | TransactionError::AcknowledgedFull(_) => {
            told(LIMIT_EXCEEDED, Reason::QueueFull).retry_after(SOON)
        }
        TransactionError::QueueDeadline(_) => told(LIMIT_EXCEEDED, Reason::QueueDeadline).retry_after(SOON),
        TransactionError::NonceGap { .. } => told(LIMIT_EXCEEDED, Reason::NonceGap).retry_after(SOON),
        TransactionError::NonceHeld { .. } => told(SERVER_ERROR, Reason::NonceHeld),
        TransactionError::NonceTooLow { .. } => told(SERVER_ERROR, Reason::NonceTooLow),
        TransactionError::AlreadyKnown { hash } => RpcError { hash: Some(hash), ..told(SERVER_ERROR, Reason::NonceHeld) },
        TransactionError::AlreadyMined { hash } => RpcError { hash, ..told(SERVER_ERROR, Reason::AlreadyMined) },
        TransactionError::NotReplaceable(_) => told(SERVER_ERROR, Reason::NotReplaceable),
        TransactionError::FeeCeiling { .. } => told(SERVER_ERROR, Reason::FeeCeiling),
        TransactionError::Paused(_) => told(RESOURCE_UNAVAILABLE, Reason::AccountPaused),
        TransactionError::ForeignNonce => told(LIMIT_EXCEEDED, Reason::ForeignNonce).retry_after(SOON),
        TransactionError::Sign(class) => sign_refusal(class, message.clone()),
        TransactionError::Refused { hash, transaction, .. } => {
            let transaction = OnRecord { id: transaction.to_string(), state: AttemptState::Refused.as_str() };
            RpcError { hash: Some(hash), transaction: Some(transaction), ..told(SERVER_ERROR, Reason::Refused) }
        }
        TransactionError::Journal(_) => told(RESOURCE_UNAVAILABLE, Reason::JournalUnavailable).retry_after(SOON),
        TransactionError::ShuttingDown => told(RESOURCE_UNAVAILABLE, Reason::ShuttingDown).retry_after(SOON),
        TransactionError::KeyTaken => told(SERVER_ERROR, Reason::IdempotencyConflict),
        TransactionError::Internal | TransactionError::NotQueued | TransactionError::Authorisation { .. } => {
            told(INTERNAL, Reason::Internal)
        }
    };
    rpc.into()
}

/// The JSON-RPC error of a signature that could not be had.
pub fn sign_refusal(class: SignClass, message: String) -> RpcError {
    match class {
        SignClass::Throttled => RpcError::new(LIMIT_EXCEEDED, Reason::KeyStoreThrottled, message).retry_after(SOON),
        SignClass::Transient | SignClass::Deadline | SignClass::BadSignature => {
            RpcError::new(RESOURCE_UNAVAILABLE, Reason::KeyStoreUnavailable, message).retry_after(SOON)
        }
        SignClass::KeyDown | SignClass::Configuration => RpcError::new(RESOURCE_UNAVAILABLE, Reason::KeyUnavailable, message),
        SignClass::Credentials => RpcError::new(RESOURCE_UNAVAILABLE, Reason::KeyStoreDenied, message),
    }
}

/// geth's form of an argument that cannot be read.
pub fn invalid_argument(position: usize, why: impl std::fmt::Display) -> ErrorObjectOwned {
    RpcError::new(INVALID_PARAMS, Reason::InvalidParams, format!("invalid argument {position}: {why}")).into()
}

/// geth's form of an argument that is not there.
pub fn missing_argument(position: usize) -> ErrorObjectOwned {
    RpcError::new(INVALID_PARAMS, Reason::InvalidParams, format!("missing value for required argument {position}")).into()
}
