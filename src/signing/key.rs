//! A managed key: one public key, the names that hold it, and which of them can sign.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use alloy_primitives::Address;

use super::signature::{PinnedKey, SpkiError};
use super::{KeyArn, KeyState, KeyStore, SignClass};

/// One name of a key, and the way to it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The pinned name.
    pub arn: KeyArn,
    /// Name of the configuration that reaches it.
    pub configuration: Arc<str>,
    /// The store to ask.
    pub store: Arc<dyn KeyStore>,
    /// Whether it can sign.
    pub state: KeyState,
}

/// A holder whose public key is that of the key.
#[derive(Debug)]
pub struct Joining {
    key: Arc<Key>,
    holder: Holder,
}

impl Joining {
    /// Adds the holder, or notes its state if the key has it.
    pub fn join(self) {
        let Self { key, holder } = self;
        let mut held = key.held.write().unwrap_or_else(PoisonError::into_inner);
        if !held.pinned.is_pinned(&holder.arn) {
            Arc::make_mut(&mut held.pinned).pin(holder.arn.clone());
        }
        let was_leaving = std::mem::take(&mut held.leaving);
        match held.holders.iter_mut().find(|known| known.arn == holder.arn && known.configuration == holder.configuration) {
            Some(known) => known.state = holder.state,
            None if was_leaving => held.holders = vec![holder],
            None => held.holders.push(holder),
        }
        key.changes.fetch_add(1, Ordering::Release);
    }
}

/// A key that services share. Names (replicas) may join it, and their states change; its public key never does.
#[derive(Debug)]
pub struct Key {
    address: Address,
    held: RwLock<Held>,
    /// Counts what changes in `held`, under its lock.
    changes: AtomicU64,
}

#[derive(Debug, Clone)]
struct Held {
    pinned: Arc<PinnedKey>,
    holders: Vec<Holder>,
    /// The last holder, if it is not found any more: it goes once another one joins.
    leaving: bool,
}

/// A key as it was after so many changes.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// As [`Key::changes`] was.
    pub(super) changes: u64,
    /// The public key with the names that are pinned to it.
    pub(super) pinned: Arc<PinnedKey>,
    /// Every holder, in the order of discovery.
    pub(super) holders: Vec<Holder>,
}

impl Key {
    /// A key with its first holder.
    pub fn new(pinned: PinnedKey, holder: Holder) -> Self {
        let held = Held { pinned: Arc::new(pinned), holders: vec![holder], leaving: false };
        Self { address: held.pinned.address(), held: RwLock::new(held), changes: AtomicU64::new(0) }
    }

    /// How often a holder joined or a state was noted: whoever keeps a [snapshot](Self::snapshot) takes another one when it differs.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Everything as it is now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let Held { pinned, holders, .. } = held.clone();
        Snapshot { changes: self.changes(), pinned, holders }
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The public key with the names that are pinned to it now.
    pub fn pinned(&self) -> Arc<PinnedKey> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner).pinned)
    }

    /// Every holder, in the order of discovery.
    pub fn holders(&self) -> Vec<Holder> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).holders.clone()
    }

    /// The holder that signs: the first that can; if none can, the first.
    pub fn holder(&self) -> Option<Holder> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let enabled = held.holders.iter().find(|holder| holder.state == KeyState::Enabled);
        enabled.or(held.holders.first()).cloned()
    }

    /// Whether it can sign, by any of its names.
    pub fn state(&self) -> KeyState {
        self.holder().map_or_else(|| KeyState::Unusable("no holder".to_owned()), |holder| holder.state)
    }

    /// That it can sign now, by any of its names; [`SignClass::KeyDown`] where it cannot.
    pub fn usable(&self) -> Result<(), SignClass> {
        match self.state() {
            KeyState::Enabled => Ok(()),
            KeyState::Unusable(_) => Err(SignClass::KeyDown),
        }
    }

    /// Notes what is known about one of its names.
    pub fn set_state(&self, arn: &KeyArn, state: &KeyState) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        for holder in held.holders.iter_mut().filter(|holder| holder.arn == *arn) {
            holder.state = state.clone();
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Whether its one holder is not found any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).leaving
    }

    /// A name is not found by this configuration any more: it signs no longer. The last holder stays until another one joins, for what is under
    /// way with the key.
    pub(super) fn leave(&self, configuration: &str, arn: &KeyArn) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let is_it = |holder: &Holder| holder.arn == *arn && *holder.configuration == *configuration;
        if held.holders.iter().all(is_it) {
            held.leaving = true;
        } else if held.holders.iter().any(is_it) {
            held.holders.retain(|holder| !is_it(holder));
            self.changes.fetch_add(1, Ordering::Release);
            tracing::info!(address = %self.address, %arn, configuration, "a name of a key is not found any more: the key signs by its others");
        }
    }

    /// A holder (another name, or another configuration that reaches the same name) that is to join, with its state; an error if
    /// its public key is another one. Nothing changes before it [joins](Joining::join).
    pub fn admit(self: &Arc<Self>, holder: Holder, spki: &[u8]) -> Result<Joining, SpkiError> {
        self.pinned().compare(&holder.arn, spki)?;
        Ok(Joining { key: Arc::clone(self), holder })
    }
}
