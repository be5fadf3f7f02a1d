//! The ways to a key: its holders, the quota that each uses, and whether each can sign now.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::SignLimits;
use super::breaker::Breaker;
use super::meters::SignMeter;
use super::queues::Seat;
use crate::signing::key::{Holder, Key};
use crate::signing::signature::PinnedKey;
use crate::signing::{KeyArn, KeyState, KeyStoreError, QuotaGroup, SignClass};

/// What tells one way of a key from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WayName {
    pub(super) arn: KeyArn,
    pub(super) configuration: Arc<str>,
}

/// One holder.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) holder: Holder,
    pub(super) group: QuotaGroup,
    pub(super) limits: SignLimits,
    pub(super) breaker: Breaker,
    pub(super) meter: Arc<SignMeter>,
}

impl Way {
    /// Whether it is asked to sign.
    pub(super) fn can_sign(&self) -> bool {
        self.holder.state == KeyState::Enabled && self.breaker.error().is_none()
    }

    pub(super) fn name(&self) -> WayName {
        WayName { arn: self.holder.arn.clone(), configuration: Arc::clone(&self.holder.configuration) }
    }

    fn is(&self, name: &WayName) -> bool {
        self.holder.arn == name.arn && self.holder.configuration == name.configuration
    }

    /// Why it cannot sign, if so.
    fn error(&self) -> Option<KeyStoreError> {
        match (self.breaker.error(), &self.holder.state) {
            (Some(error), _) => Some(error.clone()),
            (None, KeyState::Unusable(why)) => Some(key_down(&self.holder.arn.0, why)),
            (None, KeyState::Enabled) => None,
        }
    }
}

/// Every way to one key.
#[derive(Debug)]
pub(super) struct Route {
    key: Arc<Key>,
    /// Of the snapshot that the ways are from.
    changes: u64,
    pub(super) pinned: Arc<PinnedKey>,
    pub(super) ways: Vec<Way>,
    pub(super) seat: Seat,
    /// Time for one signature.
    pub(super) deadline: Duration,
}

impl Route {
    /// Takes the holders of a key as they are. What is known of a holder is taken over; one that was down and was found enabled is
    /// asked again.
    pub(super) fn of(key: &Arc<Key>, before: Option<Self>, make: impl FnMut(Holder) -> Way) -> Self {
        let snapshot = key.snapshot();
        let mut ways: Vec<Way> = snapshot.holders.into_iter().map(make).collect();
        let (mut known, groups) = before.map_or_else(|| (Vec::new(), Arc::from([])), |route| (route.ways, route.seat.groups));
        for way in &mut ways {
            let name = way.name();
            let Some(at) = known.iter().position(|known| known.is(&name)) else { continue };
            way.breaker = known.swap_remove(at).breaker;
            let was_down = way.breaker.error().is_some_and(|error| error.class == SignClass::KeyDown);
            if was_down && way.holder.state == KeyState::Enabled {
                way.close();
            }
        }
        known.into_iter().for_each(Way::forget);
        let window = ways.iter().map(|way| way.limits.window_per_key).min().unwrap_or_default();
        let deadline = ways.first().map(|way| way.limits.deadline).unwrap_or_default();
        let seat = Seat { groups, window };
        let mut route = Self { key: Arc::clone(key), changes: snapshot.changes, pinned: snapshot.pinned, ways, seat, deadline };
        route.reseat();
        route
    }

    /// Signs per second of the key in one quota group; of how many groups there are.
    pub(super) fn rate(&self) -> (Option<NonZeroU32>, u32) {
        let mut groups: Vec<&QuotaGroup> = self.ways.iter().map(|way| &way.group).collect();
        groups.sort_unstable();
        groups.dedup();
        let rate = self.ways.iter().filter_map(|way| way.limits.rate_per_key).min();
        (rate, u32::try_from(groups.len()).unwrap_or(u32::MAX))
    }

    /// Whether the ways are those of the key as it is.
    pub(super) fn is_current(&self, key: &Arc<Key>) -> bool {
        Arc::ptr_eq(&self.key, key) && self.changes == key.changes()
    }

    pub(super) fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// Takes the groups of the ways that can sign, each once. They stay the same value while they are the same.
    pub(super) fn reseat(&mut self) {
        let mut groups: Vec<QuotaGroup> = Vec::with_capacity(self.ways.len());
        for way in self.ways.iter().filter(|way| way.can_sign()) {
            if groups.is_empty() {
                self.deadline = way.limits.deadline;
            }
            if !groups.contains(&way.group) {
                groups.push(way.group.clone());
            }
        }
        if *self.seat.groups != *groups {
            self.seat.groups = groups.into();
        }
    }

    /// The first way that can sign and uses this quota.
    pub(super) fn way(&self, group: &QuotaGroup) -> Option<&Way> {
        self.ways.iter().find(|way| way.group == *group && way.can_sign())
    }

    /// The way for the second Sign of a call: another one that can sign, or the same.
    pub(super) fn beside(&self, name: &WayName) -> Option<&Way> {
        let mut able = self.ways.iter().filter(|way| way.can_sign());
        let first = able.next()?;
        Some(if first.is(name) { able.next().unwrap_or(first) } else { first })
    }

    pub(super) fn find(&mut self, name: &WayName) -> Option<&mut Way> {
        self.ways.iter_mut().find(|way| way.is(name))
    }

    /// Whether another way than this one can sign.
    pub(super) fn has_another(&self, name: &WayName) -> bool {
        self.ways.iter().any(|way| !way.is(name) && way.can_sign())
    }

    /// Why no way can sign: what the first one says.
    pub(super) fn error(&self) -> KeyStoreError {
        let error = self.ways.iter().find_map(Way::error);
        error.unwrap_or_else(|| key_down(&self.key.address(), "no holder"))
    }

    /// Opens the breakers of ways that discovery found down, so that they are probed. Answers when first.
    pub(super) fn watch(&mut self, now: Instant, mut share: impl FnMut() -> f64) -> Option<Instant> {
        let unwatched = |way: &&mut Way| way.breaker.error().is_none();
        for way in self.ways.iter_mut().filter(unwatched) {
            if let Some(error) = way.error() {
                way.fail(&error, Duration::ZERO, now, share());
            }
        }
        self.ways.iter().filter_map(|way| way.breaker.next_probe()).min()
    }
}

impl Way {
    /// Notes a fault. True if that opens the breaker.
    pub(super) fn fail(&mut self, error: &KeyStoreError, patience: Duration, now: Instant, share: f64) -> bool {
        let opens = self.breaker.failed(error, patience, now, share);
        if opens {
            self.meter.breakers_open.inc();
            let (arn, configuration) = (&self.holder.arn, &*self.holder.configuration);
            tracing::warn!(%arn, configuration, class = ?error.class, detail = error.detail, "a key cannot sign: it is asked no more until a probe finds it up");
        }
        opens
    }

    /// It can sign again.
    pub(super) fn close(&mut self) {
        if self.breaker.error().is_some() {
            self.meter.breakers_open.dec();
            tracing::info!(arn = %self.holder.arn, configuration = &*self.holder.configuration, "a key can sign again");
        }
        self.breaker.close();
    }

    /// It is no way any more.
    pub(super) fn forget(self) {
        if self.breaker.error().is_some() {
            self.meter.breakers_open.dec();
        }
    }
}

fn key_down(key: &dyn std::fmt::Display, why: &str) -> KeyStoreError {
    KeyStoreError { class: SignClass::KeyDown, detail: format!("the key {key} cannot sign: {why}") }
}
