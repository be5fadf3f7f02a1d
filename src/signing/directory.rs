//! Which keys there are, for everybody: discovered by their stores, their public keys asked once for life (I4) and kept in
//! the journal, shared between services.

mod draft;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alloy_primitives::Address;
use dashmap::DashMap;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

pub use self::draft::Draft;
use super::key::{Holder, Key};
use super::signature::{PinnedKey, SpkiError};
use super::{FoundKey, KeyArn, KeyState, KeyStore, KeyStoreError, SignClass};
use crate::config::KeySelection;
use crate::journal::{Journal, JournalError, StoredKey};

/// GetPublicKey calls at the same time: far below their 2,000 a second.
const CONCURRENCY: usize = 16;

/// Why a service's keys cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The service names a configuration that was not opened.
    #[error("configuration \"{0}\" is not open")]
    UnknownConfiguration(String),
    /// The key store did not answer, or refused.
    #[error("configuration \"{configuration}\": {error}")]
    Store {
        /// Whose key store.
        configuration: String,
        /// What it said.
        error: KeyStoreError,
    },
    /// A public key is not one that Sluice can use, or not the one on record.
    #[error("{arn}: {error}")]
    PublicKey {
        /// Which key.
        arn: KeyArn,
        /// What is wrong with it.
        error: SpkiError,
    },
    /// The journal's row says another address than its own public key does.
    #[error("the journal has {recorded} as the address of {arn}, but its public key on record is that of {derived}")]
    Record {
        /// Which key.
        arn: KeyArn,
        /// The address on record.
        recorded: Address,
        /// The address of the public key on record.
        derived: Address,
    },
    /// Public keys cannot be read from or put on record.
    #[error("public keys: {0}")]
    Journal(#[from] JournalError),
}

/// A public key, asked at most once and then put on record.
#[derive(Debug, Default)]
struct Record {
    spki: OnceCell<Vec<u8>>,
    /// Set once the journal has it. Apart from `spki`, so that a failed write costs no second GetPublicKey.
    is_durable: OnceCell<()>,
}

/// Every key of the process.
#[derive(Debug)]
pub struct Directory {
    journal: Arc<dyn Journal>,
    stores: HashMap<String, Arc<dyn KeyStore>>,
    records: DashMap<KeyArn, Arc<Record>>,
    keys: DashMap<Address, Arc<Key>>,
}

impl Directory {
    /// Reads the public keys on record and checks each against its address. `stores` by the name of their configuration.
    pub async fn open(journal: Arc<dyn Journal>, stores: Vec<(String, Arc<dyn KeyStore>)>) -> Result<Arc<Self>, DirectoryError> {
        let records = DashMap::new();
        for StoredKey { arn, spki, address } in journal.keys().await? {
            let arn = KeyArn(arn.into());
            let derived = pin(&arn, &spki)?.address();
            if derived != address {
                return Err(DirectoryError::Record { arn, recorded: address, derived });
            }
            let record = Record { spki: OnceCell::new_with(Some(spki)), is_durable: OnceCell::new_with(Some(())) };
            records.insert(arn, Arc::new(record));
        }
        Ok(Arc::new(Self { journal, stores: stores.into_iter().collect(), records, keys: DashMap::new() }))
    }

    /// The key of an address, whichever service may use it.
    pub fn get(&self, address: &Address) -> Option<Arc<Key>> {
        self.keys.get(address).map(|key| Arc::clone(&key))
    }

    /// A reading of the keys of several services, of which nothing holds before it is applied. There is to be one at a time.
    pub fn draft(self: &Arc<Self>) -> Draft {
        Draft::new(Arc::clone(self))
    }

    /// The keys of a service, by a [draft](Self::draft) of their own, applied at once.
    pub async fn select(self: &Arc<Self>, configurations: &[String], selection: &KeySelection) -> Result<ServiceKeys, DirectoryError> {
        let found = self.find(configurations, selection).await?;
        let mut draft = self.draft();
        let keys = draft.take(found)?;
        draft.apply();
        Ok(keys)
    }

    /// What the stores of a service have. Public keys are asked only for keys that are not on record. Of a tag or of
    /// everything, keys that cannot give a public key are left out with a warning; a key that is named must be there.
    async fn find(&self, configurations: &[String], selection: &KeySelection) -> Result<Vec<Resolved>, DirectoryError> {
        let must_be_there = matches!(selection, KeySelection::Ids(_));
        let mut stores = Vec::new();
        for configuration in configurations {
            let known = self.stores.get_key_value(configuration);
            stores.push(known.ok_or_else(|| DirectoryError::UnknownConfiguration(configuration.clone()))?);
        }
        let mut all = Vec::new();
        for (name, store, found) in discover(&stores, selection).await? {
            let name: Arc<str> = name.as_str().into();
            let resolving: Vec<_> = found.into_iter().map(|found| self.resolve(&name, store, found, must_be_there)).collect();
            let resolved: Vec<Option<Resolved>> = stream::iter(resolving).buffered(CONCURRENCY).try_collect().await?;
            all.extend(resolved.into_iter().flatten());
        }
        Ok(all)
    }

    /// A found key with its public key; none if it is left out.
    async fn resolve(
        &self,
        configuration: &Arc<str>,
        store: &Arc<dyn KeyStore>,
        found: FoundKey,
        must_be_there: bool,
    ) -> Result<Option<Resolved>, DirectoryError> {
        let FoundKey { arn, state, .. } = found;
        // The guard of the map is gone before anything waits.
        let record = Arc::clone(&self.records.entry(arn.clone()).or_default());
        if let (None, KeyState::Unusable(why)) = (record.spki.get(), &state) {
            tracing::warn!(configuration = &**configuration, %arn, state = why, "the key is left out: it is not usable and its address is not on record");
            return Ok(None);
        }
        // Who comes second waits here for the one GetPublicKey.
        let spki = match record.spki.get_or_try_init(|| store.public_key(&arn)).await {
            Ok(spki) => spki.clone(),
            Err(error) if !must_be_there && is_the_keys_own(&error) => {
                tracing::warn!(configuration = &**configuration, %arn, %error, "the key is left out: it gives no public key");
                return Ok(None);
            }
            Err(error) => return Err(DirectoryError::Store { configuration: configuration.to_string(), error }),
        };
        let pinned = pin(&arn, &spki)?;
        let stored = StoredKey { arn: arn.0.to_string(), spki: spki.clone(), address: pinned.address() };
        record.is_durable.get_or_try_init(|| self.journal.put_key(stored)).await?;
        let holder = Holder { arn, configuration: Arc::clone(configuration), store: Arc::clone(store), state };
        Ok(Some(Resolved { pinned, spki, holder }))
    }
}

/// A configuration's name and its store.
type NamedStore<'a> = (&'a String, &'a Arc<dyn KeyStore>);

/// What each store finds. Of several configurations, each named key has to be in one of them, not in all.
async fn discover<'a>(
    stores: &[NamedStore<'a>],
    selection: &KeySelection,
) -> Result<Vec<(&'a String, &'a Arc<dyn KeyStore>, Vec<FoundKey>)>, DirectoryError> {
    let failed = |name: &String, error| DirectoryError::Store { configuration: name.clone(), error };
    let mut all = Vec::new();
    let KeySelection::Ids(ids) = selection else {
        for (name, store) in stores {
            all.push((*name, *store, store.discover(selection).await.map_err(|error| failed(name, error))?));
        }
        return Ok(all);
    };
    if let [(name, store)] = stores {
        all.push((*name, *store, store.discover(selection).await.map_err(|error| failed(name, error))?));
        return Ok(all);
    }
    for id in ids {
        let one = KeySelection::Ids(vec![id.clone()]);
        let (mut found_any, mut missing) = (false, None);
        for (name, store) in stores {
            match store.discover(&one).await {
                Ok(found) => {
                    found_any = true;
                    all.push((*name, *store, found));
                }
                Err(error) if error.class == SignClass::Configuration => missing = Some(failed(name, error)),
                // A key of another account's configuration is denied to this one.
                Err(error) if error.class == SignClass::Credentials => {
                    tracing::warn!(configuration = name, id, %error, "the configuration does not reach the key");
                    missing = Some(failed(name, error));
                }
                Err(error) => return Err(failed(name, error)),
            }
        }
        if let Some(error) = missing.filter(|_| !found_any) {
            return Err(error);
        }
    }
    Ok(all)
}

#[derive(Debug)]
struct Resolved {
    pinned: PinnedKey,
    spki: Vec<u8>,
    holder: Holder,
}

fn pin(arn: &KeyArn, spki: &[u8]) -> Result<PinnedKey, DirectoryError> {
    PinnedKey::from_spki(arn.clone(), spki).map_err(|error| DirectoryError::PublicKey { arn: arn.clone(), error })
}

/// Whether the error is about this key alone and says nothing about the others.
fn is_the_keys_own(error: &KeyStoreError) -> bool {
    matches!(error.class, SignClass::KeyDown | SignClass::Credentials | SignClass::Configuration)
}

/// The keys that a service may use.
#[derive(Debug, Clone, Default)]
pub struct ServiceKeys {
    keys: BTreeMap<Address, Arc<Key>>,
}

impl ServiceKeys {
    /// The key of an address, usable or not.
    pub fn get(&self, address: &Address) -> Option<Arc<Key>> {
        self.keys.get(address).cloned()
    }

    /// Addresses of the keys that can sign now, sorted.
    pub fn addresses(&self) -> Vec<Address> {
        self.iter().filter(|key| key.state() == KeyState::Enabled).map(|key| key.address()).collect()
    }

    /// Every key, usable or not, sorted by address.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.values()
    }

    /// How many keys, usable or not.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests;
