//! Which keys there are, for everybody: discovered by their stores, their public keys asked once for life (I4) and kept in
//! the journal, shared between services.

mod draft;
mod recall;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::future;
use std::sync::Arc;

use alloy_primitives::Address;
use dashmap::DashMap;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

pub use self::draft::Draft;
pub use self::recall::Finding;
use self::recall::Saved;
pub use self::service::ServiceKeys;
use super::key::{Holder, Key};
use super::signature::{PinnedKey, SpkiError};
use super::{FoundKey, KeyArn, KeyState, KeyStore, KeyStoreError, SignClass};
use crate::config::KeySelection;
use crate::journal::{Journal, JournalError, StoredKey};

/// Keys whose public key is asked at the same time; the store keeps the calls within their quota.
const CONCURRENCY: usize = 256;

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
    public_key: OnceCell<Arc<PublicKey>>,
    /// Set once the journal has it. Apart from `public_key`, so that a failed write costs no second GetPublicKey.
    is_durable: OnceCell<()>,
}

/// A public key as the store gave it, and what it means.
#[derive(Debug)]
struct PublicKey {
    spki: Vec<u8>,
    pinned: PinnedKey,
}

/// Every key of the process.
#[derive(Debug)]
pub struct Directory {
    journal: Arc<dyn Journal>,
    stores: HashMap<String, Arc<dyn KeyStore>>,
    records: DashMap<KeyArn, Arc<Record>>,
    keys: DashMap<Address, Arc<Key>>,
    /// What the journal has of discoveries.
    saved: Saved,
}

impl Directory {
    /// Reads the public keys on record and checks each against its address. `stores` by the name of their configuration.
    pub async fn open(journal: Arc<dyn Journal>, stores: Vec<(String, Arc<dyn KeyStore>)>) -> Result<Arc<Self>, DirectoryError> {
        let records = DashMap::new();
        for StoredKey { arn, spki, address } in journal.keys().await? {
            let arn = KeyArn(arn.into());
            let pinned = pin(&arn, &spki)?;
            let derived = pinned.address();
            if derived != address {
                return Err(DirectoryError::Record { arn, recorded: address, derived });
            }
            let public_key = OnceCell::new_with(Some(Arc::new(PublicKey { spki, pinned })));
            let record = Record { public_key, is_durable: OnceCell::new_with(Some(())) };
            records.insert(arn, Arc::new(record));
        }
        Ok(Arc::new(Self { journal, stores: stores.into_iter().collect(), records, keys: DashMap::new(), saved: Saved::default() }))
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
        let mut draft = self.draft();
        let keys = draft.select(configurations, selection).await?;
        draft.apply();
        Ok(keys)
    }

    /// The key of a name whose public key is known.
    fn key_of(&self, arn: &KeyArn) -> Option<Arc<Key>> {
        let record = Arc::clone(&*self.records.get(arn)?);
        self.get(&record.public_key.get()?.pinned.address())
    }

    /// The stores of configurations, with their names.
    fn stores<'a>(&'a self, configurations: &[String]) -> Result<Vec<NamedStore<'a>>, DirectoryError> {
        let known = configurations.iter().map(|configuration| {
            let known = self.stores.get_key_value(configuration);
            known.ok_or_else(|| DirectoryError::UnknownConfiguration(configuration.clone()))
        });
        known.collect()
    }

    /// What the stores of a service have, by configuration. Public keys are asked only for keys that are not on record. Of a tag or of
    /// everything, keys that cannot give a public key are left out with a warning; a key that is named must be there.
    async fn find(&self, configurations: &[String], selection: &KeySelection) -> Result<Vec<Vec<Resolved>>, DirectoryError> {
        let stores = self.stores(configurations)?;
        if let (KeySelection::Ids(ids), [_, _, ..]) = (selection, stores.as_slice()) {
            let found = find_named(&stores, ids).await?;
            let each =
                stores.iter().zip(found).map(|(store, found)| self.gather(*store, stream::iter(found.into_iter().map(Ok)).boxed(), true));
            return try_join_all(each).await;
        }
        let must_be_there = matches!(selection, KeySelection::Ids(_));
        try_join_all(stores.iter().map(|store| self.gather(*store, store.1.find(selection), must_be_there))).await
    }

    /// The keys that a store finds, with their public keys, while it finds further ones; sorted by ARN, each once.
    async fn gather(
        &self,
        (name, store): NamedStore<'_>,
        found: BoxStream<'_, Result<FoundKey, KeyStoreError>>,
        must_be_there: bool,
    ) -> Result<Vec<Resolved>, DirectoryError> {
        let configuration: Arc<str> = name.as_str().into();
        let mut keys = BTreeMap::<KeyArn, Resolved>::new();
        let resolving = found
            .map_err(|error| DirectoryError::Store { configuration: name.clone(), error })
            .map_ok(|found| self.resolve(&configuration, store, found, must_be_there))
            .try_buffer_unordered(CONCURRENCY)
            .try_filter_map(|resolved| future::ready(Ok(resolved)));
        let mut resolving = std::pin::pin!(resolving);
        while let Some(resolved) = resolving.try_next().await? {
            match keys.get_mut(&resolved.holder.arn) {
                Some(known) => known.aliases.extend(resolved.aliases),
                None => drop(keys.insert(resolved.holder.arn.clone(), resolved)),
            }
        }
        Ok(keys.into_values().collect())
    }

    /// A found key with its public key; none if it is left out.
    async fn resolve(
        &self,
        configuration: &Arc<str>,
        store: &Arc<dyn KeyStore>,
        found: FoundKey,
        must_be_there: bool,
    ) -> Result<Option<Resolved>, DirectoryError> {
        let FoundKey { arn, state, aliases, tags } = found;
        // The guard of the map is gone before anything waits.
        let record = Arc::clone(&self.records.entry(arn.clone()).or_default());
        if let (None, KeyState::Unusable(why)) = (record.public_key.get(), &state) {
            tracing::warn!(configuration = &**configuration, %arn, state = why, "the key is left out: it is not usable and its address is not on record");
            return Ok(None);
        }
        // Who comes second waits here for the one GetPublicKey.
        let asked = record.public_key.get_or_try_init(|| async {
            let spki = store.public_key(&arn).await;
            let spki = spki.map_err(|error| DirectoryError::Store { configuration: configuration.to_string(), error })?;
            let pinned = pin(&arn, &spki)?;
            Ok(Arc::new(PublicKey { spki, pinned }))
        });
        let public_key = match asked.await {
            Ok(public_key) => Arc::clone(public_key),
            Err(DirectoryError::Store { error, .. }) if !must_be_there && is_the_keys_own(&error) => {
                tracing::warn!(configuration = &**configuration, %arn, %error, "the key is left out: it gives no public key");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stored = || StoredKey { arn: arn.0.to_string(), spki: public_key.spki.clone(), address: public_key.pinned.address() };
        record.is_durable.get_or_try_init(|| self.journal.put_key(stored())).await?;
        let holder = Holder { arn, configuration: Arc::clone(configuration), store: Arc::clone(store), state };
        Ok(Some(Resolved { public_key, holder, aliases, tags }))
    }
}

/// A configuration's name and its store.
type NamedStore<'a> = (&'a String, &'a Arc<dyn KeyStore>);

/// What each store finds of the named keys. Of several configurations, each named key has to be in one of them, not in all.
async fn find_named(stores: &[NamedStore<'_>], ids: &[String]) -> Result<Vec<Vec<FoundKey>>, DirectoryError> {
    let looks: Vec<_> = ids.iter().map(|id| find_one(stores, id)).collect();
    let found: Vec<Vec<Vec<FoundKey>>> = stream::iter(looks).buffered(CONCURRENCY).try_collect().await?;
    let mut by_store = vec![Vec::new(); stores.len()];
    for found in found {
        by_store.iter_mut().zip(found).for_each(|(all, one)| all.extend(one));
    }
    Ok(by_store)
}

async fn find_one(stores: &[NamedStore<'_>], id: &str) -> Result<Vec<Vec<FoundKey>>, DirectoryError> {
    let one = KeySelection::Ids(vec![id.to_owned()]);
    let (mut found, mut missing) = (Vec::new(), None);
    for (name, store) in stores {
        match store.discover(&one).await {
            Ok(keys) => found.push(keys),
            Err(error) if error.class == SignClass::Configuration => {
                found.push(Vec::new());
                missing = Some(DirectoryError::Store { configuration: (*name).clone(), error });
            }
            // A key of another account's configuration is denied to this one.
            Err(error) if error.class == SignClass::Credentials => {
                tracing::warn!(configuration = %name, id, %error, "the configuration does not reach the key");
                found.push(Vec::new());
                missing = Some(DirectoryError::Store { configuration: (*name).clone(), error });
            }
            Err(error) => return Err(DirectoryError::Store { configuration: (*name).clone(), error }),
        }
    }
    let is_nowhere = found.iter().all(Vec::is_empty);
    missing.filter(|_| is_nowhere).map_or(Ok(found), Err)
}

/// A key that was found, with its public key.
#[derive(Debug)]
struct Resolved {
    public_key: Arc<PublicKey>,
    holder: Holder,
    aliases: Vec<String>,
    tags: BTreeMap<String, String>,
}

fn pin(arn: &KeyArn, spki: &[u8]) -> Result<PinnedKey, DirectoryError> {
    PinnedKey::from_spki(arn.clone(), spki).map_err(|error| DirectoryError::PublicKey { arn: arn.clone(), error })
}

/// Whether the error is about this key alone and says nothing about the others.
fn is_the_keys_own(error: &KeyStoreError) -> bool {
    matches!(error.class, SignClass::KeyDown | SignClass::Credentials | SignClass::Configuration)
}

#[cfg(test)]
mod tests;
