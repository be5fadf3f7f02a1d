//! A file that is damaged or gone: told with the remedy, and never taken for a beginning.

use std::fs;

use super::*;

/// A journal with some pages, closed in order.
async fn filled() -> (PathBuf, TempDir) {
    let fixture = Fixture::new();
    for nonce in 0..50 {
        fixture.commit(vec![committed(&attempt(account(1), u64::from(nonce), nonce))]).await;
    }
    fixture.closed()
}

fn refused(path: &Path) {
    let before = fs::read(path).ok();
    let text = unusable(path);
    assert!(text.contains("sluice journal restore"), "{text}");
    // The lock was given up with the failure, and the evidence is what it was.
    assert!(unusable(path).contains("sluice journal restore"));
    assert_eq!(fs::read(path).ok(), before);
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_the_remedy() {
    let (path, _directory) = filled().await;
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 10);
    // The whole header, its magic, its application id, the root of the schema.
    for (from, to) in [(0, 100), (0, 16), (68, 72), (100, 4096)] {
        let mut bytes = whole.clone();
        bytes[from..to].fill(0xff);
        fs::write(&path, bytes).unwrap();
        refused(&path);
    }
    // Every third page of the tables and indices.
    for page in (1..pages).step_by(3) {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xff);
        fs::write(&path, bytes).unwrap();
        refused(&path);
    }
    for length in [whole.len() / 2, 4096, 100, 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&path);
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(SqliteJournal::open(&path, metrics()).unwrap().account(account(1)).await.unwrap().unwrap().next_nonce, 50);
}

#[tokio::test]
async fn a_journal_that_is_gone_is_not_begun_anew() {
    let (path, directory) = filled().await;
    fs::remove_file(&path).unwrap();
    refused(&path);
    assert!(!path.exists(), "nothing was made");
    fs::write(&path, "").unwrap();
    refused(&path);
    assert!(unusable(&path).contains("is empty, but a journal was here"));
    // A database without tables is as empty.
    let empty = rusqlite::Connection::open(&path).unwrap();
    empty.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE a (b); DROP TABLE a; VACUUM").unwrap();
    drop(empty);
    assert!(fs::metadata(&path).unwrap().len() > 0);
    refused(&path);
    // Where no journal ever was, one begins: a lock alone says nothing.
    let fresh = directory.path().join("fresh.db");
    fs::write(directory.path().join("fresh.db.lock"), "1234\n").unwrap();
    drop(SqliteJournal::open(&fresh, metrics()).unwrap());
    drop(SqliteJournal::open(&fresh, metrics()).unwrap());
}

#[tokio::test]
async fn a_log_without_its_file_is_not_thrown_away() {
    let (path, directory) = filled().await;
    let moved = directory.path().join("moved.db");
    let log = directory.path().join("moved.db-wal");
    fs::write(&log, vec![1; 5000]).unwrap();
    for empty in [false, true] {
        if empty {
            fs::write(&moved, "").unwrap();
        }
        refused(&moved);
        assert_eq!(fs::metadata(&log).unwrap().len(), 5000);
    }
    drop(path);
}

#[tokio::test]
async fn init_begins_an_empty_journal_on_purpose() {
    let (path, directory) = filled().await;
    let taken = SqliteJournal::init(&path, metrics()).unwrap_err();
    assert!(taken.to_string().contains("is there already"), "{taken}");
    fs::remove_file(&path).unwrap();
    fs::write(format!("{}-wal", path.display()), "what is left").unwrap();
    refused(&path);
    let (journal, aside) = SqliteJournal::init(&path, metrics()).unwrap();
    assert!(journal.account(account(1)).await.unwrap().is_none());
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read_to_string(&aside[0]).unwrap(), "what is left");
    journal.close().await;
    drop(journal);
    drop(SqliteJournal::open(&path, metrics()).unwrap());
    fs::remove_file(&path).unwrap();
    refused(&path);
    drop(directory);
}

/// What somebody does to the files of a journal that is in use.
type Mishap = fn(&Path);

#[tokio::test]
async fn a_journal_whose_file_or_log_is_moved_deleted_or_replaced_tells_nothing_more() {
    let mishaps: [(&str, Mishap); 5] = [
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("moved", |path| fs::rename(path, path.with_file_name("moved.db")).unwrap()),
        ("moved with its folder", |path| {
            let folder = path.parent().unwrap();
            fs::rename(folder, folder.with_extension("moved")).unwrap();
        }),
        ("replaced", |path| {
            let copy = path.with_file_name("copy.db");
            fs::copy(path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        }),
        ("without its log", |path| fs::remove_file(file::beside(path, "-wal")).unwrap()),
    ];
    for (what, mishap) in mishaps {
        for by_probe in [true, false] {
            let directory = TempDir::new().unwrap();
            fs::create_dir(directory.path().join("journal")).unwrap();
            let path = directory.path().join("journal").join("sluice.db");
            let journal = SqliteJournal::open(&path, metrics()).unwrap();
            journal.commit(vec![committed(&attempt(account(1), 0, 1))]).await.unwrap();
            journal.probe().await.unwrap();
            mishap(&path.canonicalize().unwrap());
            let told = match by_probe {
                true => journal.probe().await,
                false => journal.commit(vec![committed(&attempt(account(1), 1, 2))]).await.map(drop),
            };
            assert!(matches!(told, Err(JournalError::Closed)), "{what}: {told:?}");
            journal.fatal().cancelled().await;
            let later = journal.commit(vec![committed(&attempt(account(1), 2, 3))]).await;
            assert!(matches!(later, Err(JournalError::Closed)), "{what}: {later:?}");
        }
    }
}

#[tokio::test]
async fn a_journal_that_was_moved_and_brought_back_has_everything_that_was_told() {
    let fixture = Fixture::new();
    for nonce in 0..5 {
        fixture.commit(vec![committed(&attempt(account(1), u64::from(nonce), nonce))]).await;
    }
    let moved = fixture.path.with_file_name("moved.db");
    fs::rename(&fixture.path, &moved).unwrap();
    assert!(matches!(fixture.journal.probe().await, Err(JournalError::Closed)));
    let (path, _directory) = fixture.closed();
    // Its log waits where it was, and no empty journal is begun beside it.
    refused(&path);
    fs::rename(&moved, &path).unwrap();
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, 5);
}

#[tokio::test]
async fn damage_that_a_read_meets_ends_the_journal() {
    let fixture = Fixture::new();
    for nonce in 0..50 {
        fixture.commit(vec![committed(&attempt(account(1), u64::from(nonce), nonce))]).await;
    }
    let (path, _directory) = fixture.closed();
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    // No connection has read these pages yet: the first of the file is left alone.
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let read = journal.attempt(CHAIN, B256::repeat_byte(7)).await;
    assert!(matches!(read, Err(JournalError::Damaged(_))), "{read:?}");
    assert!(journal.fatal().is_cancelled());
    let written = journal.commit(vec![committed(&attempt(account(1), 50, 60))]).await;
    assert!(matches!(written, Err(JournalError::Closed)), "{written:?}");
}
