//! The single writer of one account: it alone hands out nonces, commits attempts and sends them. Requests and sightings reach
//! it as messages; everything slow (Sign, commit, node) runs beside it and comes back as a message too.

mod admit;
mod attempts;
mod deliver;
mod durable;
mod fill;
mod foreign;
mod gap;
mod handed_in;
pub mod loans;
mod not_committed;
mod open;
pub mod operate;
mod outbox;
mod reconcile;
pub mod replace;
mod resync;
mod shown;
mod sight;
mod sign;
pub mod submission;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use futures_util::StreamExt as _;
use futures_util::future::{Aborted, BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use self::admit::Probe;
use self::attempts::Attempts;
use self::foreign::Foreign;
use self::handed_in::HandedIn;
use self::loans::{Lent, LoanOver, LoanRequest};
pub(super) use self::open::first_nonce;
use self::operate::{AccountState, Resumed, Resynced};
use self::outbox::Outbox;
use self::reconcile::Reconcile;
use self::replace::{ReplaceRequest, Replacement};
use self::sign::{Asked, LastSigns};
use self::submission::{Accepted, Reply, SignedBytes, Submission};
use super::balance::Balance;
use super::broadcast::Delivery;
use super::chain::Chain;
use super::errors::TransactionError;
use super::meters::Laps;
use super::nonces::figures::Figures;
use super::nonces::{Action, Denial, Nonces, Ticket, Wish};
use super::outboxes::Outboxes;
use super::reconcile::Settling;
use super::room::Room;
use super::sign_window::SignWindow;
use super::tracking::{Owner, Sighting};
use crate::journal::{Account, Attempt, AttemptState, BlockRef, Epoch, JournalError, PauseBy, Pauses, Record};
use crate::node::CallError;
use crate::signing::Key;
use crate::signing::KeyStoreError;
use crate::telemetry::clock;
use crate::telemetry::crash::{self, Point, Side};
use crate::telemetry::metrics::accounts::AccountMeter;

/// A message to an account's task.
#[derive(Debug)]
pub enum Command {
    /// A request.
    Submit(Box<Submission>),
    /// The nonce that would be handed out next.
    NextNonce(oneshot::Sender<u64>),
    /// Nonces for authorisations in another account's payload.
    Lend(LoanRequest),
    /// Another payload in the place of one on record.
    Replace(Box<ReplaceRequest>),
    /// What the account has in hand.
    Figures(oneshot::Sender<Figures>),
    /// The same and more, for operators.
    State(oneshot::Sender<AccountState>),
    /// A request that was in the queue before the account was opened again.
    Resubmit(Box<Submission>),
    /// An operator stops the account; answered once that is durable.
    Pause {
        /// Why, for people.
        reason: String,
        /// Told once it is durable.
        reply: oneshot::Sender<Pauses>,
    },
    /// An operator lets it go on, whatever stopped it; answered once that is durable.
    Resume(oneshot::Sender<Resumed>),
    /// An operator wants it opened again from the journal and the chain; answered once it is.
    Resync(oneshot::Sender<Resynced>),
}

/// What a balance is reserved for: a request, then the slot that it took, of whose attempts one alone is mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owed {
    Request(Ticket),
    Slot(u64),
}

struct Pending {
    submission: Submission,
    signed: Option<SignedBytes>,
    /// Its Sign, asked for and not answered.
    sign: Option<Asked>,
    /// Time that its Signs before that took.
    signing: Duration,
    replaces: bool,
    /// It is in the place of another attempt of the same transaction.
    replacement: Option<Replacement>,
    nonce: u64,
    laps: Laps,
    /// The newest head when the balance was first too small: it is told as such only by a balance of that head or a later one.
    short_at: Option<u64>,
}

impl Pending {
    fn new(submission: Submission) -> Self {
        let laps = Laps { arrived: submission.arrived, since: submission.queued };
        Self {
            submission,
            signed: None,
            sign: None,
            signing: Duration::ZERO,
            replaces: false,
            replacement: None,
            nonce: 0,
            laps,
            short_at: None,
        }
    }
}

struct Live {
    attempt: Arc<Attempt>,
    /// Its place among the attempts of the account, in order of commit.
    order: u64,
    /// `["0x…"]`, made once.
    params: Arc<RawValue>,
    delivery: Delivery,
    reply: Option<Reply>,
    state: AttemptState,
    /// Its refusal is being written: it is neither sent nor taken for the slot's payload any more, and nobody is told yet.
    refusing: bool,
    block: Option<BlockRef>,
    sent_at: Option<Instant>,
    /// `None` where this process did not commit it.
    laps: Option<Laps>,
    /// When its bytes were given to the nodes for the first time.
    first_sent: Option<Instant>,
    /// When they were given to the nodes by this process for the first time since they waited, and the head at that time.
    waiting_since: Option<(Instant, u64)>,
    /// The nodes want more for it, beside another payload of its nonce.
    occupied: bool,
    /// When the first node had them; taken by its first inclusion.
    broadcast_at: Option<Instant>,
    /// The same bytes go out again once the receipts know nothing of them.
    resend_if_absent: bool,
    /// A look-up since the last send found no receipt.
    absent: bool,
}

impl Live {
    /// Whether it is, or may become, what the chain has for its slot.
    fn may_be_mined(&self) -> bool {
        self.state != AttemptState::Refused && !self.refusing
    }
}

type Signed = (Ticket, Result<Result<alloy_primitives::Signature, KeyStoreError>, Aborted>);
type Written = (Vec<Ticket>, Result<Vec<i64>, JournalError>);
type Answered = (B256, usize, Result<B256, CallError>);

/// The task's state.
pub(super) struct Task {
    chain: Arc<Chain>,
    account: Account,
    nonces: Nonces,
    balance: Balance<Owed>,
    tickets: BTreeMap<Ticket, Pending>,
    last_ticket: Ticket,
    /// Requests that wait for a balance, in order of arrival.
    intake: VecDeque<Ticket>,
    room: Room,
    handed_in: HandedIn,
    attempts: Attempts,
    last_order: u64,
    /// The payload on record of each slot that is not final.
    current: BTreeMap<u64, B256>,
    signs: FuturesUnordered<BoxFuture<'static, Signed>>,
    sign_window: SignWindow,
    last_signs: LastSigns,
    commit: Option<BoxFuture<'static, Written>>,
    sends: FuturesUnordered<BoxFuture<'static, Answered>>,
    outbox: Outbox,
    outboxes: Outboxes,
    probe: Option<BoxFuture<'static, Result<Probe, CallError>>>,
    probe_wanted: bool,
    probe_after: Option<Instant>,
    /// Whether the account has code is to be read: it may authorise code, or stop to (EIP-7702).
    code_wanted: bool,
    /// A floor to be written with the next commit.
    floor: Option<u64>,
    /// Committed attempts whose requester waits, and until when.
    answers: VecDeque<(Instant, B256)>,
    /// Attempts whose bytes go out again at a time.
    retries: Vec<(Instant, B256)>,
    /// Who asked for the next nonce while it was not known whether the chain agrees.
    askers: Vec<oneshot::Sender<u64>>,
    /// Loans that wait for the chain's nonce, then in the queue, then are out, then are on record.
    borrowers: Vec<LoanRequest>,
    loans: BTreeMap<Ticket, LoanRequest>,
    lending: FuturesUnordered<BoxFuture<'static, LoanOver>>,
    lent: BTreeMap<u64, Lent>,
    /// The nonce at which every endpoint agreed, while new nonces wait for foreign use to end.
    settled_at: Option<u64>,
    /// Slots that the chain used for payloads that are not ours.
    foreign: BTreeMap<u64, Foreign>,
    /// While the chain waits for a nonce that nothing has: for how long every endpoint says so.
    gap: Option<Settling>,
    /// The slot of which it was told that its price is not raised any more.
    bumps_ended: Option<u64>,
    /// Who stopped the account, on record.
    pauses: Pauses,
    /// The journal has another payload for a slot: stopped until it is read again.
    slot_taken: bool,
    /// While the account of a restored journal waits for the chain.
    reconcile: Option<Reconcile>,
    /// The highest nonce of the account that a node told at the newest head that was asked about.
    chain_nonce: Option<u64>,
    /// Who waits for the account to be opened again.
    resyncs: Vec<oneshot::Sender<Resynced>>,
    /// The tenure that every batch of the account is written in.
    epoch: Epoch,
    /// The tenure is over: nothing more is written, sent or told.
    lost: bool,
    key: Option<Arc<Key>>,
    fill_after: Option<Instant>,
    meter: AccountMeter,
}

/// How often waiting things are looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(200);
/// The queue deadline of what is acknowledged: longer than any process lives.
const NO_DEADLINE: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Time before bytes that reached nobody, or found the pool full, go out again.
const RESEND: Duration = Duration::from_millis(500);

/// Runs the account until its chain stops, or until somebody else owns it. The channels outlive a panic of the task only in the caller's hands.
pub(super) async fn run(
    chain: Arc<Chain>,
    address: Address,
    mut commands: mpsc::Receiver<Command>,
    mut sightings: mpsc::UnboundedReceiver<Sighting>,
) {
    let mut early = Vec::new();
    let mut resyncs = resync::Resyncs::default();
    while let Some((mut task, waiting)) = open::open(Arc::clone(&chain), address, &mut commands, early).await {
        task.opened_again(resyncs);
        for command in waiting {
            task.command(command);
        }
        if !task.work(&mut commands, &mut sightings).await {
            return;
        }
        (early, resyncs) = task.leave();
    }
}

impl Task {
    /// Works until the account is to be opened again with nothing of it under way (true), or until its chain stops or somebody else
    /// owns it (false).
    async fn work(&mut self, commands: &mut mpsc::Receiver<Command>, sightings: &mut mpsc::UnboundedReceiver<Sighting>) -> bool {
        let mut processed = self.chain.tracker.processed();
        let stop = self.chain.stop.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.lost {
            self.act();
            if self.can_be_opened_again() {
                return true;
            }
            // In this order, so that chance has no part in it. What brings new work comes last: everything above it is bounded by the
            // work that was taken in, so nothing waits for ever.
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                Some(sighting) = sightings.recv() => {
                    self.sighting(sighting);
                    while let Ok(sighting) = sightings.try_recv() {
                        self.sighting(sighting);
                    }
                }
                Some(written) = OptionFuture::from(self.outbox.writing()) => self.outbox_finished(written),
                Some(written) = OptionFuture::from(self.commit.as_mut()) => {
                    self.commit = None;
                    self.commit_finished(written);
                }
                Some(signed) = self.signs.next() => self.sign_finished(signed),
                Some(answered) = self.sends.next() => {
                    crash::edge(Side::Before, Point::NodeAnswer);
                    self.answered(answered, clock::now());
                    crash::edge(Side::After, Point::NodeAnswer);
                }
                Some(over) = self.lending.next() => self.loan_over(over),
                Some(probe) = OptionFuture::from(self.probe.as_mut()) => {
                    self.probe = None;
                    // Sightings up to the probe's block were sent before its head was announced: they are in the channel.
                    while let Ok(sighting) = sightings.try_recv() {
                        self.sighting(sighting);
                    }
                    self.probe_finished(probe);
                }
                Ok(()) = processed.changed() => {
                    processed.mark_unchanged();
                    self.head_moved();
                }
                _ = tick.tick() => self.tick(clock::now()),
                Some(command) = commands.recv() => {
                    self.command(command);
                    while let Ok(command) = commands.try_recv() {
                        self.command(command);
                    }
                }
            }
        }
        false
    }

    fn address(&self) -> Address {
        self.account.address
    }

    /// Whether anything is under way that the next head can change.
    fn is_active(&self) -> bool {
        let waits = !self.intake.is_empty() || !self.nonces.is_idle() || self.nonces.is_on_hold();
        waits || !self.current.is_empty() || self.is_reconciling()
    }

    /// A new head: an account at work reads its balance and nonces; one that idles does so before its next request.
    fn head_moved(&mut self) {
        if self.is_active() {
            self.probe_wanted = true;
        } else {
            self.balance.forget();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::NextNonce(reply) if self.balance.block().is_some() => {
                let _gone = reply.send(self.next_nonce());
            }
            Command::NextNonce(reply) => {
                self.askers.retain(|asker| !asker.is_closed());
                self.askers.push(reply);
                self.probe_wanted = true;
            }
            Command::Figures(reply) => {
                let _gone = reply.send(self.figures());
            }
            Command::Submit(submission) => {
                self.meter.request(submission.queued);
                self.submit(*submission);
            }
            Command::Resubmit(submission) => self.submit(*submission),
            Command::Lend(request) => self.ask_for_loan(request),
            Command::State(reply) => {
                let _gone = reply.send(self.state());
            }
            Command::Pause { reason, reply } => self.pause_by_operator(reason, reply),
            Command::Resume(reply) => self.resume(reply),
            Command::Resync(reply) => self.resync(reply),
            Command::Replace(request) => self.replace_asked(*request),
        }
    }

    /// Why the account takes no requests, if so.
    fn stopped(&self) -> Option<TransactionError> {
        let taken =
            self.slot_taken.then(|| "the journal has another payload for a slot: `sluice account resync` reads it again".to_owned());
        taken.or_else(|| self.pauses.words()).map(TransactionError::Paused)
    }

    /// Stops the account, or lets it go on, as far as this one is concerned; it is written behind.
    fn pause(&mut self, by: PauseBy, reason: Option<String>) {
        self.pauses.set(by, reason.clone());
        self.outbox.push(Record::Pause { account: self.account, by, reason }, None);
        self.set_halt();
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    /// Somebody else owns the account: the task ends. Requests whose attempts are on record are answered with their hashes by
    /// [`super::chain::Submitted`], the others with an error.
    fn lose(&mut self) {
        self.alarm("account_lost", "the journal has another owner of this account on record; its task ends");
        self.lost = true;
    }

    /// What every batch of the account begins with.
    fn tenure(&self) -> Record {
        Record::Tenure { account: self.account, epoch: self.epoch }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn deadline(&self, submission: &Submission) -> Instant {
        if submission.acknowledged {
            return submission.arrived + NO_DEADLINE;
        }
        submission.arrived + self.chain.environment.account.queue_deadline
    }

    /// Does everything that can be done now.
    fn act(&mut self) {
        let now = clock::now();
        self.resubmit_decided();
        self.refuse_waiting();
        self.admit(now);
        loop {
            while let Some(action) = self.nonces.poll(now) {
                match action {
                    Action::Sign { ticket, nonce, replaces } => self.start_sign(ticket, nonce, replaces, now),
                    Action::Commit(tickets) => self.start_commit(tickets, now),
                    Action::Send(nonce) => self.send(nonce, now),
                    Action::Fill(nonce) => self.start_fill(nonce, now),
                    Action::Deny(ticket, denial) => self.deny(ticket, denial),
                    Action::Void(ticket) => self.void(&[ticket]),
                    Action::Lend(ticket) => self.lend(ticket),
                }
            }
            if self.nonces.sends_nothing() {
                break;
            }
            // After every send of this moment: what goes to an endpoint as one batch.
            let Some(step) = self.outboxes.poll(now) else { break };
            self.step(step, now);
        }
        self.room.note(self.waiting() > 0, now);
        let tenure = self.tenure();
        self.outbox.write(&self.chain.journal, tenure, now);
        self.start_probe(now);
    }

    /// Ends a request, or the wish for a loan, without a nonce.
    fn fail(&mut self, ticket: Ticket, error: TransactionError) {
        if let Some(request) = self.loans.remove(&ticket) {
            return request.refuse(error);
        }
        self.balance.release(Owed::Request(ticket));
        if let Some(mut pending) = self.tickets.remove(&ticket) {
            pending.unsign(&self.chain.metrics);
            pending.submission.refuse(error);
        }
    }

    fn deny(&mut self, ticket: Ticket, denial: Denial) {
        let given = self.tickets.get(&ticket).and_then(|pending| pending.submission.nonce());
        let nonce = given.or(self.loans.get(&ticket).map(|request| request.nonces.start)).unwrap_or_default();
        let error = match denial {
            Denial::QueueFull => TransactionError::QueueFull,
            Denial::Deadline if self.nonces.is_on_hold() => TransactionError::ForeignNonce,
            Denial::Deadline => self.late(ticket),
            Denial::Gap => TransactionError::NonceGap { nonce },
            Denial::Held => TransactionError::NonceHeld { nonce },
            Denial::TooLow { next } => TransactionError::NonceTooLow { next, nonce },
            Denial::Mined => TransactionError::AlreadyMined { hash: None },
            Denial::Refused => TransactionError::NotReplaceable("the transaction was refused meanwhile".into()),
            Denial::HandedIn => TransactionError::NotReplaceable("its client sent its bytes meanwhile: try again".into()),
        };
        self.fail(ticket, error);
    }

    /// Time has passed: answers that are due, bytes that go out again, holds that are over.
    fn tick(&mut self, now: Instant) {
        while let Some(&(due, hash)) = self.answers.front() {
            if due > now {
                break;
            }
            self.answers.pop_front();
            self.accept(hash);
        }
        self.resend_due(now);
        self.expire_borrowers(now);
        self.expire_handed_in(now);
        if self.fill_after.is_some_and(|at| at <= now) {
            self.fill_after = None;
            self.nonces.set_can_fill(true);
        }
        self.lift_pause();
        self.expire_resyncs();
        self.show(now);
    }

    /// Tells the requester the hash.
    fn accept(&mut self, hash: B256) {
        if let Some(live) = self.attempts.get_mut(&hash)
            && let Some(reply) = live.reply.take()
        {
            if let Some(sent) = live.first_sent {
                reply.waited.since(sent);
            }
            let accepted = Accepted { id: live.attempt.transaction, hash, raw: live.attempt.raw.clone() };
            let _gone = reply.sender.send(Ok(accepted));
        }
    }

    fn owner(attempt: &Attempt) -> Owner {
        Owner { address: attempt.account.address, service: Arc::clone(&attempt.service), principal: Arc::clone(&attempt.principal) }
    }

    fn alarm(&self, kind: &'static str, detail: &str) {
        self.chain.metrics.alarm(kind);
        tracing::error!(environment = %self.chain.environment.name, account = %self.address(), alarm = kind, "{detail}");
    }

    fn wish(submission: &Submission) -> Wish {
        submission.nonce().map_or(Wish::Any, Wish::Given)
    }
}

#[cfg(test)]
mod tests;
