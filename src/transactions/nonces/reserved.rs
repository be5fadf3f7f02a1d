//! Nonces that were handed out and are not on record yet, by nonce and by ticket.

use std::collections::{BTreeMap, HashMap};

use super::{Reserved, Ticket};

#[derive(Debug, Default)]
pub(super) struct Reservations {
    by_nonce: BTreeMap<u64, Reserved>,
    nonces: HashMap<Ticket, u64>,
    lent: usize,
}

impl Reservations {
    pub(super) fn len(&self) -> usize {
        self.by_nonce.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_nonce.is_empty()
    }

    /// Whether one of them is lent to another account's payload.
    pub(super) fn has_loan(&self) -> bool {
        self.lent > 0
    }

    pub(super) fn get(&self, nonce: u64) -> Option<Reserved> {
        self.by_nonce.get(&nonce).copied()
    }

    pub(super) fn nonce_of(&self, ticket: Ticket) -> Option<u64> {
        self.nonces.get(&ticket).copied()
    }

    pub(super) fn of(&mut self, ticket: Ticket) -> Option<&mut Reserved> {
        self.by_nonce.get_mut(self.nonces.get(&ticket)?)
    }

    pub(super) fn insert(&mut self, nonce: u64, reserved: Reserved) {
        self.remove(nonce);
        self.nonces.insert(reserved.ticket, nonce);
        self.lent += usize::from(reserved.lent);
        self.by_nonce.insert(nonce, reserved);
    }

    pub(super) fn remove(&mut self, nonce: u64) -> Option<Reserved> {
        let removed = self.by_nonce.remove(&nonce)?;
        self.forget(&removed);
        Some(removed)
    }

    /// Takes those from this nonce up, lowest first.
    pub(super) fn split_off(&mut self, nonce: u64) -> BTreeMap<u64, Reserved> {
        let above = self.by_nonce.split_off(&nonce);
        above.values().for_each(|reserved| self.forget(reserved));
        above
    }

    fn forget(&mut self, reserved: &Reserved) {
        self.nonces.remove(&reserved.ticket);
        self.lent -= usize::from(reserved.lent);
    }

    /// The highest at or below this nonce.
    pub(super) fn at_or_below(&self, nonce: u64) -> Option<(u64, Reserved)> {
        self.by_nonce.range(..=nonce).next_back().map(|(nonce, reserved)| (*nonce, *reserved))
    }

    /// In order of nonce. Neither ticket nor loan of one may be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Reserved)> {
        self.by_nonce.iter_mut().map(|(nonce, reserved)| (*nonce, reserved))
    }
}
