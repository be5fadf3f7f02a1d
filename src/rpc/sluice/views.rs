//! Answers of the `sluice_` namespace: camelCase, quantities and bytes as Ethereum writes them.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U64};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::journal::Kind;
use crate::journal::history::{AccountRecord, Life, OpenSlot, StoredTransaction, StoredTry};
use crate::subscriptions::lifecycle::view::{BlockView, EventView, SlotView, time};
use crate::transactions::nonces::figures::Figures;

/// One transaction of a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionView {
    id: String,
    kind: &'static str,
    state: &'static str,
    from: Address,
    hash: Option<B256>,
    slot: Option<SlotView>,
    block: Option<BlockView>,
    created_at: U64,
}

impl TransactionView {
    fn new(stored: &StoredTransaction) -> Self {
        Self {
            id: stored.id.to_string(),
            kind: kind(stored.kind),
            state: stored.shown().as_str(),
            from: stored.account.address,
            hash: stored.attempt.map(|(hash, _)| hash),
            slot: stored.attempt.map(|(_, nonce)| SlotView::new(stored.account, nonce)),
            block: stored.block.map(BlockView::from),
            created_at: time(stored.created_at),
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::SignOnly => "signOnly",
        other => other.as_str(),
    }
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct ListView {
    transactions: Vec<TransactionView>,
    next: Option<String>,
}

impl ListView {
    pub(super) fn new(transactions: &[StoredTransaction], next: Option<String>) -> Self {
        Self { transactions: transactions.iter().map(TransactionView::new).collect(), next }
    }
}

/// One attempt of a transaction.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TryView {
    hash: B256,
    purpose: &'static str,
    state: &'static str,
    block: Option<BlockView>,
    replaces: Option<B256>,
    replaced_by: Option<B256>,
}

impl TryView {
    fn new(attempt: &StoredTry, all: &[StoredTry]) -> Self {
        Self {
            hash: attempt.hash,
            purpose: attempt.purpose.as_str(),
            state: attempt.state.as_str(),
            block: attempt.block.map(BlockView::from),
            replaces: attempt.replaces,
            replaced_by: all.iter().rfind(|other| other.replaces == Some(attempt.hash)).map(|other| other.hash),
        }
    }
}

/// Everything of one transaction.
#[derive(Debug, Serialize)]
pub(super) struct LifeView<'a> {
    #[serde(flatten)]
    transaction: TransactionView,
    request: Option<Box<RawValue>>,
    receipt: Option<&'a RawValue>,
    attempts: Vec<TryView>,
    events: Vec<EventView<'a>>,
}

impl<'a> LifeView<'a> {
    pub(super) fn new(life: &'a Life) -> Self {
        Self {
            transaction: TransactionView::new(&life.transaction),
            // Bytes that were handed in signed have no request.
            request: RawValue::from_string(life.request.clone()).ok().filter(|request| request.get() != "{}"),
            receipt: life.receipt.as_deref(),
            attempts: life.attempts.iter().map(|attempt| TryView::new(attempt, &life.attempts)).collect(),
            events: life.events.iter().map(EventView::listed).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct OpenSlotView {
    nonce: U64,
    state: &'static str,
    id: Option<String>,
    hash: Option<B256>,
}

impl From<&OpenSlot> for OpenSlotView {
    fn from(slot: &OpenSlot) -> Self {
        Self {
            nonce: U64::from(slot.nonce),
            state: slot.state.as_str(),
            id: slot.own.map(|(id, _)| id.to_string()),
            hash: slot.own.map(|(_, hash)| hash),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LiveView {
    queued: U64,
    signing: U64,
    unsent: U64,
    in_flight: U64,
    window: U64,
    foreign_nonces: bool,
}

impl From<Figures> for LiveView {
    fn from(figures: Figures) -> Self {
        let count = |count: usize| U64::from(count);
        Self {
            queued: count(figures.queued),
            signing: count(figures.signing),
            unsent: count(figures.unsent),
            in_flight: count(figures.in_flight),
            window: count(figures.window),
            foreign_nonces: figures.is_on_hold,
        }
    }
}

/// One account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountView {
    chain_id: U64,
    address: Address,
    next_nonce: Option<U64>,
    floor: Option<U64>,
    paused: Option<String>,
    counts: BTreeMap<&'static str, U64>,
    open: Vec<OpenSlotView>,
    live: Option<LiveView>,
}

impl AccountView {
    /// `live` is what the account's task says; without it, what is on record.
    pub(super) fn new(chain_id: u64, address: Address, record: Option<&AccountRecord>, live: Option<Figures>) -> Self {
        let next_nonce = live.map(|figures| figures.next_nonce).or(record.map(|record| record.next_nonce));
        let counts = record.map(|record| record.counts.iter().map(|(state, count)| (state.as_str(), U64::from(*count))).collect());
        Self {
            chain_id: U64::from(chain_id),
            address,
            next_nonce: next_nonce.map(U64::from),
            floor: record.map(|record| U64::from(record.floor)),
            paused: record.and_then(|record| record.pauses.words()),
            counts: counts.unwrap_or_default(),
            open: record.map(|record| record.open.iter().map(OpenSlotView::from).collect()).unwrap_or_default(),
            live: live.map(LiveView::from),
        }
    }
}
