//! The attempts of the account's slots that are not final, by hash and by nonce.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;

use super::Live;

#[derive(Default)]
pub(super) struct Attempts {
    by_hash: BTreeMap<B256, Live>,
    by_nonce: BTreeSet<(u64, B256)>,
}

impl Attempts {
    pub(super) fn get(&self, hash: &B256) -> Option<&Live> {
        self.by_hash.get(hash)
    }

    /// The attempt, whose nonce and hash may not be changed.
    pub(super) fn get_mut(&mut self, hash: &B256) -> Option<&mut Live> {
        self.by_hash.get_mut(hash)
    }

    pub(super) fn insert(&mut self, live: Live) {
        let hash = live.attempt.hash;
        self.by_nonce.insert((live.attempt.nonce, hash));
        self.by_hash.insert(hash, live);
    }

    pub(super) fn remove(&mut self, hash: &B256) -> Option<Live> {
        let live = self.by_hash.remove(hash)?;
        self.by_nonce.remove(&(live.attempt.nonce, *hash));
        Some(live)
    }

    /// The hashes of the slot's attempts.
    pub(super) fn hashes_of(&self, nonce: u64) -> impl Iterator<Item = B256> {
        self.by_nonce.range((nonce, B256::ZERO)..=(nonce, B256::repeat_byte(0xff))).map(|(_, hash)| *hash)
    }

    /// The slot's attempts.
    pub(super) fn of(&self, nonce: u64) -> impl Iterator<Item = &Live> {
        self.hashes_of(nonce).filter_map(|hash| self.by_hash.get(&hash))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Live> {
        self.by_hash.values()
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = B256> {
        self.by_hash.keys().copied()
    }
}
