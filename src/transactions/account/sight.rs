//! What the chain did with the account's attempts.

use std::sync::Arc;

use alloy_primitives::B256;
use serde_json::value::RawValue;

use super::{Live, Owed, Task};
use crate::journal::history::reverted;
use crate::journal::{Attempt, AttemptState, BlockRef};
use crate::telemetry::faults::SeededFault;
use crate::transactions::nonces::SlotState;
use crate::transactions::tracking::Sighting;

impl Task {
    pub(super) fn sighting(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Included { hash, block, success, reason, receipt } => {
                let detail = (!success).then(|| reverted(reason.as_deref()));
                self.included(hash, block, detail, receipt);
            }
            Sighting::Orphaned { hash } => self.orphaned(hash),
            Sighting::Confirmed { hash, block } => self.confirmed(hash, block),
            Sighting::Absent { hash } => self.absent(hash),
        }
    }

    fn included(&mut self, hash: B256, block: BlockRef, detail: Option<String>, receipt: Arc<RawValue>) {
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        live.absent = false;
        live.resend_if_absent = false;
        self.outboxes.settled(live.attempt.nonce);
        if live.state == AttemptState::Included && live.block == Some(block) {
            // Known from the journal: only this process's balance and slot have to learn it.
            self.nonces.set_slot(live.attempt.nonce, SlotState::Mined);
            self.balance.included(Owed::Slot(live.attempt.nonce), block.number);
            return;
        }
        // Found in another block than the journal has: a reorg that nobody saw, such as one while the process was down.
        let left = live.block.replace(block).filter(|_| live.state == AttemptState::Included);
        live.state = AttemptState::Included;
        live.refusing = false;
        live.mined(&self.chain);
        let attempt = Arc::clone(&live.attempt);
        if left.is_some() {
            self.note(&attempt, AttemptState::Orphaned, left, None, None);
        }
        self.nonces.set_slot(attempt.nonce, SlotState::Mined);
        self.balance.included(Owed::Slot(attempt.nonce), block.number);
        if attempt.authorisations.iter().any(|(authority, _)| *authority == self.account) {
            // Until its code is read nothing more goes out than nodes keep of an account that has some.
            self.nonces.set_delegated(true);
            self.code_wanted = true;
        }
        self.note_inclusion(&attempt, block, detail, receipt);
        self.accept(hash);
    }

    fn orphaned(&mut self, hash: B256) {
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        live.state = AttemptState::Orphaned;
        live.block = None;
        let attempt = Arc::clone(&live.attempt);
        self.balance.orphaned(Owed::Slot(attempt.nonce));
        if let Some(live) = self.current.get(&attempt.nonce).and_then(|current| self.attempts.get_mut(current)) {
            live.waiting_since = None;
        }
        self.balance.forget();
        self.note(&attempt, AttemptState::Orphaned, None, None, None);
        self.doubt_lent();
        if SeededFault::OrphanForgotten.is_on() {
            return;
        }
        // The slot's payload on record is sent again, whichever of its attempts the lost block had.
        if self.nonces.slot(attempt.nonce) == Some(SlotState::Mined) {
            let refusing = self.current.get(&attempt.nonce).and_then(|hash| self.attempts.get(hash)).is_some_and(|live| live.refusing);
            // If its refusal is being written, the one that was mined is in its place once that is done.
            self.nonces.set_slot(attempt.nonce, if refusing { SlotState::Reopened } else { SlotState::Unsent });
        }
    }

    fn confirmed(&mut self, hash: B256, block: BlockRef) {
        let Some(live) = self.attempts.get(&hash) else { return };
        let nonce = live.attempt.nonce;
        let attempt = Arc::clone(&live.attempt);
        self.note(&attempt, AttemptState::Confirmed, Some(block), None, None);
        self.accept(hash);
        if self.balance.block().is_some_and(|read| read < block.number) {
            self.balance.forget();
        }
        for other in self.take_slot(nonce) {
            if other.hash != hash {
                self.chain.tracker.forget(other.hash);
            }
        }
    }

    /// The slot is final: nothing of it is watched, owed or waited for any more. Answers its attempts.
    pub(super) fn take_slot(&mut self, nonce: u64) -> Vec<Arc<Attempt>> {
        self.nonces.finish(nonce);
        self.outboxes.settled(nonce);
        self.balance.release(Owed::Slot(nonce));
        self.current.remove(&nonce);
        let hashes: Vec<B256> = self.attempts.hashes_of(nonce).collect();
        let mut attempts = Vec::with_capacity(hashes.len());
        for hash in hashes {
            self.accept(hash);
            let Some(Live { attempt, .. }) = self.attempts.remove(&hash) else { continue };
            // Slots that were tied to it go with it; those that it left open keep their payload on record, which the next one replaces.
            for (_, tied) in attempt.authorisations.iter().filter(|(authority, _)| *authority == self.account) {
                if self.current.get(tied) == Some(&hash) && self.nonces.slot(*tied).is_none() {
                    self.current.remove(tied);
                }
            }
            attempts.push(attempt);
        }
        attempts
    }

    fn absent(&mut self, hash: B256) {
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        live.absent = true;
        if live.state == AttemptState::Included {
            // Included when the journal was written, and not any more.
            self.orphaned(hash);
            return;
        }
        if live.resend_if_absent {
            self.resend(hash);
        }
    }
}
