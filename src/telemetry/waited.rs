//! How much of a request's time others took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time for which one request has waited for KMS, journal and node; what is left of its duration is Sluice's own. Clones share it.
///
/// A wait begins when the request is handed over, at an instant that is known anyway, and is added when its answer is taken up: one
/// look at the clock for each.
#[derive(Debug, Clone)]
pub struct Waited(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    nanoseconds: AtomicU64,
}

impl Waited {
    /// Nothing yet; the request was decoded at `started`.
    pub fn new(started: Instant) -> Self {
        Self(Arc::new(Inner { started, nanoseconds: AtomicU64::new(0) }))
    }

    /// When the request was decoded.
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// It waited this long.
    pub fn add(&self, wait: Duration) {
        self.0.nanoseconds.fetch_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// It waited from this instant until now.
    pub fn since(&self, handed_over: Instant) {
        self.add(handed_over.elapsed());
    }

    /// All of it.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_clones_share_them() {
        let waited = Waited::new(Instant::now());
        waited.clone().add(Duration::from_millis(3));
        waited.add(Duration::from_millis(4));
        assert_eq!(waited.total(), Duration::from_millis(7));
    }
}
