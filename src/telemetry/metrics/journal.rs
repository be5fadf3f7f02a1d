//! The journal.

use prometheus::{Histogram, IntCounter};

use super::SECONDS;
use super::families::Families;

const RECORDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// Group commits.
#[derive(Debug)]
pub struct JournalMetrics {
    /// Duration of one group commit in seconds.
    pub commit_seconds: Histogram,
    /// Records in one group commit.
    pub commit_records: Histogram,
    /// Group commits that wrote nothing, or of which nobody knows.
    pub errors: IntCounter,
}

impl JournalMetrics {
    pub(super) fn new(make: &mut Families) -> Result<Self, prometheus::Error> {
        Ok(Self {
            commit_seconds: make.histogram("sluice_journal_commit_duration_seconds", "Duration of one group commit.", &SECONDS)?,
            commit_records: make.histogram("sluice_journal_commit_records", "Records in one group commit.", &RECORDS)?,
            errors: make.counter("sluice_journal_errors_total", "Group commits that did not come about.")?,
        })
    }
}
