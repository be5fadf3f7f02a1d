//! The keys of the services that run, found again: by a clock, by an operator, and behind a start that took them from its record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::Address;
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::build::Foundation;
use super::status::time;
use crate::config::{self, Config, KeySelection, Provider};
use crate::signing::{DirectoryError, KeyState, ServiceKeys};
use crate::telemetry::chance;
use crate::telemetry::metrics::Metrics;

/// The rest before keys that come from the record are checked again, after the first try that failed; it doubles with each further one,
const REST: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Longest wait at the end for who reads keys.
const LAST_TURN: Duration = Duration::from_secs(5);
/// Share of an interval by which turns differ, so that several gateways do not ask at once.
const JITTER: f64 = 0.1;
/// Addresses that one line of the log names.
const NAMED: usize = 20;

/// One service's keys, and how fresh they are.
#[derive(Debug)]
pub(super) struct ManagedKeys {
    name: Arc<str>,
    configurations: Vec<String>,
    selection: KeySelection,
    keys: ServiceKeys,
    /// The shortest of its configurations; none if all are off.
    interval: Option<Duration>,
    freshness: Mutex<Freshness>,
}

#[derive(Debug, Clone)]
struct Freshness {
    /// When the key stores last said which keys there are. None while that is on record only.
    at: Option<SystemTime>,
    /// Why the last refresh failed.
    error: Option<String>,
    failures: u32,
    /// When the next one is due.
    due: Option<Instant>,
}

impl ManagedKeys {
    fn freshness(&self) -> MutexGuard<'_, Freshness> {
        self.freshness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `{ at, error }`, for /status.
    pub(super) fn show(&self) -> Value {
        let Freshness { at, error, .. } = self.freshness().clone();
        json!({ "at": at.map(time), "error": error })
    }

    fn is_due(&self, now: Instant) -> bool {
        self.freshness().due.is_some_and(|due| due <= now)
    }

    fn succeeded(&self, now: Instant, at: SystemTime) {
        let due = next(now, self.interval, true, 0, chance::share());
        *self.freshness() = Freshness { at: Some(at), error: None, failures: 0, due };
    }

    fn failed(&self, now: Instant, error: String) {
        let mut freshness = self.freshness();
        freshness.failures = freshness.failures.saturating_add(1);
        freshness.due = next(now, self.interval, freshness.at.is_some(), freshness.failures, chance::share());
        freshness.error = Some(error);
    }

    fn states(&self) -> BTreeMap<Address, KeyState> {
        self.keys.all().into_iter().map(|key| (key.address(), key.state())).collect()
    }
}

/// When to find the keys again. Those that only the record tells of are checked at once, and after a failure soon, whatever the interval.
fn next(now: Instant, interval: Option<Duration>, is_checked: bool, failures: u32, share: f64) -> Option<Instant> {
    let regular = interval.map(|interval| interval.mul_f64(1.0 - JITTER * share));
    let soon = (!is_checked).then(|| match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(more) => REST.saturating_mul(2u32.saturating_pow(more)).min(LONGEST_REST).mul_f64(1.0 - JITTER * share),
    });
    [regular, soon].into_iter().flatten().min().map(|rest| now + rest)
}

/// What differs between two sets of keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct Delta {
    added: Vec<Address>,
    removed: Vec<Address>,
    /// Keys of both, with their new state.
    changed: Vec<(Address, KeyState)>,
}

impl Delta {
    fn between(before: &BTreeMap<Address, KeyState>, after: &BTreeMap<Address, KeyState>) -> Self {
        let changed = after.iter().filter(|(address, state)| before.get(*address).is_some_and(|was| was != *state));
        Self {
            added: after.keys().filter(|address| !before.contains_key(*address)).copied().collect(),
            removed: before.keys().filter(|address| !after.contains_key(*address)).copied().collect(),
            changed: changed.map(|(address, state)| (*address, state.clone())).collect(),
        }
    }
}

/// The services whose keys are managed, and whose turn it is to change them.
#[derive(Debug)]
pub(super) struct KeyBook {
    services: ArcSwap<Vec<Arc<ManagedKeys>>>,
    /// By configuration; those that are off are not in it.
    intervals: HashMap<String, Duration>,
    /// One reading of keys at a time: a reload, or a refresh.
    turn: Arc<Semaphore>,
    exchanged: Notify,
}

impl KeyBook {
    pub(super) fn new(config: &Config) -> Self {
        let interval = |configuration: &config::Configuration| match &configuration.provider {
            Provider::AwsKms(kms) => Some((configuration.name.clone(), kms.refresh)).filter(|(_, refresh)| !refresh.is_zero()),
            Provider::Local(_) | Provider::Development { .. } => None,
        };
        Self {
            services: ArcSwap::default(),
            intervals: config.configurations.iter().filter_map(interval).collect(),
            turn: Arc::new(Semaphore::new(1)),
            exchanged: Notify::new(),
        }
    }

    /// Waits until nobody else reads keys. Held until what was read is in force and on record.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }

    /// The turn before the journal closes: what was found is on record whole by then, since the next start serves by it. None after
    /// a while.
    pub(super) async fn last_turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(LAST_TURN, self.turn()).await;
        turn.unwrap_or_else(|_| {
            tracing::warn!("the keys are still being read at the end: the next start may discover first");
            None
        })
    }

    /// A service's keys as they were just found, or (`is_checked` is false) as the record has them.
    pub(super) fn managed(&self, service: &config::Service, keys: ServiceKeys, is_checked: bool) -> Arc<ManagedKeys> {
        let interval = service.configurations.iter().filter_map(|name| self.intervals.get(name)).min().copied();
        let due = next(Instant::now(), interval, is_checked, 0, chance::share());
        let at = is_checked.then(SystemTime::now);
        Arc::new(ManagedKeys {
            name: service.name.as_str().into(),
            configurations: service.configurations.clone(),
            selection: service.keys.clone(),
            keys,
            interval,
            freshness: Mutex::new(Freshness { at, error: None, failures: 0, due }),
        })
    }

    /// These are the services from now on.
    pub(super) fn exchange(&self, services: Vec<Arc<ManagedKeys>>, metrics: &Metrics) {
        for managed in &services {
            metrics.keys.begin(&managed.name);
            if let Some(at) = managed.freshness().at {
                metrics.keys.refreshed.with_label_values(&[&*managed.name]).set(seconds(at));
            }
        }
        self.services.store(Arc::new(services));
        self.count(metrics);
        self.exchanged.notify_one();
    }

    /// What is kept on disk for the services.
    pub(super) fn discoveries(&self, foundation: &Foundation) -> Vec<crate::journal::DiscoveryName> {
        let services = self.services.load();
        services.iter().flat_map(|managed| foundation.directory.discoveries(&managed.configurations, &managed.selection)).collect()
    }

    /// Names of keys by configuration and state, each once however many services use it.
    fn count(&self, metrics: &Metrics) {
        let mut holders = BTreeMap::new();
        for key in self.services.load().iter().flat_map(|managed| managed.keys.all()) {
            holders.extend(key.holders().into_iter().map(|holder| ((holder.configuration, holder.arn), holder.state)));
        }
        let states = holders.into_iter().map(|((configuration, _), state)| (configuration, state.word()));
        metrics.keys.count(states);
    }

    fn due(&self) -> Option<Instant> {
        self.services.load().iter().filter_map(|managed| managed.freshness().due).min()
    }
}

/// Refreshes what is due, until `stop`.
pub(super) async fn keep_fresh(foundation: Arc<Foundation>, stop: CancellationToken) {
    let book = &foundation.keys;
    loop {
        let due = book.due();
        let waiting = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = book.exchanged.notified() => continue,
            () = waiting => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = refresh(&foundation, |managed| managed.is_due(Instant::now())) => {}
        }
    }
}

/// Refreshes every service; what came of it, for operators: `{ services: [{ name, keys, added, removed, changed, error }] }`.
pub(super) async fn refresh_all(foundation: &Foundation) -> Value {
    json!({ "services": refresh(foundation, |_| true).await })
}

/// Finds the keys of these services again, one service after the other. Each changes whole, or, on an error, not at all.
async fn refresh(foundation: &Foundation, wanted: impl Fn(&ManagedKeys) -> bool + Send) -> Vec<Value> {
    let _turn = foundation.keys.turn().await;
    let services: Vec<Arc<ManagedKeys>> = foundation.keys.services.load().iter().filter(|managed| wanted(managed)).cloned().collect();
    // Of all, first: a key that services share changes for all of them at once.
    let before: Vec<_> = services.iter().map(|managed| managed.states()).collect();
    let mut told = Vec::new();
    for (managed, before) in services.iter().zip(before) {
        let began = Instant::now();
        let found = exchange(foundation, managed).await;
        let metrics = &foundation.metrics.keys;
        let outcome = if found.is_ok() { "ok" } else { "failed" };
        metrics.refreshes.with_label_values(&[&*managed.name, outcome]).inc();
        metrics.refresh_seconds.with_label_values(&[&*managed.name]).observe(began.elapsed().as_secs_f64());
        let error = match found {
            Ok(()) => {
                let at = SystemTime::now();
                managed.succeeded(Instant::now(), at);
                metrics.refreshed.with_label_values(&[&*managed.name]).set(seconds(at));
                None
            }
            Err(error) => {
                tracing::warn!(service = &*managed.name, %error, "the keys were not refreshed: they stay as they are");
                managed.failed(Instant::now(), error.to_string());
                Some(error.to_string())
            }
        };
        let delta = Delta::between(&before, &managed.states());
        tell(foundation, managed, &delta);
        let changed: Vec<Value> =
            delta.changed.iter().map(|(address, state)| json!({ "address": address, "state": state.word() })).collect();
        told.push(json!({
            "name": &*managed.name,
            "keys": managed.keys.addresses().len(),
            "added": delta.added,
            "removed": delta.removed,
            "changed": changed,
            "error": error,
        }));
    }
    foundation.keys.count(&foundation.metrics);
    told
}

async fn exchange(foundation: &Foundation, managed: &ManagedKeys) -> Result<(), DirectoryError> {
    let mut draft = foundation.directory.draft();
    let found = draft.select(&managed.configurations, &managed.selection).await?;
    let findings = draft.apply();
    managed.keys.replace(&found);
    for holder in found.all().iter().flat_map(|key| key.holders()) {
        holder.store.keep_ready(&holder.arn);
    }
    if let Err(error) = foundation.directory.remember(findings).await {
        tracing::warn!(service = &*managed.name, %error, "the keys that were found are not on record: the next start may discover first");
    }
    Ok(())
}

/// Logs and counts what differs.
fn tell(foundation: &Foundation, managed: &ManagedKeys, delta: &Delta) {
    let Delta { added, removed, changed } = delta;
    if *delta == Delta::default() {
        return;
    }
    for (change, keys) in [("added", added.len()), ("removed", removed.len()), ("state", changed.len())] {
        let counter = foundation.metrics.keys.changes.with_label_values(&[&*managed.name, change]);
        counter.inc_by(u64::try_from(keys).unwrap_or(u64::MAX));
    }
    let names = |addresses: &[Address]| addresses.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let states: Vec<String> = changed.iter().take(NAMED).map(|(address, state)| format!("{address} {}", state.word())).collect();
    tracing::info!(
        service = &*managed.name,
        added = added.len(),
        removed = removed.len(),
        changed = changed.len(),
        added_keys = names(added),
        removed_keys = names(removed),
        changed_keys = states.join(", "),
        "the keys of the service have changed"
    );
    if managed.keys.addresses().is_empty() {
        tracing::warn!(service = &*managed.name, "the service has no key that can sign");
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_has_what_came_what_went_and_what_differs() {
        let key = Address::repeat_byte;
        let (up, down) = (KeyState::Enabled, KeyState::Unusable("Disabled".to_owned()));
        let before = BTreeMap::from([(key(1), up.clone()), (key(2), up.clone()), (key(3), down.clone()), (key(4), up.clone())]);
        let after = BTreeMap::from([(key(1), up.clone()), (key(2), down.clone()), (key(3), up.clone()), (key(5), down.clone())]);
        let delta = Delta::between(&before, &after);
        assert_eq!((delta.added, delta.removed), (vec![key(5)], vec![key(4)]));
        assert_eq!(delta.changed, [(key(2), down), (key(3), up)]);
        assert_eq!(Delta::between(&before, &before), Delta::default());
    }

    #[test]
    fn keys_of_the_record_are_checked_at_once_and_soon_after_a_failure() {
        let (now, interval) = (Instant::now(), Some(Duration::from_secs(300)));
        let rest = |interval, is_checked, failures| next(now, interval, is_checked, failures, 0.0).map(|at| (at - now).as_secs());
        assert_eq!((rest(interval, false, 0), rest(None, false, 0)), (Some(0), Some(0)));
        assert_eq!([1, 2, 3, 7, 40].map(|failures| rest(None, false, failures)), [Some(1), Some(2), Some(4), Some(60), Some(60)]);
        assert_eq!(rest(Some(Duration::from_secs(5)), false, 7), Some(5), "never later than the interval");
        assert_eq!([0, 1, 9].map(|failures| rest(interval, true, failures)), [Some(300); 3]);
        assert_eq!(rest(None, true, 3), None, "it is off");
        assert_eq!(next(now, interval, true, 0, 1.0), Some(now + Duration::from_secs(270)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_who_puts_keys_on_record_but_not_for_ever() {
        let book = KeyBook {
            services: ArcSwap::default(),
            intervals: HashMap::new(),
            turn: Arc::new(Semaphore::new(1)),
            exchanged: Notify::new(),
        };
        let writing = book.turn().await.unwrap();
        let (began, wrote) = (Instant::now(), Duration::from_secs(4));
        tokio::spawn(async move {
            tokio::time::sleep(wrote).await;
            drop(writing);
        });
        let last = book.last_turn().await;
        assert!(last.is_some() && began.elapsed() >= wrote);
        assert!(book.last_turn().await.is_none(), "somebody holds it for ever");
    }
}
