//! Events as clients see them: camelCase, quantities and bytes as Ethereum writes them. docs/sluice-namespace.md describes it.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, U64};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::journal::history::{StoredEvent, is_reverted};
use crate::journal::{Account, AttemptState, BlockRef, Purpose};

/// A slot.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotView {
    chain_id: U64,
    address: Address,
    nonce: U64,
}

impl SlotView {
    /// The slot of this account and nonce.
    pub fn new(account: Account, nonce: u64) -> Self {
        Self { chain_id: U64::from(account.chain_id), address: account.address, nonce: U64::from(nonce) }
    }
}

/// A block.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BlockView {
    number: U64,
    hash: B256,
}

impl From<BlockRef> for BlockView {
    fn from(block: BlockRef) -> Self {
        Self { number: U64::from(block.number), hash: block.hash }
    }
}

/// One event.
#[derive(Debug, Serialize)]
pub struct EventView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    id: String,
    /// `null`, as the slot, while the transaction has no attempt.
    hash: Option<B256>,
    slot: Option<SlotView>,
    state: &'static str,
    /// Of a cancel alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'static str>,
    block: Option<BlockView>,
    /// Of an inclusion alone: whether execution failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reverted: Option<bool>,
    /// Of an inclusion alone: `null` if it is not on record.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Option<&'a RawValue>>,
    detail: Option<&'a str>,
    time: U64,
}

impl<'a> EventView<'a> {
    /// As the stream tells it: with its cursor, and its receipt where it is an inclusion.
    pub fn told(event: &'a StoredEvent, cursor: String) -> Self {
        let included = event.state == AttemptState::Included;
        Self { cursor: Some(cursor), receipt: included.then_some(event.receipt.as_deref()), ..Self::listed(event) }
    }

    /// As a transaction lists it.
    pub fn listed(event: &'a StoredEvent) -> Self {
        let included = event.state == AttemptState::Included;
        Self {
            cursor: None,
            id: event.transaction.to_string(),
            hash: event.hash,
            slot: event.nonce.map(|nonce| SlotView::new(event.account, nonce)),
            state: event.state.as_str(),
            purpose: Some(event.purpose).filter(|purpose| *purpose == Purpose::Cancel).map(Purpose::as_str),
            block: event.block.map(BlockView::from),
            reverted: included.then(|| event.detail.as_deref().is_some_and(is_reverted)),
            receipt: None,
            detail: event.detail.as_deref(),
            time: time(event.at),
        }
    }
}

/// A time, in milliseconds since 1970.
pub fn time(at: SystemTime) -> U64 {
    U64::from(millis(at))
}

/// Milliseconds since 1970.
pub(super) fn millis(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
