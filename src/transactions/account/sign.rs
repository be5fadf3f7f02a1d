//! From a nonce to a durable attempt: Sign, assemble, commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::SignableTransaction as _;
use alloy_primitives::{Bytes, Signature, hex};
use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, abortable};

use super::durable::{Told, durable};
use super::outbox::After;
use super::replace::first_state;
use super::submission::{Accepted, Payload, SignedBytes, Submission, assemble, with_nonce};
use super::{Live, Owed, Pending, Signed, Task, Written};
use crate::journal::{Attempt, AttemptState, JournalError, Kind, Record};
use crate::signing::{ATTEMPT_TIMEOUT, KeyStoreError, Progress, SignClass};
use crate::telemetry::clock;
use crate::telemetry::faults::SeededFault;
use crate::transactions::broadcast::Delivery;
use crate::transactions::errors::TransactionError;
use crate::transactions::meters::{Meters, Stage};
use crate::transactions::nonces::Ticket;

/// When a Sign of the account worked last, and when one failed last, and why.
#[derive(Debug, Default)]
pub(super) struct LastSigns {
    worked: Option<Instant>,
    failed: Option<(Instant, SignClass)>,
}

impl LastSigns {
    fn ended(&mut self, fault: Option<SignClass>, now: Instant) {
        match fault {
            None => self.worked = Some(now),
            Some(class) => self.failed = Some((now, class)),
        }
    }
}

/// A Sign that is asked for.
pub(super) struct Asked {
    /// Ends it when the nonce it was for is void.
    pub(super) abort: AbortHandle,
    pub(super) progress: Progress,
    pub(super) at: Instant,
}

impl Asked {
    /// How long it waited for its turn at the key store; for ever if it had none, however soon that was told. Not known where the key could not sign.
    fn waited_for_its_turn(&self, result: &Result<Signature, KeyStoreError>) -> Option<Duration> {
        let had_none = matches!(result, Err(error) if matches!(error.class, SignClass::Throttled | SignClass::Deadline));
        let waited = self.progress.issued().map(|at| at.saturating_duration_since(self.at));
        waited.or(had_none.then_some(Duration::MAX))
    }
}

impl Pending {
    /// Its Sign is over. All of them together have one `sign_deadline`.
    fn sign_over(&mut self) -> Option<Asked> {
        let asked = self.sign.take()?;
        self.signing += clock::now().saturating_duration_since(asked.at);
        Some(asked)
    }

    /// Nothing signed is to be used for it: the Sign under way ends (the scheduler counts it, perhaps it was not issued), and a signature
    /// that was made is counted.
    pub(super) fn unsign(&mut self, metrics: &Meters) {
        if let Some(asked) = self.sign_over() {
            asked.abort.abort();
        }
        if self.signed.is_some() && matches!(self.submission.payload, Payload::Unsigned { .. }) {
            metrics.unused.inc();
        }
        if !SeededFault::MovedDownUnsigned.is_on() {
            self.signed = None;
        }
    }
}

impl Task {
    pub(super) fn start_sign(&mut self, ticket: Ticket, nonce: u64, replaces: bool, now: Instant) {
        let Some(pending) = self.tickets.get_mut(&ticket) else {
            self.give_up(ticket, TransactionError::Internal);
            return;
        };
        if pending.submission.is_abandoned() {
            self.give_up(ticket, TransactionError::Internal);
            return;
        }
        if let Some(void) = pending.sign_over() {
            void.abort.abort();
        }
        pending.nonce = nonce;
        pending.replaces = replaces;
        pending.laps.end(Stage::Queue, now, &self.chain.metrics);
        if pending.replacement.is_none() {
            self.room.turned(now);
        }
        if SeededFault::MovedDownUnsigned.is_on()
            && let Some(bytes) = pending.signed.clone()
        {
            return self.signed(ticket, bytes);
        }
        match &pending.submission.payload {
            Payload::Signed { bytes, .. } => {
                let bytes = bytes.clone();
                self.signed(ticket, bytes);
            }
            Payload::Unsigned { prepared, key } => {
                let digest = with_nonce(&prepared.transaction, nonce).signature_hash();
                let sign = self.chain.scheduler.sign_again(key, digest, nonce, pending.signing);
                let progress = sign.progress();
                let (sign, abort) = abortable(sign);
                pending.sign = Some(Asked { abort, progress, at: now });
                self.signs.push(sign.map(move |result| (ticket, result)).boxed());
            }
        }
    }

    pub(super) fn sign_finished(&mut self, (ticket, result): Signed) {
        // An aborted Sign was for a nonce that is void: its ticket waits again, or is gone.
        let Ok(result) = result else { return };
        let Some(pending) = self.tickets.get_mut(&ticket) else { return };
        let asked = pending.sign_over();
        let now = clock::now();
        pending.waited(Stage::Sign, now, &self.chain);
        // A replacement's has no part in what waits without a nonce.
        if pending.replacement.is_none() {
            self.last_signs.ended(result.as_ref().err().map(|error| error.class), now);
            if let Some(turned) = asked.and_then(|asked| asked.waited_for_its_turn(&result)) {
                self.sign_window.turned(turned, self.nonces.is_sign_window_full());
                self.nonces.set_sign_window(self.sign_window.size());
            }
        }
        match (result, &pending.submission.payload) {
            (Ok(signature), Payload::Unsigned { prepared, .. }) => {
                let bytes = assemble(with_nonce(&prepared.transaction, pending.nonce), signature);
                self.signed(ticket, bytes);
            }
            (Ok(_), Payload::Signed { .. }) => {}
            (Err(error), _) => {
                error.tell(self.address());
                let class = error.class;
                self.give_up(ticket, TransactionError::Sign(class));
                if matches!(class, SignClass::KeyDown | SignClass::Credentials | SignClass::Configuration) {
                    self.fail_unsigned(class);
                }
            }
        }
    }

    /// Why the request was not started before its deadline.
    pub(super) fn late(&self, ticket: Ticket) -> TransactionError {
        let deadline = self.chain.environment.account.queue_deadline;
        let late = TransactionError::QueueDeadline(deadline);
        let Some(Pending { submission, .. }) = self.tickets.get(&ticket) else { return late };
        let LastSigns { worked, failed } = &self.last_signs;
        // One worked meanwhile: it was not the key store that kept the request waiting.
        if worked.is_some_and(|at| at >= submission.queued) {
            return late;
        }
        if let Some((_, class)) = failed.filter(|(at, _)| *at >= submission.queued) {
            return TransactionError::Sign(class);
        }
        // None has ended meanwhile: where as many as may are under way, it waited for them.
        let is_full = self.nonces.is_sign_window_full();
        let signing = self.tickets.values().filter(|pending| is_full && pending.replacement.is_none());
        let issued: Vec<Option<Instant>> =
            signing.filter_map(|pending| pending.sign.as_ref()).map(|asked| asked.progress.issued()).collect();
        if issued.is_empty() {
            return late;
        }
        // Where one has been under way for long, or all of them are, it is the key store; else they wait for their turn as well.
        let (now, long) = (clock::now(), ATTEMPT_TIMEOUT.min(deadline / 2));
        let is_long = issued.iter().flatten().any(|at| now.saturating_duration_since(*at) >= long);
        let class = if is_long || !issued.contains(&None) { SignClass::Deadline } else { SignClass::Throttled };
        TransactionError::Sign(class)
    }

    fn signed(&mut self, ticket: Ticket, bytes: SignedBytes) {
        let Some(pending) = self.tickets.get_mut(&ticket) else { return };
        pending.signed = Some(bytes);
        if pending.submission.borrowed.is_void() {
            self.give_up(ticket, TransactionError::Internal);
            return;
        }
        self.nonces.signed(ticket);
    }

    /// The ticket gets no nonce; what was above it is signed again for lower ones.
    fn give_up(&mut self, ticket: Ticket, error: TransactionError) {
        let filler = self.tickets.get(&ticket).is_some_and(|pending| pending.submission.kind == Kind::Filler);
        let void = self.nonces.sign_failed(ticket);
        self.void(&void);
        self.fail(ticket, error);
        if filler {
            self.pause_filling();
        }
    }

    pub(super) fn void(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(pending) = self.tickets.get_mut(ticket) {
                pending.unsign(&self.chain.metrics);
            }
        }
    }

    /// The key itself is down: everything that waits for it fails closed, at once, instead of each after its own deadline.
    fn fail_unsigned(&mut self, class: SignClass) {
        let waiting: Vec<Ticket> = self
            .tickets
            .iter()
            .filter(|(_, pending)| pending.signed.is_none() && matches!(pending.submission.payload, Payload::Unsigned { .. }))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in waiting {
            let void = self.nonces.sign_failed(ticket);
            self.void(&void);
            self.fail(ticket, TransactionError::Sign(class));
        }
    }

    pub(super) fn start_commit(&mut self, tickets: Vec<Ticket>, now: Instant) {
        for ticket in &tickets {
            if let Some(pending) = self.tickets.get_mut(ticket) {
                pending.laps.end(Stage::Order, now, &self.chain.metrics);
            }
        }
        let mut records = Vec::with_capacity(tickets.len() + 2);
        records.push(self.tenure());
        if let Some(nonce) = self.floor {
            records.push(Record::Floor { account: self.account, nonce });
        }
        for ticket in &tickets {
            if let Some(pending) = self.tickets.get(ticket)
                && let Some(attempt) = self.attempt(pending)
            {
                let replaces = if pending.replaces { self.current.get(&pending.nonce).copied() } else { None };
                let takes_over = pending.submission.borrowed.replaced();
                let state = first_state(pending.submission.kind, pending.replacement);
                records.extend(once_only(&pending.submission, self.account.chain_id));
                records.push(Record::Attempt { attempt: Box::new(attempt), state, replaces, takes_over });
            }
        }
        let mut told = Told::default();
        for ticket in &tickets {
            let Some(pending) = self.tickets.get_mut(ticket) else { continue };
            if let Some(bytes) = &pending.signed {
                told.loans.extend(std::mem::take(&mut pending.submission.borrowed.loans).into_iter().map(|loan| (loan, bytes.hash)));
            }
            if let (Some(reply), Some(bytes)) = (&pending.submission.reply, &pending.signed) {
                let accepted = Accepted { id: pending.submission.id, hash: bytes.hash, raw: bytes.raw.clone() };
                told.accepted.push((reply.committed.clone(), accepted));
                if SeededFault::SentBeforeCommit.is_on() {
                    drop(self.chain.pool.send_raw(params(&bytes.raw)));
                }
            }
        }
        if SeededFault::ToldBeforeCommit.is_on() {
            for (ticket, (_, accepted)) in tickets.iter().zip(&told.accepted) {
                let reply = self.tickets.get_mut(ticket).and_then(|pending| pending.submission.reply.take());
                let _gone = reply.map(|reply| reply.sender.send(Ok(accepted.clone())));
            }
        }
        let commit = durable(self.chain.journal.commit(records), told);
        self.commit = Some(commit.map(move |result| (tickets, result)).boxed());
    }

    fn attempt(&self, pending: &Pending) -> Option<Attempt> {
        let submission = &pending.submission;
        let SignedBytes { raw, hash } = pending.signed.clone()?;
        let held = first_state(submission.kind, pending.replacement) == AttemptState::Held;
        let own = (1..submission.span()).map(|more| (self.account, pending.nonce + more));
        Some(Attempt {
            account: self.account,
            nonce: pending.nonce,
            transaction: submission.id,
            kind: submission.kind,
            service: Arc::clone(&submission.service),
            principal: Arc::clone(&submission.principal),
            request: Arc::clone(&submission.request),
            purpose: submission.purpose,
            hash,
            raw,
            cost: submission.cost(),
            hold_until: held.then(|| clock::wall() + self.chain.environment.hold),
            authorisations: own.chain(submission.borrowed.slots(self.account.chain_id)).collect(),
        })
    }

    pub(super) fn commit_finished(&mut self, (tickets, result): Written) {
        match result {
            Ok(_) => self.committed(&tickets),
            Err(JournalError::NotWritten(_)) if SeededFault::FailedCommitIgnored.is_on() => self.committed(&tickets),
            Err(JournalError::NotOwner { .. }) => self.lose(),
            Err(error) => self.not_committed(&tickets, error),
        }
    }

    fn committed(&mut self, tickets: &[Ticket]) {
        self.floor = None;
        let now = clock::now();
        let mut slots = Vec::with_capacity(tickets.len());
        for &ticket in tickets {
            let Some(mut pending) = self.tickets.remove(&ticket) else { continue };
            pending.waited(Stage::Commit, now, &self.chain);
            let Some(attempt) = self.attempt(&pending).map(Arc::new) else { continue };
            let state = first_state(attempt.kind, pending.replacement);
            self.chain.metrics.state(state);
            slots.push((ticket, state == AttemptState::Held && !SeededFault::HeldSent.is_on()));
            if let Some(what) = pending.replacement {
                self.chain.metrics.replacement(what);
            }
            if !self.nonces.takes_slot(ticket) {
                self.balance.release(Owed::Request(ticket));
                self.never_sent(attempt, state, pending);
                continue;
            }
            if pending.replacement.is_some() {
                self.balance.raise(Owed::Slot(attempt.nonce), attempt.cost);
            } else {
                self.balance.rename(Owed::Request(ticket), Owed::Slot(attempt.nonce));
            }
            self.current.insert(attempt.nonce, attempt.hash);
            for (_, tied) in attempt.authorisations.iter().filter(|(authority, _)| *authority == self.account) {
                self.current.insert(*tied, attempt.hash);
            }
            // Watched before it is sent: no block can hold it before the tracker knows it.
            self.chain.tracker.watch(attempt.hash, Self::owner(&attempt), false);
            self.add_live(attempt, state, pending);
        }
        self.nonces.committed(&slots);
    }

    /// The slot was mined by its older payload while this replacement was being committed: its bytes are refused before they were
    /// sent to anybody.
    fn never_sent(&mut self, attempt: Arc<Attempt>, state: AttemptState, pending: Pending) {
        let (hash, nonce) = (attempt.hash, attempt.nonce);
        self.chain.tracker.watch(hash, Self::owner(&attempt), false);
        self.add_live(Arc::clone(&attempt), state, pending);
        let error = TransactionError::NonceTooLow { next: self.nonces.next_free(), nonce };
        let detail = Some("the slot was mined before these bytes were sent".into());
        self.note_refusal(&attempt, detail, After::Refused { hash, error });
    }

    fn add_live(&mut self, attempt: Arc<Attempt>, state: AttemptState, pending: Pending) {
        let accepted = Accepted { id: attempt.transaction, hash: attempt.hash, raw: attempt.raw.clone() };
        let mut reply = pending.submission.reply;
        if let Some(waiting) = reply.take() {
            if state == AttemptState::Held {
                let _gone = waiting.sender.send(Ok(accepted));
            } else {
                self.answers.push_back((clock::now() + self.chain.environment.answer_after, attempt.hash));
                reply = Some(waiting);
            }
        }
        // Bytes that their client held, put on record again after the hold: it may have given them to a node meanwhile.
        let doubtful = self.attempts.get(&attempt.hash).is_some_and(|before| before.attempt.kind == Kind::SignOnly);
        let live = Live {
            order: self.next_order(),
            params: params(&attempt.raw),
            delivery: Delivery::new(doubtful),
            reply,
            state,
            refusing: false,
            block: None,
            sent_at: None,
            laps: Some(pending.laps),
            first_sent: None,
            waiting_since: None,
            occupied: false,
            broadcast_at: None,
            resend_if_absent: false,
            absent: false,
            attempt: Arc::clone(&attempt),
        };
        self.attempts.insert(live);
    }
}

/// What the commit of its attempt has to keep: an acknowledged transaction has one first attempt, a key one transaction.
fn once_only(submission: &Submission, chain_id: u64) -> Vec<Record> {
    let mut records = Vec::new();
    let transaction = submission.id;
    if submission.acknowledged {
        records.push(Record::Taken { transaction });
    }
    if let Some(key) = submission.key.clone() {
        let (service, principal) = (Arc::clone(&submission.service), Arc::clone(&submission.principal));
        records.push(Record::Key { chain_id, service, principal, key, transaction });
    }
    records
}

/// `["0x…"]`: the parameters of `eth_sendRawTransaction`, made once per attempt.
pub(super) fn params(raw: &Bytes) -> Arc<serde_json::value::RawValue> {
    let text = format!("[\"0x{}\"]", hex::encode(raw));
    serde_json::value::RawValue::from_string(text).map_or_else(|_| Arc::from(serde_json::value::RawValue::NULL.to_owned()), Arc::from)
}
