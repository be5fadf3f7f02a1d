use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;
use sluice_load_tests::random::{Delays, Random};

use super::*;

fn pace(rate: u32) -> Pace {
    Pace::new(NonZeroU32::new(rate).unwrap())
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A quota as AWS keeps it: a bucket that refills continuously.
struct Bucket {
    size: f64,
    tokens: f64,
    rate: f64,
    at: Duration,
}

impl Bucket {
    fn new(rate: f64, size: f64) -> Self {
        Self { size, tokens: size, rate, at: Duration::ZERO }
    }

    fn admits(&mut self, at: Duration) -> bool {
        self.tokens = (self.tokens + (at - self.at).as_secs_f64() * self.rate).min(self.size);
        self.at = at;
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The scheduler looks what may go.
    Look,
    /// A call is at the store; its answer takes as long again.
    Arrives {
        issued: Duration,
    },
    Answered {
        issued: Duration,
        signed: bool,
    },
}

/// What came of a run, after its first ten seconds.
#[derive(Debug, Default)]
struct Run {
    signed: f64,
    throttled: f64,
}

impl Run {
    fn goodput(&self, quota: f64, time: Duration) -> f64 {
        self.signed / (quota * time.as_secs_f64())
    }

    fn throttles(&self) -> f64 {
        self.throttled / (self.signed + self.throttled)
    }
}

const WARM: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(60);

/// Offers more than any quota to a pace of 1,000/s before a bucket, for 10 s and then 60 s more. Latencies are p50 10 ms, p99 60 ms, up to
/// 1 s; timers wake up to `late` after their millisecond.
fn run(bucket: &mut Bucket, late: Duration, seed: u64) -> Run {
    let (start, mut pace, mut run) = (Instant::now(), pace(1000), Run::default());
    let (mut random, latency) = (Random::new(seed, "pace"), Delays { p50: 10, p99: 60, max: 1000 });
    let mut events = BinaryHeap::from([Reverse((Duration::ZERO, Event::Look))]);
    while let Some(Reverse((at, event))) = events.pop().filter(|Reverse((at, _))| *at < WARM + MEASURED) {
        let now = start + at;
        match event {
            Event::Look => loop {
                if let Err(earliest) = pace.check(now) {
                    let late = Duration::from_micros(random.below(late.as_micros() as u64));
                    let wake = Duration::from_millis((earliest - start).as_millis() as u64 + 1) + late;
                    events.push(Reverse((wake, Event::Look)));
                    break;
                }
                pace.take(now);
                let half = latency.draw(&mut random) / 2;
                events.push(Reverse((at + half, Event::Arrives { issued: at })));
            },
            Event::Arrives { issued } => {
                let signed = bucket.admits(at);
                events.push(Reverse((at + (at - issued), Event::Answered { issued, signed })));
            }
            Event::Answered { issued, signed } => {
                if signed {
                    pace.worked(now);
                } else {
                    pace.throttled(start + issued, now);
                }
                if at >= WARM {
                    run.signed += f64::from(u8::from(signed));
                    run.throttled += f64::from(u8::from(!signed));
                }
            }
        }
    }
    run
}

#[test]
fn a_quota_as_configured_is_used_whole_and_hardly_ever_throttles() {
    for (seed, late) in [(1, ms(1)), (2, ms(5)), (3, ms(20))] {
        let run = run(&mut Bucket::new(1000.0, 100.0), late, seed);
        assert!(run.goodput(1000.0, MEASURED) >= 0.99, "{late:?}: {run:?}");
        assert!(run.throttles() <= 0.005, "{late:?}: {run:?}");
    }
}

#[test]
fn a_quota_below_the_configured_rate_is_found_and_used() {
    for (quota, size) in [(990.0, 100.0), (600.0, 100.0), (600.0, 60.0), (300.0, 30.0), (100.0, 100.0)] {
        let run = run(&mut Bucket::new(quota, size), ms(1), 4);
        assert!(run.goodput(quota, MEASURED) >= 0.95, "{quota}: {run:?}");
        assert!(run.throttles() <= 0.01, "{quota}: {run:?}");
    }
}

/// Working Signs at the pace itself, for so long.
fn work(pace: &mut Pace, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while *now < end {
        *now += Duration::from_secs_f64(pace.rate().recip());
        pace.worked(*now);
    }
}

#[test]
fn a_quota_that_is_back_is_approached_slowly_and_used_whole_within_twenty_seconds() {
    for throttles in [1, 10, 22, 60] {
        let (mut pace, mut now) = (pace(1000), Instant::now());
        for _ in 0..throttles {
            now += ms(50);
            assert!(pace.throttled(now, now));
        }
        let shrunk = pace.rate();
        work(&mut pace, &mut now, ms(2500));
        assert!(pace.rate() < shrunk / SHRINK, "slow near the rate at which it was throttled");
        work(&mut pace, &mut now, ms(17_500));
        assert_eq!((pace.rate(), pace.is_shrunk()), (1000.0, false), "after {throttles} throttles");
    }
}

#[test]
fn one_round_trip_shrinks_the_pace_once() {
    let (mut pace, start) = (pace(1000), Instant::now());
    assert!(pace.throttled(start, start + ms(10)));
    assert_eq!((pace.rate(), pace.is_shrunk()), (900.0, true));
    for sent in 0..10 {
        assert!(!pace.throttled(start + ms(sent), start + ms(80)), "issued before the pace was shrunk");
    }
    assert!(!pace.throttled(start + ms(11), start + ms(59)), "a moment ago");
    assert!(pace.throttled(start + ms(11), start + ms(60)));
    assert_eq!(pace.rate(), 810.0);
}

#[test]
fn silence_does_not_grow_the_pace() {
    let (mut pace, now) = (pace(1000), Instant::now());
    pace.throttled(now, now);
    let later = now + Duration::from_secs(3600);
    pace.worked(later);
    assert!(pace.rate() < 960.0, "{}", pace.rate());
}

#[test]
fn usage_follows_what_is_issued_and_fades() {
    let (mut pace, start) = (pace(1000), Instant::now());
    assert_eq!(pace.usage(start), 0.0);
    for n in 0..5000 {
        pace.take(start + ms(2) * n);
    }
    let end = start + ms(10_000);
    assert!((480.0..=520.0).contains(&pace.usage(end)), "{}", pace.usage(end));
    assert!(pace.usage(end + Duration::from_secs(5)) < 5.0);
}

proptest! {
    /// Whatever is throttled and whatever works, in no stretch of time more goes than the configured rate and the burst allow, and
    /// what is denied may go when it is told to.
    #[test]
    fn never_above_the_ceiling(rate in 1u32..5000, steps in prop::collection::vec((0u64..30_000, 0u8..4), 1..300)) {
        let (mut pace, start) = (pace(rate), Instant::now());
        let mut now = start;
        let mut issued: Vec<Instant> = Vec::new();
        for (micros, what) in steps {
            now += Duration::from_micros(micros);
            match what {
                0 => drop(pace.throttled(now, now)),
                1 => pace.worked(now),
                _ => match pace.check(now) {
                    Ok(()) => {
                        pace.take(now);
                        issued.push(now);
                    }
                    Err(earliest) => {
                        prop_assert!(earliest > now);
                        prop_assert!(pace.check(earliest).is_ok());
                    }
                },
            }
            prop_assert!((1.0..=f64::from(rate)).contains(&pace.rate()));
        }
        for (first, from) in issued.iter().enumerate() {
            for (last, to) in issued.iter().enumerate().skip(first) {
                let allowed = 1.0 + BURST.as_secs_f64() * f64::from(rate) + (*to - *from).as_secs_f64() * f64::from(rate);
                prop_assert!(((last - first + 1) as f64) <= allowed + 0.01, "{} in {:?}", last - first + 1, *to - *from);
            }
        }
    }
}
