//! The two layers of ceilings: Signs per second of one key, and of one AWS account in one Region, with its pace below it. Only the
//! scheduler's task asks them; they never make anybody wait.

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

use super::QuotaGroup;
use super::pace::Pace;
use super::queues::{Layer, Verdict};

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
    groups: HashMap<QuotaGroup, (Ceiling, Pace)>,
}

impl Ceilings {
    pub(super) fn new() -> Self {
        Self { clock: RuntimeClock { start: Instant::now() }, keys: HashMap::new(), groups: HashMap::new() }
    }

    /// Makes sure that the key has its ceiling: `rate` Signs per second in each of so many quota groups. Where configurations
    /// disagree, the lowest rate holds.
    pub(super) fn open_key(&mut self, address: Address, rate: Option<NonZeroU32>, groups: u32) {
        match rate.map(|rate| rate.saturating_mul(NonZeroU32::new(groups).unwrap_or(NonZeroU32::MIN))) {
            None => drop(self.keys.remove(&address)),
            Some(rate) if self.keys.get(&address).is_some_and(|known| known.rate == rate) => {}
            Some(rate) => drop(self.keys.insert(address, ceiling(rate, &self.clock))),
        }
    }

    /// Makes sure that the group has its ceiling. Where configurations disagree, the lowest rate holds.
    pub(super) fn open_group(&mut self, group: &QuotaGroup, rate: Option<NonZeroU32>) {
        if let Some(rate) = rate.filter(|rate| self.groups.get(group).is_none_or(|(known, _)| *rate < known.rate)) {
            self.groups.insert(group.clone(), (ceiling(rate, &self.clock), Pace::new(rate)));
        }
    }

    /// Takes a cell, or says when there may be one.
    pub(super) fn ask(&mut self, layer: Layer<'_>, now: Instant) -> Verdict {
        let checked = match layer {
            Layer::Key(address) => self.keys.get(address).map(|ceiling| ceiling.limiter.check()),
            Layer::Group(group) => match self.groups.get_mut(group) {
                None => None,
                Some((ceiling, pace)) => {
                    if let Err(earliest) = pace.check(now) {
                        return Verdict::DeniedUntil(earliest);
                    }
                    let checked = ceiling.limiter.check();
                    if checked.is_ok() {
                        pace.take(now);
                    }
                    Some(checked)
                }
            },
        };
        match checked {
            None | Some(Ok(())) => Verdict::Granted,
            Some(Err(denied)) => Verdict::DeniedUntil(self.clock.start + Duration::from(denied.earliest_possible())),
        }
    }

    /// The pace of a group, if it has a rate.
    pub(super) fn pace(&mut self, group: &QuotaGroup) -> Option<&mut Pace> {
        self.groups.get_mut(group).map(|(_, pace)| pace)
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
        ceilings.open_key(address, Some(rate(50)), 2);
        ceilings.open_group(&group, None);
        let mut granted = 0;
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            match ceilings.ask(Layer::Key(&address), Instant::now()) {
                Verdict::Granted => granted += 1,
                Verdict::DeniedUntil(until) => tokio::time::sleep_until(until).await,
            }
            // No rate for the group: no ceiling.
            assert_eq!(ceilings.ask(Layer::Group(&group), Instant::now()), Verdict::Granted);
        }
        assert!((200..=211).contains(&granted), "{granted}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lowest_rate_of_a_group_holds() {
        let mut ceilings = Ceilings::new();
        let group = QuotaGroup("1/r".into());
        for (n, held) in [(100, 100), (50, 50), (80, 50)] {
            ceilings.open_group(&group, Some(rate(n)));
            assert_eq!(ceilings.groups[&group].0.rate.get(), held);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_goes_evenly_at_its_pace_and_the_ceiling_never_denies_what_the_pace_allows() {
        let mut ceilings = Ceilings::new();
        let group = QuotaGroup("1/r".into());
        ceilings.open_group(&group, Some(rate(100)));
        let start = Instant::now();
        let mut at = Vec::new();
        while start.elapsed() < Duration::from_secs(2) {
            let now = Instant::now();
            let denied = ceilings.pace(&group).unwrap().check(now).err();
            match ceilings.ask(Layer::Group(&group), now) {
                Verdict::Granted => at.push(start.elapsed().as_millis()),
                Verdict::DeniedUntil(until) => {
                    assert_eq!(Some(until), denied);
                    tokio::time::sleep_until(until).await;
                }
            }
        }
        assert!((196..=204).contains(&at.len()), "{}", at.len());
        assert!(at[10..].windows(2).all(|two| (9..=11).contains(&(two[1] - two[0]))), "{at:?}");
    }
}
