//! Look-ups of single receipts, beside the heads: for restarts, for clients, and after a gap.

use alloy_primitives::B256;
use futures_util::FutureExt as _;

use super::fetch::{Found, LOOK_UPS, LookedUp, REASONS, receipt};
use super::{RETRY, Receipt, Sighting, Task};
use crate::telemetry::clock;

impl Task {
    /// Look-ups run beside the heads: what a client asks for delays no block. None before a head is known, which they are judged by.
    pub(super) fn start_look_ups(&mut self) {
        if self.line.is_empty() || self.again_at.is_some() {
            return;
        }
        while self.looking_up.len() < LOOK_UPS {
            let Some(hash) = self.to_look_up.pop_front() else { return };
            if self.watched.contains_key(&hash) {
                let began = self.inclusions;
                let reasons_until = self.is_owned(hash).then(|| tokio::time::Instant::now() + REASONS);
                self.looking_up.push(receipt(self.pool.clone(), hash, reasons_until).map(move |receipt| (began, receipt)).boxed());
            } else {
                self.observed(hash, None);
            }
        }
    }

    pub(super) fn looked_up(&mut self, (began, (hash, receipt)): (u64, LookedUp)) {
        match receipt {
            // Asked before blocks were orphaned: it may be of one of them.
            Ok(Some(_)) if began < self.outdated => self.look_up_again(hash),
            Ok(Some(found)) => match self.note_inclusion(hash, found) {
                Some(receipt) => {
                    self.observed(hash, Some(&receipt));
                    self.found.push(receipt);
                }
                None if self.watched.contains_key(&hash) => self.look_up_again(hash),
                None => self.observed(hash, None),
            },
            // Asked before the block was read that it is in: the answer is older than what is known.
            Ok(None) if self.watched.get(&hash).is_some_and(|entry| entry.included.is_some() && entry.inclusion > began) => {
                self.look_up_again(hash);
            }
            Ok(None) => {
                self.observed(hash, None);
                self.absent(hash);
            }
            Err(_) => self.look_up_again(hash),
        }
    }

    /// What look-ups found is told when the last of them is done, in the order of the chain.
    pub(super) fn tell_found(&mut self) {
        if self.found.is_empty() || !self.looking_up.is_empty() {
            return;
        }
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|receipt| (receipt.block.number, receipt.index));
        for block in found.chunk_by(|one, other| one.block == other.block) {
            self.audience.receipts(block.to_vec());
        }
    }

    fn look_up_again(&mut self, hash: B256) {
        self.to_look_up.push_back(hash);
        self.again_at = Some(self.again_at.unwrap_or_else(|| clock::now() + RETRY));
    }

    fn observed(&mut self, hash: B256, receipt: Option<&Receipt>) {
        for observation in &mut self.observations {
            if observation.missing.remove(&hash) {
                observation.found.extend(receipt.cloned());
            }
        }
        self.answer_observations();
    }

    fn absent(&mut self, hash: B256) {
        let Some(entry) = self.watched.get_mut(&hash) else { return };
        let doubted = std::mem::take(&mut entry.doubted);
        match entry.included {
            Some(block) => {
                self.drop_inclusion(block.number, hash);
                self.orphan(hash);
            }
            None if doubted => self.orphan(hash),
            None => {}
        }
        if let Some(owner) = self.watched.get(&hash).and_then(|entry| entry.owner.as_ref()) {
            self.audience.sighting(owner.address, Sighting::Absent { hash });
        }
    }

    /// A receipt that a look-up found. One from beyond the line waits for its head; one that contradicts it is asked for again.
    fn note_inclusion(&mut self, hash: B256, found: Found) -> Option<Receipt> {
        let number: u64 = found.facts.block_number.to();
        if let Some(front) = self.line.front()
            && number >= front
            && !self.line.contains(number, found.facts.block_hash)
        {
            return None;
        }
        let receipt = self.include(hash, found);
        if let Some(tip) = self.line.tip() {
            self.confirm(tip);
        }
        receipt
    }
}
