//! The clocks of one connection and the pauses between two: values in, values out.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::NodeClocks;

/// First bound of the pause before the next try to connect.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// What a connection's clocks want now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing yet.
    Wait,
    /// A ping is due; it counts as sent.
    Ping,
    /// The connection is dead, for this reason.
    Dead(&'static str),
}

/// Liveness of one connection: half-open TCP connections are noticed by nothing else.
#[derive(Debug)]
pub(super) struct Clocks {
    times: NodeClocks,
    last_frame: Instant,
    next_ping: Instant,
    /// When the oldest unanswered ping was sent.
    unanswered: Option<Instant>,
}

impl Clocks {
    pub(super) fn new(times: NodeClocks, now: Instant) -> Self {
        Self { times, last_frame: now, next_ping: now + times.ping, unanswered: None }
    }

    /// Any frame arrived.
    pub(super) fn frame(&mut self, now: Instant) {
        self.last_frame = now;
    }

    /// A pong arrived.
    pub(super) fn pong(&mut self) {
        self.unanswered = None;
    }

    /// Judges the connection at `now`.
    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now >= self.last_frame + self.times.silence {
            return Beat::Dead("no frame arrived for too long");
        }
        if self.unanswered.is_some_and(|sent| now >= sent + self.times.pong) {
            return Beat::Dead("a ping was not answered");
        }
        if now < self.next_ping {
            return Beat::Wait;
        }
        self.next_ping = now + self.times.ping;
        self.unanswered.get_or_insert(now);
        Beat::Ping
    }

    /// When [`Self::beat`] is worth calling again.
    pub(super) fn due(&self) -> Instant {
        let silent = self.last_frame + self.times.silence;
        let due = self.next_ping.min(silent);
        self.unanswered.map_or(due, |sent| due.min(sent + self.times.pong))
    }
}

/// Pauses between tries to connect: full jitter under a bound that doubles, without an end.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    bound: Duration,
}

impl Backoff {
    /// No pause is longer than `last`.
    pub(super) fn new(last: Duration) -> Self {
        let first = PAUSE_FIRST.min(last);
        Self { first, last, bound: first }
    }

    /// The next pause; `random` is uniform in 0..1.
    pub(super) fn pause(&mut self, random: f64) -> Duration {
        let pause = self.bound.mul_f64(random.clamp(0.0, 1.0));
        self.bound = (self.bound * 2).min(self.last);
        pause
    }

    /// The connection held: start again with short pauses.
    pub(super) fn reset(&mut self) {
        self.bound = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pings_come_at_their_interval_while_they_are_answered() {
        let start = Instant::now();
        let mut clocks = Clocks::new(NodeClocks::default(), start);
        assert_eq!(clocks.beat(start + seconds(9)), Beat::Wait);
        for n in 1..20 {
            assert_eq!(clocks.due(), start + seconds(10 * n));
            assert_eq!(clocks.beat(start + seconds(10 * n)), Beat::Ping);
            assert_eq!(clocks.beat(start + seconds(10 * n)), Beat::Wait);
            clocks.frame(start + seconds(10 * n));
            clocks.pong();
        }
    }

    #[test]
    fn an_unanswered_ping_ends_the_connection_even_if_other_frames_come() {
        let start = Instant::now();
        let mut clocks = Clocks::new(NodeClocks::default(), start);
        assert_eq!(clocks.beat(start + seconds(10)), Beat::Ping);
        clocks.frame(start + seconds(19));
        assert_eq!(clocks.beat(start + seconds(20)), Beat::Ping);
        clocks.frame(start + seconds(29));
        assert_eq!(clocks.due(), start + seconds(30));
        assert_eq!(clocks.beat(start + seconds(30)), Beat::Dead("a ping was not answered"));
    }

    #[test]
    fn silence_ends_the_connection() {
        let start = Instant::now();
        let mut clocks = Clocks::new(NodeClocks { ping: seconds(60), ..NodeClocks::default() }, start);
        assert_eq!(clocks.due(), start + seconds(30));
        assert_eq!(clocks.beat(start + seconds(29)), Beat::Wait);
        assert!(matches!(clocks.beat(start + seconds(30)), Beat::Dead(_)));
    }

    #[test]
    fn pauses_double_to_their_bound_and_start_again() {
        let mut backoff = Backoff::new(seconds(5));
        let pauses: Vec<u128> = (0..9).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.pause(0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.pause(0.5), Duration::from_millis(25));
        let mut short = Backoff::new(Duration::from_millis(20));
        assert_eq!([short.pause(1.0), short.pause(1.0)], [Duration::from_millis(20); 2]);
    }
}
