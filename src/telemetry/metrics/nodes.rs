//! Nodes: connections, requests, heads.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::SECONDS;
use super::families::Families;

/// Families by environment and endpoint.
#[derive(Debug)]
pub struct NodeMetrics {
    /// 1 while an endpoint is connected, on the pinned chain and trusted, by `environment` and `endpoint`.
    pub up: IntGaugeVec,
    /// Times that an endpoint was found to tell what is not true, by `environment`, `endpoint` and `kind`.
    pub lies: IntCounterVec,
    /// Times that an endpoint's connection was made again, by `environment` and `endpoint`.
    pub reconnects: IntCounterVec,
    /// Requests to nodes by `environment` and `outcome`.
    pub requests: IntCounterVec,
    /// Time from a request's entry into an endpoint's queue to the node's answer, by `environment` and `endpoint`.
    pub request_seconds: HistogramVec,
    /// Number of the newest head of an endpoint, by `environment` and `endpoint`.
    pub endpoint_head: IntGaugeVec,
    /// Number of the newest head, by `environment`.
    pub head_number: IntGaugeVec,
    /// Time stamp of the newest head in seconds since the epoch, by `environment`.
    pub head_timestamp: GaugeVec,
    /// What streams of the chain were told, by `environment` and `kind`.
    pub stream_steps: IntCounterVec,
}

impl NodeMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        let endpoint: &'static [&'static str] = &["environment", "endpoint"];
        let environment: &'static [&'static str] = &["environment"];
        Ok(Self {
            up: make.int_gauges("sluice_upstream_up", "1 while the endpoint is connected, on the pinned chain and trusted.", endpoint)?,
            lies: make.counters(
                "sluice_upstream_lies_total",
                "Times that the endpoint was found to tell what is not true.",
                &["environment", "endpoint", "kind"],
            )?,
            reconnects: make.counters("sluice_upstream_reconnects_total", "Connections made again.", endpoint)?,
            requests: make.counters("sluice_upstream_requests_total", "Requests to nodes.", &["environment", "outcome"])?,
            request_seconds: make.histograms(
                "sluice_upstream_request_duration_seconds",
                "Time from a request's entry into the endpoint's queue to the node's answer.",
                endpoint,
                &SECONDS,
            )?,
            endpoint_head: make.int_gauges("sluice_upstream_head_number", "Number of the endpoint's newest head.", endpoint)?,
            head_number: make.int_gauges("sluice_head_number", "Number of the newest head.", environment)?,
            head_timestamp: make.gauges("sluice_head_timestamp_seconds", "Time stamp of the newest head.", environment)?,
            stream_steps: make.counters("sluice_stream_steps_total", "What streams of the chain were told.", &["environment", "kind"])?,
        })
    }
}
