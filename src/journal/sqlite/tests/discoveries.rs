//! The keys that were found last.

use super::*;
use crate::journal::{DiscoveredKey, DiscoveryChange, DiscoveryName};

fn name(selection: &str) -> DiscoveryName {
    DiscoveryName { configuration: "kms".into(), selection: selection.into() }
}

fn key(arn: &str, state: &str) -> DiscoveredKey {
    DiscoveredKey { arn: arn.into(), state: state.into(), aliases: "[]".into(), tags: "{}".into() }
}

fn change(selection: &str, anew: bool, found: &[DiscoveredKey], gone: &[&str], complete: bool) -> DiscoveryChange {
    DiscoveryChange {
        name: name(selection),
        anew,
        found: found.to_vec(),
        gone: gone.iter().map(|arn| (*arn).to_owned()).collect(),
        complete,
    }
}

#[tokio::test]
async fn a_discovery_counts_once_it_is_complete_and_then_differences_do() {
    let fixture = Fixture::new();
    let journal = &fixture.journal;
    assert_eq!(journal.discovery(name("all")).await.unwrap(), None);
    journal.change_discovery(change("all", true, &[key("b", "Enabled")], &[], false)).await.unwrap();
    assert_eq!(journal.discovery(name("all")).await.unwrap(), None, "a part is nothing");
    journal.change_discovery(change("all", false, &[key("a", "Enabled")], &[], true)).await.unwrap();
    assert_eq!(journal.discovery(name("all")).await.unwrap().unwrap(), [key("a", "Enabled"), key("b", "Enabled")]);
    journal.change_discovery(change("all", false, &[key("a", "Disabled"), key("c", "Enabled")], &["b"], true)).await.unwrap();
    assert_eq!(journal.discovery(name("all")).await.unwrap().unwrap(), [key("a", "Disabled"), key("c", "Enabled")]);
    assert_eq!(journal.discovery(name("other")).await.unwrap(), None);
    // Begun anew, it has nothing of the one before.
    journal.change_discovery(change("all", true, &[], &[], true)).await.unwrap();
    assert_eq!(journal.discovery(name("all")).await.unwrap().unwrap(), []);
}

#[tokio::test]
async fn other_discoveries_are_removed_with_their_keys() {
    let fixture = Fixture::new();
    let journal = &fixture.journal;
    for selection in ["one", "two"] {
        journal.change_discovery(change(selection, true, &[key("a", "Enabled")], &[], true)).await.unwrap();
    }
    journal.keep_discoveries(vec![name("two"), name("three")]).await.unwrap();
    assert_eq!(journal.discovery(name("one")).await.unwrap(), None);
    assert_eq!(journal.discovery(name("two")).await.unwrap().unwrap(), [key("a", "Enabled")]);
    journal.keep_discoveries(Vec::new()).await.unwrap();
    let rows: i64 =
        file::open_reader(&fixture.path).unwrap().query_row("SELECT count(*) FROM discovered_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}
