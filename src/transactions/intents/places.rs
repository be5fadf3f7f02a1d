//! How many acknowledged transactions of an account wait, without counting them on record each time. Pure.

use std::sync::atomic::{AtomicU64, Ordering};

/// Not less than there are, but for acknowledgements of one moment: what ends is given back once the work on it is over, and what ended
/// behind its back is found out where there seems to be no place.
#[derive(Debug)]
pub(super) struct Places(AtomicU64);

/// Nobody has counted yet.
const UNKNOWN: u64 = u64::MAX;

impl Default for Places {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

impl Places {
    /// Takes one of so many; `false` if all seem to be taken, or nobody has counted yet.
    pub(super) fn take(&self, bound: u64) -> bool {
        let taken = |count: u64| (count < bound && count != UNKNOWN).then(|| count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Takes one beside so many that were counted on record; `false` if there is none.
    pub(super) fn take_beside(&self, on_record: u64, bound: u64) -> bool {
        let is_free = on_record < bound;
        if is_free {
            self.0.store(on_record + 1, Ordering::Relaxed);
        }
        is_free
    }

    /// One is free again.
    pub(super) fn give_back(&self) {
        let free = |count: u64| (count != UNKNOWN).then(|| count.saturating_sub(1));
        let _unknown = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_counted_on_record_once_and_again_where_there_seems_to_be_no_place() {
        let places = Places::default();
        places.give_back();
        assert!(!places.take(3), "nobody has counted");
        assert!(places.take_beside(1, 3) && places.take(3));
        assert!(!places.take(3));
        // One was ended behind the back of the work.
        assert!(places.take_beside(2, 3) && !places.take(3) && !places.take_beside(3, 3));
        places.give_back();
        assert!(places.take(3) && !places.take(3));
    }

    #[test]
    fn without_a_bound_there_is_a_place() {
        let places = Places::default();
        assert!(places.take_beside(0, u64::MAX) && places.take(u64::MAX));
    }
}
