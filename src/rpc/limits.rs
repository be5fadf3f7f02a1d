//! How much of one connection is worked on at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bounds of one service's calls.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Items in one batch.
    pub batch_items: usize,
    /// Bytes of one answer, or of all answers of one batch.
    pub response_bytes: usize,
    /// Calls of one connection that are not answered yet, items of batches counted.
    pub calls_in_flight: usize,
    /// Bytes of those calls' parameters.
    pub bytes_in_flight: usize,
}

/// Counts what is not answered yet.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// One of them, until it is dropped.
pub(super) struct Place<'a> {
    counts: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    /// Counts a call in; `None` if it does not fit.
    pub(super) fn enter(&self, bytes: usize, limits: &Limits) -> Option<Place<'_>> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let others = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { counts: self, bytes };
        // A single call always fits: its size is bounded by that of a request.
        (calls < limits.calls_in_flight && (others == 0 || others.saturating_add(bytes) <= limits.bytes_in_flight)).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.counts.calls.fetch_sub(1, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_bytes_in_flight_are_bounded() {
        let limits = Limits { batch_items: 1, response_bytes: 1, calls_in_flight: 2, bytes_in_flight: 100 };
        let counts = InFlight::default();
        let first = counts.enter(500, &limits);
        assert!(first.is_some(), "one call fits whatever its size");
        assert!(counts.enter(1, &limits).is_none());
        drop(first);
        let second = counts.enter(60, &limits).unwrap();
        assert!(counts.enter(41, &limits).is_none());
        let third = counts.enter(40, &limits).unwrap();
        assert!(counts.enter(0, &limits).is_none(), "two calls are in flight");
        drop((second, third));
        assert_eq!((counts.calls.into_inner(), counts.bytes.into_inner()), (0, 0));
    }
}
