//! What Signs are counted with, resolved once per configuration.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use crate::signing::{KeyStoreError, SignClass};
use crate::telemetry::metrics::Metrics;

/// The handles of one configuration.
#[derive(Debug)]
pub(super) struct SignMeter {
    pub(super) seconds: Histogram,
    pub(super) queue_seconds: Histogram,
    ok: IntCounter,
    throttled: IntCounter,
    transient: IntCounter,
    key_down: IntCounter,
    credentials: IntCounter,
    configuration: IntCounter,
    bad_signature: IntCounter,
    deadline: IntCounter,
}

impl SignMeter {
    fn new(metrics: &Metrics, configuration: &str) -> Self {
        let family = &metrics.signing;
        let counter = |outcome| family.signs.with_label_values(&[configuration, outcome]);
        Self {
            seconds: family.seconds.with_label_values(&[configuration]),
            queue_seconds: family.queue_seconds.with_label_values(&[configuration]),
            ok: counter("ok"),
            throttled: counter("throttled"),
            transient: counter("transient"),
            key_down: counter("key_down"),
            credentials: counter("credentials"),
            configuration: counter("configuration"),
            bad_signature: counter("bad_signature"),
            deadline: counter("deadline"),
        }
    }

    /// Counts the end of one Sign.
    pub(super) fn count<T>(&self, result: &Result<T, KeyStoreError>) {
        match result.as_ref().map_err(|error| error.class) {
            Ok(_) => &self.ok,
            Err(SignClass::Throttled) => &self.throttled,
            Err(SignClass::Transient) => &self.transient,
            Err(SignClass::KeyDown) => &self.key_down,
            Err(SignClass::Credentials) => &self.credentials,
            Err(SignClass::Configuration) => &self.configuration,
            Err(SignClass::BadSignature) => &self.bad_signature,
            Err(SignClass::Deadline) => &self.deadline,
        }
        .inc();
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
