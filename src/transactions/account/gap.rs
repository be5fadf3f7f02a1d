//! Nonces that nothing has: the chain waits for them, they are on no record, and no node's pool has a payload for them. They come to
//! be when the account began, or went on, behind somebody else's payloads, and those were lost. Whatever is above waits for them.

use super::Task;
use super::admit::Probe;
use crate::transactions::reconcile::{Settling, Verdict};

impl Task {
    /// Whether the nodes are to be asked one by one: the chain waits for a nonce that may be missing.
    pub(super) fn suspects_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Once every endpoint has said for so many blocks that the chain waits for such a nonce, its slot is open: a request takes it,
    /// or a filler.
    pub(super) fn settle_gap(&mut self, probe: &Probe) {
        if self.is_reconciling() || !self.nonces.is_missing(probe.latest) {
            self.gap = None;
            return;
        }
        let blocks = self.chain.environment.reconcile_blocks;
        let settling = self.gap.get_or_insert_with(|| Settling::new(blocks));
        let Some(counts) = &probe.counts else { return };
        let Verdict::Settled(nonce) = settling.observe(probe.head.number, counts) else { return };
        // A journal that could not be read is asked again with the next head.
        let Some(lowest) = probe.next_slot.filter(|_| nonce == probe.latest) else { return };
        settling.restart();
        match lowest {
            // On record and not in hand: it is final, and so is everything below.
            Some(lowest) if self.nonces.slot(lowest).is_none() => {
                let detail = format!(
                    "the chain waits for nonce {nonce}, but that of {lowest} is final on record: a reorg went below what was final, or a node is behind"
                );
                self.alarm("final_lost", &detail);
            }
            lowest => {
                let opened = self.nonces.open_missing(nonce, lowest.unwrap_or(u64::MAX));
                let detail =
                    format!("the chain waits for nonce {nonce}, which nothing has; {opened} slots below what is on record are open");
                self.alarm("nonce_missing", &detail);
            }
        }
    }
}
