//! The writer: groups, faults, the end.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::future::join_all;
use rusqlite::ffi;

use super::*;

fn full_page(hash: u8, nonce: u64) -> Record {
    let mut attempt = attempt(account(hash), nonce, hash);
    attempt.raw = Bytes::from(vec![hash; 64 << 10]);
    committed(&attempt)
}

#[tokio::test]
async fn batches_that_wait_are_one_group_and_one_fault_is_one_answer() {
    let fixture = Fixture::new();
    let release = fixture.hold_writer().await;
    let mut waiting = Vec::new();
    for nonce in 0..64 {
        waiting.push(fixture.journal.commit(vec![committed(&attempt(account(1), nonce, u8::try_from(nonce).unwrap()))]));
    }
    // Taken inside the same group, with a record before it that has to go too.
    let thief = vec![Record::Floor { account: account(9), nonce: 1 }, committed(&attempt(account(1), 7, 0xee))];
    waiting.insert(20, fixture.journal.commit(thief));
    release.send(()).unwrap();
    let answers = join_all(waiting).await;
    for (index, answer) in answers.iter().enumerate() {
        match answer {
            Ok(positions) => assert_eq!(positions.len(), 1),
            Err(error) => assert!(index == 20 && matches!(error, JournalError::SlotTaken { nonce: 7, .. }), "{index} {error:?}"),
        }
    }
    assert!(answers[20].is_err());
    let positions: Vec<i64> = answers.into_iter().flatten().flatten().collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!(fixture.metrics.journal.commit_seconds.get_sample_count(), 1);
    assert!((fixture.metrics.journal.commit_records.get_sample_sum() - 66.0).abs() < f64::EPSILON);
    assert_eq!(fixture.next_nonce(account(1)).await, 64);
    assert_eq!(fixture.journal.account(account(9)).await.unwrap(), None);
    assert_eq!(events(&fixture.path).len(), 64);
}

#[tokio::test]
async fn a_full_disk_fails_the_whole_group_and_passes() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    fixture
        .on_writer(|connection| {
            let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 2), [], |_| Ok(()))
        })
        .await
        .unwrap();
    let release = fixture.hold_writer().await;
    let waiting = [
        fixture.journal.commit(vec![committed(&attempt(account(1), 1, 2))]),
        // Its answer would stand on a batch that is undone with the group.
        fixture.journal.commit(vec![committed(&attempt(account(1), 1, 3))]),
        fixture.journal.commit(vec![full_page(4, 0)]),
        fixture.journal.commit(vec![committed(&attempt(account(1), 2, 5))]),
    ];
    release.send(()).unwrap();
    for answer in join_all(waiting).await {
        assert!(matches!(&answer, Err(JournalError::NotWritten(why)) if why.contains("full")), "{answer:?}");
    }
    assert_eq!(fixture.next_nonce(account(1)).await, 1);
    assert_eq!(events(&fixture.path).len(), 1);
    assert_eq!((fixture.metrics.journal.errors.get(), fixture.metrics.journal.commit_seconds.get_sample_count()), (1, 1));
    fixture.on_writer(|connection| connection.query_row("PRAGMA max_page_count = 100000", [], |_| Ok(()))).await.unwrap();
    fixture.commit(vec![full_page(4, 0), committed(&attempt(account(1), 1, 2))]).await;
    assert_eq!(fixture.next_nonce(account(1)).await, 2);
    assert!(!fixture.journal.fatal().is_cancelled());
}

#[tokio::test]
async fn a_statement_that_fails_undoes_the_group_and_passes() {
    for code in [ffi::SQLITE_READONLY, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_NOMEM] {
        let fixture = Fixture::new();
        let release = fixture.hold_writer().await;
        let before = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]);
        let failing = fixture.on_writer(move |_| Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)));
        let after = fixture.journal.commit(vec![committed(&attempt(account(1), 1, 2))]);
        release.send(()).unwrap();
        for answer in [before.await.map(drop), failing.await, after.await.map(drop)] {
            assert!(matches!(answer, Err(JournalError::NotWritten(_))), "{answer:?}");
        }
        assert_eq!(fixture.journal.account(account(1)).await.unwrap(), None);
        fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
        assert!(!fixture.journal.fatal().is_cancelled());
    }
}

#[tokio::test]
async fn a_journal_that_may_not_be_written_can_be_read() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    fixture.on_writer(|connection| connection.pragma_update(None, "query_only", true)).await.unwrap();
    for _ in 0..2 {
        let answer = fixture.journal.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
        assert!(matches!(answer, Err(JournalError::NotWritten(_))), "{answer:?}");
    }
    assert_eq!(fixture.next_nonce(account(1)).await, 1);
    assert!(!fixture.journal.fatal().is_cancelled());
}

#[tokio::test]
async fn another_writer_of_the_file_is_told_as_not_written() {
    let fixture = Fixture::new();
    fixture.on_writer(|connection| connection.busy_timeout(std::time::Duration::ZERO)).await.unwrap();
    let other = rusqlite::Connection::open(&fixture.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    assert!(matches!(answer, Err(JournalError::NotWritten(_))), "{answer:?}");
    other.execute_batch("ROLLBACK").unwrap();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
}

#[tokio::test]
async fn a_panic_of_the_writer_is_fatal() {
    let fixture = Fixture::new();
    let fatal = fixture.journal.fatal();
    let release = fixture.hold_writer().await;
    let panicking = fixture.on_writer(|_| panic!("made by the test"));
    let beside = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]);
    release.send(()).unwrap();
    assert!(matches!(panicking.await, Err(JournalError::Closed)));
    assert!(matches!(beside.await, Err(JournalError::Closed)));
    fatal.cancelled().await;
    let later = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    assert!(matches!(later, Err(JournalError::Closed)), "{later:?}");
    assert_eq!(events(&fixture.path), []);
}

#[tokio::test]
async fn a_damaged_file_is_fatal_and_its_group_unanswered() {
    let fixture = Fixture::new();
    let release = fixture.hold_writer().await;
    let before = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]);
    let corrupt = fixture.on_writer(|_| Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None)));
    release.send(()).unwrap();
    assert!(matches!(before.await, Err(JournalError::Closed)));
    assert!(matches!(corrupt.await, Err(JournalError::Closed)));
    fixture.journal.fatal().cancelled().await;
    assert!(matches!(fixture.journal.commit(Vec::new()).await, Err(JournalError::Closed)));
    assert_eq!(events(&fixture.path), []);
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_for_room() {
    let fixture = Fixture::new();
    let release = fixture.hold_writer().await;
    let waiting: Vec<_> =
        (0..queue::CAPACITY).map(|_| fixture.journal.commit(vec![Record::Floor { account: account(1), nonce: 1 }])).collect();
    let mut late = pin!(fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]));
    assert!(matches!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    release.send(()).unwrap();
    assert_eq!(late.await.unwrap().len(), 1);
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_dropped_future_recalls_nothing() {
    let fixture = Fixture::new();
    drop(fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]));
    fixture.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
    assert_eq!(fixture.next_nonce(account(1)).await, 2);
    assert_eq!(fixture.hashes(account(1)).await.len(), 2);
}

#[tokio::test]
async fn close_writes_what_waits_and_takes_no_more() {
    let fixture = Fixture::new();
    let waiting: Vec<_> = (0..10).map(|n| fixture.journal.commit(vec![committed(&attempt(account(1), u64::from(n), n))])).collect();
    fixture.journal.close().await;
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert!(matches!(fixture.journal.commit(Vec::new()).await, Err(JournalError::Closed)));
    assert!(matches!(fixture.journal.keys().await, Err(JournalError::Closed)));
    assert!(!fixture.journal.fatal().is_cancelled());
    // Everything is in the file itself, and the lock is free.
    assert_eq!(std::fs::metadata(fixture.path.with_extension("db-wal")).map_or(0, |file| file.len()), 0);
    let again = SqliteJournal::open(&fixture.path, metrics()).unwrap();
    assert_eq!(again.account(account(1)).await.unwrap().unwrap().next_nonce, 10);
    fixture.journal.close().await;
}

#[tokio::test]
async fn a_future_that_waits_for_room_does_not_hold_up_the_drop() {
    let fixture = Fixture::new();
    let release = fixture.hold_writer().await;
    let waiting: Vec<_> = (0..queue::CAPACITY).map(|_| fixture.journal.commit(Vec::new())).collect();
    let unpolled = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]);
    release.send(()).unwrap();
    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert!(matches!(unpolled.await, Err(JournalError::Closed)));
    assert_eq!(events(&path), []);
}

#[tokio::test]
async fn the_log_is_moved_into_the_file_now_and_then() {
    let fixture = Fixture::new();
    let pages_in_file = || std::fs::metadata(&fixture.path).unwrap().len() / 4096;
    let before = pages_in_file();
    for nonce in 0..1100_u64 {
        let mut attempt = attempt(account(1), nonce, 0);
        attempt.hash = B256::from(U256::from(nonce + 1));
        drop(fixture.journal.commit(vec![committed(&attempt)]));
    }
    // Answered after the group with the thousandth record was followed by its checkpoint.
    fixture.on_writer(|_| Ok(())).await.unwrap();
    fixture.on_writer(|_| Ok(())).await.unwrap();
    assert!(pages_in_file() > before + 50, "{before} → {}", pages_in_file());
    assert_eq!(fixture.next_nonce(account(1)).await, 1100);
}
