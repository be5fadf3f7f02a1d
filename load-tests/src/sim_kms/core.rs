//! Keys, where they are found, what is due, and the record of what was signed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alloy_primitives::B256;
use serde::Serialize;
use serde_json::Value;

use super::errors::KmsError;
use super::faults::Fault;
use super::key::{Key, KeyState, Presence};
use super::quota::{Buckets, Quotas, Usage};
use super::settings::{Place, Settings};
use crate::faults::Faults;
use crate::random::{Delays, Random};

/// One Sign that KMS has made, whether or not its answer arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// When it was asked for, in milliseconds on the clock of KMS.
    pub milliseconds: u64,
    /// The key's ARN.
    pub arn: String,
    /// What was signed.
    pub digest: B256,
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Beyond the time of the call.
    pub after: Duration,
    /// What it is.
    pub body: ReplyBody,
    /// How its bytes come.
    pub delivery: Delivery,
}

/// How the bytes of an answer come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// At once.
    #[default]
    Whole,
    /// Byte by byte, in all within so long.
    Slow(Duration),
    /// Half of them, and then the connection is cut.
    Torn,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// HTTP 200 with this JSON.
    Ok(Value),
    /// An error.
    Error(KmsError),
    /// The connection is cut.
    Cut,
}

/// A simulated KMS: a state machine without clock, sockets or chance of its own. The same settings and the same calls at the same
/// times give the same bytes. Times are since the start of its clock.
#[derive(Debug, Clone)]
pub struct Kms {
    pub(super) settings: Settings,
    pub(super) home: Place,
    pub(super) keys: Vec<Key>,
    /// Index of the key, by ARN.
    pub(super) by_arn: BTreeMap<String, usize>,
    /// Keys of a place, in the order of their creation.
    pub(super) by_place: BTreeMap<Place, Vec<usize>>,
    /// By name (`alias/…`); an alias of AWS has no key.
    pub(super) aliases: BTreeMap<Place, BTreeMap<String, Option<usize>>>,
    /// What happens to which key when.
    pub(super) timers: BTreeSet<(Duration, usize, Timer)>,
    /// Key ids that were given so far.
    pub(super) ids: u64,
    pub(super) buckets: Buckets,
    pub(super) faults: Faults<Fault>,
    /// Decides chances.
    pub(super) luck: Random,
    /// Decides delays.
    pub(super) pace: Random,
    /// Makes signatures differ.
    pub(super) nonces: Random,
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) signed: Vec<Signed>,
    /// How far its clock was set ahead of the one of its callers.
    pub(super) ahead: Duration,
}

/// What time does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Everything knows of it.
    Appear,
    /// It is no longer Creating.
    Ready,
    /// Its material expires.
    Expire,
    /// It is deleted.
    Delete,
}

impl Kms {
    /// A KMS with its keys.
    pub fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        let (luck, pace, nonces) = (Random::new(seed, "faults"), Random::new(seed, "delays"), Random::new(seed, "signatures"));
        let mut kms = Self {
            home: settings.home(),
            settings,
            keys: Vec::new(),
            by_arn: BTreeMap::new(),
            by_place: BTreeMap::new(),
            aliases: BTreeMap::new(),
            timers: BTreeSet::new(),
            ids: 0,
            buckets: Buckets::default(),
            faults: Faults::default(),
            luck,
            pace,
            nonces,
            calls: BTreeMap::new(),
            signed: Vec::new(),
            ahead: Duration::ZERO,
        };
        kms.populate();
        kms
    }

    /// Its keys, in the order of their creation; deleted ones, too.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Every Sign that was made, in order.
    pub fn signed(&self) -> &[Signed] {
        &self.signed
    }

    /// How often each operation was called, faults and throttled calls included.
    pub fn calls(&self) -> &BTreeMap<String, u64> {
        &self.calls
    }

    /// How often an operation was called, faults and throttled calls included.
    pub fn calls_of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }

    /// How the quotas have been used, by the caller's place and operation; Sign's is Verify's too.
    pub fn usage(&self) -> Vec<(Place, String, Usage)> {
        self.buckets.usage()
    }

    /// How many calls were answered ThrottlingException for a quota or in a storm; those of a scripted error are not among them.
    pub fn throttled(&self) -> u64 {
        self.usage().iter().map(|(_, _, usage)| usage.throttled).sum()
    }

    /// What is to go wrong from now on, instead of what was.
    pub fn set_faults(&mut self, faults: Faults<Fault>) {
        self.faults = faults;
    }

    /// How long answers take from now on.
    pub fn set_delays(&mut self, delays: Delays) {
        self.settings.delays = delays;
    }

    /// How often may be called what from now on. A bucket keeps what was taken out of it.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        self.settings.quotas = quotas;
    }

    /// Sets its clock ahead, by so much more than it is already.
    pub fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// Whether a key can sign from now on; the key by id, ARN or alias.
    pub fn set_key_state(&mut self, name: &str, state: KeyState) -> Result<(), KmsError> {
        let index = self.anywhere(name)?;
        if let Some(key) = self.keys.get_mut(index) {
            key.state = state;
        }
        Ok(())
    }

    /// The key with this id, ARN, alias or alias ARN; an id or an alias is one of the first place.
    pub fn key(&self, name: &str) -> Result<&Key, KmsError> {
        self.keys.get(self.anywhere(name)?).ok_or_else(|| KmsError::not_found(name))
    }

    fn anywhere(&self, name: &str) -> Result<usize, KmsError> {
        let place = Place::of_arn(name).map_or_else(|| self.home.clone(), |(place, _)| place);
        self.find(&place, name)
    }

    /// The index of the key that a caller in `from` means by an id, an ARN, an alias or an alias ARN. Of another account only ARNs
    /// are understood, of another Region nothing.
    pub(super) fn find(&self, from: &Place, name: &str) -> Result<usize, KmsError> {
        let index = match Place::of_arn(name) {
            Some((place, _)) if place.region != from.region => {
                return Err(KmsError::new("NotFoundException", format!("Invalid arn {}", place.region)));
            }
            Some((place, resource)) if resource.starts_with("alias/") => Some(self.alias_target(&place, resource)?),
            Some(_) => self.by_arn.get(name).copied(),
            None if name.starts_with("alias/") => Some(self.alias_target(from, name)?),
            None => self.by_arn.get(&from.arn(&format!("key/{name}"))).copied(),
        };
        let is_found = |index: &usize| self.keys.get(*index).is_some_and(|key| key.presence == Presence::Present);
        index.filter(is_found).ok_or_else(|| {
            let arn = if name.starts_with("arn:") { name.to_owned() } else { from.arn(&format!("key/{name}")) };
            KmsError::not_found(&arn)
        })
    }

    fn alias_target(&self, place: &Place, alias: &str) -> Result<usize, KmsError> {
        let target = self.aliases.get(place).and_then(|aliases| aliases.get(alias)).copied().flatten();
        target.ok_or_else(|| KmsError::new("NotFoundException", format!("Alias {} is not found.", place.arn(alias))))
    }

    /// The Regions in which a multi-Region key has replicas.
    pub(super) fn replica_regions(&self, key: &Key) -> Vec<String> {
        let Some(primary) = &key.primary_region else { return Vec::new() };
        let places = self.by_place.keys().filter(|place| place.account == key.place.account && place.region != *primary);
        let has = |place: &&Place| self.by_arn.contains_key(&place.arn(&format!("key/{}", key.id)));
        places.filter(has).map(|place| place.region.clone()).collect()
    }
}
