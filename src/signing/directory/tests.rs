mod recall;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::B256;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::journal::{
    Account, AccountSummary, ChainPin, DiscoveredKey, DiscoveryChange, DiscoveryName, Epoch, Intent, Record as JournalRecord,
    StoredAccount, StoredAttempt, StoredIdempotencyKey, TransactionId,
};
use crate::signing::testing::{Act, ScriptedStore, arn, failure, signing_key, spki};

/// Whether a discovery was complete, and what it found.
type Discovered = (bool, BTreeMap<String, DiscoveredKey>);

/// Holds public keys; everything else is closed.
#[derive(Debug, Default)]
struct KeysOnly {
    keys: Mutex<Vec<StoredKey>>,
    failures: AtomicUsize,
    /// Whether it is complete, and its keys.
    discoveries: Mutex<BTreeMap<DiscoveryName, Discovered>>,
    changes: Mutex<Vec<DiscoveryChange>>,
}

fn closed<T: Send + 'static>() -> BoxFuture<'static, Result<T, JournalError>> {
    async { Err(JournalError::Closed) }.boxed()
}

impl Journal for KeysOnly {
    fn commit(&self, _: Vec<JournalRecord>) -> BoxFuture<'static, Result<Vec<i64>, JournalError>> {
        closed()
    }
    fn own(&self, _: Account) -> BoxFuture<'static, Result<Epoch, JournalError>> {
        closed()
    }
    fn accounts(&self, _: u64) -> BoxFuture<'static, Result<Vec<StoredAccount>, JournalError>> {
        closed()
    }
    fn account(&self, _: Account) -> BoxFuture<'static, Result<Option<StoredAccount>, JournalError>> {
        closed()
    }
    fn unfinished(&self, _: Account) -> BoxFuture<'static, Result<Vec<StoredAttempt>, JournalError>> {
        closed()
    }
    fn next_slot(&self, _: Account, _: u64) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        closed()
    }
    fn attempt(&self, _: u64, _: B256) -> BoxFuture<'static, Result<Option<StoredAttempt>, JournalError>> {
        closed()
    }
    fn unconfirmed(&self, _: u64, _: Arc<str>, _: Arc<str>) -> BoxFuture<'static, Result<Vec<StoredAttempt>, JournalError>> {
        closed()
    }
    fn queued_ids(&self, _: Account, _: usize) -> BoxFuture<'static, Result<Vec<TransactionId>, JournalError>> {
        closed()
    }
    fn queued_count(&self, _: Account) -> BoxFuture<'static, Result<u64, JournalError>> {
        closed()
    }
    fn intent(&self, _: TransactionId) -> BoxFuture<'static, Result<Option<Intent>, JournalError>> {
        closed()
    }
    fn waits_ahead(&self, _: Account, _: TransactionId) -> BoxFuture<'static, Result<bool, JournalError>> {
        closed()
    }
    fn idempotency_key(
        &self,
        _: Arc<str>,
        _: Arc<str>,
        _: Arc<str>,
    ) -> BoxFuture<'static, Result<Option<StoredIdempotencyKey>, JournalError>> {
        closed()
    }
    fn chain(&self, _: u64) -> BoxFuture<'static, Result<Option<ChainPin>, JournalError>> {
        closed()
    }
    fn pin_chain(&self, _: ChainPin) -> BoxFuture<'static, Result<(), JournalError>> {
        closed()
    }
    fn forget_chain(&self, _: u64) -> BoxFuture<'static, Result<u64, JournalError>> {
        closed()
    }
    fn keys(&self) -> BoxFuture<'static, Result<Vec<StoredKey>, JournalError>> {
        let keys = self.keys.lock().unwrap().clone();
        async { Ok(keys) }.boxed()
    }
    fn put_key(&self, key: StoredKey) -> BoxFuture<'static, Result<(), JournalError>> {
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails {
            return async { Err(JournalError::NotWritten("scripted".to_owned())) }.boxed();
        }
        self.keys.lock().unwrap().push(key);
        async { Ok(()) }.boxed()
    }
    fn discovery(&self, name: DiscoveryName) -> BoxFuture<'static, Result<Option<Vec<DiscoveredKey>>, JournalError>> {
        let found = self.discoveries.lock().unwrap().get(&name).filter(|(complete, _)| *complete).map(|(_, keys)| keys.clone());
        async { Ok(found.map(|keys| keys.into_values().collect())) }.boxed()
    }
    fn change_discovery(&self, change: DiscoveryChange) -> BoxFuture<'static, Result<(), JournalError>> {
        self.changes.lock().unwrap().push(change.clone());
        let mut discoveries = self.discoveries.lock().unwrap();
        let (complete, keys) = discoveries.entry(change.name).or_default();
        if change.anew {
            keys.clear();
        }
        *complete = change.complete;
        keys.extend(change.found.into_iter().map(|key| (key.arn.clone(), key)));
        keys.retain(|arn, _| !change.gone.contains(arn));
        async { Ok(()) }.boxed()
    }
    fn keep_discoveries(&self, names: Vec<DiscoveryName>) -> BoxFuture<'static, Result<(), JournalError>> {
        self.discoveries.lock().unwrap().retain(|name, _| names.contains(name));
        async { Ok(()) }.boxed()
    }
    fn summary(&self) -> BoxFuture<'static, Result<Vec<AccountSummary>, JournalError>> {
        closed()
    }
}

async fn open(journal: &Arc<KeysOnly>, stores: &[(&str, &Arc<ScriptedStore>)]) -> Result<Arc<Directory>, DirectoryError> {
    let stores = stores.iter().map(|(name, store)| ((*name).to_owned(), Arc::clone(store) as Arc<dyn KeyStore>)).collect();
    Directory::open(journal.clone(), stores).await
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn asked(store: &ScriptedStore) -> usize {
    store.public_keys.lock().unwrap().len()
}

fn address(seed: u8) -> Address {
    pin(&arn("x"), &spki(&signing_key(seed))).unwrap().address()
}

#[tokio::test]
async fn i4_a_public_key_is_asked_once_for_life() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2), ("c", 3)], |_| Act::Sign);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let kms = names(&["kms"]);
    let selections: Vec<_> = (0..8).map(|_| directory.select(&kms, &KeySelection::All)).collect();
    let services = futures_util::future::try_join_all(selections).await.unwrap();
    assert_eq!(asked(&store), 3);
    assert_eq!(journal.keys.lock().unwrap().len(), 3);
    // Shared: the same key, not an equal one.
    let of_first = services[0].get(&address(2)).unwrap();
    assert!(services.iter().all(|keys| Arc::ptr_eq(&keys.get(&address(2)).unwrap(), &of_first)));
    let mut expected = vec![address(1), address(2), address(3)];
    expected.sort();
    assert_eq!(services[0].addresses(), expected);
    // After a restart, too.
    let restarted = open(&journal, &[("kms", &store)]).await.unwrap();
    assert_eq!(restarted.select(&kms, &KeySelection::All).await.unwrap().len(), 3);
    assert_eq!(asked(&store), 3);
}

#[tokio::test]
async fn a_failed_write_costs_no_second_question() {
    let journal = Arc::new(KeysOnly { failures: AtomicUsize::new(1), ..KeysOnly::default() });
    let store = ScriptedStore::new(&[("a", 1)], |_| Act::Sign);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let error = directory.select(&names(&["kms"]), &KeySelection::All).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Journal(JournalError::NotWritten(_))));
    assert_eq!(directory.select(&names(&["kms"]), &KeySelection::All).await.unwrap().len(), 1);
    assert_eq!((asked(&store), journal.keys.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn an_unusable_key_is_kept_if_its_address_is_on_record() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2)], |_| Act::Sign);
    let disabled = KeyState::Unusable("Disabled".to_owned());
    store.states.lock().unwrap().insert(arn("a"), disabled.clone());
    let kms = names(&["kms"]);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let keys = directory.select(&kms, &KeySelection::All).await.unwrap();
    assert!(keys.get(&address(1)).is_none(), "its public key is not known, and it is not asked");
    assert_eq!(keys.addresses(), [address(2)]);

    store.states.lock().unwrap().clear();
    assert_eq!(directory.select(&kms, &KeySelection::All).await.unwrap().addresses().len(), 2);
    store.states.lock().unwrap().insert(arn("a"), disabled.clone());
    let keys = directory.select(&kms, &KeySelection::All).await.unwrap();
    assert_eq!(keys.get(&address(1)).unwrap().state(), disabled);
    assert_eq!(keys.addresses(), [address(2)]);
}

#[tokio::test]
async fn an_address_under_several_arns_is_one_key() {
    let journal = Arc::new(KeysOnly::default());
    let here = ScriptedStore::new(&[("arn:here", 1)], |_| Act::Sign);
    let there = ScriptedStore::new(&[("arn:there", 1), ("arn:other", 2)], |_| Act::Sign);
    let directory = open(&journal, &[("here", &here), ("there", &there)]).await.unwrap();
    let first = directory.select(&names(&["here"]), &KeySelection::All).await.unwrap().get(&address(1)).unwrap();
    let both = directory.select(&names(&["here", "there"]), &KeySelection::All).await.unwrap();
    let key = both.get(&address(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &key));
    assert_eq!(key.pinned().arns().cloned().collect::<Vec<_>>(), [arn("arn:here"), arn("arn:there")]);
    assert_eq!(key.holders().len(), 2);
    assert_eq!(both.len(), 2);
    // The replica signs while the first is down.
    key.set_state(&arn("arn:here"), &KeyState::Unusable("Disabled".to_owned()));
    assert_eq!((key.holder().unwrap().arn, key.state()), (arn("arn:there"), KeyState::Enabled));
}

#[tokio::test]
async fn a_name_that_is_not_found_any_more_signs_no_longer_unless_it_is_the_last_or_another_service_finds_it() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("arn:one", 1), ("arn:replica", 1)], |_| Act::Sign);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let kms = names(&["kms"]);
    let hide = |hidden: &[&str]| *store.hidden.lock().unwrap() = hidden.iter().map(|name| arn(name)).collect();
    let by_name = KeySelection::Ids(names(&["arn:replica"]));
    // A service with all keys, and for a while another one that names the replica.
    let find = async |selections: &[&KeySelection]| {
        let mut draft = directory.draft();
        for selection in selections {
            draft.select(&kms, selection).await.unwrap();
        }
        directory.remember(draft.apply()).await.unwrap();
        let holders = directory.get(&address(1)).unwrap().holders();
        holders.into_iter().map(|holder| holder.arn).collect::<BTreeSet<_>>()
    };
    let (one, replica) = (arn("arn:one"), arn("arn:replica"));
    let both = BTreeSet::from([one.clone(), replica.clone()]);
    assert_eq!(find(&[&KeySelection::All, &by_name]).await, both);
    let key = directory.get(&address(1)).unwrap();
    hide(&["arn:replica"]);
    assert_eq!(find(&[&KeySelection::All]).await, both, "another service still finds it");
    hide(&[]);
    assert_eq!(find(&[&KeySelection::All]).await, both);
    directory.forget_others(directory.discoveries(&kms, &KeySelection::All)).await.unwrap();
    hide(&["arn:replica"]);
    let changes = key.changes();
    assert_eq!(find(&[&KeySelection::All]).await, [one.clone()].into());
    assert!(key.changes() > changes, "whoever keeps a snapshot takes another one");
    hide(&["arn:one", "arn:replica"]);
    assert_eq!(find(&[&KeySelection::All]).await, [one].into(), "what is under way is finished");
    hide(&["arn:one"]);
    assert_eq!(find(&[&KeySelection::All]).await, [replica].into(), "and signs by the other");
    hide(&["arn:one", "arn:replica"]);
    find(&[&KeySelection::All]).await;
    hide(&["arn:one"]);
    find(&[&KeySelection::All]).await;
    hide(&[]);
    assert_eq!(find(&[&KeySelection::All]).await, both, "found again, and not taken for one that leaves");
    assert_eq!(key.pinned().arns().count(), 2);
}

#[tokio::test]
async fn a_named_key_has_to_be_in_one_of_the_configurations() {
    let journal = Arc::new(KeysOnly::default());
    let here = ScriptedStore::new(&[("a", 1)], |_| Act::Sign);
    let there = ScriptedStore::new(&[("b", 2)], |_| Act::Sign);
    let directory = open(&journal, &[("here", &here), ("there", &there)]).await.unwrap();
    let both = names(&["here", "there"]);
    assert_eq!(directory.select(&both, &KeySelection::Ids(names(&["a", "b"]))).await.unwrap().len(), 2);
    let missing = directory.select(&both, &KeySelection::Ids(names(&["a", "c"]))).await.unwrap_err();
    assert!(matches!(missing, DirectoryError::Store { error, .. } if error.class == SignClass::Configuration));
    assert!(directory.select(&names(&["here"]), &KeySelection::Ids(names(&["b"]))).await.is_err());
    let unknown = directory.select(&names(&["nowhere"]), &KeySelection::All).await.unwrap_err();
    assert!(matches!(unknown, DirectoryError::UnknownConfiguration(name) if name == "nowhere"));
}

#[tokio::test]
async fn a_refused_public_key_matters_only_for_a_named_key() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("a", 1)], |_| Act::Sign);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let kms = names(&["kms"]);
    *store.refuse_public_key.lock().unwrap() = Some(SignClass::Credentials);
    assert!(directory.select(&kms, &KeySelection::All).await.unwrap().is_empty());
    assert!(directory.select(&kms, &KeySelection::Ids(names(&["a"]))).await.is_err());
    *store.refuse_public_key.lock().unwrap() = Some(SignClass::Transient);
    let error = directory.select(&kms, &KeySelection::All).await.unwrap_err();
    assert_eq!(error.to_string(), format!("configuration \"kms\": {}", failure(SignClass::Transient)));
}

#[tokio::test]
async fn a_record_that_contradicts_itself_is_not_used() {
    let bytes = spki(&signing_key(1));
    let wrong = StoredKey { arn: "a".to_owned(), spki: bytes, address: address(2) };
    let journal = Arc::new(KeysOnly { keys: Mutex::new(vec![wrong]), ..KeysOnly::default() });
    let error = open(&journal, &[]).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Record { recorded, derived, .. } if (recorded, derived) == (address(2), address(1))));

    let broken = StoredKey { arn: "a".to_owned(), spki: vec![0; 16], address: address(1) };
    let journal = Arc::new(KeysOnly { keys: Mutex::new(vec![broken]), ..KeysOnly::default() });
    assert!(matches!(open(&journal, &[]).await.unwrap_err(), DirectoryError::PublicKey { error: SpkiError::NotDer, .. }));
}

#[tokio::test]
async fn a_draft_that_is_not_applied_changes_no_key() {
    let journal = Arc::new(KeysOnly::default());
    let here = ScriptedStore::new(&[("arn:here", 1)], |_| Act::Sign);
    let there = ScriptedStore::new(&[("arn:there", 1), ("arn:new", 2)], |_| Act::Sign);
    let directory = open(&journal, &[("here", &here), ("there", &there)]).await.unwrap();
    let (first, both) = (names(&["here"]), names(&["here", "there"]));
    let key = directory.select(&first, &KeySelection::All).await.unwrap().get(&address(1)).unwrap();
    here.states.lock().unwrap().insert(arn("arn:here"), KeyState::Unusable("Disabled".to_owned()));

    let mut refused = directory.draft();
    refused.select(&both, &KeySelection::All).await.unwrap();
    assert!(refused.select(&first, &KeySelection::Ids(names(&["missing"]))).await.is_err());
    drop(refused);
    assert_eq!((key.state(), key.holders().len(), key.pinned().arns().count()), (KeyState::Enabled, 1, 1));
    assert!(directory.get(&address(2)).is_none());

    let mut draft = directory.draft();
    let one = draft.select(&both, &KeySelection::All).await.unwrap();
    let other = draft.select(&names(&["there"]), &KeySelection::All).await.unwrap();
    draft.apply();
    assert_eq!((key.holder().unwrap().arn, key.holders().len(), key.pinned().arns().count()), (arn("arn:there"), 2, 2));
    assert_eq!(key.holders()[0].state, KeyState::Unusable("Disabled".to_owned()));
    let new = directory.get(&address(2)).unwrap();
    for keys in [one, other] {
        assert!(Arc::ptr_eq(&keys.get(&address(1)).unwrap(), &key) && Arc::ptr_eq(&keys.get(&address(2)).unwrap(), &new));
    }
}
