//! How keys come into being, and what time does to them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use super::core::{Kms, Timer};
use super::key::{Key, KeyState, Material, Origin, Presence};
use super::settings::Place;
use crate::random::digest;

/// What a new key is to be.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) origin: Origin,
    pub(super) description: String,
    pub(super) is_multi_region: bool,
}

impl Draft {
    /// A plain key with these tags.
    pub(super) fn plain(tags: BTreeMap<String, String>) -> Self {
        Self { tags, origin: Origin::AwsKms, description: String::new(), is_multi_region: false }
    }
}

impl Kms {
    /// The keys and the aliases of the start.
    pub(super) fn populate(&mut self) {
        let places: Vec<Place> = std::iter::once(self.home.clone()).chain(self.settings.further.clone()).collect();
        let (tags, regions) = (self.settings.tags.clone(), self.settings.replica_regions.clone());
        for place in places {
            let bare = self.settings.bare_aliases.iter().map(|name| (name.clone(), None)).collect();
            self.aliases.insert(place.clone(), bare);
            for _ in 0..self.settings.keys {
                let draft = Draft { is_multi_region: !regions.is_empty(), ..Draft::plain(tags.clone()) };
                let index = self.create(&place, draft, Duration::ZERO);
                for region in regions.iter().filter(|region| **region != place.region) {
                    self.replicate(index, region, String::new(), tags.clone(), Duration::ZERO);
                }
            }
        }
    }

    /// One more key in the first place. Key n that was created, counted from 0, is `Wallet::new(seed, n)`.
    pub fn create_key(&mut self, tags: BTreeMap<String, String>) -> Key {
        let home = self.home.clone();
        let key = self.key_of(&home, Draft::plain(tags), Duration::ZERO);
        self.add(key.clone());
        key
    }

    /// One more key in a place.
    pub(super) fn create(&mut self, place: &Place, draft: Draft, now: Duration) -> usize {
        let key = self.key_of(place, draft, now);
        self.add(key)
    }

    fn key_of(&mut self, place: &Place, draft: Draft, now: Duration) -> Key {
        let (seed, number) = (self.settings.seed, self.ids);
        self.ids += 1;
        let hex = alloy_primitives::hex::encode(digest(seed, "key id", number));
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
        let id = if draft.is_multi_region {
            format!("mrk-{}", part(0, 32))
        } else {
            [part(0, 8), part(8, 12), format!("4{}", part(13, 16)), format!("a{}", part(17, 20)), part(20, 32)].join("-")
        };
        let (material, state) = match draft.origin {
            Origin::AwsKms => (Material::Seeded { seed, number, wallet: OnceLock::new() }, KeyState::Enabled),
            Origin::External => (Material::Missing, KeyState::PendingImport),
        };
        Key {
            arn: place.arn(&format!("key/{id}")),
            id,
            place: place.clone(),
            state,
            tags: draft.tags,
            origin: draft.origin,
            material,
            presence: Presence::Present,
            description: draft.description,
            created: now,
            window: Duration::ZERO,
            deletion: None,
            expires: None,
            bound: None,
            primary_region: draft.is_multi_region.then(|| place.region.clone()),
        }
    }

    /// A replica of a multi-Region key in another Region; it is Enabled at once.
    pub(super) fn replicate(
        &mut self,
        primary: usize,
        region: &str,
        description: String,
        tags: BTreeMap<String, String>,
        now: Duration,
    ) -> Option<usize> {
        let key = self.keys.get(primary)?;
        let place = Place::new(&key.place.account, region);
        let (material, state) = match key.origin {
            Origin::AwsKms => (key.material.clone(), KeyState::Enabled),
            Origin::External => (Material::Missing, KeyState::PendingImport),
        };
        let replica = Key {
            arn: place.arn(&format!("key/{}", key.id)),
            place,
            state,
            tags,
            material,
            presence: Presence::Present,
            description,
            created: now,
            deletion: None,
            expires: None,
            ..key.clone()
        };
        Some(self.add(replica))
    }

    fn add(&mut self, key: Key) -> usize {
        let index = self.keys.len();
        self.by_arn.insert(key.arn.clone(), index);
        self.by_place.entry(key.place.clone()).or_default().push(index);
        self.keys.push(key);
        index
    }

    /// Everything that is due by `now` has happened.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some((at, index, timer)) = self.timers.first().copied().filter(|(at, ..)| *at <= now) {
            self.timers.pop_first();
            let Some(key) = self.keys.get_mut(index) else { continue };
            match timer {
                Timer::Appear if key.presence == Presence::Lagging => key.presence = Presence::Present,
                Timer::Ready if key.state == KeyState::Creating => {
                    key.state = if key.has_material() { KeyState::Enabled } else { KeyState::PendingImport };
                }
                Timer::Expire if key.expires == Some(at) => key.lose_material(),
                Timer::Delete if key.state == KeyState::PendingDeletion && key.deletion == Some(at) => self.delete(index, at),
                // Something else has happened since.
                Timer::Appear | Timer::Ready | Timer::Expire | Timer::Delete => {}
            }
        }
    }

    fn delete(&mut self, index: usize, at: Duration) {
        let Some(key) = self.keys.get_mut(index) else { return };
        key.presence = Presence::Deleted;
        let (arn, place, id, primary) = (key.arn.clone(), key.place.clone(), key.id.clone(), key.primary_region.clone());
        self.by_arn.remove(&arn);
        if let Some(keys) = self.by_place.get_mut(&place) {
            keys.retain(|kept| *kept != index);
        }
        if let Some(aliases) = self.aliases.get_mut(&place) {
            aliases.retain(|_, target| *target != Some(index));
        }
        // A primary that waits for its replicas waits for itself once the last of them is gone.
        let primary = primary.and_then(|region| self.by_arn.get(&Place::new(place.account, region).arn(&format!("key/{id}"))).copied());
        if let Some(primary) = primary
            && self
                .keys
                .get(primary)
                .is_some_and(|key| key.state == KeyState::PendingReplicaDeletion && self.replica_regions(key).is_empty())
        {
            self.begin_deletion(primary, at);
        }
    }

    /// The key is deleted once its window has passed.
    pub(super) fn begin_deletion(&mut self, index: usize, now: Duration) {
        if let Some(key) = self.keys.get_mut(index) {
            let at = now + key.window;
            (key.state, key.deletion) = (KeyState::PendingDeletion, Some(at));
            self.timers.insert((at, index, Timer::Delete));
        }
    }
}

impl Key {
    /// The imported material is gone; the same can be imported again.
    pub(super) fn lose_material(&mut self) {
        (self.material, self.expires) = (Material::Missing, None);
        if matches!(self.state, KeyState::Enabled | KeyState::Disabled) {
            self.state = KeyState::PendingImport;
        }
    }
}
