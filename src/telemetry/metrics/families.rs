//! Makes and registers families, and keeps a list of them.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A metric as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

type Made<T> = Result<T, prometheus::Error>;
type Labels = &'static [&'static str];

#[derive(Default)]
pub(super) struct Families {
    registry: Registry,
    list: Vec<Family>,
}

impl Families {
    fn add<T: Collector + Clone + 'static>(&mut self, kind: &'static str, name: &'static str, labels: Labels, made: Made<T>) -> Made<T> {
        let made = made?;
        self.registry.register(Box::new(made.clone()))?;
        self.list.push(Family { name, kind, labels });
        Ok(made)
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Made<IntCounter> {
        self.add("counter", name, &[], IntCounter::new(name, help))
    }

    pub(super) fn counters(&mut self, name: &'static str, help: &str, labels: Labels) -> Made<IntCounterVec> {
        self.add("counter", name, labels, IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn int_gauge(&mut self, name: &'static str, help: &str) -> Made<IntGauge> {
        self.add("gauge", name, &[], IntGauge::new(name, help))
    }

    pub(super) fn int_gauges(&mut self, name: &'static str, help: &str, labels: Labels) -> Made<IntGaugeVec> {
        self.add("gauge", name, labels, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Made<Gauge> {
        self.add("gauge", name, &[], Gauge::new(name, help))
    }

    pub(super) fn gauges(&mut self, name: &'static str, help: &str, labels: Labels) -> Made<GaugeVec> {
        self.add("gauge", name, labels, GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str, buckets: &[f64]) -> Made<Histogram> {
        self.add("histogram", name, &[], Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    pub(super) fn histograms(&mut self, name: &'static str, help: &str, labels: Labels, buckets: &[f64]) -> Made<HistogramVec> {
        let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels);
        self.add("histogram", name, labels, made)
    }

    pub(super) fn finish(self) -> (Registry, Vec<Family>) {
        (self.registry, self.list)
    }
}
