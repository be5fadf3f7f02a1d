//! How many calls per second one service takes.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// A second's calls may come at once; then one for each that has had its time.
#[derive(Debug)]
pub struct CallRate<C: Clock = DefaultClock> {
    per_second: NonZeroU32,
    clock: C,
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
}

impl CallRate {
    /// A rate that nothing was taken of yet.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self::with_clock(per_second, DefaultClock::default())
    }
}

impl<C: Clock + Clone> CallRate<C> {
    fn with_clock(per_second: NonZeroU32, clock: C) -> Self {
        let limiter = RateLimiter::direct_with_clock(Quota::per_second(per_second), clock.clone());
        Self { per_second, clock, limiter }
    }

    /// Calls per second.
    pub fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Takes one call; the error is how long until the next one has room.
    pub fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|denied| denied.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_seconds_calls_at_once_then_the_rate() {
        let clock = FakeRelativeClock::default();
        let rate = CallRate::with_clock(NonZeroU32::new(10).unwrap(), clock.clone());
        assert_eq!((0..50).filter(|_| rate.take().is_ok()).count(), 10);
        assert_eq!(rate.take(), Err(Duration::from_millis(100)), "one more in a tenth of a second");
        clock.advance(Duration::from_millis(99));
        assert_eq!(rate.take(), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!((rate.take().is_ok(), rate.take().is_ok()), (true, false));
        clock.advance(Duration::from_secs(60));
        assert_eq!((0..50).filter(|_| rate.take().is_ok()).count(), 10, "time that passes saves no more than a second's");
    }
}
