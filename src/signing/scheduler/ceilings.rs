//! The two layers of ceilings: Signs per second of one key, and of one AWS account in one Region. Only the scheduler's task
//! asks them; they never make anybody wait.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use alloy_primitives::Address;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::queues::{Layer, Verdict};
use super::{QuotaGroup, SignLimits};

/// The runtime's clock, so that tests may stop it.
#[derive(Debug, Clone)]
struct RuntimeClock {
    start: Instant,
}

impl Clock for RuntimeClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[derive(Debug)]
struct Ceiling {
    rate: NonZeroU32,
    limiter: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<Nanos>>,
}

/// The ceilings of everything that was asked to sign.
#[derive(Debug)]
pub(super) struct Ceilings {
    clock: RuntimeClock,
    keys: HashMap<Address, Ceiling>,
    groups: HashMap<QuotaGroup, Ceiling>,
}

impl Ceilings {
    pub(super) fn new() -> Self {
        Self { clock: RuntimeClock { start: Instant::now() }, keys: HashMap::new(), groups: HashMap::new() }
    }

    /// Makes sure that the key and its group have their ceilings. Where configurations disagree, the lowest rate holds.
    pub(super) fn register(&mut self, address: Address, group: &QuotaGroup, limits: &SignLimits) {
        if let Some(rate) = limits.rate_per_key.filter(|rate| self.keys.get(&address).is_none_or(|known| *rate < known.rate)) {
            self.keys.insert(address, ceiling(rate, &self.clock));
        }
        if let Some(rate) = limits.rate.filter(|rate| self.groups.get(group).is_none_or(|known| *rate < known.rate)) {
            self.groups.insert(group.clone(), ceiling(rate, &self.clock));
        }
    }

    /// Takes a cell, or says when there may be one.
    pub(super) fn ask(&self, layer: Layer<'_>) -> Verdict {
        let ceiling = match layer {
            Layer::Key(address) => self.keys.get(address),
            Layer::Group(group) => self.groups.get(group),
        };
        match ceiling.map(|ceiling| ceiling.limiter.check()) {
            None | Some(Ok(())) => Verdict::Granted,
            Some(Err(denied)) => Verdict::DeniedUntil(self.clock.start + Duration::from(denied.earliest_possible())),
        }
    }
}

/// A tenth of a second's Signs may go at once, so no second sees much more than the rate.
fn ceiling(rate: NonZeroU32, clock: &RuntimeClock) -> Ceiling {
    let burst = NonZeroU32::new(rate.get() / 10).unwrap_or(NonZeroU32::MIN);
    Ceiling { rate, limiter: RateLimiter::direct_with_clock(Quota::per_second(rate).allow_burst(burst), clock.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_a_tenth_then_the_rate() {
        let mut ceilings = Ceilings::new();
        let (address, group) = (Address::repeat_byte(1), QuotaGroup("1/r".into()));
        let limits = SignLimits { rate: None, rate_per_key: Some(rate(100)), deadline: Duration::from_secs(1) };
        ceilings.register(address, &group, &limits);
        let mut granted = 0;
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            match ceilings.ask(Layer::Key(&address)) {
                Verdict::Granted => granted += 1,
                Verdict::DeniedUntil(until) => tokio::time::sleep_until(until).await,
            }
            // No rate for the group: no ceiling.
            assert_eq!(ceilings.ask(Layer::Group(&group)), Verdict::Granted);
        }
        assert!((200..=211).contains(&granted), "{granted}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lowest_rate_of_a_group_holds() {
        let mut ceilings = Ceilings::new();
        let group = QuotaGroup("1/r".into());
        for (n, held) in [(100, 100), (50, 50), (80, 50)] {
            let limits = SignLimits { rate: Some(rate(n)), rate_per_key: None, deadline: Duration::from_secs(1) };
            ceilings.register(Address::repeat_byte(1), &group, &limits);
            assert_eq!(ceilings.groups[&group].rate.get(), held);
        }
    }
}
