//! The stream over a real journal, and its parts alone.

mod cursors;
mod rings;
mod shares;
mod streams;

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256};

use crate::journal::history::{Scope, StoredEvent};
use crate::journal::{Account, Attempt, AttemptState, Kind, Purpose, Record, TransactionId};

const CHAIN: u64 = 31337;

fn account(byte: u8) -> Account {
    Account { chain_id: CHAIN, address: Address::repeat_byte(byte) }
}

fn scope() -> Scope {
    Scope { chain_id: CHAIN, service: Arc::from("payments"), principal: Arc::from("default") }
}

fn event(position: i64) -> StoredEvent {
    StoredEvent {
        purpose: crate::journal::Purpose::Request,
        position,
        account: account(1),
        sequence: u64::try_from(position).unwrap(),
        transaction: TransactionId(uuid::Uuid::from_u128(1)),
        hash: Some(B256::with_last_byte(1)),
        nonce: Some(1),
        state: AttemptState::Broadcast,
        block: None,
        detail: None,
        receipt: None,
        at: std::time::UNIX_EPOCH,
    }
}

/// The records of a transaction that is committed and broadcast, the `number`th of all.
fn life(number: u64, account: Account, service: &str) -> Vec<Record> {
    let attempt = Attempt {
        account,
        nonce: number,
        transaction: TransactionId::new(),
        kind: Kind::Send,
        service: Arc::from(service),
        principal: Arc::from("default"),
        purpose: Purpose::Request,
        request: Arc::from("{}"),
        hash: B256::from(U256::from(number + 1)),
        raw: Bytes::from(vec![2]),
        cost: U256::ZERO,
        hold_until: None,
        authorisations: Vec::new(),
    };
    let state = Record::State { account, hash: attempt.hash, state: AttemptState::Broadcast, block: None, detail: None, receipt: None };
    vec![Record::Attempt { attempt: Box::new(attempt), state: AttemptState::Committed, replaces: None, takes_over: Vec::new() }, state]
}
