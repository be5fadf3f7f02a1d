//! How fast a discovery asks: evenly, within the quotas of its operations, slower while AWS throttles it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Calls per second of DescribeKey, ListResourceTags and GetPublicKey, each: four fifths of AWS's quota for an account in a Region.
const LOOKS: u32 = 1_600;
/// The same of ListKeys and ListAliases.
const LISTINGS: u32 = 400;
/// A throttled operation goes at most this many times slower.
const SLOWEST: f64 = 16.0;
/// How much of a slow-down each answered call leaves.
const RECOVERY: f64 = 0.99;

/// One operation's turns, evenly apart. Time comes in as a value.
#[derive(Debug)]
struct Turns {
    interval: Duration,
    /// How many times slower than that it goes now.
    slowed: f64,
    /// The first instant that nobody has.
    next: Option<Instant>,
}

impl Turns {
    fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second, slowed: 1.0, next: None }
    }

    /// When the call that asks now may go. Time that nobody used is gone: there are no bursts.
    fn take(&mut self, now: Instant) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + self.interval.mul_f64(self.slowed));
        at
    }

    fn answered(&mut self, throttled: bool) {
        self.slowed = if throttled { (self.slowed * 2.0).min(SLOWEST) } else { (self.slowed * RECOVERY).max(1.0) };
    }
}

/// The turns of one operation, for everybody who calls it.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Turns>);

impl Pace {
    fn new(per_second: u32) -> Self {
        Self(Mutex::new(Turns::new(per_second)))
    }

    /// Waits for the call's turn.
    pub(super) async fn turn(&self) {
        let at = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        tokio::time::sleep_until(at).await;
    }

    /// Notes what the call came to.
    pub(super) fn answered(&self, throttled: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).answered(throttled);
    }
}

/// The paces of one configuration.
#[derive(Debug)]
pub(super) struct Paces {
    describe_key: Pace,
    list_resource_tags: Pace,
    get_public_key: Pace,
    list_keys: Pace,
    list_aliases: Pace,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            describe_key: Pace::new(LOOKS),
            list_resource_tags: Pace::new(LOOKS),
            get_public_key: Pace::new(LOOKS),
            list_keys: Pace::new(LISTINGS),
            list_aliases: Pace::new(LISTINGS),
        }
    }
}

impl Paces {
    /// None for an operation that no discovery makes.
    pub(super) fn of(&self, operation: &str) -> Option<&Pace> {
        match operation {
            "DescribeKey" => Some(&self.describe_key),
            "ListResourceTags" => Some(&self.list_resource_tags),
            "GetPublicKey" => Some(&self.get_public_key),
            "ListKeys" => Some(&self.list_keys),
            "ListAliases" => Some(&self.list_aliases),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_calls_than_the_pace() {
        let (begin, mut turns) = (Instant::now(), Turns::new(LOOKS));
        let taken: Vec<Instant> = (0..10_000).map(|_| turns.take(begin)).collect();
        assert!(taken.windows(1_601).all(|window| window[1_600] - window[0] >= Duration::from_secs(1)));
        assert!(taken[9_999] - begin <= Duration::from_millis(6_250), "{:?}", taken[9_999] - begin);
        // After a rest there is no burst.
        let later = begin + Duration::from_secs(60);
        assert_eq!((turns.take(later), turns.take(later)), (later, later + Duration::from_micros(625)));
    }

    #[test]
    fn a_throttled_operation_slows_down_and_recovers() {
        let (now, mut turns) = (Instant::now(), Turns::new(1_000));
        let apart = |turns: &mut Turns| {
            let first = turns.take(now);
            turns.take(now) - first
        };
        assert_eq!(apart(&mut turns), Duration::from_millis(1));
        turns.answered(true);
        assert_eq!(apart(&mut turns), Duration::from_millis(2));
        (0..100).for_each(|_| turns.answered(true));
        assert_eq!(apart(&mut turns), Duration::from_millis(16), "not slower than that");
        (0..300).for_each(|_| turns.answered(false));
        assert_eq!(apart(&mut turns), Duration::from_millis(1));
    }
}
