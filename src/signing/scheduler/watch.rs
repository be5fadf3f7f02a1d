//! What the scheduler's task knows of keys and quota groups: it looks at what changed, learns from every answer, probes keys that are down, and
//! sets the gauges.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, Signature};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::call::fair;
use super::flights::Flight;
use super::hedging::Hedging;
use super::meters::GroupMeter;
use super::routes::{Route, Way, WayName};
use super::task::Task;
use crate::signing::key::Key;
use crate::signing::{KeyState, KeyStoreError, SignClass};
use crate::telemetry::chance;

/// Longest wait for the answer to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the gauges are set.
const REPORT: Duration = Duration::from_millis(250);
/// Signs per second that count as none.
const IDLE: f64 = 0.5;

/// What is kept for a quota group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) hedging: Hedging,
    /// When a Sign of it last worked or was throttled: the key store was there, and what waited meanwhile waited for its turn.
    pub(super) seen: Option<Instant>,
    meter: GroupMeter,
}

/// What a probe said.
#[derive(Debug)]
pub(super) struct Probed {
    address: Address,
    way: WayName,
    result: Result<(), KeyStoreError>,
}

impl Task {
    /// The time that a signature of this key may take, or why it cannot sign now.
    pub(super) fn way_of(&mut self, key: &Arc<Key>, now: Instant) -> Result<Duration, KeyStoreError> {
        self.look(key, now);
        let address = key.address();
        match self.routes.get_mut(&address) {
            Some(route) if !route.seat.groups.is_empty() => Ok(route.deadline),
            Some(route) => {
                let error = route.error();
                // It was found down by others: from now on it is asked here whether it is up.
                if let Some(at) = route.watch(now, chance::share) {
                    self.probes_due.insert((at, address));
                }
                Err(error)
            }
            None => Err(KeyStoreError { class: SignClass::KeyDown, detail: format!("the key {address} has no holder") }),
        }
    }

    /// Takes the key's holders anew if anything about them has changed.
    pub(super) fn look(&mut self, key: &Arc<Key>, now: Instant) {
        let address = key.address();
        if self.routes.get(&address).is_some_and(|route| route.is_current(key)) {
            return;
        }
        let before = self.routes.remove(&address);
        let (limits, meters) = (&self.limits, &mut self.meters);
        let route = Route::of(key, before, |holder| {
            let group = holder.store.quota_group(&holder.arn);
            let limits = limits.get(&*holder.configuration).copied().unwrap_or_default();
            let meter = meters.of(&holder.configuration);
            Way { holder, group, limits, breaker: Breaker::default(), meter }
        });
        let (rate, groups) = route.rate();
        self.ceilings.open_key(address, rate, groups);
        for way in &route.ways {
            self.ceilings.open_group(&way.group, way.limits.rate);
            self.queues.open(&way.group, way.limits.window);
            let metrics = &self.metrics;
            let make = || Group { hedging: Hedging::new(), seen: None, meter: GroupMeter::new(metrics, &way.group) };
            self.groups.entry(way.group.clone()).or_insert_with(make);
        }
        self.routes.insert(address, route);
        self.report_at.get_or_insert(now);
        self.reseat(address);
    }

    /// Tells the queues which ways can sign now. If none can, what waits for the key fails at once.
    fn reseat(&mut self, address: Address) {
        let Some(route) = self.routes.get_mut(&address) else { return };
        route.reseat();
        self.queues.reseat(address, &route.seat);
        if !route.seat.groups.is_empty() {
            return;
        }
        let error = route.error();
        for id in self.waiting_for(address) {
            self.answer(id, Err(error.clone()));
        }
    }

    /// Draws from the end of a Sign what it says about its quota group and its holder.
    pub(super) fn learn(&mut self, flight: &Flight, result: &Result<Signature, KeyStoreError>, now: Instant) {
        let (Some(group), Some(route)) = (self.groups.get_mut(&flight.group), self.routes.get_mut(&flight.address())) else { return };
        if result.as_ref().err().is_none_or(|error| error.class == SignClass::Throttled) {
            group.seen = Some(now);
        }
        match result {
            Ok(_) => {
                group.hedging.answered(now.saturating_duration_since(flight.issued));
                if let Some(pace) = self.ceilings.pace(&flight.group) {
                    pace.worked(now);
                }
                if let Some(way) = route.find(&flight.way) {
                    way.breaker.worked();
                }
            }
            Err(error) if error.class == SignClass::Throttled => {
                group.meter.throttled.inc();
                if let Some(pace) = self.ceilings.pace(&flight.group)
                    && pace.throttled(flight.issued, now)
                {
                    tracing::debug!(quota = &*flight.group.0, pace = pace.rate(), "the quota is used up: Signs go slower");
                }
            }
            Err(error) => {
                let has_another = route.has_another(&flight.way);
                let Some(way) = route.find(&flight.way) else { return };
                // Its caller's time ended before the store had a fair share of it.
                if error.class == SignClass::Deadline && now.saturating_duration_since(flight.issued) < fair(way.limits.deadline) {
                    return;
                }
                // Where nothing else can sign, what passes is waited for as long as a call waits.
                let patience = if has_another { Duration::ZERO } else { way.limits.deadline };
                if !way.fail(error, patience, now, chance::share()) {
                    return;
                }
                if let Some(at) = way.breaker.next_probe() {
                    self.probes_due.insert((at, flight.address()));
                }
                self.note(flight.address(), &flight.way, error, now);
            }
        }
    }

    /// Notes for everybody that a holder is down, if that is what the error says.
    fn note(&mut self, address: Address, way: &WayName, error: &KeyStoreError, now: Instant) {
        if let Some(route) = self.routes.get(&address).filter(|_| error.class == SignClass::KeyDown) {
            let key = Arc::clone(route.key());
            key.set_state(&way.arn, &KeyState::Unusable(error.detail.clone()));
            self.look(&key, now);
        }
        self.reseat(address);
    }

    /// Asks the stores of this key's holders whose probe is due.
    pub(super) fn probe(&mut self, address: Address, now: Instant) {
        let Some(route) = self.routes.get_mut(&address) else { return };
        for way in &mut route.ways {
            if way.breaker.begin_probe(now) {
                let (store, name) = (Arc::clone(&way.holder.store), way.name());
                self.probes.spawn(async move {
                    // The call too: it can panic before there is a future.
                    let probe = tokio::time::timeout(PROBE_TIMEOUT, async { store.probe(&name.arn).await });
                    let result = AssertUnwindSafe(probe).catch_unwind().await.unwrap_or_else(|_| Ok(Err(passing("the probe panicked"))));
                    let result = result.unwrap_or_else(|_| Err(passing("no answer to the probe")));
                    Probed { address, way: name, result }
                });
            }
        }
    }

    /// A probe was answered.
    pub(super) fn probed(&mut self, probed: Probed, now: Instant) {
        let Probed { address, way: name, result } = probed;
        let Some(route) = self.routes.get_mut(&address) else { return };
        let key = Arc::clone(route.key());
        let Some(way) = route.find(&name) else { return };
        match result {
            Ok(()) => {
                way.close();
                if way.holder.state != KeyState::Enabled {
                    key.set_state(&name.arn, &KeyState::Enabled);
                }
                self.look(&key, now);
                self.reseat(address);
            }
            Err(error) => {
                way.breaker.probed(error.clone(), now, chance::share());
                if let Some(at) = way.breaker.next_probe() {
                    self.probes_due.insert((at, address));
                }
                if way.holder.state == KeyState::Enabled {
                    self.note(address, &name, &error, now);
                }
            }
        }
    }

    /// Sets the gauges, now and then while something goes on.
    pub(super) fn report(&mut self, now: Instant) {
        let in_flight = self.flights.len();
        self.metrics.signing.waiting.set(number(self.calls.len().saturating_sub(in_flight)));
        let is_busy = !self.calls.is_empty();
        if self.report_at.is_none_or(|at| at > now) {
            self.report_at = self.report_at.or(is_busy.then_some(now + REPORT));
            return;
        }
        let mut goes_on = is_busy;
        for (name, in_flight, window) in self.queues.windows() {
            let Some(Group { meter, .. }) = self.groups.get(name) else { continue };
            meter.in_window.set(number(in_flight));
            meter.window.set(number(window));
            if let Some(pace) = self.ceilings.pace(name) {
                let usage = pace.usage(now);
                meter.rate.set(pace.ceiling());
                meter.pace.set(pace.rate());
                meter.headroom.set((pace.rate() - usage).max(0.0));
                goes_on |= usage > IDLE;
            }
        }
        self.report_at = goes_on.then_some(now + REPORT);
    }
}

fn passing(detail: &str) -> KeyStoreError {
    KeyStoreError { class: SignClass::Transient, detail: detail.to_owned() }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
