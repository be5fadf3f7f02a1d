//! Signs.

use prometheus::{GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::SECONDS;
use super::families::Families;

/// Families of the key stores.
#[derive(Debug)]
pub struct SigningMetrics {
    /// Sign calls by `configuration` and `outcome` (`ok`, the error class, or `dropped`).
    pub signs: IntCounterVec,
    /// Duration of one Sign call by `configuration` and `outcome`.
    pub seconds: HistogramVec,
    /// Time from a ticket to the first Sign issued for it, by `configuration`.
    pub queue_seconds: HistogramVec,
    /// Signs that were asked again after a passing fault.
    pub retries: IntCounter,
    /// Second Signs of calls that took long, by `outcome` (`won`, `lost`, `failed`).
    pub hedges: IntCounterVec,
    /// Signatures that nobody waited for any more.
    pub unclaimed: IntCounter,
    /// Signatures that Signs were made for and that did not come.
    pub fruitless: IntCounter,
    /// Signs in flight.
    pub in_flight: IntGauge,
    /// Signatures that are asked for and not in flight: at a ceiling, or before their next try.
    pub waiting: IntGauge,
    /// Signs that the quota refused, by `quota` (account and Region).
    pub throttled: IntCounterVec,
    /// Signs in flight by `quota`.
    pub in_window: IntGaugeVec,
    /// How many may be, by `quota`.
    pub window: IntGaugeVec,
    /// The configured Signs per second, by `quota`; 0 is no ceiling.
    pub rate: GaugeVec,
    /// The Signs per second that are issued at most now, by `quota`.
    pub pace: GaugeVec,
    /// What the pace has left of the last second, by `quota`.
    pub headroom: GaugeVec,
    /// Holders of keys whose circuit breaker is open, by `configuration`.
    pub breakers_open: IntGaugeVec,
    /// GetPublicKey calls.
    pub public_keys: IntCounter,
}

impl SigningMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        let configuration: &'static [&'static str] = &["configuration"];
        let by_outcome: &'static [&'static str] = &["configuration", "outcome"];
        let quota: &'static [&'static str] = &["quota"];
        Ok(Self {
            signs: make.counters("sluice_signs_total", "Sign calls.", by_outcome)?,
            seconds: make.histograms("sluice_sign_duration_seconds", "Duration of one Sign call.", by_outcome, &SECONDS)?,
            queue_seconds: make.histograms(
                "sluice_sign_queue_seconds",
                "Time from the wish for a signature to its first Sign call.",
                configuration,
                &SECONDS,
            )?,
            retries: make.counter("sluice_sign_retries_total", "Signs asked again after a passing fault.")?,
            hedges: make.counters("sluice_sign_hedges_total", "Second Signs of calls that took long.", &["outcome"])?,
            unclaimed: make.counter("sluice_sign_unclaimed_total", "Signatures that nobody waited for any more.")?,
            fruitless: make.counter("sluice_sign_fruitless_total", "Signatures that Signs were made for and that did not come.")?,
            in_flight: make.int_gauge("sluice_signs_in_flight", "Signs in flight.")?,
            waiting: make.int_gauge("sluice_signs_waiting", "Signatures that are asked for and not in flight.")?,
            throttled: make.counters("sluice_sign_throttled_total", "Signs that the quota refused.", quota)?,
            in_window: make.int_gauges("sluice_sign_window_used", "Signs in flight of one quota.", quota)?,
            window: make.int_gauges("sluice_sign_window", "Signs in flight of one quota at most.", quota)?,
            rate: make.gauges("sluice_sign_rate", "Configured Signs per second.", quota)?,
            pace: make.gauges("sluice_sign_pace", "Signs per second that are issued at most now.", quota)?,
            headroom: make.gauges("sluice_sign_headroom", "Signs per second that the pace has left.", quota)?,
            breakers_open: make.int_gauges("sluice_sign_breakers_open", "Holders of keys that are not asked to sign.", configuration)?,
            public_keys: make.counter("sluice_get_public_key_total", "GetPublicKey calls.")?,
        })
    }
}
