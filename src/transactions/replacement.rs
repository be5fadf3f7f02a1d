//! What a replacement pays, and when one is made without being asked for: values in, values out.
//!
//! Nodes take a payload in the place of another one of the same nonce if it pays a tenth more in both fields (geth, reth, besu,
//! nethermind, erigon; anvil: 1 wei). ceil(1.10 ×) + 1 wei is enough for all of them.

use std::time::Duration;

use alloy_consensus::{Transaction as _, TypedTransaction};
use alloy_primitives::Address;

use super::ceilings::{above, highest as highest_allowed};
use super::errors::TransactionError;
use super::fees::Suggestion;
use super::request::{Fees, check_cap};
use crate::config::{Bump, FeeCeilings, FeeMode};

/// What a payload offers per gas, in wei. One price is both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bid {
    /// maxFeePerGas.
    pub cap: u128,
    /// maxPriorityFeePerGas.
    pub tip: u128,
}

impl Bid {
    /// What this payload offers.
    pub fn of(transaction: &TypedTransaction) -> Self {
        let cap = transaction.max_fee_per_gas();
        Self { cap, tip: transaction.max_priority_fee_per_gas().unwrap_or(cap) }
    }

    /// The higher of both, field by field.
    pub fn max(self, other: Self) -> Self {
        Self { cap: self.cap.max(other.cap), tip: self.tip.max(other.tip) }
    }

    /// The least that nodes take in its place.
    pub fn raised(self) -> Self {
        Self { cap: raised(self.cap), tip: raised(self.tip) }
    }

    /// What the chain asks for now.
    pub fn suggested(now: Suggestion, one_price: bool) -> Self {
        match now.base_fee {
            Some(base) if !one_price => Self { cap: now.tip.saturating_add(base.saturating_mul(2)), tip: now.tip },
            _ => Self { cap: now.price, tip: now.price },
        }
    }
}

/// ceil(1.10 × fee) + 1 wei.
fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(10)).saturating_add(1)
}

/// Whether a payload of this type has one price.
pub fn has_one_price(transaction: &TypedTransaction) -> bool {
    matches!(transaction, TypedTransaction::Legacy(_) | TypedTransaction::Eip2930(_))
}

/// The payload with another price.
pub fn with_bid(mut transaction: TypedTransaction, bid: Bid) -> TypedTransaction {
    match &mut transaction {
        TypedTransaction::Legacy(tx) => tx.gas_price = bid.cap,
        TypedTransaction::Eip2930(tx) => tx.gas_price = bid.cap,
        TypedTransaction::Eip1559(tx) => (tx.max_fee_per_gas, tx.max_priority_fee_per_gas) = (bid.cap, bid.tip),
        TypedTransaction::Eip7702(tx) => (tx.max_fee_per_gas, tx.max_priority_fee_per_gas) = (bid.cap, bid.tip),
        // Blob transactions are never on record.
        TypedTransaction::Eip4844(_) => {}
    }
    transaction
}

/// What a price is decided by.
#[derive(Debug, Clone, Copy)]
pub struct Market {
    /// The highest that the slot's payloads offered, field by field.
    pub highest: Bid,
    /// Whether the replacement has one price.
    pub one_price: bool,
    /// Its gas limit.
    pub gas: u64,
    /// How the environment pays.
    pub fees: FeeMode,
    /// What the chain asks for now, where that is known.
    pub now: Option<Suggestion>,
    /// What the service may pay.
    pub ceilings: FeeCeilings,
}

impl Market {
    /// The least that nodes take. Where gas is free nothing is raised.
    fn minimum(&self) -> Bid {
        let least = if self.fees == FeeMode::Free { self.highest } else { self.highest.raised() };
        // One price has to satisfy both.
        if self.one_price { Bid { cap: least.cap.max(least.tip), tip: least.cap.max(least.tip) } } else { least }
    }

    fn wanted(&self) -> Bid {
        let suggested = self.now.filter(|_| self.fees != FeeMode::Free).map(|now| Bid::suggested(now, self.one_price));
        self.minimum().max(suggested.unwrap_or_default())
    }

    fn ceiling(&self) -> Option<u128> {
        highest_allowed(self.ceilings, self.gas)
    }

    /// The price of a replacement that a client wants: what it asks for, else the higher of what the chain asks for and the least that
    /// nodes take. An error if that is less than nodes take, or above the ceilings.
    pub fn price(&self, asked: Fees) -> Result<Bid, TransactionError> {
        let (cap, tip) = match asked {
            Fees::Price(price) => (Some(price), Some(price)),
            Fees::AnyPrice | Fees::Dynamic { cap: None, tip: None } => (None, None),
            Fees::Dynamic { .. } if self.one_price => {
                return Err(TransactionError::Invalid("the transaction has one price: gasPrice".into()));
            }
            Fees::Dynamic { cap, tip } => (cap, tip),
        };
        let minimum = self.minimum();
        let names = if self.one_price { ["gasPrice"; 2] } else { ["maxFeePerGas", "maxPriorityFeePerGas"] };
        for (name, given, least) in [(names[0], cap, minimum.cap), (names[1], tip, minimum.tip)] {
            if let Some(given) = given.filter(|given| *given < least) {
                let words = format!("replacement transaction underpriced: {name} {given} is below the minimum {least}");
                return Err(TransactionError::Invalid(words));
            }
        }
        let wanted = self.wanted();
        let floor = minimum.cap.max(tip.unwrap_or_default());
        let ceiling = self.ceiling().unwrap_or(u128::MAX);
        let bid_cap = cap.unwrap_or_else(|| wanted.cap.max(floor).min(ceiling.max(floor)));
        if bid_cap > ceiling {
            let words = above(names[0], bid_cap, self.gas, self.ceilings);
            return Err(TransactionError::FeeCeiling { words, is_given: cap.is_some() });
        }
        let bid = Bid { cap: bid_cap, tip: tip.unwrap_or_else(|| wanted.tip.min(bid_cap)) };
        check_cap(bid.cap, bid.tip)?;
        Ok(bid)
    }
}

/// The lowest slot of an account that is not mined.
#[derive(Debug, Clone, Copy)]
pub struct Stuck {
    /// What its replacement would cost.
    pub market: Market,
    /// Replacements of it on record, whoever asked for them.
    pub replacements: u32,
    /// Whether its nonce is the one that the chain executes next.
    pub executable: bool,
    /// Whether a node has one of its payloads.
    pub taken: bool,
    /// Whether the nodes refuse its newest payload because another one of the nonce pays nearly as much.
    pub occupied: bool,
    /// Time since its newest payload was sent first; `None`: it was not, by this process.
    pub waited: Option<Duration>,
    /// New heads since then.
    pub heads: u64,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    Wait,
    /// It is replaced at this price.
    Replace(Bid),
    /// It is not replaced any more.
    Stop(Stop),
}

/// Why a slot is not replaced any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As often as may be.
    Times,
    /// The next price would be above a ceiling of the service.
    Ceiling,
    /// The next price would be more than the account has.
    Balance,
}

impl Stop {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Times => "it was replaced as often as may be",
            Self::Ceiling => "the next price is above a ceiling of its service",
            Self::Balance => "the account cannot pay the next price",
        }
    }
}

/// The time after which this account's lowest slot is replaced: up to a quarter longer than `after`, by the address, so that accounts
/// whose transactions were sent in one moment are not replaced in one moment.
pub fn patience(after: Duration, address: Address) -> Duration {
    after.saturating_add(after.saturating_mul(u32::from(address.into_array()[19])) / (4 * 256))
}

/// Whether the lowest slot is replaced, and at which price.
pub fn decide(stuck: &Stuck, bump: Bump, patience: Duration) -> Decision {
    if stuck.market.fees == FeeMode::Free || bump.times == 0 || !stuck.executable {
        return Decision::Wait;
    }
    let is_late = stuck.taken && stuck.heads >= bump.blocks && stuck.waited.is_some_and(|waited| waited >= patience);
    if !is_late && !stuck.occupied {
        return Decision::Wait;
    }
    if stuck.replacements >= bump.times {
        return Decision::Stop(Stop::Times);
    }
    stuck.market.price(Fees::Dynamic { cap: None, tip: None }).map_or(Decision::Stop(Stop::Ceiling), Decision::Replace)
}

#[cfg(test)]
mod tests;
