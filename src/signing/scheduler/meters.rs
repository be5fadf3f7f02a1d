//! What Signs are counted with, resolved once per configuration and per quota group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use crate::signing::{KeyStoreError, QuotaGroup, SignClass};
use crate::telemetry::metrics::Metrics;

/// What came of one Sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed(SignClass),
    /// Another Sign of the same call was answered first.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed(SignClass::Throttled),
        Self::Failed(SignClass::Transient),
        Self::Failed(SignClass::KeyDown),
        Self::Failed(SignClass::Credentials),
        Self::Failed(SignClass::Configuration),
        Self::Failed(SignClass::BadSignature),
        Self::Failed(SignClass::Deadline),
        Self::Dropped,
    ];

    pub(super) fn of<T>(result: &Result<T, KeyStoreError>) -> Self {
        result.as_ref().map_or_else(|error| Self::Failed(error.class), |_| Self::Ok)
    }

    /// The label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(SignClass::Throttled) => "throttled",
            Self::Failed(SignClass::Transient) => "transient",
            Self::Failed(SignClass::KeyDown) => "key_down",
            Self::Failed(SignClass::Credentials) => "credentials",
            Self::Failed(SignClass::Configuration) => "configuration",
            Self::Failed(SignClass::BadSignature) => "bad_signature",
            Self::Failed(SignClass::Deadline) => "deadline",
            Self::Dropped => "dropped",
        }
    }
}

/// The handles of one configuration.
#[derive(Debug)]
pub(super) struct SignMeter {
    pub(super) queue_seconds: Histogram,
    pub(super) breakers_open: IntGauge,
    /// In the order of [`Outcome::ALL`].
    outcomes: [(IntCounter, Histogram); Outcome::ALL.len()],
}

impl SignMeter {
    fn new(metrics: &Metrics, configuration: &str) -> Self {
        let family = &metrics.signing;
        let outcome = |outcome: Outcome| {
            let labels = [configuration, outcome.as_str()];
            (family.signs.with_label_values(&labels), family.seconds.with_label_values(&labels))
        };
        Self {
            queue_seconds: family.queue_seconds.with_label_values(&[configuration]),
            breakers_open: family.breakers_open.with_label_values(&[configuration]),
            outcomes: Outcome::ALL.map(outcome),
        }
    }

    /// Counts the end of one Sign.
    pub(super) fn count(&self, outcome: Outcome, duration: Duration) {
        let at = Outcome::ALL.iter().position(|known| *known == outcome);
        if let Some((counter, seconds)) = at.and_then(|at| self.outcomes.get(at)) {
            counter.inc();
            seconds.observe(duration.as_secs_f64());
        }
    }
}

/// The handles of every configuration, by its name.
#[derive(Debug)]
pub(super) struct SignMeters {
    metrics: Arc<Metrics>,
    by_configuration: HashMap<String, Arc<SignMeter>>,
}

impl SignMeters {
    pub(super) fn new<'a>(metrics: Arc<Metrics>, configurations: impl Iterator<Item = &'a String>) -> Self {
        let by_configuration = configurations.map(|name| (name.clone(), Arc::new(SignMeter::new(&metrics, name)))).collect();
        Self { metrics, by_configuration }
    }

    pub(super) fn of(&mut self, configuration: &str) -> Arc<SignMeter> {
        if let Some(meter) = self.by_configuration.get(configuration) {
            return Arc::clone(meter);
        }
        let meter = Arc::new(SignMeter::new(&self.metrics, configuration));
        self.by_configuration.insert(configuration.to_owned(), Arc::clone(&meter));
        meter
    }
}

/// The handles of second Signs.
#[derive(Debug)]
pub(super) struct HedgeMeter {
    /// It was answered first.
    pub(super) won: IntCounter,
    /// The first Sign was answered first.
    pub(super) lost: IntCounter,
    /// It gave no signature.
    pub(super) failed: IntCounter,
}

impl HedgeMeter {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |outcome| metrics.signing.hedges.with_label_values(&[outcome]);
        Self { won: counter("won"), lost: counter("lost"), failed: counter("failed") }
    }
}

/// The handles of one quota group.
#[derive(Debug)]
pub(super) struct GroupMeter {
    pub(super) throttled: IntCounter,
    pub(super) in_window: IntGauge,
    pub(super) window: IntGauge,
    pub(super) rate: Gauge,
    pub(super) pace: Gauge,
    pub(super) headroom: Gauge,
}

impl GroupMeter {
    pub(super) fn new(metrics: &Metrics, group: &QuotaGroup) -> Self {
        let family = &metrics.signing;
        let quota = [&*group.0];
        Self {
            throttled: family.throttled.with_label_values(&quota),
            in_window: family.in_window.with_label_values(&quota),
            window: family.window.with_label_values(&quota),
            rate: family.rate.with_label_values(&quota),
            pace: family.pace.with_label_values(&quota),
            headroom: family.headroom.with_label_values(&quota),
        }
    }
}
