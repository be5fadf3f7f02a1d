//! Slots that the chain used for payloads that are not ours.

use super::{Owed, Task};
use crate::transactions::nonces::SlotState;

/// Such a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foreign {
    /// The head at which the chain was found to be beyond the nonce, and no receipt of ours.
    found: u64,
    /// Whether the receipts were asked for again since it is deep enough.
    is_asked_again: bool,
}

impl Task {
    /// Slots below the chain's nonce whose payloads are in no block: the receipts are asked again before anything is concluded.
    pub(super) fn find_foreign(&mut self, latest: u64, head: u64) {
        for nonce in self.nonces.waiting_below(latest) {
            if !self.current.contains_key(&nonce) {
                // It was missing, and opened for who comes; somebody else's payload came.
                self.nonces.set_slot(nonce, SlotState::Foreign);
                self.nonces.finish(nonce);
                continue;
            }
            if self.is_absent(nonce) {
                self.nonces.set_slot(nonce, SlotState::Foreign);
                self.outboxes.settled(nonce);
                self.foreign.insert(nonce, Foreign { found: head, is_asked_again: false });
                self.balance.release(Owed::Slot(nonce));
                for hash in self.hashes_of(nonce) {
                    self.accept(hash);
                }
                self.alarm("foreign_nonce", &format!("nonce {nonce} was used on the chain by a payload that is not ours"));
                continue;
            }
            self.look_up_slot(nonce);
        }
    }

    /// What the chain used for somebody else's payload is final when it is deep enough: ours can never be mined. Until then a reorg may give
    /// the nonce back, and a node that was behind may have said that there is no receipt: so they are asked for once more at that depth.
    pub(super) fn settle_foreign(&mut self, latest: u64, head: u64) {
        let confirmations = self.chain.environment.depth();
        self.foreign.retain(|nonce, _| self.nonces.slot(*nonce) == Some(SlotState::Foreign));
        for (nonce, foreign) in self.foreign.clone() {
            let is_deep = foreign.found.saturating_add(confirmations) <= head;
            if nonce >= latest {
                self.foreign.remove(&nonce);
                self.give_back(nonce);
            } else if is_deep && !foreign.is_asked_again {
                for hash in self.hashes_of(nonce) {
                    if let Some(live) = self.attempts.get_mut(&hash) {
                        live.absent = false;
                    }
                }
                self.foreign.insert(nonce, Foreign { is_asked_again: true, ..foreign });
                self.look_up_slot(nonce);
                self.probe_wanted = true;
            } else if is_deep && self.is_absent(nonce) {
                self.foreign.remove(&nonce);
                self.slot_lost(nonce, "the chain used the nonce for a payload that is not ours");
            }
        }
    }

    /// The block that used the nonce is gone: the slot is what it was before.
    fn give_back(&mut self, nonce: u64) {
        for hash in self.hashes_of(nonce) {
            if let Some(live) = self.attempts.get_mut(&hash) {
                // Nodes have dropped it for what was in its place.
                live.sent_at = None;
            }
        }
        tracing::warn!(account = %self.address(), nonce, "a nonce that was used elsewhere is free again");
        self.put_back(nonce);
    }

    /// Whether a look-up since the last send found no receipt of any of the slot's own payloads.
    fn is_absent(&self, nonce: u64) -> bool {
        self.attempts.of(nonce).all(|live| live.absent)
    }

    fn hashes_of(&self, nonce: u64) -> Vec<alloy_primitives::B256> {
        self.attempts.hashes_of(nonce).collect()
    }
}
