//! No room, or no leave to write.

use super::*;

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_passes() {
    let fixture = Fixture::new();
    let first = attempt(account(1), 0, 1);
    fixture.commit(vec![committed(&first)]).await;
    fixture
        .on_writer(|connection| {
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        })
        .await
        .unwrap();
    let mut big = attempt(account(1), 1, 2);
    big.raw = Bytes::from(vec![7; 1 << 20]);
    let refused = fixture.journal.commit(vec![committed(&big)]).await;
    assert!(matches!(&refused, Err(JournalError::NotWritten(why)) if why.contains("full")), "{refused:?}");
    // What needs no room goes on, and nothing of the refused one is there.
    fixture.commit(vec![reached(&first, AttemptState::Broadcast, None)]).await;
    assert_eq!(fixture.next_nonce(account(1)).await, 1);
    fixture.on_writer(|connection| connection.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))).await.unwrap();
    fixture.commit(vec![committed(&big)]).await;
    assert_eq!(fixture.stored(&big).await.attempt.raw.len(), 1 << 20);
    assert!(!fixture.journal.fatal().is_cancelled());
}

#[tokio::test]
async fn a_file_that_may_not_be_written_refuses_what_is_new_and_passes() {
    let fixture = Fixture::new();
    let query_only = |on: bool| fixture.on_writer(move |connection| connection.pragma_update(None, "query_only", on));
    drop(query_only(true).await);
    let refused = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    assert!(matches!(refused, Err(JournalError::NotWritten(_))), "{refused:?}");
    assert!(matches!(fixture.journal.probe().await, Err(JournalError::NotWritten(_))));
    assert!(!fixture.journal.fatal().is_cancelled());
}
