//! The process itself.

use prometheus::Gauge;

use super::families::Families;

/// What is known of the process.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// Start of the process in seconds since the epoch.
    pub start_time: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        let build = make.int_gauges("sluice_build_info", "Always 1.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self { start_time: make.gauge("sluice_start_time_seconds", "Start of the process in seconds since the epoch.")? })
    }
}
