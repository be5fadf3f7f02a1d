//! Every metric, registered once; hot paths hold the resolved handles.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The registry and the families in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// JSON-RPC requests by `service`, `method` (unknown ones as `other`) and `outcome` (`ok`, `error`).
    pub requests: IntCounterVec,
    /// Time from a request's decoding to its answer, by `method`.
    pub request_seconds: HistogramVec,
    /// Open client connections.
    pub connections: IntGauge,
    /// Open client subscriptions by `kind`.
    pub subscriptions: IntGaugeVec,
    /// Sign calls by `outcome` (`ok` or the error class).
    pub signs: IntCounterVec,
    /// Duration of one Sign call in seconds.
    pub sign_seconds: Histogram,
    /// Signs that were asked again after a passing fault.
    pub sign_retries: IntCounter,
    /// Signs made a second time because a lower nonce of the account failed and the higher ones moved down.
    pub resigned: IntCounter,
    /// Signs in flight.
    pub signs_in_flight: IntGauge,
    /// GetPublicKey calls.
    pub public_keys: IntCounter,
    /// Answers to raw sends by `environment` and `outcome` (`accepted`, `known`, `refused`, `held`, …).
    pub submissions: IntCounterVec,
    /// Attempts that reached a state, by `environment` and `state`.
    pub states: IntCounterVec,
    /// Fillers made, by `environment`.
    pub fillers: IntCounterVec,
    /// Alarms by `environment` and `kind` (`foreign_nonce`, `filler_refused`, …): somebody has to look.
    pub alarms: IntCounterVec,
    /// 1 while an endpoint is connected and on the pinned chain, by `environment` and `endpoint`.
    pub upstream_up: IntGaugeVec,
    /// Times that an endpoint's connection was made again, by `environment` and `endpoint`.
    pub upstream_reconnects: IntCounterVec,
    /// Requests to nodes by `environment` and `outcome`.
    pub upstream_requests: IntCounterVec,
    /// Number of the newest head, by `environment`.
    pub head_number: IntGaugeVec,
    /// Time stamp of the newest head in seconds since the epoch, by `environment`.
    pub head_timestamp: GaugeVec,
    /// Duration of one group commit in seconds.
    pub journal_commit_seconds: Histogram,
    /// Records in one group commit.
    pub journal_commit_records: Histogram,
    /// Start of the process in seconds since the epoch.
    pub start_time: Gauge,
}

/// 0.1 ms to 60 s.
const SECONDS: [f64; 16] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
const RECORDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

struct Families(Registry);

impl Families {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let family = IntCounter::new(name, help)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let family = IntGauge::new(name, help)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        let family = Gauge::new(name, help)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let family = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec, prometheus::Error> {
        let family = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

impl Metrics {
    /// Registers every family in a registry of its own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let make = Families(Registry::new());
        Ok(Self {
            requests: make.counters("sluice_requests_total", "JSON-RPC requests.", &["service", "method", "outcome"])?,
            request_seconds: make.histograms(
                "sluice_request_duration_seconds",
                "Time from a request's decoding to its answer.",
                &["method"],
                &SECONDS,
            )?,
            connections: make.int_gauge("sluice_connections", "Open client connections.")?,
            subscriptions: make.int_gauges("sluice_subscriptions", "Open client subscriptions.", &["kind"])?,
            signs: make.counters("sluice_signs_total", "Sign calls.", &["outcome"])?,
            sign_seconds: make.histogram("sluice_sign_duration_seconds", "Duration of one Sign call.", &SECONDS)?,
            sign_retries: make.counter("sluice_sign_retries_total", "Signs asked again after a passing fault.")?,
            resigned: make.counter("sluice_resigned_total", "Signs made again because a lower nonce failed.")?,
            signs_in_flight: make.int_gauge("sluice_signs_in_flight", "Signs in flight.")?,
            public_keys: make.counter("sluice_get_public_key_total", "GetPublicKey calls.")?,
            submissions: make.counters("sluice_submissions_total", "Outcomes of raw sends.", &["environment", "outcome"])?,
            states: make.counters("sluice_attempt_states_total", "Attempts that reached a state.", &["environment", "state"])?,
            fillers: make.counters("sluice_fillers_total", "Fillers made.", &["environment"])?,
            alarms: make.counters("sluice_alarms_total", "Conditions that somebody has to look at.", &["environment", "kind"])?,
            upstream_up: make.int_gauges(
                "sluice_upstream_up",
                "1 while the endpoint is connected and on the pinned chain.",
                &["environment", "endpoint"],
            )?,
            upstream_reconnects: make.counters(
                "sluice_upstream_reconnects_total",
                "Connections made again.",
                &["environment", "endpoint"],
            )?,
            upstream_requests: make.counters("sluice_upstream_requests_total", "Requests to nodes.", &["environment", "outcome"])?,
            head_number: make.int_gauges("sluice_head_number", "Number of the newest head.", &["environment"])?,
            head_timestamp: make.gauges("sluice_head_timestamp_seconds", "Time stamp of the newest head.", &["environment"])?,
            journal_commit_seconds: make.histogram("sluice_journal_commit_duration_seconds", "Duration of one group commit.", &SECONDS)?,
            journal_commit_records: make.histogram("sluice_journal_commit_records", "Records in one group commit.", &RECORDS)?,
            start_time: make.gauge("sluice_start_time_seconds", "Start of the process in seconds since the epoch.")?,
            registry: make.0,
        })
    }

    /// The Prometheus text format (version 0.0.4).
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}
