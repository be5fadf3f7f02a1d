//! The keys of several services as they were found, apart from those in use: a reading of the configuration that is refused
//! half-way must not have changed a key of a service that runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alloy_primitives::Address;

use super::{Directory, DirectoryError, Resolved, ServiceKeys};
use crate::config::KeySelection;
use crate::signing::key::{Joining, Key};

/// What is to hold for all services at once.
#[derive(Debug)]
pub struct Draft {
    directory: Arc<Directory>,
    /// Keys that no service has had yet.
    fresh: HashMap<Address, Arc<Key>>,
    /// Names and states of keys, in the order of discovery.
    joining: Vec<Joining>,
}

impl Draft {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, fresh: HashMap::new(), joining: Vec::new() }
    }

    /// The keys of a service. Discovery runs again each time, so what is found is fresh; keys that are in use show it once the
    /// draft is applied.
    pub async fn select(&mut self, configurations: &[String], selection: &KeySelection) -> Result<ServiceKeys, DirectoryError> {
        let found = self.directory.find(configurations, selection).await?;
        self.take(found)
    }

    /// One key per address, whatever names and configurations reach it.
    pub(super) fn take(&mut self, found: Vec<Resolved>) -> Result<ServiceKeys, DirectoryError> {
        let mut keys = BTreeMap::new();
        for Resolved { pinned, spki, holder } in found {
            let address = pinned.address();
            let key = match self.directory.get(&address).or_else(|| self.fresh.get(&address).cloned()) {
                Some(known) => {
                    let arn = holder.arn.clone();
                    self.joining.push(known.admit(holder, &spki).map_err(|error| DirectoryError::PublicKey { arn, error })?);
                    known
                }
                None => {
                    let key = Arc::new(Key::new(pinned, holder));
                    self.fresh.insert(address, Arc::clone(&key));
                    key
                }
            };
            keys.insert(address, key);
        }
        Ok(ServiceKeys { keys })
    }

    /// Puts it in force.
    pub fn apply(self) {
        for joining in self.joining {
            joining.join();
        }
        for (address, key) in self.fresh {
            self.directory.keys.insert(address, key);
        }
    }
}
