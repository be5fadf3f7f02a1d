//! Transactions by environment: how far they come, what waits for what, what went wrong.

use prometheus::{HistogramVec, IntCounter, IntCounterVec};

use super::SECONDS;
use super::families::Families;

/// 50 ms to an hour: blocks come every 250 ms on some chains, every 12 s on others.
const INCLUSION_SECONDS: [f64; 16] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 13.0, 25.0, 37.0, 61.0, 120.0, 300.0, 900.0, 3600.0];

/// Families by environment.
#[derive(Debug)]
pub struct TransactionMetrics {
    /// Answers to raw sends by `environment` and `outcome` (`accepted`, `known`, `refused`, …).
    pub submissions: IntCounterVec,
    /// Attempts that reached a state, by `environment` and `state`.
    pub states: IntCounterVec,
    /// Fillers made, by `environment`.
    pub fillers: IntCounterVec,
    /// Payloads on record in the place of others of the same transaction, by `environment` and `kind` (`bump`, `speed_up`, `cancel`).
    pub replacements: IntCounterVec,
    /// Signs made a second time because a lower nonce of the account failed and the higher ones moved down.
    pub resigned: IntCounter,
    /// Alarms by `environment` and `kind` (`foreign_nonce`, `filler_refused`, …): somebody has to look.
    pub alarms: IntCounterVec,
    /// Time that a transaction spent in a stage, by `environment` and `stage`.
    pub stage_seconds: HistogramVec,
    /// From a request's arrival to the first node that has its bytes, by `environment`.
    pub broadcast_seconds: HistogramVec,
    /// From the first node that has the bytes to the block that has them, by `environment`.
    pub inclusion_seconds: HistogramVec,
}

impl TransactionMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        let environment: &'static [&'static str] = &["environment"];
        Ok(Self {
            submissions: make.counters("sluice_submissions_total", "Outcomes of raw sends.", &["environment", "outcome"])?,
            states: make.counters("sluice_attempt_states_total", "Attempts that reached a state.", &["environment", "state"])?,
            fillers: make.counters("sluice_fillers_total", "Fillers made.", environment)?,
            replacements: make.counters(
                "sluice_replacements_total",
                "Payloads on record in the place of others of the same transaction.",
                &["environment", "kind"],
            )?,
            resigned: make.counter("sluice_resigned_total", "Signatures of transactions that were not used.")?,
            alarms: make.counters("sluice_alarms_total", "Conditions that somebody has to look at.", &["environment", "kind"])?,
            stage_seconds: make.histograms(
                "sluice_transaction_stage_duration_seconds",
                "Time that a transaction spent in a stage.",
                &["environment", "stage"],
                &SECONDS,
            )?,
            broadcast_seconds: make.histograms(
                "sluice_accept_to_broadcast_seconds",
                "Time from a request's arrival to the first node that has its bytes.",
                environment,
                &SECONDS,
            )?,
            inclusion_seconds: make.histograms(
                "sluice_broadcast_to_inclusion_seconds",
                "Time from the first node that has the bytes to the block that has them.",
                environment,
                &INCLUSION_SECONDS,
            )?,
        })
    }
}
