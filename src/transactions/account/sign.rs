//! From a nonce to a durable attempt: Sign, assemble, commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxLegacy, TypedTransaction};
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, abortable};

use super::loans::Borrowed;
use super::outbox::After;
use super::replace::first_state;
use super::submission::{Accepted, Payload, SignedBytes, Submission, assemble, with_nonce};
use super::{Live, Owed, Pending, Signed, Task, Written};
use crate::journal::{Attempt, AttemptState, JournalError, Kind, Purpose, Record, TransactionId};
use crate::signing::{ATTEMPT_TIMEOUT, Progress, SignClass};
use crate::telemetry::clock;
use crate::telemetry::faults::SeededFault;
use crate::transactions::broadcast::Delivery;
use crate::transactions::errors::TransactionError;
use crate::transactions::fees::{Price, decide};
use crate::transactions::meters::{Meters, Stage};
use crate::transactions::nonces::{SlotState, Ticket};
use crate::transactions::prepare::{Prepared, TRANSFER_GAS};
use crate::transactions::replacement::Bid;
use crate::transactions::request::Fees;

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

/// Time before another filler is tried.
const FILL_AGAIN: Duration = Duration::from_secs(2);

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
        pending.sign_over();
        let now = clock::now();
        pending.waited(Stage::Sign, now, &self.chain);
        // A replacement's has no part in what waits without a nonce.
        if pending.replacement.is_none() {
            self.last_signs.ended(result.as_ref().err().map(|error| error.class), now);
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
        let is_full = self.figures().signing >= self.chain.environment.account.sign_window;
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

    pub(super) fn start_fill(&mut self, nonce: u64, now: Instant) {
        let key = self.key.clone().or_else(|| (self.chain.key_of)(self.address()));
        let (Some(key), Some(suggestion)) = (key, self.chain.fees.now()) else {
            self.pause_filling();
            return;
        };
        let Ok(price) = decide(Fees::Dynamic { cap: None, tip: None }, suggestion, self.chain.environment.fees) else {
            self.pause_filling();
            return;
        };
        let ticket = self.next_ticket();
        let submission = Submission {
            id: TransactionId::new(),
            kind: Kind::Filler,
            purpose: Purpose::Request,
            service: Arc::from(""),
            principal: Arc::from(""),
            request: Arc::from("{}"),
            payload: Payload::Unsigned { prepared: Box::new(filler(self.account.address, self.account.chain_id, price)), key },
            arrived: now,
            queued: now,
            reply: None,
            borrowed: Borrowed::default(),
            key: None,
            acknowledged: false,
        };
        tracing::warn!(account = %self.address(), nonce, "an open slot below committed ones is filled");
        self.chain.metrics.filler();
        self.balance.reserve(Owed::Request(ticket), submission.cost());
        self.tickets.insert(ticket, Pending { replaces: true, nonce, ..Pending::new(submission) });
        self.nonces.fill(ticket, nonce, now + FILL_AGAIN);
        self.start_sign(ticket, nonce, true, now);
    }

    fn pause_filling(&mut self) {
        self.fill_later(FILL_AGAIN);
    }

    /// No filler for a while.
    pub(super) fn fill_later(&mut self, pause: Duration) {
        self.nonces.set_can_fill(false);
        self.fill_after = Some(clock::now() + pause);
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
        let mut told = Vec::new();
        let mut taken = Vec::new();
        for ticket in &tickets {
            let Some(pending) = self.tickets.get_mut(ticket) else { continue };
            if let Some(bytes) = &pending.signed {
                taken.extend(std::mem::take(&mut pending.submission.borrowed.loans).into_iter().map(|loan| (loan, bytes.hash)));
            }
            if let (Some(reply), Some(bytes)) = (&pending.submission.reply, &pending.signed) {
                let accepted = Accepted { id: pending.submission.id, hash: bytes.hash, raw: bytes.raw.clone() };
                told.push((Arc::clone(&reply.committed), accepted));
                if SeededFault::SentBeforeCommit.is_on() {
                    drop(self.chain.pool.send_raw(params(&bytes.raw)));
                }
            }
        }
        if SeededFault::ToldBeforeCommit.is_on() {
            for (ticket, (_, accepted)) in tickets.iter().zip(&told) {
                let reply = self.tickets.get_mut(ticket).and_then(|pending| pending.submission.reply.take());
                let _gone = reply.map(|reply| reply.sender.send(Ok(accepted.clone())));
            }
        }
        let commit = self.chain.journal.commit(records);
        // On its own: a fault of this task must not keep a requester from the hash of what became durable.
        let task = tokio::spawn(async move {
            let result = commit.await;
            if result.is_ok() {
                for (cell, accepted) in told {
                    let _first = cell.set(accepted);
                }
                for (loan, hash) in taken {
                    loan.taken(hash);
                }
            }
            result
        });
        let lost = |_| Err(JournalError::Closed);
        self.commit = Some(task.map(move |result| (tickets, result.unwrap_or_else(lost))).boxed());
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
            // Nobody knows what was written: the process ends and reads it at its next start. Nothing may be told before.
            Err(JournalError::Closed) => tracing::error!(account = %self.address(), "the journal is closed in the middle of a commit"),
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
        let live = Live {
            order: self.next_order(),
            params: params(&attempt.raw),
            delivery: Delivery::new(false),
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

    fn not_committed(&mut self, tickets: &[Ticket], error: JournalError) {
        // Ordinary races, which the journal decides: the same request on record under its key, or a cancel of what was acknowledged.
        let (transaction, told) = match error {
            JournalError::KeyTaken { transaction } => (transaction, TransactionError::KeyTaken),
            JournalError::NotQueued { transaction } => (transaction, TransactionError::NotQueued),
            error => return self.nothing_committed(tickets, error),
        };
        tracing::info!(error = %told, account = %self.address(), %transaction, "a request is not paid again; the others of its commit go on");
        let out: Vec<Ticket> = tickets.iter().copied().filter(|ticket| !self.goes_on(*ticket, transaction)).collect();
        let void = self.nonces.commit_failed(&out);
        self.void(&void);
        for &ticket in tickets {
            if !out.contains(&ticket) {
                // What is below the one that ended is signed as it is to be; what was above it waits again, in order.
                if !void.contains(&ticket) {
                    self.nonces.signed(ticket);
                }
                continue;
            }
            self.reopen_replaced(ticket);
            if self.is_of(ticket, transaction) {
                self.fail(ticket, told.clone());
            } else {
                self.sign_again(ticket);
            }
        }
    }

    /// Nothing of the commit is on record, and nobody knows when it can be: all of it ends.
    fn nothing_committed(&mut self, tickets: &[Ticket], error: JournalError) {
        tracing::error!(%error, account = %self.address(), "attempts were not committed");
        if matches!(error, JournalError::SlotTaken { address, .. } if address == self.address()) {
            self.alarm("slot_taken", "the journal has another payload for a slot of this account; the account is paused");
            self.slot_taken = true;
        }
        let void = self.nonces.commit_failed(tickets);
        self.void(&void);
        for &ticket in tickets {
            self.reopen_replaced(ticket);
            self.fail(ticket, TransactionError::Journal(error.clone()));
        }
    }

    /// Whether the ticket goes on by itself after a commit that another transaction of it ended: a request with a nonce of its own, or
    /// one for a slot that waits still, and nothing borrowed, which went back with the commit.
    fn goes_on(&self, ticket: Ticket, ended: TransactionId) -> bool {
        self.tickets.get(&ticket).is_some_and(|pending| {
            let takes_open = pending.replaces && self.nonces.slot(pending.nonce) == Some(SlotState::Reopened);
            let is_free = pending.replacement.is_none() && pending.submission.borrowed.nonces.is_empty();
            pending.submission.id != ended && is_free && (!pending.replaces || takes_open)
        })
    }

    /// A replacement was not committed.
    fn reopen_replaced(&mut self, ticket: Ticket) {
        if let Some(nonce) = self.tickets.get(&ticket).filter(|pending| pending.replacement.is_some()).map(|pending| pending.nonce) {
            self.put_back_refused(nonce);
        }
    }

    fn is_of(&self, ticket: Ticket, transaction: TransactionId) -> bool {
        self.tickets.get(&ticket).is_some_and(|pending| pending.submission.id == transaction)
    }

    /// Back into the queue: nothing of it is on record, and its nonce is another one's.
    fn sign_again(&mut self, ticket: Ticket) {
        let Some(pending) = self.tickets.get(&ticket) else { return };
        if pending.replacement.is_some() {
            let nonce = pending.nonce;
            self.void(&[ticket]);
            if !self.nonces.replace(ticket, nonce) {
                self.fail(ticket, TransactionError::NotReplaceable("the transaction was refused meanwhile".into()));
            }
            return;
        }
        // What it borrowed went back with the commit: its authorisations are worth nothing without.
        if pending.submission.kind == Kind::Filler || !pending.submission.borrowed.nonces.is_empty() {
            return self.fail(ticket, TransactionError::Internal);
        }
        let (cost, deadline) = (pending.submission.cost(), self.deadline(&pending.submission));
        self.void(&[ticket]);
        self.enqueue(ticket, cost, deadline);
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

/// A payment of nothing to oneself that closes a slot.
fn filler(address: Address, chain_id: u64, price: Price) -> Prepared {
    let cost = U256::from(price.highest()).saturating_mul(U256::from(TRANSFER_GAS));
    Prepared { from: address, transaction: nothing_to(address, chain_id, price), nonce: None, cost, span: 1 }
}

/// What a bid is as a price.
pub(super) fn price_of(bid: Bid, one_price: bool) -> Price {
    if one_price { Price::Legacy(bid.cap) } else { Price::Dynamic { cap: bid.cap, tip: bid.tip } }
}

/// A payment of nothing to oneself.
pub(super) fn nothing_to(address: Address, chain_id: u64, price: Price) -> TypedTransaction {
    let to = TxKind::Call(address);
    match price {
        Price::Legacy(gas_price) => {
            TypedTransaction::Legacy(TxLegacy { chain_id: Some(chain_id), gas_price, gas_limit: TRANSFER_GAS, to, ..TxLegacy::default() })
        }
        Price::Dynamic { cap, tip } => TypedTransaction::Eip1559(TxEip1559 {
            chain_id,
            gas_limit: TRANSFER_GAS,
            max_fee_per_gas: cap,
            max_priority_fee_per_gas: tip,
            to,
            ..TxEip1559::default()
        }),
    }
}
