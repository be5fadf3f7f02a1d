//! The keys of a service, as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::Address;
use arc_swap::ArcSwap;

use crate::signing::KeyState;
use crate::signing::key::Key;

/// The keys that a service may use. Clones are one: a refresh exchanges the keys of all of them, whole.
#[derive(Debug, Clone, Default)]
pub struct ServiceKeys {
    keys: Arc<ArcSwap<BTreeMap<Address, Arc<Key>>>>,
}

impl ServiceKeys {
    pub(super) fn new(keys: BTreeMap<Address, Arc<Key>>) -> Self {
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)) }
    }

    /// The key of an address, usable or not.
    pub fn get(&self, address: &Address) -> Option<Arc<Key>> {
        self.keys.load().get(address).cloned()
    }

    /// Addresses of the keys that can sign now, sorted.
    pub fn addresses(&self) -> Vec<Address> {
        let keys = self.keys.load();
        keys.values().filter(|key| key.state() == KeyState::Enabled).map(|key| key.address()).collect()
    }

    /// Every key, usable or not, sorted by address.
    pub fn all(&self) -> Vec<Arc<Key>> {
        self.keys.load().values().cloned().collect()
    }

    /// How many keys, usable or not.
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has the keys of another from now on. Who has got a key before goes on with it.
    pub fn replace(&self, other: &Self) {
        self.keys.store(other.keys.load_full());
    }
}
