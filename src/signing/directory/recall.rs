//! What discoveries found last, on disk: for a start that does not wait for listings. It is a note and no authority: the key store is
//! asked again behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::{Directory, DirectoryError, Resolved};
use crate::config::KeySelection;
use crate::journal::{DiscoveredKey, DiscoveryChange, DiscoveryName, JournalError};
use crate::signing::key::Holder;
use crate::signing::{KeyArn, KeyState, KeyStore};

/// Keys of one change: a large one does not hold up the commits of transactions.
const CHANGE: usize = 500;
/// Keys of one change where nothing is on record: as many as a commit takes, so that the record is soon whole.
const FIRST: usize = 4_000;

/// What is on record, as far as this process has read or written it.
pub(super) type Saved = Mutex<BTreeMap<DiscoveryName, BTreeMap<String, DiscoveredKey>>>;

/// What one discovery found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    name: DiscoveryName,
    keys: BTreeMap<String, DiscoveredKey>,
}

impl Directory {
    /// What is kept of a service's keys, by configuration; those of a store that keeps nothing are left out.
    pub fn discoveries(&self, configurations: &[String], selection: &KeySelection) -> Vec<DiscoveryName> {
        configurations.iter().filter_map(|configuration| self.name(configuration, selection)).collect()
    }

    fn name(&self, configuration: &String, selection: &KeySelection) -> Option<DiscoveryName> {
        let (configuration, store) = self.stores.get_key_value(configuration)?;
        let keys = match selection {
            KeySelection::All => json!("all"),
            KeySelection::Tags(tags) => json!({ "tag": tags }),
            KeySelection::Ids(ids) => json!({ "ids": ids }),
        };
        let selection = json!({ "source": store.source()?, "keys": keys }).to_string();
        Some(DiscoveryName { configuration: configuration.as_str().into(), selection: selection.into() })
    }

    pub(super) fn finding(&self, configuration: &String, selection: &KeySelection, found: &[Resolved]) -> Option<Finding> {
        let name = self.name(configuration, selection)?;
        let keys = found.iter().map(|Resolved { holder, aliases, tags, .. }| DiscoveredKey {
            arn: holder.arn.to_string(),
            state: String::from(&holder.state),
            aliases: json!(aliases).to_string(),
            tags: json!(tags).to_string(),
        });
        Some(Finding { name, keys: keys.map(|key| (key.arn.clone(), key)).collect() })
    }

    /// The keys that were found last. None where any part is not on record, cannot be read, or has no public key on record, and
    /// where nothing was found at all.
    pub(super) async fn recall(
        &self,
        configurations: &[String],
        selection: &KeySelection,
    ) -> Result<Option<Vec<Resolved>>, DirectoryError> {
        let mut all = Vec::new();
        for (configuration, store) in self.stores(configurations)? {
            let Some(name) = self.name(configuration, selection) else {
                let configurations = std::slice::from_ref(configuration);
                all.extend(self.find(configurations, selection).await?.into_iter().flatten());
                continue;
            };
            let keys = match self.journal.discovery(name.clone()).await {
                Ok(Some(keys)) => keys,
                Ok(None) => return Ok(None),
                Err(error) => {
                    tracing::warn!(configuration, %error, "the keys that were found last cannot be read: they are discovered");
                    return Ok(None);
                }
            };
            let shared: Arc<str> = configuration.as_str().into();
            for key in &keys {
                let Some(resolved) = self.resolved(&shared, store, key) else {
                    tracing::warn!(
                        configuration,
                        arn = key.arn,
                        "the key that was found last is not as it was written: all are discovered"
                    );
                    return Ok(None);
                };
                all.push(resolved);
            }
            let keys = keys.into_iter().map(|key| (key.arn.clone(), key)).collect();
            self.saved.lock().unwrap_or_else(PoisonError::into_inner).insert(name, keys);
        }
        Ok(Some(all).filter(|all| !all.is_empty()))
    }

    /// The key, if its public key is on record and its texts can be read.
    fn resolved(&self, configuration: &Arc<str>, store: &Arc<dyn KeyStore>, key: &DiscoveredKey) -> Option<Resolved> {
        let arn = KeyArn(key.arn.as_str().into());
        let public_key = Arc::clone(self.records.get(&arn)?.public_key.get()?);
        let (aliases, tags) = (serde_json::from_str(&key.aliases).ok()?, serde_json::from_str(&key.tags).ok()?);
        let state = KeyState::from(key.state.clone());
        let holder = Holder { arn, configuration: Arc::clone(configuration), store: Arc::clone(store), state };
        Some(Resolved { public_key, holder, aliases, tags })
    }

    /// Names that these discoveries found before and do not find now, and that no other discovery of their configuration finds.
    pub(super) fn gone(&self, findings: &[Finding]) -> Vec<(Arc<str>, KeyArn)> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |name: &DiscoveryName| findings.iter().find(|finding| finding.name == *name).map(|finding| &finding.keys);
        let is_found = |configuration: &Arc<str>, arn: &String| {
            let on_record = saved.iter().map(|(name, keys)| (name, new(name).unwrap_or(keys)));
            let found = findings.iter().map(|finding| (&finding.name, &finding.keys));
            on_record.chain(found).any(|(name, keys)| name.configuration == *configuration && keys.contains_key(arn))
        };
        let before = findings.iter().filter_map(|finding| Some((finding, saved.get(&finding.name)?)));
        let lost = before.flat_map(|(Finding { name, keys }, before)| {
            before.keys().filter(|arn| !keys.contains_key(*arn)).map(|arn| (&name.configuration, arn))
        });
        lost.filter(|(configuration, arn)| !is_found(configuration, arn))
            .map(|(configuration, arn)| (Arc::clone(configuration), KeyArn(arn.as_str().into())))
            .collect()
    }

    /// Puts on record what was found, as far as it differs from what is there. There is to be one at a time.
    pub async fn remember(&self, findings: Vec<Finding>) -> Result<(), JournalError> {
        for Finding { name, keys } in findings {
            let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let saved = match saved {
                Some(saved) => Some(saved),
                None => {
                    let on_record = self.journal.discovery(name.clone()).await?;
                    on_record.map(|keys| keys.into_iter().map(|key| (key.arn.clone(), key)).collect())
                }
            };
            for change in changes(&name, saved.as_ref(), &keys) {
                // If one fails, the next discovery compares with what is really there.
                self.saved.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                self.journal.change_discovery(change).await?;
            }
            self.saved.lock().unwrap_or_else(PoisonError::into_inner).insert(name, keys);
        }
        Ok(())
    }

    /// Removes what was kept for services or sources that are not configured any more: taken up again, they are discovered.
    pub async fn forget_others(&self, names: Vec<DiscoveryName>) -> Result<(), JournalError> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name));
        self.journal.keep_discoveries(names).await
    }
}

/// From what is on record (none: nothing complete) to what was found.
fn changes(
    name: &DiscoveryName,
    saved: Option<&BTreeMap<String, DiscoveredKey>>,
    keys: &BTreeMap<String, DiscoveredKey>,
) -> Vec<DiscoveryChange> {
    let found: Vec<DiscoveredKey> = keys.values().filter(|key| saved.and_then(|saved| saved.get(&key.arn)) != Some(key)).cloned().collect();
    let gone: Vec<String> = saved.into_iter().flat_map(BTreeMap::keys).filter(|arn| !keys.contains_key(*arn)).cloned().collect();
    let of = |found: &[DiscoveredKey], gone: &[String]| DiscoveryChange {
        name: name.clone(),
        anew: false,
        found: found.to_vec(),
        gone: gone.to_vec(),
        complete: saved.is_some(),
    };
    let size = if saved.is_some() { CHANGE } else { FIRST };
    let mut changes: Vec<DiscoveryChange> = found.chunks(size).map(|found| of(found, &[])).collect();
    changes.extend(gone.chunks(CHANGE).map(|gone| of(&[], gone)));
    if saved.is_none() {
        if changes.is_empty() {
            changes.push(of(&[], &[]));
        }
        if let Some(first) = changes.first_mut() {
            first.anew = true;
        }
        if let Some(last) = changes.last_mut() {
            last.complete = true;
        }
    }
    changes
}
