//! When a Sign that takes long is asked a second time: after the 95th percentile of its quota group's recent latencies, and for one Sign
//! in fifty at most. Values in, values out.

use std::time::Duration;

/// The share of Signs that may be asked a second time.
const SHARE: f64 = 0.02;
/// Second Signs that may come together after a while without any.
const MOST: f64 = 10.0;
/// Answers from which a percentile is taken.
const ENOUGH: u32 = 100;
/// After so many answers each of the earlier ones counts half.
const HALF_LIFE: u32 = 500;
/// Answers after which the percentile is taken again.
const EVERY: u32 = 16;
/// Steps of the histogram to the double of a time.
const STEPS: f64 = 8.0;
/// From 1 ms up to 8 s.
const BUCKETS: usize = 105;

/// The hedging of one quota group.
#[derive(Debug)]
pub(super) struct Hedging {
    allowance: f64,
    latencies: Latencies,
}

impl Hedging {
    pub(super) fn new() -> Self {
        Self { allowance: 0.0, latencies: Latencies::new() }
    }

    /// A Sign is issued for the first time or again. After what time a second one should be looked at; none if there is to be none.
    pub(super) fn issued(&mut self) -> Option<Duration> {
        self.allowance = (self.allowance + SHARE).min(MOST);
        self.latencies.p95.filter(|_| self.may())
    }

    /// A Sign was answered after this time.
    pub(super) fn answered(&mut self, latency: Duration) {
        self.latencies.add(latency);
    }

    /// The time in which 95 % of the latest Signs were answered; none while that is unknown.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.latencies.p95
    }

    /// Whether a second Sign is left.
    pub(super) fn may(&self) -> bool {
        self.allowance >= 1.0
    }

    /// A second Sign is issued.
    pub(super) fn take(&mut self) {
        self.allowance -= 1.0;
    }
}

/// A histogram that forgets.
#[derive(Debug)]
struct Latencies {
    counts: [f32; BUCKETS],
    total: f32,
    seen: u32,
    since_halved: u32,
    p95: Option<Duration>,
}

impl Latencies {
    fn new() -> Self {
        Self { counts: [0.0; BUCKETS], total: 0.0, seen: 0, since_halved: 0, p95: None }
    }

    fn add(&mut self, latency: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(latency)) {
            *count += 1.0;
            self.total += 1.0;
        }
        self.seen = self.seen.saturating_add(1);
        self.since_halved += 1;
        if self.since_halved >= HALF_LIFE {
            self.since_halved = 0;
            self.counts.iter_mut().for_each(|count| *count /= 2.0);
            self.total /= 2.0;
        }
        if self.seen >= ENOUGH && (self.seen - ENOUGH).is_multiple_of(EVERY) {
            self.p95 = Some(self.percentile(0.95));
        }
    }

    /// The upper end of the bucket in which the percentile lies.
    fn percentile(&self, share: f32) -> Duration {
        let mut left = self.total * share;
        let at = self.counts.iter().position(|count| {
            left -= count;
            left <= 0.0
        });
        upper(at.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(latency: Duration) -> usize {
    let steps = (latency.as_secs_f64() * 1000.0).max(1.0).log2() * STEPS;
    (steps.ceil() as usize).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> Duration {
    let steps = u32::try_from(bucket).map_or(0.0, f64::from);
    Duration::from_secs_f64((steps / STEPS).exp2() / 1000.0)
}

#[cfg(test)]
mod tests {
    use sluice_load_tests::random::{Delays, Random};

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_95th_percentile_is_told_to_a_quarter_once_enough_was_seen() {
        let (delays, mut random) = (Delays { p50: 10, p99: 60, max: 1000 }, Random::new(1, "latencies"));
        let mut all: Vec<Duration> = (0..20_000).map(|_| delays.draw(&mut random)).collect();
        let mut latencies = Latencies::new();
        for (n, latency) in all.iter().enumerate() {
            assert_eq!(latencies.p95.is_some(), n >= 100, "{n}");
            latencies.add(*latency);
        }
        all.sort_unstable();
        let share = latencies.p95.unwrap().div_duration_f64(all[19_000]);
        assert!((0.8..=1.25).contains(&share), "{share} of {:?}", all[19_000]);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut latencies = Latencies::new();
        (0..10_000).for_each(|_| latencies.add(ms(100)));
        assert!((ms(95)..=ms(110)).contains(&latencies.p95.unwrap()));
        (0..4_000).for_each(|_| latencies.add(ms(20)));
        assert!((ms(19)..=ms(22)).contains(&latencies.p95.unwrap()), "{:?}", latencies.p95);
    }

    #[test]
    fn latencies_beyond_the_histogram_are_at_its_ends() {
        for (latency, told) in [(Duration::ZERO, 1), (ms(1), 1), (ms(3_600_000), 8192)] {
            assert_eq!(upper(bucket(latency)).as_millis(), told, "{latency:?}");
        }
    }

    #[test]
    fn one_in_fifty_signs_at_most_and_ten_together() {
        let mut hedging = Hedging::new();
        (0..100).for_each(|_| hedging.answered(ms(10)));
        let (mut issued, mut hedged) = (0, 0);
        for burst in [100, 5000, 100] {
            for _ in 0..burst {
                hedging.issued();
                issued += 1;
            }
            let mut together = 0;
            while hedging.may() {
                hedging.take();
                together += 1;
            }
            hedged += together;
            assert!(together <= 10 && hedged * 50 <= issued, "{hedged} of {issued}");
        }
        assert_eq!(hedged, 2 + 10 + 2);
    }

    #[test]
    fn without_latencies_or_allowance_nothing_is_looked_at() {
        let mut hedging = Hedging::new();
        assert!((0..1000).all(|_| hedging.issued().is_none()), "no latencies");
        (0..100).for_each(|_| hedging.answered(ms(10)));
        assert!(hedging.issued().is_some_and(|after| (ms(10)..ms(11)).contains(&after)));
        (0..10).for_each(|_| hedging.take());
        assert_eq!(hedging.issued(), None, "no allowance");
    }
}
