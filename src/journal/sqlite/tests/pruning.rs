//! What goes, and what has to stay.

use std::time::{Duration, SystemTime};

use super::*;
use crate::journal::history::{Bounds, History, Name, Scope};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that is final by now.
fn all() -> Pruning {
    Pruning { transactions_before: SystemTime::now() + DAY, keep: 0, keys_before: None, vacuum: false }
}

fn confirmed(attempt: &Attempt) -> Record {
    reached(attempt, AttemptState::Confirmed, Some(block(9, 9)))
}

fn scope() -> Scope {
    Scope { chain_id: CHAIN, service: Arc::from("payments"), principal: Arc::from("default") }
}

fn pruned(path: &Path, what: Pruning) -> Pruned {
    prune(path, what).unwrap()
}

#[tokio::test]
async fn final_transactions_go_and_the_next_nonce_stays() {
    let fixture = Fixture::new();
    let (first, second, third) = (attempt(account(1), 4, 1), attempt(account(1), 5, 2), attempt(account(1), 6, 3));
    fixture.commit(vec![committed(&first), committed(&second), committed(&third)]).await;
    // The middle one is open, for all that the last one is done.
    fixture.commit(vec![confirmed(&first), confirmed(&third)]).await;
    let other = attempt(account(2), 8, 4);
    fixture.commit(vec![committed(&other), confirmed(&other)]).await;
    let last = fixture.journal.last_event(scope()).await.unwrap().unwrap().position;
    let (path, _directory) = fixture.closed();
    assert_eq!(pruned(&path, all()), Pruned { transactions: 3, attempts: 3, events: 6, keys: 0 });
    assert_eq!(pruned(&path, all()), Pruned::default());
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    for (account, next) in [(account(1), 7), (account(2), 9)] {
        assert_eq!(journal.account(account).await.unwrap().unwrap().next_nonce, next);
    }
    let unfinished = journal.unfinished(account(1)).await.unwrap();
    assert_eq!(unfinished.iter().map(|stored| stored.attempt.hash).collect::<Vec<_>>(), [second.hash]);
    assert!(journal.life(scope(), Name::Id(first.transaction)).await.unwrap().is_none());
    assert!(journal.life(scope(), Name::Id(second.transaction)).await.unwrap().is_some());
    // A position is never used twice, and what is left keeps its number.
    let positions = journal.commit(vec![confirmed(&second)]).await.unwrap();
    assert!(positions[0] > last);
    let events = journal.events(scope(), 0, Bounds { items: 100, bytes: 1 << 20 }).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2, 6]);
    assert!(journal.event(scope(), account(1).address, 1).await.unwrap().is_none());
}

#[tokio::test]
async fn what_can_still_change_stays() {
    let fixture = Fixture::new();
    // Refused and replaced by another that is not final; held; included; a slot that an authorisation holds open.
    let (refused, newer) = (attempt(account(1), 0, 1), attempt(account(1), 0, 2));
    fixture.commit(vec![committed(&refused), reached(&refused, AttemptState::Refused, None)]).await;
    fixture.commit(vec![replacing(&newer, 1)]).await;
    let included = attempt(account(1), 1, 3);
    fixture.commit(vec![committed(&included), reached(&included, AttemptState::Included, Some(block(1, 1)))]).await;
    let mut authorising = attempt(account(2), 0, 4);
    authorising.authorisations = vec![(account(3), 0)];
    fixture.commit(vec![committed(&authorising), confirmed(&authorising)]).await;
    let (path, _directory) = fixture.closed();
    assert_eq!(pruned(&path, all()), Pruned::default());
    // Once the slots are done, all of it goes, with the slot of the authorisation.
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    journal.commit(vec![confirmed(&newer), confirmed(&included), Record::Used { account: account(3), nonce: 0 }]).await.unwrap();
    drop(journal);
    assert_eq!(pruned(&path, all()).transactions, 4);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    for (account, next) in [(account(1), 2), (account(2), 1), (account(3), 1)] {
        assert_eq!(journal.account(account).await.unwrap().unwrap().next_nonce, next);
    }
    let connection = file::open_reader(&path).unwrap();
    for table in ["transactions", "attempts", "slots", "authorisations", "events"] {
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn age_and_count_both_have_to_allow_it() {
    let fixture = Fixture::new();
    for nonce in 0..10 {
        let one = attempt(account(1), u64::from(nonce), nonce + 1);
        fixture.commit(vec![committed(&one), confirmed(&one)]).await;
    }
    let (path, _directory) = fixture.closed();
    let young = Pruning { transactions_before: SystemTime::now() - DAY, ..all() };
    assert_eq!(pruned(&path, young).transactions, 0);
    assert_eq!(pruned(&path, Pruning { keep: 10, ..all() }).transactions, 0);
    assert_eq!(pruned(&path, Pruning { keep: 4, ..all() }).transactions, 6);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    assert!(journal.attempt(CHAIN, B256::repeat_byte(6)).await.unwrap().is_none());
    assert!(journal.attempt(CHAIN, B256::repeat_byte(7)).await.unwrap().is_some());
    assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, 10);
}

#[tokio::test]
async fn keys_outlive_their_transactions_and_queued_ones_stay() {
    let fixture = Fixture::new();
    let (done, open) = (attempt(account(1), 0, 1), attempt(account(1), 1, 2));
    fixture.commit(vec![committed(&done), committed(&open), confirmed(&done)]).await;
    let waiting = TransactionId::new();
    let ids = [done.transaction, open.transaction, waiting].map(|id| id.0.as_bytes().to_vec());
    fixture
        .on_writer(move |connection| {
            connection.execute(
                "INSERT INTO transactions (id, chain_id, address, service, principal, kind, request, created_at, owner, queued)
                 SELECT ?1, chain_id, address, service, principal, kind, request, 0, owner, 1 FROM transactions LIMIT 1",
                [&ids[2]],
            )?;
            for (number, id) in ids.iter().enumerate() {
                connection.execute(
                    "INSERT INTO idempotency_keys (owner, key, chain_id, digest, transaction_id, created_at)
                     VALUES ((SELECT min(id) FROM owners), ?1, 31337, zeroblob(32), ?2, 1000)",
                    rusqlite::params![format!("key {number}"), id],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let (path, _directory) = fixture.closed();
    assert_eq!(
        pruned(&path, Pruning { keys_before: Some(SystemTime::UNIX_EPOCH), ..all() }),
        Pruned { transactions: 1, attempts: 1, events: 2, keys: 0 }
    );
    let with_keys = Pruning { keys_before: Some(SystemTime::now()), vacuum: true, ..all() };
    assert_eq!(pruned(&path, with_keys).keys, 1, "that of the transaction which is gone");
    let connection = file::open_reader(&path).unwrap();
    let keys: Vec<String> = connection
        .prepare("SELECT key FROM idempotency_keys ORDER BY key")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(keys, ["key 1", "key 2"]);
}

#[tokio::test]
async fn nothing_is_pruned_beside_another_process_or_where_no_journal_is() {
    let fixture = Fixture::new();
    let done = attempt(account(1), 0, 1);
    fixture.commit(vec![committed(&done), confirmed(&done)]).await;
    let refused = prune(&fixture.path, all()).unwrap_err();
    assert!(refused.to_string().contains("is used by another process"), "{refused}");
    assert!(fixture.journal.attempt(CHAIN, done.hash).await.unwrap().is_some());
    let none = fixture.path.with_file_name("none.db");
    assert!(prune(&none, all()).unwrap_err().to_string().contains("there is no journal"));
    assert!(!none.exists());
}
