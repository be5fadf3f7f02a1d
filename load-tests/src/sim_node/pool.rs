//! The transactions that wait for a block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, U256};

use super::settings::{Client, Settings};
use super::state::State;
use super::transaction::Transaction;

/// Executable transactions that geth guarantees an account, whatever others have.
const GUARANTEED: usize = 16;

/// One transaction of the pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The transaction.
    pub transaction: Arc<Transaction>,
    /// Its place in the order of arrival.
    pub arrival: u64,
    /// When it came.
    pub at: Duration,
}

/// The pool: one payload per sender and nonce.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    accounts: BTreeMap<Address, BTreeMap<u64, Entry>>,
    slots: BTreeMap<B256, (Address, u64)>,
    arrivals: u64,
}

impl Pool {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The one with this hash.
    pub fn get(&self, hash: B256) -> Option<&Arc<Transaction>> {
        let (address, nonce) = self.slots.get(&hash)?;
        self.slot(*address, *nonce)
    }

    /// The one that holds a nonce.
    pub fn slot(&self, address: Address, nonce: u64) -> Option<&Arc<Transaction>> {
        self.accounts.get(&address)?.get(&nonce).map(|entry| &entry.transaction)
    }

    /// All of them, by sender and nonce.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.accounts.values().flat_map(BTreeMap::values)
    }

    /// All of one account, by nonce.
    pub fn of(&self, address: Address) -> impl Iterator<Item = &Arc<Transaction>> {
        self.accounts.get(&address).into_iter().flat_map(|slots| slots.values().map(|entry| &entry.transaction))
    }

    /// Those of an account that could be mined in a row, by nonce.
    pub fn executable<'a>(&'a self, state: &State, address: Address) -> impl Iterator<Item = &'a Arc<Transaction>> {
        let first = state.nonce(address);
        (first..).map_while(move |nonce| self.slot(address, nonce))
    }

    /// The nonce behind the executable ones.
    pub fn next_nonce(&self, state: &State, address: Address) -> u64 {
        state.nonce(address) + self.executable(state, address).count() as u64
    }

    /// How many are executable and how many are behind a gap.
    pub fn counts(&self, state: &State) -> (usize, usize) {
        let executable: usize = self.accounts.keys().map(|address| self.executable(state, *address).count()).sum();
        (executable, self.len() - executable)
    }

    pub(super) fn put(&mut self, transaction: Arc<Transaction>, at: Duration) {
        self.arrivals += 1;
        let (from, nonce) = (transaction.from, transaction.nonce());
        self.slots.insert(transaction.hash, (from, nonce));
        let entry = Entry { transaction, arrival: self.arrivals, at };
        if let Some(replaced) = self.accounts.entry(from).or_default().insert(nonce, entry) {
            self.slots.remove(&replaced.transaction.hash);
        }
    }

    pub(super) fn remove(&mut self, address: Address, nonce: u64) {
        if let Some(slots) = self.accounts.get_mut(&address) {
            if let Some(entry) = slots.remove(&nonce) {
                self.slots.remove(&entry.transaction.hash);
            }
            if slots.is_empty() {
                self.accounts.remove(&address);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.accounts.clear();
        self.slots.clear();
    }

    /// Makes room for an account that has less than its guarantee: the highest executable nonce of the account with the most
    /// goes. False if nobody has more than the guarantee.
    pub(super) fn make_room(&mut self, state: &State, address: Address) -> bool {
        if self.executable(state, address).count() >= GUARANTEED {
            return false;
        }
        let richest = self.accounts.keys().map(|other| (self.executable(state, *other).count(), *other)).max();
        match richest {
            Some((count, other)) if count > GUARANTEED => {
                self.remove(other, state.nonce(other) + count as u64 - 1);
                true
            }
            _ => false,
        }
    }

    /// After a block: what is used or too old goes; with geth also what cannot be paid any more.
    pub(super) fn reset(&mut self, settings: &Settings, state: &State, now: Duration) {
        let mut gone = Vec::new();
        for (address, slots) in &self.accounts {
            let (next, balance) = (self.next_nonce(state, *address), state.balance(*address));
            for (nonce, entry) in slots {
                let old = settings.limits.lifetime.is_some_and(|lifetime| *nonce > next && entry.at + lifetime <= now);
                let poor = settings.client == Client::Geth && entry.transaction.cost() > balance;
                if *nonce < state.nonce(*address) || old || poor {
                    gone.push((*address, *nonce));
                }
            }
        }
        for (address, nonce) in gone {
            self.remove(address, nonce);
        }
    }

    /// The next transaction for a block: of those that are next of their senders and fit, the one with the highest tip, the oldest
    /// of equals.
    pub(super) fn pick(&self, state: &State, base_fee: Option<u64>, gas: u64, least_tip: u128) -> Option<Arc<Transaction>> {
        let next = self.accounts.iter().filter_map(|(address, slots)| slots.get(&state.nonce(*address)));
        let fits = |entry: &&Entry| state.is_next(&entry.transaction) && entry.transaction.envelope.gas_limit() <= gas;
        let tip = |entry: &Entry| entry.transaction.effective_tip(base_fee).filter(|tip| *tip >= least_tip);
        let best = next.filter(fits).filter_map(|entry| Some((tip(entry)?, std::cmp::Reverse(entry.arrival), &entry.transaction)));
        best.max_by_key(|(tip, arrival, _)| (*tip, *arrival)).map(|(_, _, transaction)| Arc::clone(transaction))
    }

    /// What an account's executable transactions may cost together, without one nonce.
    pub(super) fn expenditure(&self, state: &State, address: Address, without: u64) -> U256 {
        let others = self.executable(state, address).filter(|transaction| transaction.nonce() != without);
        others.fold(U256::ZERO, |sum, transaction| sum.saturating_add(transaction.cost()))
    }
}
