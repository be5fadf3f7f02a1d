//! What operators do to an account: look at it, stop it, let it go on.

use std::time::{Duration, UNIX_EPOCH};

use alloy_primitives::B256;
use tokio::sync::oneshot;

use super::Task;
use crate::journal::{PauseBy, Pauses, Record, TransactionId};
use crate::telemetry::clock;
use crate::transactions::account::outbox::After;
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::figures::Figures;
use crate::transactions::nonces::{Halt, SlotState};
use crate::transactions::reconcile::Verdict;

/// An account as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// What it has in hand.
    pub figures: Figures,
    /// Who stopped it, on record.
    pub pauses: Pauses,
    /// The journal has another payload for a slot: stopped until it is opened again.
    pub slot_taken: bool,
    /// While the account of a restored journal waits for the chain: what the endpoints agree on, and how many blocks are wanted.
    pub reconcile: Option<(Verdict, u64)>,
    /// The lowest slot on record that is not mined.
    pub lowest_unmined: Option<UnminedSlot>,
    /// Slots on record that are not mined.
    pub unmined: usize,
}

/// A slot on record that is not mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnminedSlot {
    /// Its nonce.
    pub nonce: u64,
    /// Where it is.
    pub state: SlotState,
    /// Hash of its payload on record.
    pub hash: B256,
    /// Time since its transaction arrived; `None` where another account's payload holds the slot.
    pub age: Option<Duration>,
}

/// What a resume came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Whose reasons were on record, and are not any more.
    pub lifted: Vec<PauseBy>,
    /// The journal has another payload for a slot: the account waits to be opened again.
    pub slot_taken: bool,
}

/// An account that was opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resynced {
    /// The account as it is now.
    pub state: AccountState,
    /// Whether a taken slot had stopped it before.
    pub was_taken: bool,
}

/// Who waits until a pause or its end is durable.
#[derive(Debug)]
pub(super) enum Operated {
    Paused(oneshot::Sender<Pauses>, Pauses),
    Resumed(oneshot::Sender<Resumed>, Resumed),
}

impl Operated {
    pub(super) fn tell(self) {
        match self {
            Self::Paused(reply, pauses) => drop(reply.send(pauses)),
            Self::Resumed(reply, resumed) => drop(reply.send(resumed)),
        }
    }
}

impl Task {
    /// Nothing new from now on: what waits without a nonce is refused at once, what has one goes its way.
    pub(super) fn pause_by_operator(&mut self, reason: String, reply: oneshot::Sender<Pauses>) {
        if reply.is_closed() {
            return;
        }
        tracing::warn!(account = %self.address(), environment = %self.chain.environment.name, reason, "an operator paused the account");
        self.keep_floor();
        self.pause(PauseBy::Operator, Some(reason));
        self.after(Operated::Paused(reply, self.pauses.clone()));
    }

    /// The account goes on, whoever stopped it; what it waits for by itself (foreign use of its key) it still waits for.
    pub(super) fn resume(&mut self, reply: oneshot::Sender<Resumed>) {
        if reply.is_closed() {
            return;
        }
        let lifted: Vec<PauseBy> = PauseBy::ALL.into_iter().filter(|by| self.pauses.by(*by).is_some()).collect();
        for by in &lifted {
            self.pause(*by, None);
        }
        if lifted.contains(&PauseBy::Filler) {
            self.fill_after = None;
            self.nonces.set_can_fill(true);
        }
        if self.reconcile.take().is_some() {
            // No nonce before the chain's has been read.
            self.balance.forget();
            self.probe_wanted = true;
            self.set_halt();
        }
        let by: Vec<&str> = lifted.iter().map(|by| by.as_str()).collect();
        tracing::warn!(account = %self.address(), environment = %self.chain.environment.name, lifted = ?by, "an operator resumed the account");
        self.after(Operated::Resumed(reply, Resumed { lifted, slot_taken: self.slot_taken }));
    }

    /// Told with the records that wait, or at once if none does.
    fn after(&mut self, operated: Operated) {
        if let Some(After::Operated(operated)) = self.outbox.push_after(After::Operated(operated)) {
            operated.tell();
        }
    }

    /// A row that is written for a pause alone must not say that the account begins at nonce 0.
    fn keep_floor(&mut self) {
        if let Some(nonce) = self.floor {
            self.outbox.push(Record::Floor { account: self.account, nonce }, None);
        }
    }

    /// What must not go on, by who stopped the account.
    pub(super) fn set_halt(&mut self) {
        let opens_again = !self.resyncs.is_empty();
        let halt = match &self.reconcile {
            _ if opens_again => Halt::Sends,
            Some(reconcile) => reconcile.halt(),
            None if self.pauses.by(PauseBy::Operator).is_some() => Halt::Nonces,
            None => Halt::Nothing,
        };
        self.nonces.set_halt(halt);
    }

    /// What waits without a nonce is told why it gets none. Again and again: a Sign that fails may bring back what was above it.
    pub(super) fn refuse_waiting(&mut self) {
        let is_stopped = self.pauses.by(PauseBy::Operator).is_some() || self.is_reconciling();
        let Some(error) = self.pauses.words().filter(|_| is_stopped).map(TransactionError::Paused) else { return };
        let waiting = self.nonces.take_waiting();
        for ticket in waiting.into_iter().chain(std::mem::take(&mut self.intake)) {
            self.fail(ticket, error.clone());
        }
        for request in std::mem::take(&mut self.borrowers) {
            request.refuse(error.clone());
        }
    }

    /// The nonce that is told as the next one. While the account reconciles, the chain may be ahead of what is on record.
    pub(super) fn next_nonce(&self) -> u64 {
        let next = self.nonces.next_free();
        if self.is_reconciling() { next.max(self.chain_nonce.unwrap_or(0)) } else { next }
    }

    pub(super) fn state(&self) -> AccountState {
        let unmined = || {
            self.current.iter().filter_map(|(nonce, hash)| match self.nonces.slot(*nonce) {
                None | Some(SlotState::Mined | SlotState::Foreign) => None,
                Some(state) => Some((*nonce, *hash, state)),
            })
        };
        let lowest_unmined = unmined().next().map(|(nonce, hash, state)| {
            let age = self.attempts.get(&hash).and_then(|live| age(live.attempt.transaction));
            UnminedSlot { nonce, state, hash, age }
        });
        AccountState {
            figures: self.figures(),
            pauses: self.pauses.clone(),
            slot_taken: self.slot_taken,
            reconcile: self.reconcile.as_ref().map(super::reconcile::Reconcile::progress),
            lowest_unmined,
            unmined: unmined().count(),
        }
    }
}

/// Time since the id was made: it has its time in it.
fn age(id: TransactionId) -> Option<Duration> {
    let (seconds, nanos) = id.0.get_timestamp()?.to_unix();
    let now = clock::wall().duration_since(UNIX_EPOCH).ok()?;
    Some(now.saturating_sub(Duration::new(seconds, nanos)))
}
