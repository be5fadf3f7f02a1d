//! What the transactions of one environment are counted with, resolved once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::account::replace::Replacement;
use super::outcome::Outcome;
use crate::journal::AttemptState;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::accounts::{AccountMeter, Accounts};

/// Conditions that somebody has to look at. Each begins at 0, so that the first one is an increase.
pub(super) const ALARMS: [&str; 12] = [
    "foreign_nonce",
    "nonce_missing",
    "final_lost",
    "refused_payload",
    "slot_occupied",
    "refused_in_doubt",
    "bump_stopped",
    "filler_refused",
    "slot_taken",
    "account_lost",
    "account_restarted",
    "journal_behind",
];

/// The stages on a transaction's way from its arrival to the first node that has it. Each begins where the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Chain, fees and gas are asked for, and the turn in a batch is waited for: until it is put into its account's queue.
    Prepare,
    /// In the queue, until its Sign is asked for: the balance, a window that is full, a lower nonce that is missing.
    Queue,
    /// Until it is signed: the queue for the key store, the Sign, its retries.
    Sign,
    /// Until every lower nonce is signed too and its commit begins.
    Order,
    /// Until it is durable.
    Commit,
    /// Until its bytes are given to the nodes: the broadcast window.
    Window,
    /// Until the first node has them.
    Node,
}

impl Stage {
    const ALL: [Self; 7] = [Self::Prepare, Self::Queue, Self::Sign, Self::Order, Self::Commit, Self::Window, Self::Node];

    fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Queue => "queue",
            Self::Sign => "sign",
            Self::Order => "order",
            Self::Commit => "commit",
            Self::Window => "window",
            Self::Node => "node",
        }
    }
}

/// Metric handles of one environment.
pub(super) struct Meters {
    environment: String,
    submissions: Submissions,
    /// In the order of `AttemptState::ALL`.
    states: [IntCounter; AttemptState::ALL.len()],
    pub(super) alarms: IntCounterVec,
    fillers: IntCounter,
    /// In the order of `Replacement::ALL`.
    replacements: [IntCounter; Replacement::ALL.len()],
    /// Signatures that were made and are not used.
    pub(super) unused: IntCounter,
    /// In the order of `Stage::ALL`.
    stages: [Histogram; Stage::ALL.len()],
    broadcast: Histogram,
    inclusion: Histogram,
    accounts: Arc<Accounts>,
}

struct Submissions {
    accepted: IntCounter,
    known: IntCounter,
    nonce_too_low: IntCounter,
    occupied: IntCounter,
    pool_full: IntCounter,
    unknown: IntCounter,
    unrecognised: IntCounter,
    not_sent: IntCounter,
    refused: IntCounter,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, environment: &str) -> Self {
        let family = &metrics.transactions;
        let submission = |outcome| family.submissions.with_label_values(&[environment, outcome]);
        for kind in ALARMS {
            family.alarms.with_label_values(&[environment, kind]);
        }
        Self {
            environment: environment.to_owned(),
            submissions: Submissions {
                accepted: submission("accepted"),
                known: submission("known"),
                nonce_too_low: submission("nonce_too_low"),
                occupied: submission("occupied"),
                pool_full: submission("pool_full"),
                unknown: submission("unknown"),
                unrecognised: submission("unrecognised"),
                not_sent: submission("not_sent"),
                refused: submission("refused"),
            },
            states: AttemptState::ALL.map(|state| family.states.with_label_values(&[environment, state.as_str()])),
            alarms: family.alarms.clone(),
            fillers: family.fillers.with_label_values(&[environment]),
            replacements: Replacement::ALL.map(|what| family.replacements.with_label_values(&[environment, what.as_str()])),
            unused: family.resigned.clone(),
            stages: Stage::ALL.map(|stage| family.stage_seconds.with_label_values(&[environment, stage.as_str()])),
            broadcast: family.broadcast_seconds.with_label_values(&[environment]),
            inclusion: family.inclusion_seconds.with_label_values(&[environment]),
            accounts: Arc::clone(&metrics.accounts),
        }
    }

    pub(super) fn submission(&self, outcome: &Outcome) {
        let counters = &self.submissions;
        match outcome {
            Outcome::Accepted => &counters.accepted,
            Outcome::Known => &counters.known,
            Outcome::NonceTooLow => &counters.nonce_too_low,
            Outcome::Occupied => &counters.occupied,
            Outcome::PoolFull => &counters.pool_full,
            Outcome::Unknown(_) => &counters.unknown,
            Outcome::Unrecognised { .. } => &counters.unrecognised,
            Outcome::NotSent => &counters.not_sent,
            Outcome::Refused { .. } => &counters.refused,
        }
        .inc();
    }

    pub(super) fn state(&self, state: AttemptState) {
        if let Some(counter) = self.states.get(state as usize) {
            counter.inc();
        }
    }

    /// Alarms are rare: this one looks its counter up.
    pub(super) fn alarm(&self, kind: &str) {
        self.alarms.with_label_values(&[self.environment.as_str(), kind]).inc();
    }

    pub(super) fn filler(&self) {
        self.fillers.inc();
    }

    pub(super) fn replacement(&self, what: Replacement) {
        if let Some(counter) = self.replacements.get(what as usize) {
            counter.inc();
        }
    }

    pub(super) fn stage(&self, stage: Stage, time: Duration) {
        if let Some(histogram) = self.stages.get(stage as usize) {
            histogram.observe(time.as_secs_f64());
        }
    }

    pub(super) fn broadcast(&self, since_arrival: Duration) {
        self.broadcast.observe(since_arrival.as_secs_f64());
    }

    pub(super) fn included(&self, since_broadcast: Duration) {
        self.inclusion.observe(since_broadcast.as_secs_f64());
    }

    /// The meter of an account's task.
    pub(super) fn account(&self, address: Address) -> AccountMeter {
        self.accounts.meter(&self.environment, address)
    }
}

/// Where one transaction is on its way, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Laps {
    /// When the request arrived.
    pub(super) arrived: Instant,
    /// When the stage before this one ended.
    pub(super) since: Instant,
}

impl Laps {
    /// The stage ends now; answers how long it took.
    pub(super) fn end(&mut self, stage: Stage, now: Instant, meters: &Meters) -> Duration {
        let took = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        meters.stage(stage, took);
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_stages_are_counted_under_their_own_names() {
        let metrics = Metrics::new().unwrap();
        let meters = Meters::new(&metrics, "dev");
        for (position, state) in AttemptState::ALL.into_iter().enumerate() {
            (0..=position).for_each(|_| meters.state(state));
            let counter = metrics.transactions.states.with_label_values(&["dev", state.as_str()]);
            assert_eq!(counter.get(), position as u64 + 1, "{state:?}");
        }
        for stage in Stage::ALL {
            meters.stage(stage, Duration::from_secs(1));
            let histogram = metrics.transactions.stage_seconds.with_label_values(&["dev", stage.as_str()]);
            assert_eq!(histogram.get_sample_count(), 1, "{stage:?}");
        }
    }

    #[test]
    fn outcomes_are_counted_under_their_labels() {
        let metrics = Metrics::new().unwrap();
        let meters = Meters::new(&metrics, "dev");
        let outcomes = [
            Outcome::Accepted,
            Outcome::Known,
            Outcome::NonceTooLow,
            Outcome::Occupied,
            Outcome::PoolFull,
            Outcome::Unknown(String::new()),
            Outcome::Unrecognised { code: 0, message: String::new() },
            Outcome::NotSent,
            Outcome::Refused { code: 0, message: String::new() },
        ];
        for outcome in outcomes {
            meters.submission(&outcome);
            assert_eq!(metrics.transactions.submissions.with_label_values(&["dev", outcome.label()]).get(), 1, "{outcome:?}");
        }
    }

    #[test]
    fn replacements_are_counted_under_their_labels() {
        let metrics = Metrics::new().unwrap();
        let meters = Meters::new(&metrics, "dev");
        for what in Replacement::ALL {
            meters.replacement(what);
            assert_eq!(metrics.transactions.replacements.with_label_values(&["dev", what.as_str()]).get(), 1, "{what:?}");
        }
    }

    #[test]
    fn laps_tile_the_time() {
        let metrics = Metrics::new().unwrap();
        let meters = Meters::new(&metrics, "dev");
        let start = Instant::now();
        let mut laps = Laps { arrived: start, since: start };
        let seconds = |n| start + Duration::from_secs(n);
        assert_eq!(laps.end(Stage::Queue, seconds(2), &meters), Duration::from_secs(2));
        assert_eq!(laps.end(Stage::Sign, seconds(5), &meters), Duration::from_secs(3));
        let sum: f64 = Stage::ALL.iter().filter_map(|stage| meters.stages.get(*stage as usize)).map(Histogram::get_sample_sum).sum();
        assert!((sum - 5.0).abs() < 1e-9);
    }
}
