//! Changes of state on their way to the journal: written in order, one commit at a time, tried again until they are durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::Task;
use super::durable::{Told, durable};
use super::operate::Operated;
use super::submission::Accepted;
use crate::journal::{Attempt, AttemptState, BlockRef, Journal, JournalError, Record};
use crate::telemetry::clock;
use crate::telemetry::faults::SeededFault;
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::SlotState;

/// What has to wait until a record is durable.
pub(super) enum After {
    /// The refusal may be told and the slot is open.
    Refused { hash: B256, error: TransactionError },
    /// The hold is over and the slot is open.
    HoldOver { hash: B256 },
    /// Bytes that a client held are sent from here now, and it may be told so.
    Released { accepted: Accepted, committed: Option<watch::Sender<Option<Accepted>>> },
    /// An operator waits for it.
    Operated(Operated),
}

impl After {
    /// What a requester is told from the commit on, and where, also if the account's task ends before it can tell it.
    fn committed(&self) -> Option<(watch::Sender<Option<Accepted>>, Accepted)> {
        let Self::Released { accepted, committed } = self else { return None };
        Some((committed.clone()?, accepted.clone()))
    }

    /// The bytes that are handed over.
    fn released(&self) -> Option<B256> {
        if let Self::Released { accepted, .. } = self { Some(accepted.hash) } else { None }
    }
}

pub(super) type Written = (Vec<Record>, Vec<After>, Result<Vec<i64>, JournalError>);

/// Records that wait, and the commit under way.
#[derive(Default)]
pub(super) struct Outbox {
    records: Vec<Record>,
    after: Vec<After>,
    writing: Option<BoxFuture<'static, Written>>,
    not_before: Option<Instant>,
}

/// Time before a commit that did not work is tried again.
const RETRY: Duration = Duration::from_millis(500);

impl Outbox {
    pub(super) fn push(&mut self, record: Record, after: Option<After>) {
        self.records.push(record);
        self.after.extend(after);
    }

    /// Done with the records that wait; comes back if none does.
    pub(super) fn push_after(&mut self, after: After) -> Option<After> {
        if self.records.is_empty() {
            return Some(after);
        }
        self.after.push(after);
        None
    }

    /// Whether everything is durable.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.writing.is_none()
    }

    pub(super) fn writing(&mut self) -> Option<&mut BoxFuture<'static, Written>> {
        self.writing.as_mut()
    }

    pub(super) fn write(&mut self, journal: &Arc<dyn Journal>, tenure: Record, now: Instant) {
        if self.writing.is_some() || self.records.is_empty() || self.not_before.is_some_and(|at| at > now) {
            return;
        }
        let records = std::mem::take(&mut self.records);
        let after = std::mem::take(&mut self.after);
        let told = Told { accepted: after.iter().filter_map(After::committed).collect(), ..Told::default() };
        let commit = durable(journal.commit(std::iter::once(tenure).chain(records.iter().cloned()).collect()), told);
        self.writing = Some(Box::pin(async move { (records, after, commit.await) }));
    }

    /// Takes back that these bytes are handed over; answers whether it could: it is not being written.
    pub(super) fn take_back(&mut self, released: B256) -> bool {
        let Some(at) = self.after.iter().position(|after| after.released() == Some(released)) else { return false };
        self.after.remove(at);
        let is_it = |record: &Record| matches!(record, Record::State { hash, state: AttemptState::Committed, .. } if *hash == released);
        self.records.retain(|record| !is_it(record));
        true
    }

    /// Puts back what was not written, before what came since.
    fn put_back(&mut self, mut records: Vec<Record>, mut after: Vec<After>, now: Instant) {
        records.append(&mut self.records);
        after.append(&mut self.after);
        self.records = records;
        self.after = after;
        self.not_before = Some(now + RETRY);
    }
}

impl Task {
    /// Notes a change of state of an attempt.
    pub(super) fn note(
        &mut self,
        attempt: &Attempt,
        state: AttemptState,
        block: Option<BlockRef>,
        detail: Option<String>,
        after: Option<After>,
    ) {
        self.chain.metrics.state(state);
        let record = Record::State { account: self.account, hash: attempt.hash, state, block, detail, receipt: None };
        self.outbox.push(record, after);
    }

    /// Notes that an attempt is in a block, with its receipt there.
    pub(super) fn note_inclusion(&mut self, attempt: &Attempt, block: BlockRef, detail: Option<String>, receipt: Arc<RawValue>) {
        let state = AttemptState::Included;
        self.chain.metrics.state(state);
        let record = Record::State { account: self.account, hash: attempt.hash, state, block: Some(block), detail, receipt: Some(receipt) };
        self.outbox.push(record, None);
    }

    pub(super) fn outbox_finished(&mut self, (records, after, result): Written) {
        self.outbox.writing = None;
        if let Err(JournalError::NotOwner { .. }) = result {
            return self.lose();
        }
        if let Err(error) = result {
            if SeededFault::StateLost.is_on() {
                return;
            }
            tracing::error!(%error, account = %self.address(), "a change of state is not durable yet");
            let released = after.iter().filter_map(After::released).collect();
            self.outbox.put_back(records, after, clock::now());
            // Their clients have the bytes, and are told; what else changed has to be on record whenever that can be.
            return self.not_handed_over(released, &error);
        }
        for step in after {
            match step {
                After::Refused { hash, error } => self.open_slot(hash, Some(error)),
                After::HoldOver { hash } => self.open_slot(hash, None),
                After::Operated(operated) => operated.tell(),
                After::Released { accepted, .. } => self.handed_over(accepted),
            }
        }
    }

    /// Notes that an attempt was refused for good: from now on it is not sent any more, and told once that is durable.
    pub(super) fn note_refusal(&mut self, attempt: &Attempt, detail: Option<String>, after: After) {
        if let Some(live) = self.attempts.get_mut(&attempt.hash) {
            live.refusing = true;
        }
        self.note(attempt, AttemptState::Refused, None, detail, Some(after));
    }

    /// These bytes will never be sent again. Where they are the slot's payload, that is now what they replaced, if that may still be mined
    /// or is; else the next request takes the slot.
    fn open_slot(&mut self, hash: B256, error: Option<TransactionError>) {
        // A block that had them meanwhile says otherwise.
        let Some(live) = self.attempts.get_mut(&hash).filter(|live| live.refusing) else { return };
        live.refusing = false;
        live.state = AttemptState::Refused;
        let (nonce, order) = (live.attempt.nonce, live.order);
        let fallback = self.fallback(nonce, hash).map(|other| (other.attempt.hash, other.order));
        let is_committing = self.nonces.commits_replacement(nonce);
        // What is in its place may still be mined: then this is no error.
        let is_replaced = is_committing || fallback.is_some_and(|(_, other)| other > order);
        if let Some(error) = error.filter(|_| !is_replaced)
            && let Some(reply) = self.attempts.get_mut(&hash).and_then(|live| live.reply.take().map(|reply| (reply, live.first_sent)))
        {
            let (reply, first_sent) = reply;
            if let Some(sent) = first_sent {
                reply.waited.since(sent);
            }
            let _gone = reply.sender.send(Err(error));
        }
        self.accept(hash);
        if SeededFault::RefusedSentAgain.is_on() {
            if let Some(live) = self.attempts.get_mut(&hash) {
                live.state = AttemptState::Committed;
            }
            self.nonces.set_slot(nonce, SlotState::Unsent);
            return;
        }
        match (self.nonces.slot(nonce), fallback) {
            // The slot is final, and this came too late for it.
            (None, _) => {
                self.attempts.remove(&hash);
                self.chain.tracker.forget(hash);
            }
            _ if is_committing || self.current.get(&nonce) != Some(&hash) => {}
            (Some(SlotState::Reopened), _) => self.put_back(nonce),
            // Mined by it, or used by somebody else: after a reorg it is what is sent.
            (Some(_), Some((other, _))) => drop(self.current.insert(nonce, other)),
            (Some(_), None) => {}
        }
    }
}
