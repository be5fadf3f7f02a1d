//! Backup and restore.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::journal::Intent;
use crate::journal::history::{ENDED_BY_RESTORE, History as _, Name, Scope};

fn words<T: std::fmt::Debug>(result: Result<T, JournalError>) -> String {
    match result {
        Err(JournalError::Unusable(text) | JournalError::Damaged(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_beside_the_writer_has_what_was_committed() {
    let fixture = Fixture::new();
    let target = fixture.path.with_file_name("backup.db");
    fixture.commit(vec![committed(&attempt(account(1), 0, 1)), committed(&attempt(account(1), 1, 2))]).await;
    let bytes = backup(&fixture.path, &target).unwrap();
    fixture.commit(vec![committed(&attempt(account(1), 2, 3))]).await;
    let file = fs::metadata(&target).unwrap();
    assert_eq!((file.len(), file.permissions().mode() & 0o777), (bytes, 0o600));
    assert_eq!(events(&target), [event(1, 1, 1, "committed"), event(1, 2, 2, "committed")]);
    // Never over what is there, be it the journal itself.
    for target in [&target, &fixture.path] {
        let before = fs::read(target).unwrap();
        assert!(words(backup(&fixture.path, target)).contains("is there already"));
        assert_eq!(fs::read(target).unwrap(), before);
    }
    assert!(words(backup(&fixture.path, &fixture.path.with_file_name("no").join("backup.db"))).contains("cannot open"));
    assert!(!names(&fixture._directory).iter().any(|name| name.contains("part")), "{:?}", names(&fixture._directory));
}

#[tokio::test]
async fn a_damaged_journal_is_not_backed_up() {
    let fixture = Fixture::new();
    for nonce in 0..50 {
        fixture.commit(vec![committed(&attempt(account(1), u64::from(nonce), nonce))]).await;
    }
    let (path, directory) = fixture.closed();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let target = path.with_file_name("backup.db");
    assert!(words(backup(&path, &target)).contains("is damaged"));
    assert!(!target.exists());
    drop(directory);
}

#[tokio::test]
async fn a_restored_journal_is_the_backup_with_every_account_in_reconcile() {
    let fixture = Fixture::new();
    let target = fixture.path.with_file_name("backup.db");
    fixture.journal.pin_chain(ChainPin { chain_id: CHAIN, genesis: B256::ZERO }).await.unwrap();
    let unused = StoredKey { arn: "key".to_owned(), spki: vec![1], address: account(3).address };
    fixture.journal.put_key(unused).await.unwrap();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    backup(&fixture.path, &target).unwrap();
    // After the backup: another transaction, another account.
    fixture.commit(vec![committed(&attempt(account(1), 1, 2)), committed(&attempt(account(2), 7, 3))]).await;
    assert!(words(restore(&fixture.path, &target)).contains("is used by another process"));
    let (path, directory) = fixture.closed();
    let restored = restore(&path, &target).unwrap();
    assert_eq!(restored.accounts, 3, "on record, in the old journal, and of a key without any record");
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    let accounts = journal.accounts(CHAIN).await.unwrap();
    let reasons: Vec<_> = accounts.iter().map(|account| account.pauses.by(PauseBy::Reconcile).is_some()).collect();
    assert_eq!(reasons, [true; 3]);
    assert_eq!(accounts.iter().map(|account| account.next_nonce).collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(journal.unfinished(account(1)).await.unwrap().len(), 1);
    assert!(journal.attempt(CHAIN, B256::repeat_byte(2)).await.unwrap().is_none());
    // The old one is whole under its new name, and the backup is what it was.
    assert_eq!(events(&restored.aside[0]).len(), 3);
    assert_eq!(events(&target).len(), 1);
    drop(directory);
}

#[tokio::test]
async fn what_was_acknowledged_before_the_backup_is_not_paid_again_after_a_restore() {
    let fixture = Fixture::new();
    let target = fixture.path.with_file_name("backup.db");
    let paid = attempt(account(1), 0, 1);
    let intent = Intent {
        account: paid.account,
        transaction: paid.transaction,
        service: Arc::clone(&paid.service),
        principal: Arc::clone(&paid.principal),
        request: Arc::clone(&paid.request),
    };
    fixture.commit(vec![Record::Intent(Box::new(intent))]).await;
    backup(&fixture.path, &target).unwrap();
    fixture.commit(vec![Record::Taken { transaction: paid.transaction }, committed(&paid)]).await;
    let (path, directory) = fixture.closed();
    assert_eq!(restore(&path, &target).unwrap().ended, 1);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    assert_eq!(journal.queued_ids(account(1), 10).await.unwrap(), []);
    let scope = Scope { chain_id: CHAIN, service: paid.service, principal: paid.principal };
    let life = journal.life(scope, Name::Id(paid.transaction)).await.unwrap().unwrap();
    assert_eq!(life.transaction.state, AttemptState::Refused);
    assert_eq!(life.events[1].detail.as_deref(), Some(ENDED_BY_RESTORE));
    drop(directory);
}

#[tokio::test]
async fn a_damaged_backup_is_not_told_to_be_restored() {
    let fixture = Fixture::new();
    let target = fixture.path.with_file_name("backup.db");
    let (path, directory) = fixture.closed();
    fs::write(&target, "no database").unwrap();
    let told = words(restore(&path, &target));
    assert!(told.contains("take another backup") && !told.contains("journal restore"), "{told}");
    let other = rusqlite::Connection::open(path.with_file_name("other.db")).unwrap();
    other.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    let told = words(restore(&path, &path.with_file_name("other.db")));
    assert!(told.contains("take another backup") && !told.contains("journal restore"), "{told}");
    drop(directory);
}

#[tokio::test]
async fn the_log_of_the_old_journal_is_not_applied_to_the_restored_one() {
    let fixture = Fixture::new();
    let target = fixture.path.with_file_name("backup.db");
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    backup(&fixture.path, &target).unwrap();
    fixture.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
    // What a killed process leaves: the file, and a log with commits that the file does not have.
    let killed = fixture.path.with_file_name("killed.db");
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", fixture.path.display()), format!("{}{suffix}", killed.display())).unwrap();
    }
    let restored = restore(&killed, &target).unwrap();
    assert!(restored.aside.iter().any(|file| file.to_string_lossy().ends_with("-wal")), "{:?}", restored.aside);
    assert!(!fixture.path.with_file_name("killed.db-wal").exists());
    assert_eq!(events(&killed).len(), 1);
    // The pair that was kept is still one: its log is applied to its own file.
    let aside = restored.aside.iter().find(|file| !file.to_string_lossy().ends_with("-wal")).unwrap();
    let kept = rusqlite::Connection::open(aside).unwrap();
    assert_eq!(kept.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[tokio::test]
async fn a_journal_that_is_damaged_or_gone_is_restored_and_kept() {
    let fixture = Fixture::new();
    let target = fixture.path.with_file_name("backup.db");
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    backup(&fixture.path, &target).unwrap();
    let (path, directory) = fixture.closed();
    fs::write(&path, "no database").unwrap();
    let first = restore(&path, &target).unwrap();
    assert_eq!(fs::read_to_string(&first.aside[0]).unwrap(), "no database");
    // Again within the same second: nothing that was kept is overwritten.
    let second = restore(&path, &target).unwrap();
    assert_ne!(first.aside[0], second.aside[0]);
    assert_eq!(fs::read_to_string(&first.aside[0]).unwrap(), "no database");
    // As a crash between the two renames leaves it: refused as gone, and the same command completes it.
    fs::remove_file(&path).unwrap();
    assert!(unusable(&path).contains("is gone"));
    assert_eq!(restore(&path, &target).unwrap().aside, Vec::<PathBuf>::new());
    drop(SqliteJournal::open(&path, metrics()).unwrap());
    drop(directory);
}

#[tokio::test]
async fn what_is_no_good_backup_changes_nothing() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let (path, directory) = fixture.closed();
    let before = fs::read(&path).unwrap();
    let made = |name: &str| directory.path().join(name);
    fs::write(made("empty.db"), "").unwrap();
    fs::write(made("text.db"), "no database\n".repeat(100)).unwrap();
    rusqlite::Connection::open(made("foreign.db")).unwrap().execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    backup(&path, &made("newer.db")).unwrap();
    rusqlite::Connection::open(made("newer.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    backup(&path, &made("damaged.db")).unwrap();
    let mut bytes = fs::read(made("damaged.db")).unwrap();
    let end = bytes.len();
    bytes[end - 3 * 4096..].fill(0xff);
    fs::write(made("damaged.db"), bytes).unwrap();
    let files = names(&directory);
    for (name, why) in [
        ("none.db", "none.db"),
        ("empty.db", "is no journal"),
        ("text.db", "is not a journal"),
        ("foreign.db", "another program"),
        ("newer.db", "made by a newer Sluice"),
        ("damaged.db", "damaged"),
        ("sluice.db", "the journal itself"),
    ] {
        let text = words(restore(&path, &made(name)));
        assert!(text.contains(why), "{name}: {text}");
    }
    assert_eq!(names(&directory), files);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn an_older_backup_is_migrated() {
    let directory = TempDir::new().unwrap();
    let (path, old) = (directory.path().join("sluice.db"), directory.path().join("old.db"));
    let first = rusqlite::Connection::open(&old).unwrap();
    first.execute_batch(include_str!("../../migrations/0001_journal.sql")).unwrap();
    first.execute_batch("PRAGMA application_id = 1399616873; PRAGMA user_version = 1").unwrap();
    first
        .execute(
            "INSERT INTO accounts (chain_id, address, floor) VALUES (?1, ?2, 5)",
            rusqlite::params![31337, account(1).address.as_slice()],
        )
        .unwrap();
    drop(first);
    assert_eq!(restore(&path, &old).unwrap().accounts, 1);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    let stored = journal.account(account(1)).await.unwrap().unwrap();
    assert_eq!(stored.next_nonce, 5);
    assert!(stored.pauses.by(PauseBy::Reconcile).is_some());
}
