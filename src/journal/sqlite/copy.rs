//! Backup and restore of the file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, params};
use tempfile::NamedTempFile;
use uuid::Uuid;

use super::lock::ProcessLock;
use super::records::Fault;
use super::{file, intents};
use crate::journal::history::ENDED_BY_RESTORE;
use crate::journal::{JournalError, TransactionId};

/// Why every account of a restored journal is stopped.
const RECONCILE: &str = "the journal was restored from a backup: nothing is sent until the chain has settled";

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The files that were in the way, under their new names.
    pub aside: Vec<PathBuf>,
    /// Accounts in `reconcile`.
    pub accounts: u64,
    /// Acknowledged transactions that were ended: what was paid of them since the backup is not known.
    pub ended: u64,
}

/// Writes a consistent copy of the journal to `target`, beside a gateway or without one: one file, of mode 0600, durable and checked.
/// Nothing is at `target` before it is whole, and what is there already is never overwritten. Answers its bytes.
///
/// Blocks for as long as the copy takes. Meanwhile the gateway's log grows, since the copy reads one snapshot.
pub fn backup(journal: &Path, target: &Path) -> Result<u64, JournalError> {
    let target = file::resolve(target)?;
    let taken = || JournalError::Unusable(format!("{} is there already; it is not overwritten", target.display()));
    // Also a link to nowhere.
    if fs::symlink_metadata(&target).is_ok() {
        return Err(taken());
    }
    let copy = copy(&file::resolve(journal)?, &target, file::REMEDY)?;
    let bytes = copy.as_file().metadata().map_err(|error| cannot(&target, &error))?.len();
    copy.persist_noclobber(&target).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => taken(),
        _ => cannot(&target, &error.error),
    })?;
    sync_folder(&target)?;
    Ok(bytes)
}

/// Puts a copy of `backup` in the place of the journal, with every account in `reconcile`. Refused while a process uses the journal, and
/// for a backup that is damaged, empty, of another program or of a newer Sluice. The files that were there are kept under another
/// name. A crash in between leaves a journal that is refused as gone; the same command again completes it.
pub fn restore(journal: &Path, backup: &Path) -> Result<Restored, JournalError> {
    let journal = file::resolve(journal)?;
    let backup = file::resolve(backup)?;
    if backup == journal {
        return Err(JournalError::Unusable(format!("{} is the journal itself", backup.display())));
    }
    let mut lock = ProcessLock::take(&journal)?;
    let copy = copy(&backup, &journal, file::ANOTHER)?;
    let (accounts, ended) = reconcile(copy.path(), &journal)?;
    copy.as_file().sync_all().map_err(|error| cannot(&journal, &error))?;
    // From here on a missing file is one that was lost, never one that is to be begun.
    lock.remember()?;
    let aside = set_aside(&journal)?;
    copy.persist_noclobber(&journal).map_err(|error| cannot(&journal, &error.error))?;
    sync_folder(&journal)?;
    Ok(Restored { aside, accounts, ended })
}

/// Makes room for an empty journal where one is gone or empty: what is left of it is kept under another name. An error if a journal is
/// there.
pub(super) fn give_up(journal: &Path) -> Result<Vec<PathBuf>, JournalError> {
    if !file::is_empty(journal) {
        return Err(JournalError::Unusable(format!("{} is there already; it is not replaced by an empty one", journal.display())));
    }
    set_aside(journal)
}

/// A copy of the journal `from` in a file of its own beside `to`, whole and durable. Of one snapshot, its log included.
/// `remedy`: what is to be done if there is none.
fn copy(from: &Path, to: &Path, remedy: &str) -> Result<NamedTempFile, JournalError> {
    let (source, version) = file::open_any(from, remedy)?;
    if version == 0 {
        return Err(JournalError::Unusable(format!("{} is empty: it is no journal", from.display())));
    }
    // The copy is made of the tables; a damaged index would not be seen in it.
    file::check_whole(&source, from, remedy)?;
    let folder = to.parent().unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".sluice-copy-").suffix(".part").tempfile_in(folder);
    let copy = made.map_err(|error| cannot(to, &error))?;
    let name = copy.path().to_str().ok_or_else(|| JournalError::Unusable(format!("{} is not a name in UTF-8", copy.path().display())))?;
    source.execute("VACUUM INTO ?1", [name]).map_err(|error| file::unusable(to, &error))?;
    let (copied, copied_version) = file::open_any(copy.path(), remedy)?;
    file::check(&copied, copy.path())?;
    if copied_version != version {
        return Err(JournalError::Unusable(format!("the copy of {} has version {copied_version}, not {version}", from.display())));
    }
    drop(copied);
    // SQLite does not sync what VACUUM writes elsewhere.
    copy.as_file().sync_all().map_err(|error| cannot(to, &error))?;
    Ok(copy)
}

/// Migrates the copy and stops every account that it may concern: those on record, those of the journal that it replaces as far as
/// that one can be read, and on each pinned chain those of every public key. What waits as acknowledged is ended: it may have been paid
/// since the backup, with a nonce that nobody here knows, and would be paid again. Answers how many of both.
fn reconcile(copy: &Path, replaced: &Path) -> Result<(u64, u64), JournalError> {
    let others = file::open_any(replaced, file::REMEDY).ok().and_then(|(connection, _)| accounts(&connection).ok()).unwrap_or_default();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cannot = |error: rusqlite::Error| file::unusable(copy, &error);
    let mut connection = Connection::open_with_flags(copy, flags).map_err(cannot)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(cannot)?;
    let version = file::version(&connection, copy, file::ANOTHER)?;
    let stopped = (|| {
        file::migrate(&mut connection, version)?;
        let transaction = connection.transaction()?;
        for (chain_id, address) in others {
            transaction
                .prepare_cached("INSERT INTO accounts (chain_id, address) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                .execute(params![chain_id, address])?;
        }
        transaction.execute(
            "INSERT INTO accounts (chain_id, address) SELECT DISTINCT c.chain_id, k.address FROM chains c CROSS JOIN keys k WHERE true
             ON CONFLICT DO NOTHING",
            [],
        )?;
        // Which keys there are by now is asked first.
        transaction.execute("DELETE FROM discovered_keys", [])?;
        transaction.execute("DELETE FROM discoveries", [])?;
        let stopped = transaction.execute("UPDATE accounts SET reconcile = ?1", [RECONCILE])?;
        let ended = end_queued(&transaction)?;
        transaction.commit()?;
        Ok((stopped as u64, ended))
    })();
    stopped.map_err(|fault: Fault| match fault {
        Fault::Own(error) => error,
        Fault::Store(error) => cannot(error),
    })
}

fn end_queued(connection: &Connection) -> Result<u64, Fault> {
    let queued: Vec<[u8; 16]> = connection
        .prepare("SELECT id FROM transactions WHERE queued = 1 ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &queued {
        intents::end(connection, TransactionId(Uuid::from_bytes(*id)), ENDED_BY_RESTORE)?;
    }
    Ok(queued.len() as u64)
}

fn accounts(connection: &Connection) -> rusqlite::Result<Vec<(i64, Vec<u8>)>> {
    connection.prepare("SELECT chain_id, address FROM accounts")?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Gives the journal's files another name. The database goes first: a log without it is refused, a log beside another one would be
/// applied to it.
fn set_aside(journal: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(':', "");
    let mut aside = Vec::new();
    let name = (0..)
        .map(|again: u32| {
            file::beside(journal, &if again == 0 { format!(".replaced-{date}") } else { format!(".replaced-{date}-{again}") })
        })
        .find(|name| ["", "-wal", "-shm", "-journal"].iter().all(|suffix| !file::beside(name, suffix).exists()));
    let Some(name) = name else { return Err(JournalError::Unusable("no name is free".to_owned())) };
    for suffix in [""].into_iter().chain(file::COMPANIONS) {
        let (from, to) = (file::beside(journal, suffix), file::beside(&name, suffix));
        match fs::rename(&from, &to) {
            Ok(()) => aside.push(to),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(&from, &error)),
        }
        sync_folder(journal)?;
    }
    Ok(aside)
}

/// Names are durable once their folder is.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot(folder, &error))
}

fn cannot(path: &Path, error: &std::io::Error) -> JournalError {
    JournalError::Unusable(format!("cannot write {}: {error}", path.display()))
}
