//! Signs.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::SECONDS;
use super::families::Families;

/// Families of the key stores.
#[derive(Debug)]
pub struct SigningMetrics {
    /// Sign calls by `configuration` and `outcome` (`ok` or the error class).
    pub signs: IntCounterVec,
    /// Duration of one Sign call by `configuration`.
    pub seconds: HistogramVec,
    /// Time from a ticket to the first Sign issued for it, by `configuration`.
    pub queue_seconds: HistogramVec,
    /// Signs that were asked again after a passing fault.
    pub retries: IntCounter,
    /// Signs in flight.
    pub in_flight: IntGauge,
    /// Signatures that are asked for and not in flight: at a ceiling, or before their next try.
    pub waiting: IntGauge,
    /// GetPublicKey calls.
    pub public_keys: IntCounter,
}

impl SigningMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        let configuration: &'static [&'static str] = &["configuration"];
        Ok(Self {
            signs: make.counters("sluice_signs_total", "Sign calls.", &["configuration", "outcome"])?,
            seconds: make.histograms("sluice_sign_duration_seconds", "Duration of one Sign call.", configuration, &SECONDS)?,
            queue_seconds: make.histograms(
                "sluice_sign_queue_seconds",
                "Time from the wish for a signature to its first Sign call.",
                configuration,
                &SECONDS,
            )?,
            retries: make.counter("sluice_sign_retries_total", "Signs asked again after a passing fault.")?,
            in_flight: make.int_gauge("sluice_signs_in_flight", "Signs in flight.")?,
            waiting: make.int_gauge("sluice_signs_waiting", "Signatures that are asked for and not in flight.")?,
            public_keys: make.counter("sluice_get_public_key_total", "GetPublicKey calls.")?,
        })
    }
}
