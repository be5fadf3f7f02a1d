//! The account of a restored journal. Payloads may be on the chain, or in nodes' pools, that the journal does not know: nothing is
//! sent, signed or filled until every endpoint says the same of its nonces for so many blocks. Then what is on record and not mined
//! goes out again, the same bytes; new nonces are handed out once that is mined too and the chain has settled again.

use alloy_primitives::{Address, U64};

use super::Task;
use super::admit::Probe;
use crate::journal::{PauseBy, Pauses, Record};
use crate::node::Pool;
use crate::transactions::nonces::{Halt, SlotState};
use crate::transactions::reconcile::{Counts, Settling, Verdict};

/// How far it has come.
#[derive(Debug, Clone)]
pub(super) struct Reconcile {
    settling: Settling,
    /// The chain has settled once: what is on record is sent again.
    sends: bool,
}

impl Reconcile {
    /// Begins, if the journal says so.
    pub(super) fn of(pauses: &Pauses, blocks: u64) -> Option<Self> {
        pauses.by(PauseBy::Reconcile).map(|_| Self { settling: Settling::new(blocks), sends: false })
    }

    pub(super) fn halt(&self) -> Halt {
        if self.sends { Halt::Nonces } else { Halt::Sends }
    }

    /// What the endpoints agree on, and how many blocks are wanted.
    pub(super) fn progress(&self) -> (Verdict, u64) {
        (self.settling.verdict(), self.settling.wanted())
    }
}

/// What each endpoint says of the account's nonces, in the order of the configuration.
pub(super) async fn counts(pool: &Pool, address: Address) -> Vec<Option<Counts>> {
    let count = |block: &'static str| pool.call_every::<U64>("eth_getTransactionCount", (address, block));
    let (latest, pending) = tokio::join!(count("latest"), count("pending"));
    let both = latest.into_iter().zip(pending);
    both.map(|(latest, pending)| Some(Counts { latest: latest.ok()?.to(), pending: pending.ok()?.to() })).collect()
}

impl Task {
    /// Whether the account waits for the chain, because its journal was restored.
    pub(super) fn is_reconciling(&self) -> bool {
        self.reconcile.is_some()
    }

    pub(super) fn reconcile(&mut self, probe: &Probe) {
        let (Some(reconcile), Some(counts)) = (&mut self.reconcile, &probe.counts) else { return };
        let Verdict::Settled(nonce) = reconcile.settling.observe(probe.head.number, counts) else { return };
        if matches!(self.nonces.slot(nonce), Some(SlotState::Unsent | SlotState::Sent)) {
            reconcile.settling.restart();
            if !std::mem::replace(&mut reconcile.sends, true) {
                tracing::warn!(account = %self.address(), chain = nonce, "the chain has settled: what is on record and not mined is sent again");
                self.set_halt();
            }
            return;
        }
        let unknown = nonce.saturating_sub(self.nonces.ceiling());
        // Where nothing is on record, the nonce it was opened with may be that of payloads which the nodes have forgotten since.
        let begins = self.floor.is_some() && self.nonces.begin(nonce);
        if begins || self.nonces.resync(nonce) {
            self.floor = Some(nonce);
            self.outbox.push(Record::Floor { account: self.account, nonce }, None);
        }
        if unknown > 0 {
            let detail = format!("the chain used {unknown} nonces that the restored journal does not know; the account goes on at {nonce}");
            self.alarm("journal_behind", &detail);
        }
        tracing::warn!(account = %self.address(), next = self.nonces.next_free(), unknown, "the chain has settled: the account goes on");
        self.reconcile = None;
        self.code_wanted = true;
        self.pause(PauseBy::Reconcile, None);
    }
}
