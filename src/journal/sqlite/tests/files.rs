//! The file: its mode, its lock, its versions, and what a kill leaves.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::journal::sqlite::{events, transactions};

fn copy_files(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if name(from).exists() {
            fs::copy(name(from), name(to)).unwrap();
        }
    }
}

#[tokio::test]
async fn only_the_owner_may_read() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = format!("{}{suffix}", fixture.path.display());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _journal = SqliteJournal::open(&path, metrics()).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", path.display());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn what_is_no_journal_keeps_its_mode() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("text"), "some text, and no database\n".repeat(50)).unwrap();
    rusqlite::Connection::open(path("foreign.db")).unwrap().execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    for (name, mode, why) in
        [("folder", 0o755, "it is not a file"), ("text", 0o644, "not a journal"), ("foreign.db", 0o664, "another program")]
    {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        let text = unusable(&path(name));
        assert!(text.contains(why), "{name}: {text}");
        assert_eq!(fs::metadata(path(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
}

#[tokio::test]
async fn a_hard_link_is_no_second_way_to_a_journal() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let link = fixture.path.with_file_name("link.db");
    fs::hard_link(&fixture.path, &link).unwrap();
    assert!(unusable(&link).contains("hard links"), "{}", unusable(&link));
    fixture.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
    let (path, _directory) = fixture.closed();
    // Nor by its own name, as long as there is another one.
    assert!(unusable(&path).contains("hard links"));
    fs::remove_file(&link).unwrap();
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, 2);
}

#[tokio::test]
async fn a_folder_in_which_a_reader_can_make_no_log_is_told() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let (path, _directory) = fixture.closed();
    // Stands in for a folder that may not be written, which root may write all the same.
    fs::create_dir(file::beside(&path, "-wal")).unwrap();
    let refused = SqliteJournal::open_read_only(&path).unwrap_err();
    assert!(refused.to_string().contains("to a folder that may be written"), "{refused}");
    fs::remove_dir(file::beside(&path, "-wal")).unwrap();
    assert_eq!(SqliteJournal::open_read_only(&path).unwrap().summary().await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let link = fixture.path.with_file_name("link.db");
    symlink(&fixture.path, &link).unwrap();
    for path in [&fixture.path, &link] {
        let text = unusable(path);
        assert!(text.contains(&format!("is used by another process (pid {})", std::process::id())), "{text}");
    }
    // The refused ones left the first alone.
    fixture.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, 2);
}

#[tokio::test]
async fn a_journal_that_is_moved_while_it_is_used_is_refused_under_its_new_name() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let moved = fixture.path.with_file_name("moved.db");
    fs::rename(&fixture.path, &moved).unwrap();
    let text = unusable(&moved);
    assert!(text.contains("is used by another process, which knows it by another name"), "{text}");
    fs::rename(&moved, &fixture.path).unwrap();
    let (path, _directory) = fixture.closed();
    fs::rename(path, &moved).unwrap();
    let journal = SqliteJournal::open(&moved, metrics()).unwrap();
    assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, 1, "nobody uses it any more");
}

#[tokio::test]
async fn i2_what_was_answered_survives_a_kill() {
    let fixture = Fixture::new();
    let mut copies = Vec::new();
    for nonce in 0..20_u8 {
        let a = attempt(account(1), u64::from(nonce), nonce);
        fixture.commit(vec![committed(&a)]).await;
        if nonce % 5 == 0 {
            // What is on disk now, as a killed process would leave it.
            let copy = fixture.path.with_file_name(format!("copy{nonce}.db"));
            copy_files(&fixture.path, &copy);
            copies.push((copy, nonce));
        }
    }
    for (copy, nonce) in copies {
        let journal = SqliteJournal::open(&copy, metrics()).unwrap();
        assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, u64::from(nonce) + 1);
        let unfinished = journal.unfinished(account(1)).await.unwrap();
        assert_eq!(unfinished.iter().map(|stored| stored.attempt.nonce).collect::<Vec<_>>(), (0..=u64::from(nonce)).collect::<Vec<_>>());
        assert_eq!(events(&copy).len(), usize::from(nonce) + 1);
    }
}

#[tokio::test]
async fn a_group_under_way_is_not_in_what_a_kill_leaves() {
    let fixture = Fixture::new();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    let copy = fixture.path.with_file_name("copy.db");
    let (from, to) = (fixture.path.clone(), copy.clone());
    let release = fixture.hold_writer().await;
    let before = fixture.journal.commit(vec![committed(&attempt(account(1), 1, 2))]);
    let copied = fixture.on_writer(move |connection| {
        assert!(!connection.is_autocommit());
        copy_files(&from, &to);
        Ok(())
    });
    release.send(()).unwrap();
    copied.await.unwrap();
    assert_eq!(before.await.unwrap().len(), 1);
    let journal = SqliteJournal::open(&copy, metrics()).unwrap();
    assert_eq!(journal.account(account(1)).await.unwrap().unwrap().next_nonce, 1);
    assert_eq!(events(&copy), [event(1, 1, 1, "committed")]);
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_every_commit_and_writes_nothing() {
    let fixture = Fixture::new();
    let reader = SqliteJournal::open_read_only(&fixture.path).unwrap();
    assert_eq!(reader.summary().await.unwrap(), []);
    fixture.journal.pin_chain(ChainPin { chain_id: CHAIN, genesis: B256::ZERO }).await.unwrap();
    fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    assert_eq!(reader.summary().await.unwrap().len(), 1);
    assert_eq!(reader.chains().await.unwrap().len(), 1);
    let refused = reader.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
    assert!(matches!(refused, Err(JournalError::NotWritten(_))), "{refused:?}");
    assert!(matches!(reader.forget_chain(CHAIN).await, Err(JournalError::NotWritten(_))));
    reader.close().await;
    fixture.commit(vec![committed(&attempt(account(1), 1, 2))]).await;
    // Without a gateway as well.
    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    let reader = SqliteJournal::open_read_only(&path).unwrap();
    assert_eq!(reader.account(account(1)).await.unwrap().unwrap().next_nonce, 2);
}

#[test]
fn what_is_no_journal_is_told() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);

    assert!(unusable(&path("no/such/sluice.db")).contains("no/such/sluice.db"));
    fs::create_dir(path("directory")).unwrap();
    assert!(unusable(&path("directory")).contains("cannot open"));
    assert!(matches!(SqliteJournal::open_read_only(&path("none.db")), Err(JournalError::Unusable(_))));
    assert!(!path("none.db").exists());

    fs::write(path("text.db"), "this is not a database at all, only some text\n".repeat(50)).unwrap();
    assert!(unusable(&path("text.db")).contains("is not a journal of Sluice"));

    let foreign = rusqlite::Connection::open(path("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    drop(foreign);
    assert!(unusable(&path("foreign.db")).contains("a database of another program"));

    fs::write(path("empty.db"), "").unwrap();
    assert!(matches!(SqliteJournal::open_read_only(&path("empty.db")), Err(JournalError::Unusable(_))));
    drop(SqliteJournal::open(&path("empty.db"), metrics()).unwrap());

    let newer = rusqlite::Connection::open(path("empty.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(unusable(&path("empty.db")).contains("made by a newer Sluice"));
    assert!(matches!(SqliteJournal::open_read_only(&path("empty.db")), Err(JournalError::Unusable(text)) if text.contains("newer")));
}

#[tokio::test]
async fn a_damaged_file_is_told() {
    let fixture = Fixture::new();
    for nonce in 0..50 {
        fixture.commit(vec![committed(&attempt(account(1), u64::from(nonce), nonce))]).await;
    }
    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    assert!(unusable(&path).contains("is damaged"));
    // The lock was given up with the failure.
    assert!(unusable(&path).contains("is damaged"));
}

#[tokio::test]
async fn the_settings_are_those_that_the_promises_need() {
    let fixture = Fixture::new();
    fixture
        .on_writer(|connection| {
            let text = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0));
            assert_eq!(text("journal_mode")?, rusqlite::types::Value::Text("wal".to_owned()));
            assert_eq!(text("synchronous")?, rusqlite::types::Value::Integer(2));
            assert_eq!(text("foreign_keys")?, rusqlite::types::Value::Integer(1));
            assert_eq!(text("locking_mode")?, rusqlite::types::Value::Text("normal".to_owned()));
            assert_eq!(text("user_version")?, rusqlite::types::Value::Integer(4));
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn hot_reads_use_indices() {
    let fixture = Fixture::new();
    let plan = |sql: &str| -> Vec<String> {
        let connection = file::open_reader(&fixture.path).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = statement.parameter_count();
        let rows = statement.query_map(rusqlite::params_from_iter(std::iter::repeat_n(0, parameters)), |row| row.get("detail")).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let lists = [(false, false), (false, true), (true, false), (true, true)].map(|(by, order)| transactions::list_sql(by, order));
    let others = [
        queries::unfinished_sql(),
        queries::attempt_sql(),
        queries::unconfirmed_sql(),
        queries::account_sql(),
        events::page_sql(),
        events::numbered_sql(),
        events::last_sql(),
        events::of_transaction_sql(),
        intents::queued_ids_sql().to_owned(),
        intents::queued_count_sql().to_owned(),
        intents::intent_sql().to_owned(),
        intents::waits_ahead_sql(),
        intents::idempotency_key_sql().to_owned(),
        transactions::life_sql(),
        transactions::open_slots_sql().to_owned(),
        transactions::attempts_sql().to_owned(),
        transactions::mined_instead_sql().to_owned(),
    ];
    for sql in lists.iter().chain(&others) {
        let steps = plan(sql);
        // A question without a table has a constant row.
        let scans = |step: &String| step.starts_with("SCAN") && step != "SCAN CONSTANT ROW";
        assert!(!steps.iter().any(scans), "{sql}: {steps:?}");
    }
    // In the order of the index: nothing is sorted but the few attempts of one transaction.
    for sql in [events::page_sql(), events::last_sql(), events::of_transaction_sql()] {
        assert!(!plan(&sql).iter().any(|step| step.contains("B-TREE")), "{sql}: {:?}", plan(&sql));
    }
    assert!(plan(&events::page_sql()).iter().any(|step| step.contains("events_by_owner (chain_id=? AND owner=? AND rowid>?)")));
    assert!(plan(&queries::unconfirmed_sql()).iter().any(|step| step.contains("slots_open")));
    assert!(plan(&queries::unfinished_sql()).iter().any(|step| step.contains("slots_open")));
}
