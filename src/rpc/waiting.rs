//! Calls that wait for what becomes of a transaction, for a bounded time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{B256, U256};
use jsonrpsee::Extensions;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::errors::{OnRecord, RESOURCE_NOT_FOUND, Reason, RpcError, SERVER_ERROR, TIMEOUT};
use super::refusals::invalid_argument;
use super::send::Sent;
use super::service::Service;
use crate::config::Environment;
use crate::journal::history::{ENDED_BY_RESTORE, Life};
use crate::journal::{AttemptState, Purpose, TransactionId};
use crate::transactions::request::Quantity;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Signed and on record.
    Attempt,
    /// In a block.
    Included,
    /// Final.
    Confirmed,
}

/// The hash that names the transaction to its client: of the attempt that speaks for it. Where that is a cancel, whose receipt would look
/// like a payment, it is the first hash of what was cancelled.
pub(super) fn named(life: &Life) -> Option<B256> {
    match life.transaction.purpose {
        Purpose::Cancel => life.attempts.iter().find(|attempt| attempt.purpose == Purpose::Request).map(|attempt| attempt.hash),
        Purpose::Request => life.transaction.attempt.map(|(hash, _)| hash),
    }
}

/// Why a transaction is not mined, if that is on record: its bytes were refused for good, it was ended before it had any, or a
/// cancel of it is final. Of one that a restored journal forgot the end of, only the chain can say.
pub(super) fn refused(life: &Life) -> Option<RpcError> {
    let transaction = &life.transaction;
    let told = |code, reason, words: String| RpcError {
        hash: named(life),
        transaction: Some(on_record(life)),
        ..RpcError::new(code, reason, words)
    };
    let no = |words| told(SERVER_ERROR, Reason::Refused, words);
    match (transaction.state, transaction.purpose) {
        (AttemptState::Refused, _) => {
            let why = life.events.iter().rev().find(|event| event.state == AttemptState::Refused).and_then(|event| event.detail.clone());
            Some(match why {
                Some(why) if why == ENDED_BY_RESTORE => told(RESOURCE_NOT_FOUND, Reason::Forgotten, why),
                why => no(why.unwrap_or_else(|| "refused".to_owned())),
            })
        }
        (AttemptState::Confirmed, Purpose::Cancel) => Some(no("the transaction was cancelled".to_owned())),
        _ => None,
    }
}

/// `None`: not yet.
fn reached(life: &Life, target: Target) -> Option<Result<(), RpcError>> {
    if let Some(refused) = refused(life) {
        return Some(Err(refused));
    }
    let transaction = &life.transaction;
    match (target, transaction.state) {
        (Target::Attempt, _) => transaction.attempt.map(|_| Ok(())),
        (_, AttemptState::Replaced) => {
            let words = "another payload of the slot is confirmed";
            let hash = named(life);
            let transaction = Some(on_record(life));
            Some(Err(RpcError { hash, transaction, ..RpcError::new(SERVER_ERROR, Reason::Refused, words) }))
        }
        (_, AttemptState::Confirmed) => Some(Ok(())),
        (Target::Included, AttemptState::Included) if transaction.purpose == Purpose::Request => Some(Ok(())),
        _ => None,
    }
}

fn on_record(life: &Life) -> OnRecord {
    OnRecord { id: life.transaction.id.to_string(), state: life.transaction.shown().as_str() }
}

/// Why the state was not reached.
pub(super) enum Missed {
    /// It never will be.
    Refused(RpcError),
    /// Not yet, and the wait is over; the transaction goes on. What is on record of it, if that could be read.
    Late(Option<Box<Life>>, Wait),
}

/// What ended a wait; as words behind "the state was not reached".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The call's time-out.
    Timeout(Duration),
    /// The drain of the gateway.
    Drain,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(timeout) => write!(f, "in {timeout:?}"),
            Self::Drain => f.write_str("before the gateway shuts down"),
        }
    }
}

impl Missed {
    /// How `sluice_sendTransaction` tells it. `first` is the hash that the call knows by itself: then the transaction is on record with it, also
    /// if nothing could be read in time.
    pub(super) fn told(self, id: TransactionId, first: Option<B256>) -> ErrorObjectOwned {
        match self {
            Self::Refused(error) => error.into(),
            Self::Late(life, wait) => {
                let words = format!("the state was not reached {wait}; the transaction goes on");
                let hash = life.as_deref().and_then(named).or(first);
                let unread = if first.is_some() { AttemptState::Committed } else { AttemptState::Queued };
                let state = life.map_or(unread.as_str(), |life| life.transaction.shown().as_str());
                let transaction = Some(OnRecord { id: id.to_string(), state });
                RpcError { hash, transaction, ..RpcError::new(TIMEOUT, Reason::Timeout, words) }.into()
            }
        }
    }
}

/// Waits until the transaction of the caller has reached the target, through reorgs, and no longer than `timeout`, or until the
/// gateway drains.
pub(super) async fn reach(
    service: &Service,
    extensions: &Extensions,
    id: TransactionId,
    target: Target,
    timeout: Duration,
) -> Result<Life, Missed> {
    let mut last = None;
    let scope = service.scope(extensions);
    let reaching = service.lifecycle.watch(scope, id, |life| {
        let done = reached(life, target);
        last = Some(Box::new(life.clone()));
        done.map(|done| done.map(|()| life.clone()))
    });
    let until = service.chain.unless_draining(async { Ok(reaching.await) });
    match tokio::time::timeout(timeout, until).await {
        Ok(Ok(done)) => done.map_err(Missed::Refused),
        Ok(Err(_)) => Err(Missed::Late(last, Wait::Drain)),
        Err(_) => Err(Missed::Late(last, Wait::Timeout(timeout))),
    }
}

/// [`reach`], told as `sluice_sendTransaction` does.
pub(super) async fn until(
    service: &Service,
    extensions: &Extensions,
    sent: &Sent,
    target: Target,
    timeout: Duration,
) -> Result<Life, ErrorObjectOwned> {
    reach(service, extensions, sent.id, target, timeout).await.map_err(|missed| missed.told(sent.id, sent.hash))
}

/// A client's time-out in milliseconds, as a number or a QUANTITY, within the environment's bounds: what is absent or 0 is
/// `sync_timeout`, what is beyond `sync_timeout_max` is that (as geth bounds it).
pub(super) fn timeout(given: Option<&RawValue>, position: usize, environment: &Environment) -> Result<Duration, ErrorObjectOwned> {
    let Some(given) = given else { return Ok(environment.sync_timeout) };
    let unreadable = || invalid_argument(position, "timeout: milliseconds, as a number or a QUANTITY");
    let milliseconds = match serde_json::from_str(given.get()) {
        Ok(Value::Number(number)) => number.as_u64(),
        Ok(Value::String(text)) => Quantity::parse(&text).ok().map(|Quantity(value)| value.min(U256::from(u64::MAX)).to()),
        _ => None,
    };
    match milliseconds.ok_or_else(unreadable)? {
        0 => Ok(environment.sync_timeout),
        milliseconds => Ok(Duration::from_millis(milliseconds).min(environment.sync_timeout_max)),
    }
}

/// The receipt of a transaction that is in a block: as it is on record, or else as the node has it.
pub(super) async fn receipt(service: &Service, life: Life) -> Result<Arc<RawValue>, ErrorObjectOwned> {
    if let Some(receipt) = life.receipt {
        return Ok(receipt);
    }
    let hash = life.transaction.attempt.map(|(hash, _)| hash);
    let params = serde_json::value::to_raw_value(&[hash]).map_err(|_| RpcError::internal())?;
    let answer = service.chain.pool().call_raw("eth_getTransactionReceipt", Some(&params)).await;
    answer.map_err(|error| super::pass_through::call_error(&error))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use alloy_primitives::Address;

    use super::*;
    use crate::journal::history::{StoredEvent, StoredTransaction, StoredTry};
    use crate::journal::{Account, Kind};

    /// A payment with its cancel, which speaks for it in this state.
    fn cancelled(state: AttemptState) -> Life {
        let attempt = |byte, purpose, state| StoredTry { hash: B256::repeat_byte(byte), purpose, state, block: None, replaces: None };
        let transaction = StoredTransaction {
            id: TransactionId::new(),
            kind: Kind::Send,
            account: Account { chain_id: 1, address: Address::ZERO },
            created_at: SystemTime::UNIX_EPOCH,
            attempt: Some((B256::repeat_byte(3), 0)),
            purpose: Purpose::Cancel,
            state,
            block: None,
        };
        let attempts = vec![
            attempt(1, Purpose::Request, AttemptState::Broadcast),
            attempt(2, Purpose::Request, AttemptState::Broadcast),
            attempt(3, Purpose::Cancel, state),
        ];
        Life { transaction, request: "{}".into(), attempts, events: Vec::new(), receipt: None }
    }

    #[test]
    fn the_hash_of_a_cancel_is_never_told_as_that_of_what_it_cancels() {
        let paid = Some(B256::repeat_byte(1));
        assert_eq!(refused(&cancelled(AttemptState::Confirmed)).unwrap().hash, paid);
        assert_eq!(reached(&cancelled(AttemptState::Replaced), Target::Included).unwrap().unwrap_err().hash, paid);
        let late = Missed::Late(Some(Box::new(cancelled(AttemptState::Broadcast))), Wait::Drain);
        let error = late.told(TransactionId::new(), None);
        let data: Value = serde_json::from_str(error.data().unwrap().get()).unwrap();
        assert_eq!(data["hash"], B256::repeat_byte(1).to_string());
    }

    #[test]
    fn what_a_restore_ended_is_not_told_as_refused() {
        let mut life = cancelled(AttemptState::Refused);
        let reason = |life: &Life| serde_json::to_value(ErrorObjectOwned::from(refused(life).unwrap())).unwrap()["data"]["reason"].clone();
        assert_eq!(reason(&life), "refused");
        life.transaction = StoredTransaction { attempt: None, purpose: Purpose::Request, ..life.transaction };
        life.attempts.clear();
        life.events.push(StoredEvent {
            position: 2,
            account: life.transaction.account,
            sequence: 2,
            transaction: life.transaction.id,
            hash: None,
            purpose: Purpose::Request,
            nonce: None,
            state: AttemptState::Refused,
            block: None,
            detail: Some(ENDED_BY_RESTORE.to_owned()),
            receipt: None,
            at: SystemTime::UNIX_EPOCH,
        });
        assert_eq!(reason(&life), "forgotten", "it may have been paid");
    }

    #[test]
    fn a_time_out_before_anything_was_read_tells_what_the_call_knows() {
        let told = |first| {
            let error = Missed::Late(None, Wait::Timeout(Duration::from_millis(1))).told(TransactionId::new(), first);
            serde_json::from_str::<Value>(error.data().unwrap().get()).unwrap()
        };
        let hash = B256::repeat_byte(7);
        let signed = told(Some(hash));
        assert_eq!((&signed["state"], &signed["hash"]), (&"committed".into(), &hash.to_string().into()));
        let acknowledged = told(None);
        assert_eq!((&acknowledged["state"], acknowledged.get("hash")), (&"queued".into(), None));
    }

    #[test]
    fn a_wait_says_what_ended_it() {
        let told = |wait| Missed::Late(None, wait).told(TransactionId::new(), None).message().to_owned();
        let in_time = told(Wait::Timeout(Duration::from_secs(15)));
        assert_eq!(in_time, "the state was not reached in 15s; the transaction goes on");
        assert_eq!(told(Wait::Drain), "the state was not reached before the gateway shuts down; the transaction goes on");
    }
}
