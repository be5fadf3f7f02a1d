//! Which transactions a pool takes: each client's rules, in geth's order.

use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::{Transaction as _, TxType};
use alloy_primitives::Address;

use super::pool::Pool;
use super::settings::{Client, Settings};
use super::state::State;
use super::transaction::Transaction;
use super::words::{GAS_CAP, Refusal};

/// What the rules look at beside pool and transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) settings: &'a Settings,
    /// After the head.
    pub(super) state: &'a State,
    /// Of the next block.
    pub(super) base_fee: Option<u64>,
    pub(super) is_syncing: bool,
    pub(super) now: Duration,
}

impl View<'_> {
    /// Takes a transaction into the pool, or says why not.
    pub(super) fn add(&self, pool: &mut Pool, transaction: &Arc<Transaction>) -> Result<(), Refusal> {
        let client = self.settings.client;
        if self.is_syncing && matches!(client, Client::Besu | Client::Nethermind) {
            return Err(Refusal::Syncing);
        }
        if pool.get(transaction.hash).is_some() {
            return Err(Refusal::Known);
        }
        self.check_alone(transaction)?;
        self.check_price(transaction)?;
        self.check_account(pool, transaction)?;
        if client == Client::Geth {
            self.check_delegation(pool, transaction)?;
        }
        match pool.slot(transaction.from, transaction.nonce()) {
            Some(held) if !self.pays_enough_more(held, transaction) => return Err(Refusal::Replacement),
            Some(_) => {}
            None => self.check_room(pool, transaction)?,
        }
        pool.put(Arc::clone(transaction), self.now);
        if client == Client::Geth {
            self.forget_beyond_queue(pool, transaction.from);
        }
        Ok(())
    }

    /// What needs no account.
    fn check_alone(&self, transaction: &Transaction) -> Result<(), Refusal> {
        let (settings, envelope) = (self.settings, &transaction.envelope);
        let is_legacy_chain = self.base_fee.is_none();
        if is_legacy_chain && !matches!(envelope.tx_type(), TxType::Legacy | TxType::Eip2930) {
            return Err(Refusal::Type);
        }
        let is_anvil = settings.client == Client::Anvil;
        match envelope.chain_id() {
            None if !is_anvil => return Err(Refusal::Unprotected),
            Some(have) if have != settings.chain_id => return Err(Refusal::WrongChain { have, want: settings.chain_id }),
            _ => {}
        }
        if let Some(cap) = settings.fee_cap
            && transaction.fee() > cap
        {
            return Err(Refusal::FeeCap { fee: transaction.fee(), cap });
        }
        let gas = envelope.gas_limit();
        let above_cap = !is_legacy_chain && gas > GAS_CAP && !is_anvil;
        if above_cap && settings.client == Client::Geth {
            return Err(Refusal::GasCap { gas });
        }
        if gas > settings.gas_limit {
            return Err(Refusal::BlockGas { gas });
        }
        if above_cap {
            return Err(Refusal::GasCap { gas });
        }
        if transaction.tip() > transaction.cap() {
            return Err(Refusal::TipAboveCap);
        }
        let needed = transaction.intrinsic_gas();
        if gas < needed {
            return Err(Refusal::IntrinsicGas { gas, needed });
        }
        let needed = transaction.floor_gas();
        if !is_legacy_chain && !is_anvil && gas < needed {
            return Err(Refusal::FloorGas { gas, needed });
        }
        Ok(())
    }

    fn check_price(&self, transaction: &Transaction) -> Result<(), Refusal> {
        let client = self.settings.client;
        let base_fee = u128::from(self.base_fee.unwrap_or(0));
        if transaction.cap() < base_fee && matches!(client, Client::Besu | Client::Nethermind | Client::Anvil) {
            return Err(Refusal::BelowBaseFee);
        }
        let minimum = self.settings.least_tip;
        let tip = match client {
            Client::Besu => transaction.cap().min(base_fee.saturating_add(transaction.tip())),
            _ => transaction.tip(),
        };
        if tip < minimum { Err(Refusal::BelowMinimum { tip, minimum }) } else { Ok(()) }
    }

    /// Nonce and funds.
    fn check_account(&self, pool: &Pool, transaction: &Transaction) -> Result<(), Refusal> {
        let (from, given, limits) = (transaction.from, transaction.nonce(), &self.settings.limits);
        let next = self.state.nonce(from);
        if given < next {
            return Err(Refusal::NonceTooLow { next, given });
        }
        if limits.distance.is_some_and(|distance| given > next + distance) {
            return Err(Refusal::TooDistant);
        }
        if !limits.gaps && given > pool.next_nonce(self.state, from) {
            return Err(Refusal::Gap);
        }
        let (balance, cost) = (self.state.balance(from), transaction.cost());
        if cost > balance {
            return Err(Refusal::Funds { balance, cost, queued: None });
        }
        if matches!(self.settings.client, Client::Geth | Client::Nethermind) {
            let queued = pool.expenditure(self.state, from, given);
            if queued.saturating_add(cost) > balance {
                return Err(Refusal::Funds { balance, cost, queued: Some(queued) });
            }
        }
        Ok(())
    }

    /// geth's rules for accounts whose code is delegated, or is about to be.
    fn check_delegation(&self, pool: &Pool, transaction: &Transaction) -> Result<(), Refusal> {
        let from = transaction.from;
        let is_authority =
            |address: Address| pool.entries().any(|entry| entry.transaction.authorities.iter().any(|one| one.address == address));
        if self.state.is_delegated(from) || is_authority(from) {
            let mut pending = pool.executable(self.state, from).peekable();
            if pending.peek().is_none() {
                if transaction.nonce() != self.state.nonce(from) {
                    return Err(Refusal::DelegatedGap);
                }
            } else if !pending.any(|held| held.nonce() == transaction.nonce()) {
                return Err(Refusal::DelegatedInFlight);
            }
        }
        let others = transaction.authorities.iter().filter(|authority| authority.address != from);
        if others.into_iter().any(|authority| pool.of(authority.address).count() > 1) {
            return Err(Refusal::AuthorityReserved);
        }
        Ok(())
    }

    fn pays_enough_more(&self, held: &Transaction, new: &Transaction) -> bool {
        let enough = |old: u128, new: u128| match self.settings.limits.bump_percent {
            Some(percent) => new > old && new >= old.saturating_mul(100 + percent) / 100,
            None => new > old,
        };
        enough(held.cap(), new.cap()) && enough(held.tip(), new.tip())
    }

    /// Room for one more, not for a replacement.
    fn check_room(&self, pool: &mut Pool, transaction: &Transaction) -> Result<(), Refusal> {
        let (from, limits, client) = (transaction.from, &self.settings.limits, self.settings.client);
        let has_gap = transaction.nonce() > pool.next_nonce(self.state, from);
        if client != Client::Geth {
            let executable = pool.executable(self.state, from).count();
            let all = pool.of(from).count();
            // reth counts both together, and always takes the nonce that is the account's own (`ensure_valid` of its pool): otherwise an
            // account whose lowest transaction got lost could never go on.
            let is_welcome = client == Client::Reth && transaction.nonce() == self.state.nonce(from);
            let counted = if client == Client::Reth { all } else { executable };
            if limits.executable.is_some_and(|limit| !has_gap && !is_welcome && counted >= limit) {
                return Err(Refusal::Full);
            }
            let counted = if client == Client::Reth { all } else { all - executable };
            if limits.queued.is_some_and(|limit| has_gap && counted >= limit) {
                return Err(if client == Client::Erigon { Refusal::QueueFull } else { Refusal::Full });
            }
        }
        if pool.len() < limits.pool || (client == Client::Geth && !has_gap && pool.make_room(self.state, from)) {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// geth takes what is behind a gap, and then forgets the highest nonces beyond its bound without a word.
    fn forget_beyond_queue(&self, pool: &mut Pool, from: Address) {
        let Some(limit) = self.settings.limits.queued else { return };
        let next = pool.next_nonce(self.state, from);
        let beyond: Vec<u64> = pool.of(from).map(|one| one.nonce()).filter(|nonce| *nonce > next).skip(limit).collect();
        for nonce in beyond {
            pool.remove(from, nonce);
        }
    }
}
