//! What streams of one chain were told, counted.

use prometheus::IntCounter;

use crate::telemetry::metrics::Metrics;

/// Counters of one environment, resolved once.
#[derive(Debug, Clone)]
pub(in crate::subscriptions) struct StepMeter {
    /// Blocks that a node announced.
    pub(super) announced: IntCounter,
    /// Blocks that nobody announced here and that were fetched by their hashes.
    pub(super) fetched: IntCounter,
    /// Blocks that a reorg took back.
    pub(super) orphaned: IntCounter,
    /// Times that what came did not join what was there.
    pub(super) gap: IntCounter,
}

impl StepMeter {
    pub(in crate::subscriptions) fn new(metrics: &Metrics, environment: &str) -> Self {
        let counter = |kind| metrics.nodes.stream_steps.with_label_values(&[environment, kind]);
        Self { announced: counter("announced"), fetched: counter("fetched"), orphaned: counter("orphaned"), gap: counter("gap") }
    }
}
