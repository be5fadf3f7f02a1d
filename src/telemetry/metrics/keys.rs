//! Keys: their states, and how they are found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::SECONDS;
use super::families::Families;

/// AWS's states in one word each; every other one is `other`.
const STATES: [&str; 9] = [
    "enabled",
    "disabled",
    "pending_deletion",
    "pending_replica_deletion",
    "pending_import",
    "unavailable",
    "creating",
    "updating",
    "other",
];

/// Families of the keys of services.
#[derive(Debug)]
pub struct KeyMetrics {
    /// Names of keys by `configuration` and `state`.
    keys: IntGaugeVec,
    /// The configurations that it shows.
    shown: Mutex<BTreeSet<Arc<str>>>,
    /// Refreshes by `service` and `outcome` (`ok` or `failed`).
    pub refreshes: IntCounterVec,
    /// Duration of one refresh by `service`.
    pub refresh_seconds: HistogramVec,
    /// When the keys of a `service` were last found, in seconds since the epoch.
    pub refreshed: GaugeVec,
    /// Keys that a refresh found otherwise, by `service` and `change` (`added`, `removed` or `state`).
    pub changes: IntCounterVec,
}

impl KeyMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        let service: &'static [&'static str] = &["service"];
        Ok(Self {
            keys: make.int_gauges("sluice_keys", "Names of keys by state.", &["configuration", "state"])?,
            shown: Mutex::default(),
            refreshes: make.counters("sluice_key_refreshes_total", "Refreshes of keys.", &["service", "outcome"])?,
            refresh_seconds: make.histograms(
                "sluice_key_refresh_duration_seconds",
                "Duration of one refresh of keys.",
                service,
                &SECONDS,
            )?,
            refreshed: make.gauges("sluice_key_refresh_timestamp_seconds", "When the keys were last found.", service)?,
            changes: make.counters("sluice_key_changes_total", "Keys that a refresh found otherwise.", &["service", "change"])?,
        })
    }

    /// The series of a service.
    pub fn begin(&self, service: &str) {
        for outcome in ["ok", "failed"] {
            let _ = self.refreshes.with_label_values(&[service, outcome]);
        }
        for change in ["added", "removed", "state"] {
            let _ = self.changes.with_label_values(&[service, change]);
        }
        let _ = self.refresh_seconds.with_label_values(&[service]);
        let _ = self.refreshed.with_label_values(&[service]);
    }

    /// Shows these keys: the configuration and the state of each, in one word. Configurations that have none any more go.
    pub fn count(&self, keys: impl Iterator<Item = (Arc<str>, String)>) {
        let mut counts = BTreeMap::<Arc<str>, [i64; STATES.len()]>::new();
        for (configuration, state) in keys {
            let at = STATES.iter().position(|known| *known == state).unwrap_or(STATES.len() - 1);
            if let Some(count) = counts.entry(configuration).or_insert([0; STATES.len()]).get_mut(at) {
                *count += 1;
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (configuration, counts) in &counts {
            for (state, count) in STATES.iter().zip(counts) {
                self.keys.with_label_values(&[&**configuration, state]).set(*count);
            }
        }
        // Only then, and only these: a page that is written meanwhile lacks nothing.
        for gone in shown.iter().filter(|configuration| !counts.contains_key(*configuration)) {
            for state in STATES {
                let _none = self.keys.remove_label_values(&[&**gone, state]);
            }
        }
        *shown = counts.into_keys().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn what_keys_there_are_is_shown_at_every_moment() {
        let metrics = Metrics::new().unwrap();
        let shows = |text: &str| metrics.render().unwrap().contains(text);
        let count = |keys: &[(&str, &str)]| metrics.keys.count(keys.iter().map(|(name, state)| (Arc::from(*name), (*state).to_owned())));
        count(&[("one", "enabled"), ("one", "disabled"), ("two", "enabled")]);
        // The same series goes on: it was never taken away.
        let series = metrics.keys.keys.with_label_values(&["one", "enabled"]);
        count(&[("one", "enabled"), ("one", "enabled"), ("one", "strange")]);
        assert_eq!(series.get(), 2);
        assert!(
            shows(r#"sluice_keys{configuration="one",state="disabled"} 0"#) && shows(r#"sluice_keys{configuration="one",state="other"} 1"#)
        );
        assert!(!shows(r#"configuration="two""#), "it has none any more");
    }
}
