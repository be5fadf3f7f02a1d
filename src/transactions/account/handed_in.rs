//! Bytes that clients hand in and that are on record already. Those that their client held are sent from here once that is on record. Of those
//! that are being handed over for somebody else, or whose refusal is being written, nothing is told before it is known what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use alloy_primitives::B256;

use super::outbox::After;
use super::submission::{Accepted, Payload, Submission};
use super::{Command, Pending, Task};
use crate::journal::{Attempt, AttemptState, JournalError, Record};
use crate::telemetry::clock;
use crate::transactions::broadcast::Delivery;
use crate::transactions::errors::TransactionError;
use crate::transactions::meters::Stage;
use crate::transactions::nonces::{Denial, SlotState};

/// Requests that wait until it is on record what becomes of their bytes, by hash.
#[derive(Default)]
pub(super) struct HandedIn {
    /// Whose bytes are sent from here then: one of each.
    released: BTreeMap<B256, Pending>,
    /// All others, in order of arrival.
    waiting: BTreeMap<B256, Vec<Submission>>,
}

impl HandedIn {
    pub(super) fn len(&self) -> usize {
        self.released.len() + self.waiting.values().map(Vec::len).sum::<usize>()
    }

    pub(super) fn wait(&mut self, hash: B256, submission: Submission) {
        self.waiting.entry(hash).or_default().push(submission);
    }

    /// What the next task of the account takes over.
    pub(super) fn leave(&mut self) -> impl Iterator<Item = Command> {
        std::mem::take(&mut self.waiting).into_values().flatten().map(|submission| Command::Resubmit(Box::new(submission)))
    }
}

/// How bytes that are handed in stand to what is on record.
pub(super) enum Standing {
    /// As any other request: whether they can have their nonce is asked like for any other.
    New,
    /// They are known, and sent from here or mined: geth's "already known".
    Known(TransactionError),
    /// The attempt whose bytes `eth_signTransaction` gave out.
    Held(Arc<Attempt>),
    /// What becomes of them is being written.
    Undecided(B256),
}

impl Task {
    pub(super) fn standing(&self, submission: &Submission) -> Standing {
        let Payload::Signed { bytes, .. } = &submission.payload else { return Standing::New };
        let Some(live) = self.attempts.get(&bytes.hash) else { return Standing::New };
        if live.refusing || self.handed_in.released.contains_key(&bytes.hash) {
            return Standing::Undecided(bytes.hash);
        }
        let nonce = live.attempt.nonce;
        let is_payload = self.current.get(&nonce) == Some(&bytes.hash);
        match live.state {
            AttemptState::Held if is_payload && self.nonces.slot(nonce) == Some(SlotState::Held) => {
                Standing::Held(Arc::clone(&live.attempt))
            }
            // A cancel may have taken the place of held ones: then they want a nonce that is in use.
            AttemptState::Held | AttemptState::Refused => Standing::New,
            _ => Standing::Known(TransactionError::AlreadyKnown { hash: bytes.hash }),
        }
    }

    /// From here on the hold cannot end, and the same bytes cannot be handed in twice. Until that is durable nothing is sent, and their
    /// client is told nothing: a restart before would let the hold end.
    pub(super) fn hand_over(&mut self, attempt: &Attempt, pending: Pending) {
        if let Some(live) = self.attempts.get_mut(&attempt.hash) {
            live.state = AttemptState::Committed;
        }
        self.nonces.end_replacement(attempt.nonce, Denial::HandedIn);
        self.nonces.set_slot(attempt.nonce, SlotState::Reopened);
        let accepted = Accepted { id: attempt.transaction, hash: attempt.hash, raw: attempt.raw.clone() };
        let committed = pending.submission.reply.as_ref().map(|reply| reply.committed.clone());
        self.handed_in.released.insert(attempt.hash, pending);
        let record = Record::State {
            account: self.account,
            hash: attempt.hash,
            state: AttemptState::Committed,
            block: None,
            detail: Some("sent by its client".into()),
            receipt: None,
        };
        self.outbox.push(record, Some(After::Released { accepted, committed }));
    }

    /// It is on record that the bytes are sent from here: they go out, and their client is told like any other.
    pub(super) fn handed_over(&mut self, accepted: Accepted) {
        self.chain.metrics.state(AttemptState::Committed);
        let hash = accepted.hash;
        let Some(mut pending) = self.handed_in.released.remove(&hash) else { return };
        let now = clock::now();
        pending.waited(Stage::Commit, now, &self.chain);
        let Some(live) = self.attempts.get_mut(&hash).filter(|live| live.state == AttemptState::Committed) else {
            // A block had them meanwhile: their client sent them elsewhere too.
            if let Some(reply) = pending.submission.reply {
                let _gone = reply.sender.send(Ok(accepted));
            }
            return;
        };
        // Their client may have given them to a node before.
        live.delivery = Delivery::new(true);
        live.reply = pending.submission.reply;
        live.laps = Some(pending.laps);
        let nonce = live.attempt.nonce;
        self.answers.push_back((now + self.chain.environment.answer_after, hash));
        if self.nonces.slot(nonce) == Some(SlotState::Reopened) {
            self.nonces.set_slot(nonce, SlotState::Unsent);
        }
    }

    /// Nothing of these hand-overs is on record, and nobody knows when it can be: all of it ends.
    pub(super) fn not_handed_over(&mut self, hashes: Vec<B256>, error: &JournalError) {
        for hash in hashes {
            self.take_back(hash, TransactionError::Journal(error.clone()));
            for submission in self.handed_in.waiting.remove(&hash).unwrap_or_default() {
                submission.refuse(TransactionError::Journal(error.clone()));
            }
        }
    }

    /// The bytes are their client's again, unless that they are sent from here is being written.
    fn take_back(&mut self, hash: B256, error: TransactionError) {
        if !self.outbox.take_back(hash) {
            return;
        }
        if let Some(live) = self.attempts.get_mut(&hash).filter(|live| live.state == AttemptState::Committed) {
            live.state = AttemptState::Held;
            let nonce = live.attempt.nonce;
            if self.current.get(&nonce) == Some(&hash) && self.nonces.slot(nonce) == Some(SlotState::Reopened) {
                self.nonces.set_slot(nonce, SlotState::Held);
            }
        }
        if let Some(pending) = self.handed_in.released.remove(&hash) {
            pending.submission.refuse(error);
        }
    }

    /// It is known what became of bytes: who handed them in goes on like any other.
    pub(super) fn resubmit_decided(&mut self) {
        let hashes: Vec<B256> = self.handed_in.waiting.keys().copied().collect();
        for hash in hashes {
            let first = self.handed_in.waiting.get(&hash).and_then(|submissions| submissions.first());
            if first.is_some_and(|submission| matches!(self.standing(submission), Standing::Undecided(_))) {
                continue;
            }
            for submission in self.handed_in.waiting.remove(&hash).unwrap_or_default() {
                self.submit(submission);
            }
        }
    }

    /// Deadlines; and whose requester is gone holds nothing up.
    pub(super) fn expire_handed_in(&mut self, now: Instant) {
        let deadline = self.chain.environment.account.queue_deadline;
        let is_over = |submission: &Submission| submission.arrived + deadline <= now || submission.is_abandoned();
        for submissions in self.handed_in.waiting.values_mut() {
            for submission in submissions.extract_if(.., |submission| is_over(submission)) {
                submission.refuse(TransactionError::QueueDeadline(deadline));
            }
        }
        self.handed_in.waiting.retain(|_, submissions| !submissions.is_empty());
        let released = self.handed_in.released.iter();
        let over: Vec<B256> = released.filter(|(_, pending)| is_over(&pending.submission)).map(|(hash, _)| *hash).collect();
        for hash in over {
            self.take_back(hash, TransactionError::QueueDeadline(deadline));
        }
    }
}
