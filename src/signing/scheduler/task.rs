//! The scheduler's task: it keeps the calls and their tickets and passes answers on. What it issues is in `flights.rs`, what it knows of
//! the keys in `watch.rs`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use alloy_primitives::{Address, B256, Signature};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use super::SignLimits;
use super::call::{Call, Command, Request, Stage, Waiter, fair, has_time};
use super::ceilings::Ceilings;
use super::flights::Flight;
use super::made::Made;
use super::meters::{HedgeMeter, SignMeters};
use super::queues::{CallId, Next, Queues};
use super::routes::Route;
use super::watch::{Group, Probed};
use crate::signing::{KeyStoreError, QuotaGroup, SignClass};
use crate::telemetry::metrics::Metrics;

/// What is asked of one key.
#[derive(Debug, Default)]
struct OfKey {
    calls: BTreeSet<CallId>,
    tickets: usize,
}

pub(super) struct Task {
    pub(super) limits: HashMap<String, SignLimits>,
    /// Tickets of one key at the same time.
    tickets_of_key: usize,
    pub(super) metrics: Arc<Metrics>,
    pub(super) meters: SignMeters,
    pub(super) hedge_meter: HedgeMeter,
    pub(super) ceilings: Ceilings,
    pub(super) queues: Queues,
    next_call: u64,
    pub(super) calls: HashMap<CallId, Call>,
    by_digest: HashMap<(Address, B256), CallId>,
    by_address: HashMap<Address, OfKey>,
    by_ticket: HashMap<u64, CallId>,
    deadlines: BTreeSet<(Instant, u64)>,
    pub(super) resting: BTreeSet<(Instant, CallId)>,
    pub(super) hedges_due: BTreeSet<(Instant, CallId)>,
    pub(super) signs: JoinSet<Result<Signature, KeyStoreError>>,
    pub(super) flights: HashMap<task::Id, Flight>,
    pub(super) routes: HashMap<Address, Route>,
    pub(super) groups: HashMap<QuotaGroup, Group>,
    pub(super) probes: JoinSet<Probed>,
    pub(super) probes_due: BTreeSet<(Instant, Address)>,
    /// When the gauges are set again; none while nothing changes.
    pub(super) report_at: Option<Instant>,
}

impl Task {
    pub(super) fn new(limits: HashMap<String, SignLimits>, metrics: Arc<Metrics>, tickets_of_key: usize) -> Self {
        Self {
            meters: SignMeters::new(Arc::clone(&metrics), limits.keys()),
            hedge_meter: HedgeMeter::new(&metrics),
            limits,
            tickets_of_key,
            metrics,
            ceilings: Ceilings::new(),
            queues: Queues::default(),
            next_call: 0,
            calls: HashMap::new(),
            by_digest: HashMap::new(),
            by_address: HashMap::new(),
            by_ticket: HashMap::new(),
            deadlines: BTreeSet::new(),
            resting: BTreeSet::new(),
            hedges_due: BTreeSet::new(),
            signs: JoinSet::new(),
            flights: HashMap::new(),
            routes: HashMap::new(),
            groups: HashMap::new(),
            probes: JoinSet::new(),
            probes_due: BTreeSet::new(),
            report_at: None,
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
                Some(ended) = self.signs.join_next_with_id() => self.ended(ended, Instant::now()),
                Some(Ok(probed)) = self.probes.join_next() => self.probed(probed, Instant::now()),
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
            Command::Sign(request) => self.accept(request, Instant::now()),
            Command::Cancel { ticket, .. } => drop(self.take_waiter(ticket)),
        }
    }

    /// A request joins the call for its digest, or becomes a call. One whose key cannot sign is answered.
    fn accept(&mut self, request: Request, asked: Instant) {
        let Request { ticket, key, digest, order, spent, reply, permit, progress } = request;
        let deadline = match self.way_of(&key, asked) {
            Ok(deadline) => asked + deadline.saturating_sub(spent),
            Err(error) => {
                let _gone = reply.send(Err(error));
                return;
            }
        };
        let address = key.address();
        let of_key = self.by_address.entry(address).or_default();
        if of_key.tickets >= self.tickets_of_key {
            let detail = "too many signatures of this key are asked for at once".to_owned();
            let _gone = reply.send(Err(KeyStoreError { class: SignClass::Throttled, detail }));
            return;
        }
        let known = self.by_digest.get(&(address, digest)).copied();
        let id = known.unwrap_or(CallId(self.next_call));
        if known.is_none() {
            self.next_call += 1;
            self.by_digest.insert((address, digest), id);
            of_key.calls.insert(id);
        }
        of_key.tickets += 1;
        let call = self.calls.entry(id).or_insert_with(|| Call {
            key,
            digest,
            order,
            asked,
            since: asked.checked_sub(spent).unwrap_or(asked),
            issued: None,
            stage: Stage::Queued,
            waiters: Vec::with_capacity(1),
            retries: 0,
            rests: 0,
            bad_signatures: 0,
            last_error: None,
            sign: None,
            hedge: None,
            hedge_at: None,
        });
        if let Some(at) = call.issued {
            progress.issue(at.into_std());
        }
        call.waiters.push(Waiter { ticket, deadline, reply, progress, _permit: permit });
        self.deadlines.insert((deadline, ticket));
        self.by_ticket.insert(ticket, id);
        let before = call.order;
        call.order = before.min(order);
        if known.is_none() {
            self.enqueue(id);
        } else if order < before && call.stage == Stage::Queued {
            self.queues.remove(address, (before, id));
            self.enqueue(id);
        }
    }

    /// Puts a call in its key's line: one that was throttled is at the front again, since its nonce is. It is answered if the key
    /// cannot sign, and forgotten if nobody waits.
    pub(super) fn enqueue(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(route) = self.routes.get(&call.address()) else { return };
        if call.waiters.is_empty() {
            self.forget(id, false);
        } else if route.seat.groups.is_empty() {
            let error = route.error();
            self.answer(id, Err(error));
        } else {
            call.stage = Stage::Queued;
            self.queues.push(call.address(), &route.seat, (call.order, id));
        }
    }

    /// Takes a ticket off its call. A call that nobody waits for is not issued any more.
    fn take_waiter(&mut self, ticket: u64) -> Option<Waiter> {
        let id = self.by_ticket.remove(&ticket)?;
        let call = self.calls.get_mut(&id)?;
        let at = call.waiters.iter().position(|waiter| waiter.ticket == ticket)?;
        let waiter = call.waiters.swap_remove(at);
        self.deadlines.remove(&(waiter.deadline, ticket));
        let address = call.address();
        if let Some(of_key) = self.by_address.get_mut(&address) {
            of_key.tickets = of_key.tickets.saturating_sub(1);
        }
        if call.waiters.is_empty() && call.stage != Stage::InFlight {
            self.forget(id, false);
        }
        Some(waiter)
    }

    /// Removes a call that has no Sign in flight from everywhere. Signs that gave no signature were for nothing.
    fn forget(&mut self, id: CallId, is_signed: bool) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        if call.issued.is_some() && !is_signed {
            self.metrics.signing.fruitless.inc();
        }
        let address = call.address();
        self.by_digest.remove(&(address, call.digest));
        if let Some(of_key) = self.by_address.get_mut(&address) {
            of_key.calls.remove(&id);
            of_key.tickets = of_key.tickets.saturating_sub(call.waiters.len());
            if of_key.calls.is_empty() {
                self.by_address.remove(&address);
            }
        }
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
            self.enqueue(id);
        }
        while let Some((_, id)) = self.hedges_due.first().copied().filter(|(at, _)| *at <= now) {
            self.hedges_due.pop_first();
            self.hedge(id, now);
        }
        while let Some((_, address)) = self.probes_due.first().copied().filter(|(at, _)| *at <= now) {
            self.probes_due.pop_first();
            self.probe(address, now);
        }
        let unblocked = loop {
            let Self { queues, ceilings, calls, routes, groups, .. } = &mut *self;
            let has_time = |id, name: &_| calls.get(&id).is_none_or(|call| has_time(call, routes, groups.get(name), now));
            match queues.next(now, has_time, |layer| ceilings.ask(layer, now)) {
                Next::Issue(id, group) => self.issue(id, group, now),
                Next::Over(id) => {
                    let error = self.too_late(id, now);
                    self.answer(id, Err(error));
                }
                Next::Wait(until) => break until,
            }
        };
        self.report(now);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let rested = self.resting.first().map(|(at, _)| *at);
        let hedge = self.hedges_due.first().map(|(at, _)| *at);
        let probe = self.probes_due.first().map(|(at, _)| *at);
        [unblocked, deadline, rested, hedge, probe, self.report_at].into_iter().flatten().min()
    }

    /// Answers the tickets whose time is over.
    fn expire(&mut self, now: Instant) {
        while let Some((_, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            let Some(id) = self.by_ticket.get(&ticket).copied() else { continue };
            let error = self.too_late(id, now);
            if let Some(waiter) = self.take_waiter(ticket) {
                let _gone = waiter.reply.send(Err(error));
            }
        }
    }

    /// Why there is no signature in time. One that had no turn, or too late a turn, while others of its quota had theirs, waited for the
    /// quota or a window.
    fn too_late(&self, id: CallId, now: Instant) -> KeyStoreError {
        let call = self.calls.get(&id);
        let missed = call.is_some_and(|call| {
            let Some(route) = self.routes.get(&call.address()) else { return false };
            let had_time = call.issued.is_some_and(|at| now.saturating_duration_since(at) >= fair(route.deadline));
            let seen = |name| self.groups.get(name).and_then(|group: &Group| group.seen);
            !had_time && route.seat.groups.iter().any(|name| seen(name).is_some_and(|at| at >= call.since))
        });
        match call.and_then(|call| call.last_error.as_ref()) {
            Some(KeyStoreError { class, detail }) if !missed || *class != SignClass::Deadline => {
                let class = if *class == SignClass::Throttled { SignClass::Throttled } else { SignClass::Deadline };
                KeyStoreError { class, detail: format!("no signature within the deadline; the last error: {detail}") }
            }
            _ if missed => KeyStoreError { class: SignClass::Throttled, detail: "no turn to sign within the deadline".to_owned() },
            _ => KeyStoreError { class: SignClass::Deadline, detail: "no signature within the deadline".to_owned() },
        }
    }

    /// The calls of a key that have no Sign in flight, in the order in which they were asked for.
    pub(super) fn waiting_for(&self, address: Address) -> Vec<CallId> {
        let calls = self.by_address.get(&address).into_iter().flat_map(|of_key| &of_key.calls).copied();
        calls.filter(|id| self.calls.get(id).is_some_and(|call| call.stage != Stage::InFlight)).collect()
    }

    /// Ends a call: the same answer for everybody who waits.
    pub(super) fn answer(&mut self, id: CallId, result: Result<Signature, KeyStoreError>) {
        let Some(call) = self.forget(id, result.is_ok()) else { return };
        let result = result.map(|signature| Made::new(signature, &self.metrics.signing.unclaimed));
        for waiter in call.waiters {
            self.by_ticket.remove(&waiter.ticket);
            self.deadlines.remove(&(waiter.deadline, waiter.ticket));
            let _gone = waiter.reply.send(result.clone());
        }
    }
}
