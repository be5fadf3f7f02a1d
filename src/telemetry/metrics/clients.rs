//! Clients: what they ask, how long it takes, what is open.

use std::sync::OnceLock;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::SECONDS;
use super::families::Families;

/// 10 µs to 60 s.
const OWN_SECONDS: [f64; 16] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Families by service, method and kind.
#[derive(Debug)]
pub struct ClientMetrics {
    /// JSON-RPC requests by `service`, `method` (unknown ones as `other`) and `outcome` (`ok`, `error`).
    pub requests: IntCounterVec,
    /// Requests that were answered by an error, by `service` and `reason` (`data.reason`; `node` for an error of the node's own).
    pub errors: IntCounterVec,
    /// Time from a request's decoding to its answer, by `method`.
    pub seconds: HistogramVec,
    /// The same, less the time for which it waited for KMS, journal or node, by `method`.
    pub own_seconds: HistogramVec,
    /// Client connections.
    pub connections: ConnectionMeter,
    /// Client subscriptions by `kind`.
    pub subscriptions: Subscriptions,
}

impl ClientMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: make.counters("sluice_requests_total", "JSON-RPC requests.", &["service", "method", "outcome"])?,
            errors: make.counters("sluice_request_errors_total", "JSON-RPC requests answered by an error.", &["service", "reason"])?,
            seconds: make.histograms(
                "sluice_request_duration_seconds",
                "Time from a request's decoding to its answer.",
                &["method"],
                &SECONDS,
            )?,
            own_seconds: make.histograms(
                "sluice_request_own_duration_seconds",
                "Time of a request less the time for which it waited for KMS, journal and node.",
                &["method"],
                &OWN_SECONDS,
            )?,
            connections: ConnectionMeter {
                open: make.int_gauge("sluice_connections", "Open client connections.")?,
                refused: make.counter("sluice_connections_refused_total", "Connections refused because too many were open.")?,
            },
            subscriptions: Subscriptions::new(
                &make.int_gauges("sluice_subscriptions", "Open client subscriptions.", &["kind"])?,
                &make.counters("sluice_subscriptions_ended_total", "Client subscriptions that Sluice ended.", &["kind"])?,
            ),
        })
    }
}

/// What the connections of one listener are counted with.
#[derive(Debug, Clone)]
pub struct ConnectionMeter {
    /// Open ones.
    pub open: IntGauge,
    /// Refused because as many as may were open.
    pub refused: IntCounter,
}

/// What clients can subscribe to.
const KINDS: [&str; 6] = ["newHeads", "logs", "newPendingTransactions", "syncing", "transactionReceipts", "transactions"];

/// What subscriptions of one kind are counted with.
#[derive(Debug, Clone)]
pub struct SubscriptionMeter {
    /// Open ones.
    pub open: IntGauge,
    /// Those that Sluice ended: the client did not keep up, or events may be missing.
    pub ended: IntCounter,
}

/// The meters of every kind, resolved once.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    by_kind: [(&'static str, SubscriptionMeter); KINDS.len()],
    other: SubscriptionMeter,
}

impl Subscriptions {
    fn new(open: &IntGaugeVec, ended: &IntCounterVec) -> Self {
        let meter = |kind| SubscriptionMeter { open: open.with_label_values(&[kind]), ended: ended.with_label_values(&[kind]) };
        Self { by_kind: KINDS.map(|kind| (kind, meter(kind))), other: meter("other") }
    }

    /// The meter of one kind.
    pub fn of(&self, kind: &str) -> &SubscriptionMeter {
        self.by_kind.iter().find(|(known, _)| *known == kind).map_or(&self.other, |(_, meter)| meter)
    }
}

/// A histogram of a family that gets its series with its first observation: most methods of most gateways are never called.
#[derive(Debug)]
pub struct Lazy {
    family: HistogramVec,
    label: &'static str,
    made: OnceLock<Histogram>,
}

impl Lazy {
    /// Of a family with one label.
    pub fn new(family: &HistogramVec, label: &'static str) -> Self {
        Self { family: family.clone(), label, made: OnceLock::new() }
    }

    /// Adds one observation, in seconds.
    pub fn observe(&self, seconds: f64) {
        self.made.get_or_init(|| self.family.with_label_values(&[self.label])).observe(seconds);
    }
}
