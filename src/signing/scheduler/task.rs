//! The scheduler's task: it keeps the calls and their tickets, asks the ceilings, spawns Signs and passes answers on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use alloy_primitives::{Address, B256, Signature};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;

use super::attempt::attempt;
use super::ceilings::Ceilings;
use super::meters::SignMeters;
use super::queues::{Bounds, CallId, Next, Position, Queues};
use super::{QuotaGroup, SignLimits};
use crate::signing::backoff::full_jitter;
use crate::signing::key::Key;
use crate::signing::{KeyState, KeyStoreError, SignClass};
use crate::telemetry::chance;
use crate::telemetry::metrics::Metrics;

/// Times that a bad signature is asked again: a second one is a coincidence, a third is not.
const BAD_SIGNATURE_RETRIES: u32 = 2;

/// What handles and tickets say.
#[derive(Debug)]
pub(super) enum Command {
    Sign(Request),
    Cancel {
        ticket: u64,
        /// Held until the command is read.
        _permit: Arc<OwnedSemaphorePermit>,
    },
}

/// A ticket's wish.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ticket: u64,
    pub(super) key: Arc<Key>,
    pub(super) digest: B256,
    pub(super) order: u64,
    pub(super) reply: oneshot::Sender<Result<Signature, KeyStoreError>>,
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

/// A ticket that waits for its call.
#[derive(Debug)]
struct Waiter {
    ticket: u64,
    deadline: Instant,
    reply: oneshot::Sender<Result<Signature, KeyStoreError>>,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    InFlight,
    /// Until its next try.
    Resting(Instant),
}

/// One signature to be made, for everybody who asked for it.
#[derive(Debug)]
struct Call {
    key: Arc<Key>,
    group: QuotaGroup,
    digest: B256,
    order: u64,
    /// When its first ticket asked.
    asked: Instant,
    stage: Stage,
    waiters: Vec<Waiter>,
    retries: u32,
    bad_signatures: u32,
    last_error: Option<KeyStoreError>,
}

impl Call {
    fn address(&self) -> Address {
        self.key.address()
    }
}

pub(super) struct Task {
    limits: HashMap<String, SignLimits>,
    metrics: Arc<Metrics>,
    meters: SignMeters,
    ceilings: Ceilings,
    queues: Queues,
    next_call: u64,
    calls: HashMap<CallId, Call>,
    by_digest: HashMap<(Address, B256), CallId>,
    by_ticket: HashMap<u64, CallId>,
    deadlines: BTreeSet<(Instant, u64)>,
    resting: BTreeSet<(Instant, CallId)>,
    signs: JoinSet<Result<Signature, KeyStoreError>>,
    by_task: HashMap<task::Id, CallId>,
}

impl Task {
    pub(super) fn new(limits: HashMap<String, SignLimits>, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        Self {
            meters: SignMeters::new(Arc::clone(&metrics), limits.keys()),
            limits,
            metrics,
            ceilings: Ceilings::new(),
            queues: Queues::new(bounds),
            next_call: 0,
            calls: HashMap::new(),
            by_digest: HashMap::new(),
            by_ticket: HashMap::new(),
            deadlines: BTreeSet::new(),
            resting: BTreeSet::new(),
            signs: JoinSet::new(),
            by_task: HashMap::new(),
        }
    }

    /// Until every handle is gone and everything that was asked is answered.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut is_open = true;
        while is_open || !self.calls.is_empty() {
            let wake = self.advance(Instant::now());
            // In this order, so that chance has no part in it: no more can end than was taken in.
            tokio::select! {
                biased;
                Some(ended) = self.signs.join_next_with_id() => self.ended(ended),
                command = inbox.recv(), if is_open => match command {
                    Some(command) => {
                        self.obey(command);
                        // What is there already is decided on together: the lowest nonce of a burst goes first.
                        while let Ok(command) = inbox.try_recv() {
                            self.obey(command);
                        }
                    }
                    None => is_open = false,
                },
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Sign(request) => self.accept(request),
            Command::Cancel { ticket, .. } => drop(self.take_waiter(ticket)),
        }
    }

    /// A request joins the call for its digest, or becomes a call.
    fn accept(&mut self, request: Request) {
        let Request { ticket, key, digest, order, reply, permit } = request;
        let Some(holder) = key.holder() else {
            let _ = reply.send(Err(key_down(&key, "no holder")));
            return;
        };
        let limits = self.limits.get(&*holder.configuration).copied().unwrap_or_default();
        let asked = Instant::now();
        let deadline = asked + limits.deadline;
        let waiter = Waiter { ticket, deadline, reply, _permit: permit };
        let address = key.address();
        let call = match self.by_digest.get(&(address, digest)) {
            Some(known) => *known,
            None => {
                let group = holder.store.quota_group(&holder.arn);
                self.ceilings.register(address, &group, &limits);
                let id = CallId(self.next_call);
                self.next_call += 1;
                self.queues.push(address, &group, (order, id));
                self.by_digest.insert((address, digest), id);
                let call = Call {
                    key,
                    group,
                    digest,
                    order,
                    asked,
                    stage: Stage::Queued,
                    waiters: Vec::new(),
                    retries: 0,
                    bad_signatures: 0,
                    last_error: None,
                };
                self.calls.insert(id, call);
                id
            }
        };
        self.deadlines.insert((deadline, ticket));
        self.by_ticket.insert(ticket, call);
        if let Some(known) = self.calls.get_mut(&call) {
            known.waiters.push(waiter);
            if order < known.order {
                if known.stage == Stage::Queued {
                    self.queues.remove(address, (known.order, call));
                    self.queues.push(address, &known.group, (order, call));
                }
                known.order = order;
            }
        }
    }

    /// Takes a ticket off its call. A call that nobody waits for is not issued any more.
    fn take_waiter(&mut self, ticket: u64) -> Option<Waiter> {
        let id = self.by_ticket.remove(&ticket)?;
        let call = self.calls.get_mut(&id)?;
        let at = call.waiters.iter().position(|waiter| waiter.ticket == ticket)?;
        let waiter = call.waiters.swap_remove(at);
        self.deadlines.remove(&(waiter.deadline, ticket));
        if call.waiters.is_empty() && call.stage != Stage::InFlight {
            self.forget(id);
        }
        Some(waiter)
    }

    /// Removes a call that is not in flight from everywhere.
    fn forget(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.by_digest.remove(&(call.address(), call.digest));
        match call.stage {
            Stage::Queued => self.queues.remove(call.address(), (call.order, id)),
            Stage::Resting(until) => drop(self.resting.remove(&(until, id))),
            Stage::InFlight => {}
        }
        Some(call)
    }

    /// Everything that time allows; answers when to look again.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.expire(now);
        while let Some((_, id)) = self.resting.first().copied().filter(|(until, _)| *until <= now) {
            self.resting.pop_first();
            if let Some(call) = self.calls.get_mut(&id) {
                call.stage = Stage::Queued;
                let position: Position = (call.order, id);
                self.queues.push(call.address(), &call.group, position);
            }
        }
        let unblocked = loop {
            let ceilings = &self.ceilings;
            match self.queues.next(now, |layer| ceilings.ask(layer)) {
                Next::Issue(id) => self.issue(id, now),
                Next::Wait(until) => break until,
            }
        };
        self.metrics.signing.waiting.set(i64::try_from(self.calls.len().saturating_sub(self.signs.len())).unwrap_or(i64::MAX));
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let rested = self.resting.first().map(|(at, _)| *at);
        [unblocked, deadline, rested].into_iter().flatten().min()
    }

    /// Answers the tickets whose time is over.
    fn expire(&mut self, now: Instant) {
        while let Some((_, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let call = self.by_ticket.get(&ticket).and_then(|id| self.calls.get(id));
            let error = too_late(call.and_then(|call| call.last_error.as_ref()));
            self.deadlines.pop_first();
            if let Some(waiter) = self.take_waiter(ticket) {
                let _ = waiter.reply.send(Err(error));
            }
        }
    }

    /// Spawns the Sign of a call that the queues chose.
    fn issue(&mut self, id: CallId, now: Instant) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let address = call.address();
        call.stage = Stage::InFlight;
        let holder = match call.key.holder() {
            Some(holder) if holder.state == KeyState::Enabled => holder,
            down => {
                let why = match down.map(|holder| holder.state) {
                    Some(KeyState::Unusable(why)) => why,
                    _ => "no holder".to_owned(),
                };
                let error = key_down(&call.key, &why);
                self.queues.done(address);
                self.answer(id, Err(error));
                return;
            }
        };
        let meter = self.meters.of(&holder.configuration);
        if call.retries == 0 {
            meter.queue_seconds.observe(now.saturating_duration_since(call.asked).as_secs_f64());
        } else {
            self.metrics.signing.retries.inc();
        }
        let until = call.waiters.iter().map(|waiter| waiter.deadline).max().unwrap_or_else(Instant::now);
        let sign = attempt(holder, call.key.pinned(), call.digest, until, meter, self.metrics.signing.in_flight.clone());
        self.by_task.insert(self.signs.spawn(sign).id(), id);
    }

    /// A Sign's task has ended: with an answer, an error, or a panic.
    fn ended(&mut self, ended: Result<(task::Id, Result<Signature, KeyStoreError>), JoinError>) {
        let (task, result) = match ended {
            Ok((task, result)) => (task, Ok(result)),
            Err(error) => (error.id(), Err(())),
        };
        let Some(id) = self.by_task.remove(&task) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        self.queues.done(call.address());
        let error = match result {
            Ok(Ok(signature)) => return self.answer(id, Ok(signature)),
            Ok(Err(error)) => error,
            Err(()) => {
                tracing::error!(address = %call.address(), "a Sign's task panicked");
                let detail = "the Sign ended unexpectedly".to_owned();
                return self.answer(id, Err(KeyStoreError { class: SignClass::Transient, detail }));
            }
        };
        if error.class == SignClass::BadSignature {
            call.bad_signatures += 1;
        }
        if !may_retry(error.class, call.bad_signatures) {
            tracing::warn!(address = %call.address(), class = ?error.class, detail = error.detail, "a Sign failed for good");
            return self.answer(id, Err(error));
        }
        tracing::debug!(address = %call.address(), class = ?error.class, detail = error.detail, "a Sign failed and is asked again");
        let until = Instant::now() + full_jitter(call.retries, chance::share());
        call.retries += 1;
        call.last_error = Some(error);
        call.stage = Stage::Resting(until);
        self.resting.insert((until, id));
        if call.waiters.is_empty() {
            self.forget(id);
        }
    }

    /// Ends a call: the same answer for everybody who waits.
    fn answer(&mut self, id: CallId, result: Result<Signature, KeyStoreError>) {
        let Some(call) = self.forget(id) else { return };
        for waiter in call.waiters {
            self.by_ticket.remove(&waiter.ticket);
            self.deadlines.remove(&(waiter.deadline, waiter.ticket));
            let _ = waiter.reply.send(result.clone());
        }
    }
}

/// Whether a call is asked again. An attempt that ran to its deadline is, for those who joined later: for the others the
/// deadline itself says the end.
fn may_retry(class: SignClass, bad_signatures: u32) -> bool {
    match class {
        SignClass::BadSignature => bad_signatures <= BAD_SIGNATURE_RETRIES,
        SignClass::Deadline => true,
        other => other.is_retryable(),
    }
}

fn too_late(last: Option<&KeyStoreError>) -> KeyStoreError {
    let class = match last.map(|error| error.class) {
        Some(SignClass::Throttled) => SignClass::Throttled,
        _ => SignClass::Deadline,
    };
    let detail = match last {
        Some(error) => format!("no signature within the deadline; the last error: {}", error.detail),
        None => "no signature within the deadline".to_owned(),
    };
    KeyStoreError { class, detail }
}

fn key_down(key: &Key, why: &str) -> KeyStoreError {
    KeyStoreError { class: SignClass::KeyDown, detail: format!("the key of {} cannot sign: {why}", key.address()) }
}
