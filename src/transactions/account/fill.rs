//! Payments of nothing to oneself: fillers, which close a slot below committed ones, and what a cancel pays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::{TxEip1559, TxLegacy, TypedTransaction};
use alloy_primitives::{Address, TxKind, U256};

use super::loans::Borrowed;
use super::submission::{Payload, Submission};
use super::{Owed, Pending, Task};
use crate::journal::{Kind, Purpose, TransactionId};
use crate::telemetry::clock;
use crate::transactions::fees::{Price, decide};
use crate::transactions::prepare::{Prepared, TRANSFER_GAS};
use crate::transactions::replacement::Bid;
use crate::transactions::request::Fees;

/// Time before another filler is tried.
const FILL_AGAIN: Duration = Duration::from_secs(2);

impl Task {
    pub(super) fn start_fill(&mut self, nonce: u64, now: Instant) {
        let key = self.key.clone().or_else(|| (self.chain.key_of)(self.address()));
        let (Some(key), Some(suggestion)) = (key, self.chain.fees.now()) else {
            self.pause_filling();
            return;
        };
        let Ok(price) = decide(Fees::Dynamic { cap: None, tip: None }, suggestion, self.chain.environment.fees) else {
            self.pause_filling();
            return;
        };
        let ticket = self.next_ticket();
        let submission = Submission {
            id: TransactionId::new(),
            kind: Kind::Filler,
            purpose: Purpose::Request,
            service: Arc::from(""),
            principal: Arc::from(""),
            request: Arc::from("{}"),
            payload: Payload::Unsigned { prepared: Box::new(filler(self.account.address, self.account.chain_id, price)), key },
            arrived: now,
            queued: now,
            reply: None,
            borrowed: Borrowed::default(),
            key: None,
            acknowledged: false,
        };
        tracing::warn!(account = %self.address(), nonce, "an open slot below committed ones is filled");
        self.chain.metrics.filler();
        self.balance.reserve(Owed::Request(ticket), submission.cost());
        self.tickets.insert(ticket, Pending { replaces: true, nonce, ..Pending::new(submission) });
        self.nonces.fill(ticket, nonce, now + FILL_AGAIN);
        self.start_sign(ticket, nonce, true, now);
    }

    pub(super) fn pause_filling(&mut self) {
        self.fill_later(FILL_AGAIN);
    }

    /// No filler for a while.
    pub(super) fn fill_later(&mut self, pause: Duration) {
        self.nonces.set_can_fill(false);
        self.fill_after = Some(clock::now() + pause);
    }
}

/// A payment of nothing to oneself that closes a slot.
fn filler(address: Address, chain_id: u64, price: Price) -> Prepared {
    let cost = U256::from(price.highest()).saturating_mul(U256::from(TRANSFER_GAS));
    Prepared { from: address, transaction: nothing_to(address, chain_id, price), nonce: None, cost, span: 1 }
}

/// What a bid is as a price.
pub(super) fn price_of(bid: Bid, one_price: bool) -> Price {
    if one_price { Price::Legacy(bid.cap) } else { Price::Dynamic { cap: bid.cap, tip: bid.tip } }
}

/// A payment of nothing to oneself.
pub(super) fn nothing_to(address: Address, chain_id: u64, price: Price) -> TypedTransaction {
    let to = TxKind::Call(address);
    match price {
        Price::Legacy(gas_price) => {
            TypedTransaction::Legacy(TxLegacy { chain_id: Some(chain_id), gas_price, gas_limit: TRANSFER_GAS, to, ..TxLegacy::default() })
        }
        Price::Dynamic { cap, tip } => TypedTransaction::Eip1559(TxEip1559 {
            chain_id,
            gas_limit: TRANSFER_GAS,
            max_fee_per_gas: cap,
            max_priority_fee_per_gas: tip,
            to,
            ..TxEip1559::default()
        }),
    }
}
