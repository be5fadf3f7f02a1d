//! What an account can still spend: its balance at one block, less everything that is not included up to that block. Pure.

use std::collections::HashMap;
use std::hash::Hash;

use alloy_primitives::U256;

/// Reservations against a balance that is read once per head. Amounts are wei.
#[derive(Debug)]
pub struct Balance<K> {
    read: Option<(u64, U256)>,
    entries: HashMap<K, Entry>,
    reserved: U256,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    cost: U256,
    included: Option<u64>,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Balance at the block that was read.
    pub balance: U256,
    /// What earlier transactions that are not included may cost.
    pub queued: U256,
}

impl<K: Copy + Eq + Hash> Default for Balance<K> {
    fn default() -> Self {
        Self { read: None, entries: HashMap::new(), reserved: U256::ZERO }
    }
}

impl<K: Copy + Eq + Hash> Balance<K> {
    /// The block whose balance is known.
    pub fn block(&self) -> Option<u64> {
        self.read.map(|(block, _)| block)
    }

    /// The balance of this block was read, and all inclusions up to it are known.
    pub fn read(&mut self, block: u64, balance: U256) {
        self.read = Some((block, balance));
        self.recount();
    }

    /// What was read is worth nothing any more (its block may be orphaned).
    pub fn forget(&mut self) {
        self.read = None;
        self.recount();
    }

    /// Whether `cost` fits beside what is reserved; `None` while no balance is known.
    pub fn check(&self, cost: U256) -> Option<Result<(), Shortfall>> {
        let (_, balance) = self.read?;
        let fits = self.reserved.checked_add(cost).is_some_and(|total| total <= balance);
        Some(if fits { Ok(()) } else { Err(Shortfall { balance, queued: self.reserved }) })
    }

    /// Reserves `cost` under `key`, in place of what it had.
    pub fn reserve(&mut self, key: K, cost: U256) {
        self.release(key);
        self.entries.insert(key, Entry { cost, included: None });
        self.reserved = self.reserved.saturating_add(cost);
    }

    /// Reserves `cost` under `key`, if that is more than it has: what may be mined in its place costs more.
    pub fn raise(&mut self, key: K, cost: U256) {
        match self.entries.get(&key).copied() {
            Some(entry) if entry.cost >= cost => {}
            Some(entry) => {
                let more = Entry { cost, ..entry };
                if self.counts(entry) {
                    self.reserved = self.reserved.saturating_sub(entry.cost).saturating_add(cost);
                }
                self.entries.insert(key, more);
            }
            None => self.reserve(key, cost),
        }
    }

    /// What is reserved under `key`.
    pub fn owed(&self, key: K) -> U256 {
        self.entries.get(&key).map(|entry| entry.cost).unwrap_or_default()
    }

    /// Moves a reservation to another key (a request that became a slot).
    pub fn rename(&mut self, from: K, to: K) {
        if let Some(entry) = self.entries.remove(&from) {
            self.release(to);
            self.entries.insert(to, entry);
        }
    }

    /// The cost is not owed any more: the payload is final or will never be sent.
    pub fn release(&mut self, key: K) {
        if let Some(entry) = self.entries.remove(&key)
            && self.counts(entry)
        {
            self.reserved = self.reserved.saturating_sub(entry.cost);
        }
    }

    /// The payload is in this block: its cost stays reserved until a balance of that block or a later one is read.
    pub fn included(&mut self, key: K, block: u64) {
        self.update(key, Some(block));
    }

    /// The payload's block was orphaned: its cost is reserved again.
    pub fn orphaned(&mut self, key: K) {
        self.update(key, None);
    }

    fn update(&mut self, key: K, included: Option<u64>) {
        let Some(&entry) = self.entries.get(&key) else { return };
        let now = Entry { included, ..entry };
        match (self.counts(entry), self.counts(now)) {
            (true, false) => self.reserved = self.reserved.saturating_sub(entry.cost),
            (false, true) => self.reserved = self.reserved.saturating_add(entry.cost),
            _ => {}
        }
        self.entries.insert(key, now);
    }

    fn counts(&self, entry: Entry) -> bool {
        match (entry.included, self.read) {
            (Some(at), Some((block, _))) => at > block,
            _ => true,
        }
    }

    fn recount(&mut self) {
        self.reserved =
            self.entries.values().filter(|entry| self.counts(**entry)).fold(U256::ZERO, |sum, entry| sum.saturating_add(entry.cost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wei(amount: u64) -> U256 {
        U256::from(amount)
    }

    #[test]
    fn nothing_is_decided_before_a_balance_is_known() {
        let balance = Balance::<u64>::default();
        assert_eq!(balance.check(wei(1)), None);
    }

    #[test]
    fn what_is_not_included_is_reserved_until_its_block_is_read() {
        let mut balance = Balance::<u64>::default();
        balance.read(10, wei(100));
        balance.reserve(1, wei(60));
        assert_eq!(balance.check(wei(41)), Some(Err(Shortfall { balance: wei(100), queued: wei(60) })));
        assert_eq!(balance.check(wei(40)), Some(Ok(())));
        balance.included(1, 11);
        assert_eq!(balance.check(wei(41)), Some(Err(Shortfall { balance: wei(100), queued: wei(60) })));
        balance.read(11, wei(50));
        assert_eq!(balance.check(wei(50)), Some(Ok(())));
    }

    #[test]
    fn a_reorg_reserves_it_again() {
        let mut balance = Balance::<u64>::default();
        balance.read(10, wei(100));
        balance.reserve(1, wei(60));
        balance.included(1, 11);
        balance.read(11, wei(40));
        balance.orphaned(1);
        balance.forget();
        assert_eq!(balance.check(wei(1)), None);
        balance.read(11, wei(100));
        assert_eq!(balance.check(wei(41)), Some(Err(Shortfall { balance: wei(100), queued: wei(60) })));
    }

    #[test]
    fn an_inclusion_below_the_balance_that_was_read_frees_its_cost_at_once() {
        let mut balance = Balance::<u64>::default();
        balance.read(12, wei(100));
        balance.reserve(1, wei(60));
        balance.included(1, 11);
        assert_eq!(balance.check(wei(100)), Some(Ok(())));
    }

    #[test]
    fn a_replacement_that_costs_more_raises_what_is_reserved_and_one_that_costs_less_does_not() {
        let mut balance = Balance::<u64>::default();
        balance.read(10, wei(100));
        balance.reserve(1, wei(40));
        balance.raise(1, wei(60));
        balance.raise(1, wei(20));
        assert_eq!((balance.owed(1), balance.check(wei(40))), (wei(60), Some(Ok(()))));
        assert!(balance.check(wei(41)).is_some_and(|fits| fits.is_err()));
        balance.included(1, 10);
        balance.raise(1, wei(70));
        assert_eq!(balance.check(wei(100)), Some(Ok(())), "included below the balance that was read");
        balance.raise(2, wei(5));
        assert_eq!((balance.owed(2), balance.owed(3)), (wei(5), wei(0)));
    }

    #[test]
    fn a_released_cost_is_free_and_an_overflow_never_fits() {
        let mut balance = Balance::<u64>::default();
        balance.read(1, wei(100));
        balance.reserve(1, wei(100));
        balance.rename(1, 2);
        assert_eq!(balance.check(U256::MAX).map(|fits| fits.is_err()), Some(true));
        balance.release(2);
        assert_eq!(balance.check(wei(100)), Some(Ok(())));
    }
}
