//! The keys of several services as they were found, apart from those in use: a reading of the configuration that is refused
//! half-way must not have changed a key of a service that runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alloy_primitives::Address;

use super::recall::Finding;
use super::{Directory, DirectoryError, Resolved, ServiceKeys};
use crate::config::KeySelection;
use crate::signing::key::{Holder, Joining, Key};

/// What is to hold for all services at once.
#[derive(Debug)]
pub struct Draft {
    directory: Arc<Directory>,
    /// Keys that no service has had yet.
    fresh: HashMap<Address, Arc<Key>>,
    /// Names and states of keys, in the order of discovery.
    joining: Vec<Joining>,
    /// What stores found, to be put on record.
    findings: Vec<Finding>,
}

impl Draft {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, fresh: HashMap::new(), joining: Vec::new(), findings: Vec::new() }
    }

    /// The keys of a service. Discovery runs again each time, so what is found is fresh; keys that are in use show it once the
    /// draft is applied.
    pub async fn select(&mut self, configurations: &[String], selection: &KeySelection) -> Result<ServiceKeys, DirectoryError> {
        let directory = Arc::clone(&self.directory);
        let found = directory.find(configurations, selection).await?;
        for (configuration, found) in configurations.iter().zip(&found) {
            self.findings.extend(directory.finding(configuration, selection, found));
        }
        self.take(found.into_iter().flatten())
    }

    /// The keys of a service as they were found last, by any process with this journal; without a call of a key store that takes
    /// time. None if they are not on record, or there is any doubt about them: then they have to be selected.
    pub async fn recall(&mut self, configurations: &[String], selection: &KeySelection) -> Result<Option<ServiceKeys>, DirectoryError> {
        let directory = Arc::clone(&self.directory);
        match directory.recall(configurations, selection).await? {
            Some(found) => self.take(found.into_iter()).map(Some),
            None => Ok(None),
        }
    }

    /// One key per address, whatever names and configurations reach it.
    fn take(&mut self, found: impl Iterator<Item = Resolved>) -> Result<ServiceKeys, DirectoryError> {
        let mut keys = BTreeMap::new();
        for Resolved { public_key, holder, .. } in found {
            let address = public_key.pinned.address();
            let key = match self.directory.get(&address).or_else(|| self.fresh.get(&address).cloned()) {
                // Most keys are as they were, at every refresh of thousands.
                Some(known) if is_as_it_was(&known, &holder) => known,
                Some(known) => {
                    let arn = holder.arn.clone();
                    let admitted = known.admit(holder, &public_key.spki);
                    self.joining.push(admitted.map_err(|error| DirectoryError::PublicKey { arn, error })?);
                    known
                }
                None => {
                    let key = Arc::new(Key::new(public_key.pinned.clone(), holder));
                    self.fresh.insert(address, Arc::clone(&key));
                    key
                }
            };
            keys.insert(address, key);
        }
        Ok(ServiceKeys::new(keys))
    }

    /// Puts it in force. What was found is for [`Directory::remember`].
    pub fn apply(self) -> Vec<Finding> {
        for joining in self.joining {
            joining.join();
        }
        for (address, key) in self.fresh {
            self.directory.keys.insert(address, key);
        }
        for (configuration, arn) in self.directory.gone(&self.findings) {
            if let Some(key) = self.directory.key_of(&arn) {
                key.leave(&configuration, &arn);
            }
        }
        self.findings
    }
}

/// Whether the key has this holder already, in this state.
fn is_as_it_was(key: &Key, holder: &Holder) -> bool {
    let same = |known: &Holder| known.arn == holder.arn && known.configuration == holder.configuration && known.state == holder.state;
    !key.is_leaving() && key.holders().iter().any(same)
}
