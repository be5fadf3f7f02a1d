//! Percentiles of durations.

use std::time::Duration;

/// Durations, kept whole: a run is bounded in count, so are they.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest duration that at least `percent` (0 to 100) of all do not exceed (nearest rank); `None` without any.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (percent.min(100) * sorted.len()).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut all = Latencies::default();
        assert_eq!(all.percentile(50), None);
        for ms in (1..=100).rev() {
            all.add(Duration::from_millis(ms));
        }
        assert_eq!(all.percentile(50), Some(Duration::from_millis(50)));
        assert_eq!(all.percentile(99), Some(Duration::from_millis(99)));
        assert_eq!(all.percentile(100), Some(Duration::from_millis(100)));
        assert_eq!(all.percentile(0), Some(Duration::from_millis(1)));
    }
}
