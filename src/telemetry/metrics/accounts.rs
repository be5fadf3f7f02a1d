//! Series by account, for a bounded number of accounts: the first that are active get a place and keep it until they have been idle
//! for an hour. All others are added up under `other`, which has no nonce.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Families;

/// Accounts with series of their own, in all environments together.
pub const PLACES: usize = 100;
/// How long an account keeps its place after it was last active.
pub const IDLE: Duration = Duration::from_secs(3600);
/// The label of all accounts without a place.
pub const OTHER: &str = "other";

/// An account at a moment, as its task sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountView {
    /// Whether anything is under way, or somebody has to look.
    pub active: bool,
    /// Requests that wait without a nonce.
    pub queued: usize,
    /// Nonces handed out and not committed.
    pub signing: usize,
    /// Committed and not sent.
    pub unsent: usize,
    /// Sent and not mined.
    pub in_flight: usize,
    /// How many may be sent and not mined.
    pub window: usize,
    /// Whether nothing is accepted.
    pub paused: bool,
    /// Whether new nonces wait because somebody else uses the key.
    pub on_hold: bool,
    /// The nonce that would be handed out next.
    pub next_nonce: u64,
}

/// How many gauges of [`AccountView`] add up over accounts.
const AMOUNTS: usize = 7;

impl AccountView {
    fn amounts(&self) -> [i64; AMOUNTS] {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        [
            count(self.queued),
            count(self.signing),
            count(self.unsent),
            count(self.in_flight),
            count(self.window),
            i64::from(self.paused),
            i64::from(self.on_hold),
        ]
    }
}

/// The handles of one account, or of `other`.
#[derive(Debug)]
struct Series {
    requests: IntCounter,
    amounts: [IntGauge; AMOUNTS],
}

/// An account's place.
#[derive(Debug)]
struct Seat {
    series: Series,
    next_nonce: IntGauge,
    /// Milliseconds since the table was made.
    last_active: AtomicU64,
    /// Its series are gone: who still holds it has to ask for a new one.
    is_void: AtomicBool,
}

type Key = (Arc<str>, Address);

#[derive(Debug, Default)]
struct Places {
    seats: HashMap<Key, Arc<Seat>>,
    /// By environment.
    others: HashMap<Arc<str>, Arc<Series>>,
}

/// The table of places, and the families behind it.
#[derive(Debug)]
pub struct Accounts {
    requests: IntCounterVec,
    amounts: [IntGaugeVec; AMOUNTS],
    next_nonce: IntGaugeVec,
    places: Mutex<Places>,
    taken: AtomicUsize,
    began: Instant,
}

impl Accounts {
    pub(super) fn new(make: &mut Families, began: Instant) -> Result<Self, prometheus::Error> {
        const LABELS: &[&str] = &["environment", "account"];
        let requests = make.counters("sluice_account_requests_total", "Requests that entered the account's queue.", LABELS)?;
        let mut gauge = |name, help| make.int_gauges(name, help, LABELS);
        let amounts = [
            gauge("sluice_account_queued", "Requests that wait without a nonce.")?,
            gauge("sluice_account_signing", "Nonces handed out and not committed.")?,
            gauge("sluice_account_unsent", "Attempts committed and not sent.")?,
            gauge("sluice_account_in_flight", "Attempts sent and not mined.")?,
            gauge("sluice_account_window", "How many attempts may be sent and not mined.")?,
            gauge("sluice_account_paused", "1 while the account is paused.")?,
            gauge("sluice_account_on_hold", "1 while new nonces wait because somebody else uses the key.")?,
        ];
        let next_nonce = gauge("sluice_account_next_nonce", "The nonce that would be handed out next.")?;
        Ok(Self { requests, amounts, next_nonce, places: Mutex::default(), taken: AtomicUsize::new(0), began })
    }

    /// The meter of one account's task. It has no series before the account is active, unless an earlier task of it had.
    pub fn meter(self: &Arc<Self>, environment: &str, address: Address) -> AccountMeter {
        let environment: Arc<str> = Arc::from(environment);
        let mut places = self.places();
        let other = places.others.entry(Arc::clone(&environment)).or_insert_with(|| Arc::new(self.series(&environment, OTHER)));
        let other = Arc::clone(other);
        let seat = places.seats.get(&(Arc::clone(&environment), address)).cloned();
        drop(places);
        AccountMeter { table: Arc::clone(self), key: (environment, address), other, place: seat.map_or(Place::None, Place::Own) }
    }

    /// Takes the places of those that were idle for [`IDLE`], and removes their series.
    pub fn sweep(&self, now: Instant) {
        let now = self.clock(now);
        let idle = u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX);
        let mut places = self.places();
        places.seats.retain(|(environment, address), seat| {
            let keeps = now.saturating_sub(seat.last_active.load(Ordering::Relaxed)) < idle;
            if !keeps {
                seat.is_void.store(true, Ordering::Relaxed);
                self.remove(environment, *address);
            }
            keeps
        });
        self.taken.store(places.seats.len(), Ordering::Relaxed);
    }

    fn remove(&self, environment: &str, address: Address) {
        let account = address.to_string();
        let labels = [environment, account.as_str()];
        // Gone already is as good.
        let _ = self.requests.remove_label_values(&labels);
        for family in self.amounts.iter().chain([&self.next_nonce]) {
            let _ = family.remove_label_values(&labels);
        }
    }

    /// The account's place, or a free one.
    fn claim(&self, key: &Key, now: Instant) -> Option<Arc<Seat>> {
        let mut places = self.places();
        let is_full = places.seats.len() >= PLACES;
        let seat = match places.seats.entry(key.clone()) {
            Entry::Occupied(seat) => Arc::clone(seat.get()),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(free) => {
                let (environment, address) = key;
                let account = address.to_string();
                let seat = Seat {
                    series: self.series(environment, &account),
                    next_nonce: self.next_nonce.with_label_values(&[environment, account.as_str()]),
                    last_active: AtomicU64::new(0),
                    is_void: AtomicBool::new(false),
                };
                Arc::clone(free.insert(Arc::new(seat)))
            }
        };
        seat.last_active.store(self.clock(now), Ordering::Relaxed);
        self.taken.store(places.seats.len(), Ordering::Relaxed);
        Some(seat)
    }

    fn series(&self, environment: &str, account: &str) -> Series {
        let labels = [environment, account];
        Series {
            requests: self.requests.with_label_values(&labels),
            amounts: self.amounts.each_ref().map(|family| family.with_label_values(&labels)),
        }
    }

    fn clock(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Keeps everybody from the table, a page of metrics included.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.places()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing in the critical sections panics half-way.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Place {
    /// Idle: no series.
    None,
    Own(Arc<Seat>),
    /// Among the others, with what it has added to them.
    Other([i64; AMOUNTS]),
}

/// What an account's task counts with. Dropped, it takes back what it showed, so that the next task of the account begins anew.
pub struct AccountMeter {
    table: Arc<Accounts>,
    key: Key,
    other: Arc<Series>,
    place: Place,
}

impl fmt::Debug for AccountMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountMeter").field("key", &self.key).field("place", &self.place).finish_non_exhaustive()
    }
}

impl AccountMeter {
    /// A request entered the account's queue.
    pub fn request(&mut self, now: Instant) {
        self.settle(true, now);
        match &self.place {
            Place::Own(seat) => seat.series.requests.inc(),
            Place::Other(_) | Place::None => self.other.requests.inc(),
        }
    }

    /// Shows the account as it is now.
    pub fn show(&mut self, view: &AccountView, now: Instant) {
        self.settle(view.active, now);
        match &mut self.place {
            Place::Own(seat) => {
                for (gauge, amount) in seat.series.amounts.iter().zip(view.amounts()) {
                    gauge.set(amount);
                }
                seat.next_nonce.set(i64::try_from(view.next_nonce).unwrap_or(i64::MAX));
            }
            Place::Other(shown) => {
                for ((gauge, amount), shown) in self.other.amounts.iter().zip(view.amounts()).zip(shown) {
                    gauge.add(amount - std::mem::replace(shown, amount));
                }
            }
            Place::None => {}
        }
    }

    /// Finds the account's place. An idle one is not among the others; an active one takes a place as soon as one is free.
    fn settle(&mut self, active: bool, now: Instant) {
        match &self.place {
            Place::Own(seat) if !seat.is_void.load(Ordering::Relaxed) => {
                if active {
                    seat.last_active.store(self.table.clock(now), Ordering::Relaxed);
                }
                return;
            }
            Place::Other(_) if active && self.table.taken.load(Ordering::Relaxed) >= PLACES => return,
            Place::None if !active => return,
            _ => {}
        }
        self.leave();
        if active {
            self.place = self.table.claim(&self.key, now).map_or(Place::Other([0; AMOUNTS]), Place::Own);
        }
    }

    /// Takes back what is shown.
    fn leave(&mut self) {
        match std::mem::replace(&mut self.place, Place::None) {
            Place::None => {}
            Place::Own(seat) => {
                for gauge in &seat.series.amounts {
                    gauge.set(0);
                }
            }
            Place::Other(shown) => {
                for (gauge, shown) in self.other.amounts.iter().zip(shown) {
                    gauge.sub(shown);
                }
            }
        }
    }
}

impl Drop for AccountMeter {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
