//! What was found last, and keys that come and go.

use super::*;

async fn remembered(journal: &Arc<KeysOnly>, store: &Arc<ScriptedStore>, selection: &KeySelection) {
    let directory = open(journal, &[("kms", store)]).await.unwrap();
    let mut draft = directory.draft();
    draft.select(&names(&["kms"]), selection).await.unwrap();
    directory.remember(draft.apply()).await.unwrap();
}

fn tag(value: &str) -> KeySelection {
    KeySelection::Tags(BTreeMap::from([("app".to_owned(), value.to_owned())]))
}

#[tokio::test]
async fn a_restart_recalls_what_was_found_last_without_a_call() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2)], |_| Act::Sign);
    remembered(&journal, &store, &tag("pay")).await;
    let disabled = KeyState::Unusable("Disabled".to_owned());
    store.states.lock().unwrap().insert(arn("a"), disabled.clone());
    remembered(&journal, &store, &tag("pay")).await;
    let asked_before = store.discoveries.load(Ordering::SeqCst);

    *store.refuse_discovery.lock().unwrap() = Some(SignClass::Transient);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let mut draft = directory.draft();
    let keys = draft.recall(&names(&["kms"]), &tag("pay")).await.unwrap().unwrap();
    assert!(draft.apply().is_empty(), "it is on record already");
    assert_eq!((keys.len(), keys.addresses()), (2, vec![address(2)]));
    assert_eq!(keys.get(&address(1)).unwrap().state(), disabled, "its state was found too");
    assert_eq!((store.discoveries.load(Ordering::SeqCst), asked(&store)), (asked_before, 2));
    assert!(Arc::ptr_eq(&directory.get(&address(2)).unwrap(), &keys.get(&address(2)).unwrap()));
}

#[tokio::test]
async fn what_is_in_doubt_is_not_recalled() {
    let store = ScriptedStore::new(&[("a", 1)], |_| Act::Sign);
    let recall = async |journal: &Arc<KeysOnly>, selection: &KeySelection| {
        let directory = open(journal, &[("kms", &store)]).await.unwrap();
        directory.draft().recall(&names(&["kms"]), selection).await.unwrap().map(|keys| keys.len())
    };
    let journal = Arc::new(KeysOnly::default());
    assert_eq!(recall(&journal, &tag("pay")).await, None, "nothing is on record");
    remembered(&journal, &store, &tag("pay")).await;
    assert_eq!(recall(&journal, &tag("pay")).await, Some(1));
    for other in [tag("other"), KeySelection::All, KeySelection::Ids(names(&["a"]))] {
        assert_eq!(recall(&journal, &other).await, None, "another selection: {other:?}");
    }

    let damage = |change: &dyn Fn(&mut Discovered)| {
        let mut discoveries = journal.discoveries.lock().unwrap();
        let found = discoveries.values_mut().next().unwrap();
        let before = found.clone();
        change(found);
        before
    };
    let whole = damage(&|found| found.0 = false);
    assert_eq!(recall(&journal, &tag("pay")).await, None, "it was not written to its end");
    damage(&|found| *found = whole.clone());
    damage(&|found| found.1.values_mut().for_each(|key| key.tags = "{".to_owned()));
    assert_eq!(recall(&journal, &tag("pay")).await, None, "a text that is none");
    damage(&|found| *found = whole.clone());
    damage(&|found| found.1.values_mut().for_each(|key| key.arn = "z".to_owned()));
    assert_eq!(recall(&journal, &tag("pay")).await, None, "no public key is on record");
    damage(&|found| found.1.clear());
    assert_eq!(recall(&journal, &tag("pay")).await, None, "nothing was found: that is asked again");
    damage(&|found| *found = whole.clone());
    assert_eq!(recall(&journal, &tag("pay")).await, Some(1));

    // Taken up again after it was given up, it is discovered.
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    directory.forget_others(directory.discoveries(&names(&["kms"]), &KeySelection::All)).await.unwrap();
    assert_eq!(recall(&journal, &tag("pay")).await, None);
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2), ("c", 3)], |_| Act::Sign);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let written = async || {
        let mut draft = directory.draft();
        draft.select(&names(&["kms"]), &KeySelection::All).await.unwrap();
        directory.remember(draft.apply()).await.unwrap();
        std::mem::take(&mut *journal.changes.lock().unwrap())
    };
    let first = written().await;
    assert!(matches!(&first[..], [one] if one.anew && one.complete && one.found.len() == 3), "{first:?}");
    assert!(written().await.is_empty());
    store.states.lock().unwrap().insert(arn("b"), KeyState::Unusable("Disabled".to_owned()));
    store.hidden.lock().unwrap().insert(arn("c"));
    let changes = written().await;
    assert!(changes.iter().all(|change| !change.anew && change.complete));
    let found: Vec<_> = changes.iter().flat_map(|change| &change.found).map(|key| (&*key.arn, &*key.state)).collect();
    let gone: Vec<&str> = changes.iter().flat_map(|change| &change.gone).map(String::as_str).collect();
    assert_eq!((found, gone), (vec![("b", "Disabled")], vec!["c"]));
}

#[tokio::test]
async fn a_discovery_of_many_keys_counts_once_it_is_whole() {
    let journal = Arc::new(KeysOnly::default());
    let many: Vec<String> = (0..9_000).map(|number| format!("key-{number:04}")).collect();
    // One public key under many names.
    let keys: Vec<(&str, u8)> = many.iter().map(|name| (name.as_str(), 1)).collect();
    let store = ScriptedStore::new(&keys, |_| Act::Sign);
    remembered(&journal, &store, &KeySelection::All).await;
    let changes = std::mem::take(&mut *journal.changes.lock().unwrap());
    let shape: Vec<_> = changes.iter().map(|change| (change.anew, change.found.len(), change.complete)).collect();
    assert_eq!(shape, [(true, 4_000, false), (false, 4_000, false), (false, 1_000, true)]);
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let keys = directory.draft().recall(&names(&["kms"]), &KeySelection::All).await.unwrap().unwrap();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn a_service_has_the_keys_of_its_newest_reading_and_holders_go_on() {
    let journal = Arc::new(KeysOnly::default());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2)], |_| Act::Sign);
    store.hidden.lock().unwrap().insert(arn("b"));
    let directory = open(&journal, &[("kms", &store)]).await.unwrap();
    let kms = names(&["kms"]);
    let keys = directory.select(&kms, &KeySelection::All).await.unwrap();
    let clone = keys.clone();
    let held = keys.get(&address(1)).unwrap();
    *store.hidden.lock().unwrap() = [arn("a")].into();
    keys.replace(&directory.select(&kms, &KeySelection::All).await.unwrap());
    assert_eq!((clone.addresses(), clone.get(&address(1)).is_none()), (vec![address(2)], true));
    // Whoever has work of it still finds it.
    assert!(Arc::ptr_eq(&directory.get(&address(1)).unwrap(), &held));
    assert_eq!(held.state(), KeyState::Enabled);
    // It comes back as the same key.
    store.hidden.lock().unwrap().clear();
    keys.replace(&directory.select(&kms, &KeySelection::All).await.unwrap());
    assert!(Arc::ptr_eq(&clone.get(&address(1)).unwrap(), &held));
}
