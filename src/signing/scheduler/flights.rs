//! Signs in flight: issued, asked a second time, ended.

use alloy_primitives::{Address, Signature};
use tokio::task::{self, AbortHandle, JoinError};
use tokio::time::Instant;

use super::attempt::attempt;
use super::call::{Stage, fair};
use super::pace::Pace;
use super::queues::{CallId, Layer, Verdict};
use super::routes::WayName;
use super::task::Task;
use crate::signing::backoff::full_jitter;
use crate::signing::{KeyStoreError, QuotaGroup, SignClass};
use crate::telemetry::chance;

/// Times that a bad signature is asked again: a second one is a coincidence, a third is not.
const BAD_SIGNATURE_RETRIES: u32 = 2;
/// No Sign is asked a second time while its quota group is used more than this.
const HEDGE_USAGE: f64 = 0.7;

/// One Sign.
#[derive(Debug)]
pub(super) struct Flight {
    call: CallId,
    address: Address,
    pub(super) way: WayName,
    pub(super) group: QuotaGroup,
    pub(super) issued: Instant,
    is_hedge: bool,
    abort: AbortHandle,
}

impl Flight {
    pub(super) fn address(&self) -> Address {
        self.address
    }
}

/// What came of a Sign's task.
type Ended = Result<(task::Id, Result<Signature, KeyStoreError>), JoinError>;

impl Task {
    /// Spawns the Sign of a call that the queues chose.
    pub(super) fn issue(&mut self, id: CallId, group: QuotaGroup, now: Instant) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.stage = Stage::InFlight;
        let (key, address) = (call.key.clone(), call.address());
        self.look(&key, now);
        let (Some(call), Some(route)) = (self.calls.get_mut(&id), self.routes.get(&address)) else { return };
        let Some(way) = route.way(&group) else {
            // Its state has changed since it was put in line.
            self.queues.done(address, &group);
            return self.enqueue(id);
        };
        if call.issued.is_none() {
            call.issued = Some(now);
            call.waiters.iter().for_each(|waiter| waiter.progress.issue(now.into_std()));
            way.meter.queue_seconds.observe(now.saturating_duration_since(call.asked).as_secs_f64());
        } else {
            self.metrics.signing.retries.inc();
        }
        let sign = attempt(way, route.pinned.clone(), call.digest, call.last_deadline(now), &self.metrics.signing.in_flight);
        let (way_name, hedges) = (way.name(), way.limits.hedge);
        let abort = self.signs.spawn(sign);
        let task = abort.id();
        call.sign = Some(task);
        let can_hedge = hedges && self.ceilings.pace(&group).is_some_and(|pace| has_room_to_hedge(pace, now));
        if let Some(after) = self.groups.get_mut(&group).and_then(|group| group.hedging.issued()).filter(|_| can_hedge) {
            call.hedge_at = Some(now + after);
            self.hedges_due.insert((now + after, id));
        }
        self.flights.insert(task, Flight { call: id, address, way: way_name, group, issued: now, is_hedge: false, abort });
    }

    /// Asks a Sign that takes long a second time, by another way if there is one. Not where that could cost others their turn.
    pub(super) fn hedge(&mut self, id: CallId, now: Instant) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.hedge_at = None;
        let Some(flight) = call.sign.and_then(|task| self.flights.get(&task)) else { return };
        let address = flight.address;
        let Some((route, way)) = self.routes.get(&address).and_then(|route| Some((route, route.beside(&flight.way)?))) else { return };
        let (first_group, group) = (flight.group.clone(), way.group.clone());
        let is_allowed = way.limits.hedge
            && !call.waiters.is_empty()
            && self.groups.get(&first_group).is_some_and(|group| group.hedging.may())
            && self.ceilings.pace(&group).is_some_and(|pace| has_room_to_hedge(pace, now));
        if !is_allowed || !self.queues.hedge(address, &group) {
            return;
        }
        let mut has_cell = |layer| self.ceilings.ask(layer, now) == Verdict::Granted;
        if !(has_cell(Layer::Key(&address)) && has_cell(Layer::Group(&group))) {
            return self.queues.done(address, &group);
        }
        let sign = attempt(way, route.pinned.clone(), call.digest, call.last_deadline(now), &self.metrics.signing.in_flight);
        let way = way.name();
        let abort = self.signs.spawn(sign);
        let task = abort.id();
        call.hedge = Some(task);
        if let Some(group) = self.groups.get_mut(&first_group) {
            group.hedging.take();
        }
        self.flights.insert(task, Flight { call: id, address, way, group, issued: now, is_hedge: true, abort });
    }

    /// A Sign's task has ended: with an answer, an error, or a panic.
    pub(super) fn ended(&mut self, ended: Ended, now: Instant) {
        let (task, result) = match ended {
            Ok((task, result)) => (task, Ok(result)),
            Err(error) => (error.id(), Err(())),
        };
        // One that was dropped is known no more.
        let Some(flight) = self.flights.remove(&task) else { return };
        self.queues.done(flight.address, &flight.group);
        if let Ok(result) = &result {
            self.learn(&flight, result, now);
        }
        let Some(call) = self.calls.get_mut(&flight.call) else { return };
        if let Some(at) = call.hedge_at.take_if(|_| !flight.is_hedge) {
            self.hedges_due.remove(&(at, flight.call));
        }
        let other = if flight.is_hedge {
            call.hedge = None;
            call.sign
        } else {
            call.sign = None;
            call.hedge
        };
        let error = match result {
            Ok(Ok(signature)) => {
                if flight.is_hedge {
                    self.hedge_meter.won.inc();
                }
                if let Some(other) = other {
                    self.drop_flight(other);
                }
                return self.answer(flight.call, Ok(signature));
            }
            Ok(Err(error)) => Some(error),
            Err(()) => {
                tracing::error!(address = %flight.address, "a Sign's task panicked");
                None
            }
        };
        if flight.is_hedge {
            self.hedge_meter.failed.inc();
        }
        self.failed(flight, error, other.is_some(), now);
    }

    /// A Sign of a call gave no signature. While another one is in flight, that one decides.
    fn failed(&mut self, flight: Flight, error: Option<KeyStoreError>, is_one_left: bool, now: Instant) {
        let Flight { call: id, address, ref group, ref way, .. } = flight;
        let Some(call) = self.calls.get_mut(&id) else { return };
        let is_panic = error.is_none();
        let error =
            error.unwrap_or_else(|| KeyStoreError { class: SignClass::Transient, detail: "the Sign ended unexpectedly".to_owned() });
        if error.class == SignClass::BadSignature {
            call.bad_signatures += 1;
        }
        // One that its caller's deadline cut short says nothing beside what the store said before.
        let is_cut_short = error.class == SignClass::Deadline
            && self.routes.get(&address).is_some_and(|route| now.saturating_duration_since(flight.issued) < fair(route.deadline));
        if call.last_error.is_none() || !is_cut_short {
            call.last_error = Some(error.clone());
        }
        if is_one_left {
            return;
        }
        let is_paced = self.ceilings.pace(group).is_some();
        let can_go_another_way = self.routes.get(&address).is_some_and(|route| !route.can_sign(way) && route.has_another(way));
        let after = if is_panic { After::Never } else { after(error.class, call.bad_signatures, is_paced, can_go_another_way) };
        if after == After::Never {
            // Who asked for it tells.
            tracing::debug!(%address, class = ?error.class, detail = error.detail, "a Sign failed for good");
            return self.answer(id, Err(error));
        }
        tracing::debug!(%address, class = ?error.class, detail = error.detail, "a Sign failed and is asked again");
        call.retries += 1;
        if after == After::Rest && !call.waiters.is_empty() {
            let until = now + full_jitter(call.rests, chance::share());
            call.rests += 1;
            call.stage = Stage::Resting(until);
            self.resting.insert((until, id));
        } else {
            self.enqueue(id);
        }
    }

    /// Lets go of a Sign whose call was answered by another one.
    fn drop_flight(&mut self, task: task::Id) {
        let Some(flight) = self.flights.remove(&task) else { return };
        flight.abort.abort();
        self.queues.done(flight.address, &flight.group);
        if flight.is_hedge {
            self.hedge_meter.lost.inc();
        }
    }
}

/// How a call goes on after a Sign that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// In line again.
    Now,
    /// In line again after a random time that grows.
    Rest,
    /// Not at all.
    Never,
}

/// A throttled call waits for its turn alone where there is a pace, which is what throttling slows. An attempt that ran to its deadline is
/// asked again for those who joined later: for the others the deadline itself says the end. What opened a way's breaker is asked of
/// another way.
fn after(class: SignClass, bad_signatures: u32, is_paced: bool, can_go_another_way: bool) -> After {
    match class {
        SignClass::BadSignature if bad_signatures <= BAD_SIGNATURE_RETRIES => After::Rest,
        SignClass::BadSignature => After::Never,
        SignClass::Throttled if is_paced => After::Now,
        _ if can_go_another_way => After::Now,
        SignClass::Throttled | SignClass::Transient | SignClass::Deadline => After::Rest,
        SignClass::KeyDown | SignClass::Credentials | SignClass::Configuration => After::Never,
    }
}

fn has_room_to_hedge(pace: &Pace, now: Instant) -> bool {
    !pace.is_shrunk() && pace.usage(now) <= pace.rate() * HEDGE_USAGE
}
