//! Chance and delays by seed: the same seed and the same calls give the same values, on every machine.

use std::time::Duration;

use alloy_primitives::{B256, keccak256};
use serde::{Deserialize, Serialize};

/// A generator of numbers (SplitMix64). Not for secrets that guard anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed` for one purpose: other purposes have numbers of their own.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut start = [0; 8];
        start.copy_from_slice(digest(seed, purpose, 0).split_at(8).0);
        Self(u64::from_be_bytes(start))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.number()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// 32 bytes.
    pub fn hash(&mut self) -> B256 {
        digest(self.number(), "hash", self.number())
    }
}

/// 32 bytes that belong to a seed, a purpose and a number.
pub fn digest(seed: u64, purpose: &str, number: u64) -> B256 {
    keccak256([&seed.to_be_bytes(), purpose.as_bytes(), &number.to_be_bytes()].concat())
}

/// How long answers take, in milliseconds: half of them up to `p50`, 99 of 100 up to `p99`, all up to `max`, evenly in between.
/// All zero (the default): no delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Delays {
    /// Always this many milliseconds.
    pub fn fixed(milliseconds: u64) -> Self {
        Self { p50: milliseconds, p99: milliseconds, max: milliseconds }
    }

    /// What people report of KMS in its Region, with a slow one now and then.
    pub fn aws() -> Self {
        Self { p50: 10, p99: 60, max: 1_000 }
    }

    /// One of them, to the microsecond.
    pub fn draw(&self, random: &mut Random) -> Duration {
        if *self == Self::default() {
            return Duration::ZERO;
        }
        // The fastest answers take half the median.
        let least = if self.p50 == self.max { self.p50 } else { self.p50 / 2 };
        let rank = random.below(10_000);
        let (from, to, low, high) = match rank {
            0..5_000 => (0, 5_000, least, self.p50),
            5_000..9_900 => (5_000, 9_900, self.p50, self.p99),
            _ => (9_900, 10_000, self.p99, self.max),
        };
        let part = (high.saturating_sub(low) * 1_000).saturating_mul(rank - from) / (to - from);
        Duration::from_micros(low * 1_000 + part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_have_numbers_of_their_own() {
        let numbers = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            (0..8).map(|_| random.number()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7, "a"), numbers(7, "a"));
        assert_ne!(numbers(7, "a"), numbers(8, "a"));
        assert_ne!(numbers(7, "a"), numbers(7, "b"));
        let mut random = Random::new(1, "bounds");
        assert!((0..1_000).all(|_| random.below(10) < 10));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn delays_keep_their_percentiles() {
        let delays = Delays { p50: 10, p99: 60, max: 1_000 };
        let mut random = Random::new(3, "delays");
        let mut drawn: Vec<Duration> = (0..10_000).map(|_| delays.draw(&mut random)).collect();
        drawn.sort_unstable();
        let near = |rank: usize, ms: u64| drawn[rank].abs_diff(Duration::from_millis(ms)) < Duration::from_millis(ms / 5);
        assert!(near(5_000, 10) && near(9_890, 60), "{:?} {:?}", drawn[5_000], drawn[9_890]);
        assert!(drawn[0] >= Duration::from_millis(5) && drawn[9_999] <= Duration::from_secs(1));
        assert_eq!(Delays::default().draw(&mut random), Duration::ZERO);
        assert_eq!(Delays::fixed(20).draw(&mut random), Duration::from_millis(20));
    }
}
