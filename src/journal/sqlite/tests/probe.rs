//! What operators ask: whether it can write, how large it is, how far it is.

use std::time::Duration;

use super::*;

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(format!("{}-wal", path.display())).map_or(0, |file| file.len())
}

#[tokio::test]
async fn a_probe_is_a_write() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let before = log_bytes(&fixture.path);
    fixture.journal.probe().await.unwrap();
    assert!(log_bytes(&fixture.path) > before, "the disk was needed");
    assert_eq!(events(&fixture.path).len(), 1, "and nothing changed");
    fixture.journal.close().await;
    assert!(matches!(fixture.journal.probe().await, Err(JournalError::Closed)));
    let again = SqliteJournal::open(&fixture.path, metrics()).unwrap();
    assert_eq!(again.account(account(1)).await.unwrap().unwrap().next_nonce, 1);
}

#[tokio::test]
async fn probes_that_wait_share_one_commit() {
    let fixture = Fixture::new();
    fixture.journal.probe().await.unwrap();
    let before = log_bytes(&fixture.path);
    fixture.journal.probe().await.unwrap();
    let one = log_bytes(&fixture.path) - before;
    let release = fixture.hold_writer().await;
    let waiting: Vec<_> = (0..50).map(|_| fixture.journal.probe()).collect();
    release.send(()).unwrap();
    for answer in futures_util::future::join_all(waiting).await {
        answer.unwrap();
    }
    assert_eq!(log_bytes(&fixture.path) - before, 2 * one);
}

#[tokio::test]
async fn a_probe_says_that_nothing_can_be_written_and_passes() {
    let fixture = Fixture::new();
    fixture.on_writer(|connection| connection.busy_timeout(Duration::ZERO)).await.unwrap();
    let other = rusqlite::Connection::open(&fixture.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(fixture.journal.probe().await, Err(JournalError::NotWritten(_))));
    other.execute_batch("ROLLBACK").unwrap();
    fixture.journal.probe().await.unwrap();
    assert!(!fixture.journal.fatal().is_cancelled());
}

#[tokio::test]
async fn its_size_and_its_newest_position_are_told() {
    let fixture = Fixture::new();
    assert_eq!(fixture.journal.status().await.unwrap().newest_position, 0);
    let positions = fixture.commit(vec![committed(&attempt(account(1), 0, 1)), committed(&attempt(account(1), 1, 2))]).await;
    let status = fixture.journal.status().await.unwrap();
    assert_eq!(Some(&status.newest_position), positions.last());
    let file = std::fs::metadata(&fixture.path).unwrap().len();
    assert_eq!(status.bytes, file + log_bytes(&fixture.path));
    assert!(status.bytes > 0);
}
