//! How fast the Signs of one quota group go: a value below governor's ceiling that follows the quota as it really is. No clock, no
//! I/O: time comes in.
//!
//! A throttled call shrinks the pace by a tenth, at most once per round trip (or 50 ms, if that is longer): a call that was issued before
//! the last shrinking says nothing about the pace after it. What works grows it again along a cubic (as RFC 9438 does for TCP's window): fast at first,
//! slow near the rate at which it was last throttled, then faster and faster, up to the configured rate. Its time runs only while Signs
//! work: silence proves nothing.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// What is left of the pace after it was throttled.
const SHRINK: f64 = 0.9;
/// Time of working Signs from a shrinking to the rate at which it happened.
const PLATEAU: Duration = Duration::from_secs(3);
/// Time of working Signs from there to the configured rate, at most.
const RETURN: Duration = Duration::from_secs(12);
/// What a success counts at most as time of working Signs.
const LONGEST_STEP: Duration = Duration::from_millis(500);
/// Time whose Signs may go at once: what a timer that is late, or a busy core, makes up for. A quota's own bucket holds a tenth of a
/// second at least, so it does not notice.
const BURST: Duration = Duration::from_millis(40);
/// The least time by which a Sign may be early, so that a slow pace does not lose what its timers are late.
const EARLY: Duration = Duration::from_millis(5);
/// The pace is never below this share of the configured rate, nor below one Sign per second.
const FLOOR: f64 = 0.01;
/// The least time between two shrinkings: a bucket that was empty for a moment is not yet a lower quota.
const SHORTEST_TRIP: Duration = Duration::from_millis(50);
/// Over which time the usage is taken.
const USAGE: Duration = Duration::from_secs(1);

/// The pace of one quota group.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// The configured rate, in Signs per second: never above it.
    ceiling: f64,
    /// The rate now.
    rate: f64,
    /// The rate at the last shrinking.
    throttled_at: f64,
    /// What the last shrinking left.
    left: f64,
    /// When that was.
    shrunk: Option<Instant>,
    /// Time of working Signs since then.
    worked: Duration,
    /// Until when that is counted.
    counted: Option<Instant>,
    /// When the next Sign is due, if all go evenly.
    due: Option<Instant>,
    /// Signs per second of the last while, as of `used_at`.
    usage: f64,
    used_at: Option<Instant>,
}

impl Pace {
    /// A pace at the configured rate, in Signs per second.
    pub(super) fn new(ceiling: NonZeroU32) -> Self {
        let ceiling = f64::from(ceiling.get());
        Self {
            ceiling,
            rate: ceiling,
            throttled_at: ceiling,
            left: ceiling,
            shrunk: None,
            worked: Duration::ZERO,
            counted: None,
            due: None,
            usage: 0.0,
            used_at: None,
        }
    }

    /// The configured rate, in Signs per second.
    pub(super) fn ceiling(&self) -> f64 {
        self.ceiling
    }

    /// Signs per second, now.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Whether it is below the configured rate.
    pub(super) fn is_shrunk(&self) -> bool {
        self.rate < self.ceiling
    }

    /// Signs per second of the last second, as a moving average.
    pub(super) fn usage(&self, now: Instant) -> f64 {
        let Some(at) = self.used_at else { return 0.0 };
        self.usage * (-now.saturating_duration_since(at).div_duration_f64(USAGE)).exp()
    }

    /// When the next Sign may go, if not now.
    pub(super) fn check(&self, now: Instant) -> Result<(), Instant> {
        match self.due.and_then(|due| due.checked_sub(self.burst())) {
            Some(earliest) if earliest > now => Err(earliest),
            _ => Ok(()),
        }
    }

    /// A Sign is issued.
    pub(super) fn take(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + self.interval());
        self.usage = self.usage(now) + USAGE.as_secs_f64().recip();
        self.used_at = Some(now);
    }

    /// A Sign that was issued at `issued` was throttled. True if that shrinks the pace.
    pub(super) fn throttled(&mut self, issued: Instant, now: Instant) -> bool {
        if self.shrunk.is_some_and(|at| issued < at || now < at + SHORTEST_TRIP) {
            return false;
        }
        self.throttled_at = self.rate;
        self.left = (self.rate * SHRINK).max(self.ceiling * FLOOR).max(1.0);
        self.rate = self.left;
        self.shrunk = Some(now);
        self.worked = Duration::ZERO;
        self.counted = Some(now);
        true
    }

    /// A Sign worked.
    pub(super) fn worked(&mut self, now: Instant) {
        if !self.is_shrunk() {
            return;
        }
        let step = self.counted.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.counted = Some(now);
        self.worked += step.min(LONGEST_STEP);
        let cubic = (self.worked.div_duration_f64(PLATEAU) - 1.0).powi(3) * (self.throttled_at - self.left);
        let after = self.worked.saturating_sub(PLATEAU).div_duration_f64(RETURN).powi(2) * self.ceiling;
        let grown = self.throttled_at + cubic + after;
        self.rate = grown.max(self.left).min(self.ceiling);
    }

    /// The time between two Signs.
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.rate.recip())
    }

    /// The time by which a Sign may be early.
    fn burst(&self) -> Duration {
        BURST.saturating_sub(self.interval()).max(EARLY)
    }
}

#[cfg(test)]
mod tests;
