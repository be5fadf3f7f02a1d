//! What clients asked for and what they were told, over all lives of the gateway.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloy_primitives::{Address, B256};
use serde_json::Value;
use sluice_load_tests::client::ClientError;

use crate::support::anvil::parse;

/// What a request was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// No answer came: it may be there once or not at all.
    Nothing,
    /// The hash of what will be mined.
    Hash(B256),
    /// It will be finished, or ended for a reason that is an event of the transaction with this id.
    Queued(String),
    /// Signed bytes with this hash; the client may send them or not.
    Bytes(B256),
    /// It will not be mined.
    Refused { reason: String, hash: Option<B256>, words: String },
    /// The bytes were there already: says nothing of this request.
    Known,
}

/// One request. Its value in wei is its own, by which the chain and the journal name it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) operation: &'static str,
    pub(super) account: Address,
    pub(super) value: u64,
    pub(super) answer: Answer,
    /// Whether the bytes that it was given were handed in to be sent.
    pub(super) handed_in: bool,
}

/// What a client wants put in the place of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    SpeedUp,
    Cancel,
}

/// How a client names a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// The hash that it was told.
    Hash(B256),
    /// The id, without dashes.
    Id(String),
}

/// What a client was told of a change that it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No answer came.
    Nothing,
    /// This payload is in the place of that one.
    Replaced { hash: B256, before: B256 },
    /// The transaction is ended, without ever having been signed.
    Ended,
    /// The transaction stays as it was.
    Refused { reason: String },
}

/// A change of a request that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) change: Change,
    pub(super) name: Name,
    /// The value of the request.
    pub(super) value: u64,
    pub(super) outcome: Outcome,
}

/// Everything that a checker has to know of what happened outside of the gateway.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) requests: Vec<Request>,
    /// Hashes that somebody else mined with a managed key.
    pub(super) foreign: HashSet<B256>,
    /// What a client saw at once to be wrong.
    pub(super) complaints: Vec<String>,
    /// Receipts that were pushed to clients.
    pub(super) receipts: Vec<Value>,
    /// Requests with an idempotency key, as they were made, by number.
    pub(super) kept: Vec<(usize, (&'static str, Value))>,
    /// Speed-ups and cancels.
    pub(super) changes: Vec<Changed>,
    /// Accounts that an operator was told to be paused, or to go on; others may be either.
    pub(super) ordered: BTreeMap<Address, bool>,
    /// What an operator was told that is not so.
    pub(super) disobeyed: Vec<String>,
}

/// Shared by all that ask.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Record>);

/// Values below are the payments of others, fillers and the like.
const FIRST: u64 = 1_000_000;

impl Ledger {
    pub(super) fn read(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to be made: its number, and the value that names it.
    pub(super) fn begin(&self, operation: &'static str, account: Address) -> (usize, u64) {
        let mut record = self.read();
        let number = record.requests.len();
        let value = FIRST + number as u64;
        record.requests.push(Request { operation, account, value, answer: Answer::Nothing, handed_in: false });
        (number, value)
    }

    /// What became of it.
    pub(super) fn end(&self, number: usize, answer: Answer) {
        self.read().requests[number].answer = answer;
    }

    /// Keeps a request to make it again.
    pub(super) fn keep(&self, request: (&'static str, Value), number: usize) {
        self.read().kept.push((number, request));
    }

    /// One of those that were kept.
    pub(super) fn kept(&self, drawn: usize) -> Option<(usize, (&'static str, Value))> {
        let record = self.read();
        record.kept.get(drawn.checked_rem(record.kept.len())?).cloned()
    }

    /// One of the newest requests that a client can name, and its value.
    pub(super) fn nameable(&self, drawn: usize) -> Option<(Name, u64)> {
        let record = self.read();
        let mut named = record.requests.iter().rev().filter_map(|request| match &request.answer {
            Answer::Hash(hash) | Answer::Bytes(hash) => Some((Name::Hash(*hash), request.value)),
            Answer::Queued(id) => Some((Name::Id(id.clone()), request.value)),
            Answer::Nothing | Answer::Refused { .. } | Answer::Known => None,
        });
        named.nth(drawn)
    }

    /// A change is about to be asked for: its number.
    pub(super) fn change(&self, change: Change, (name, value): (Name, u64)) -> usize {
        let mut record = self.read();
        record.changes.push(Changed { change, name, value, outcome: Outcome::Nothing });
        record.changes.len() - 1
    }

    /// What became of the change.
    pub(super) fn changed(&self, number: usize, outcome: Outcome) {
        self.read().changes[number].outcome = outcome;
    }

    /// Somebody is about to pause the account or to let it go on.
    pub(super) fn order(&self, account: Address) {
        self.read().ordered.remove(&account);
    }

    /// The operator was told that it is done.
    pub(super) fn obeyed(&self, account: Address, paused: bool) {
        self.read().ordered.insert(account, paused);
    }

    /// What the operator was told of the account.
    pub(super) fn ordered(&self, account: Address) -> Option<bool> {
        self.read().ordered.get(&account).copied()
    }

    pub(super) fn disobeyed(&self, complaint: String) {
        self.read().disobeyed.push(complaint);
    }

    /// An answer to a request that may have been told something before. `exact`: one hash for life; else an attempt of the same
    /// transaction, which has the same value. What was refused on record stays so, and what has a hash is not merely queued any more.
    pub(super) fn told_again(&self, number: usize, answer: Answer, exact: bool) {
        let before = self.read().requests[number].answer.clone();
        let ended = |answer: &Answer| matches!(answer, Answer::Refused { reason, .. } if reason == "refused");
        match (before, answer) {
            (_, Answer::Nothing) => {}
            (Answer::Hash(before), Answer::Hash(after)) if before != after && exact => {
                self.complain(format!("request {number} was told {before}, and {after} under the same key"));
            }
            (Answer::Queued(before), Answer::Queued(after)) if before != after => {
                self.complain(format!("request {number} is {before}, and {after} under the same key"));
            }
            (before, after @ (Answer::Hash(_) | Answer::Queued(_))) if ended(&before) => {
                self.complain(format!("request {number} was told {before:?}, and {after:?} under the same key"));
            }
            (Answer::Hash(before), Answer::Queued(after)) => {
                self.complain(format!("request {number} was told {before}, and that {after} has no hash under the same key"));
            }
            (Answer::Hash(_), _) => {}
            // A time-out, a full queue and the like say nothing of what was or will be told to others under the key.
            (before, Answer::Refused { ref reason, .. }) if reason != "refused" => {
                if !ended(&before) && !matches!(before, Answer::Queued(_)) {
                    self.end(number, Answer::Known);
                }
            }
            (_, answer) => self.end(number, answer),
        }
    }

    /// Its bytes are about to be handed in.
    pub(super) fn hand_in(&self, number: usize) {
        self.read().requests[number].handed_in = true;
    }

    pub(super) fn foreign(&self, hash: B256) {
        self.read().foreign.insert(hash);
    }

    pub(super) fn complain(&self, complaint: String) {
        self.read().complaints.push(complaint);
    }
}

/// Reads the answer to a send.
pub(super) fn answer_of(outcome: Result<Value, ClientError>) -> Answer {
    match outcome {
        Ok(Value::Object(signed)) if signed.contains_key("tx") => Answer::Bytes(parse(&signed["tx"]["hash"])),
        Ok(Value::Object(sent)) => match sent["hash"].as_str() {
            Some(hash) => Answer::Hash(hash.parse().unwrap()),
            None => Answer::Queued(sent["id"].as_str().unwrap_or_default().replace('-', "")),
        },
        Ok(hash) => Answer::Hash(parse(&hash)),
        Err(ClientError::Connection(_) | ClientError::Status(_)) => Answer::Nothing,
        Err(error) if error.to_string().contains("already known") => Answer::Known,
        Err(ref error @ ClientError::Rpc { ref data, .. }) => Answer::Refused {
            reason: error.reason().unwrap_or_default().to_owned(),
            hash: data["hash"].as_str().map(|hash| hash.parse().unwrap()),
            words: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is complained of when these are told one after the other under one key.
    fn complaints(told: [Answer; 2]) -> Vec<String> {
        let ledger = Ledger::default();
        let (number, _) = ledger.begin("once", Address::ZERO);
        for answer in told {
            ledger.told_again(number, answer, true);
        }
        let record = ledger.read();
        record.complaints.clone()
    }

    fn refused(reason: &str) -> Answer {
        Answer::Refused { reason: reason.into(), hash: None, words: "no".into() }
    }

    #[test]
    fn another_outcome_under_the_same_key_is_a_complaint() {
        let hash = |byte| Answer::Hash(B256::repeat_byte(byte));
        let queued = |id: &str| Answer::Queued(id.into());
        for changed in [
            [refused("refused"), hash(1)],
            [refused("refused"), queued("a")],
            [hash(1), hash(2)],
            [hash(1), queued("a")],
            [queued("a"), queued("b")],
        ] {
            assert_eq!(complaints(changed.clone()).len(), 1, "{changed:?}");
        }
        for kept in [
            [refused("refused"), refused("refused")],
            [refused("refused"), refused("queue_full")],
            // Nothing was on record.
            [refused("queue_full"), hash(1)],
            [queued("a"), hash(1)],
            [hash(1), refused("refused")],
            [Answer::Nothing, hash(1)],
        ] {
            assert_eq!(complaints(kept.clone()), Vec::<String>::new(), "{kept:?}");
        }
    }
}
