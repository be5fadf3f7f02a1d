//! The file: who may read it, whether it is a journal, how connections to it are set up, and its migrations.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::lock::ProcessLock;
use crate::journal::JournalError;

/// "Slui": marks the file as a journal of Sluice.
const APPLICATION_ID: i64 = 0x536c_7569;

/// In order; the file's `user_version` says how many it has had. Never change one that was released: append.
const MIGRATIONS: [&str; 4] = [
    include_str!("../migrations/0001_journal.sql"),
    include_str!("../migrations/0002_history.sql"),
    include_str!("../migrations/0003_replacements.sql"),
    include_str!("../migrations/0004_discoveries.sql"),
];

/// Files up to this size are checked whole when they are opened for writing (a second or less); a larger one would hold up
/// the start, and damage is found when the page is read.
const CHECKED_WHOLE: u64 = 64 << 20;

const BUSY: Duration = Duration::from_secs(5);

/// Room for the statements of a connection, so that each is parsed once.
const STATEMENTS: usize = 64;

/// KiB of pages that the writer keeps: hashes lie all over their index, and SQLite's 2 MiB hold that of a few thousand transactions.
const WRITER_CACHE: i64 = 32 << 10;

/// The real path: two names of one file must meet in the same lock.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, JournalError> {
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let cannot = |why: &str| JournalError::Unusable(format!("cannot open {}: {why}", path.display()));
    let name = path.file_name().ok_or_else(|| cannot("it is not a file name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parent.canonicalize().map_err(|error| cannot(&error.to_string()))?.join(name))
}

/// What to do about a file that cannot be used.
pub(super) const REMEDY: &str = "`sluice journal restore` puts a backup in its place";

/// The same about a backup.
pub(super) const ANOTHER: &str = "take another backup";

/// The files of a journal beside the database itself.
pub(super) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// `<path><suffix>`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the file has nothing in it, or is not there.
pub(super) fn is_empty(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |file| file.len() == 0)
}

/// Makes the file if there is none, readable by its owner only; SQLite gives `-wal` and `-shm` the mode of the file. A journal
/// that was `begun` and is gone or empty now is refused: an empty one would forget what was sent. So is an empty file beside a log,
/// which SQLite would remove. A file that is there stays as it is: it may be something else.
///
/// An existing file is not opened here: closing any descriptor of it would drop the locks that SQLite holds on it.
pub(super) fn prepare(path: &Path, begun: bool) -> Result<(), JournalError> {
    if is_empty(path) && (begun || !is_empty(&beside(path, "-wal"))) {
        return Err(lost(path));
    }
    let cannot = |error: std::io::Error| JournalError::Unusable(format!("cannot open {}: {error}", path.display()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(cannot(error)),
    }
}

/// Refuses what is no file, and a file with a second name (a hard link): its lock and its log are beside the name, so by the other
/// name another process would use it too.
fn has_one_name(path: &Path) -> Result<(), JournalError> {
    let cannot = |why: &str| JournalError::Unusable(format!("cannot open {}: {why}", path.display()));
    let file = fs::metadata(path).map_err(|error| cannot(&error.to_string()))?;
    match file.nlink() {
        _ if !file.is_file() => Err(cannot("it is not a file")),
        0 | 1 => Ok(()),
        names => Err(cannot(&format!("it has {names} names (hard links), by each of which a process could use it: remove the others"))),
    }
}

/// Leaves the journal's files to be read by their owner only.
fn restrict(path: &Path) -> Result<(), JournalError> {
    for file in [""].into_iter().chain(COMPANIONS).map(|suffix| beside(path, suffix)) {
        let cannot = |error: std::io::Error| JournalError::Unusable(format!("cannot restrict {} to its owner: {error}", file.display()));
        match fs::metadata(&file) {
            Ok(found) if found.mode() & 0o077 != 0 => fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map_err(cannot)?,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(error)),
        }
    }
    Ok(())
}

fn lost(path: &Path) -> JournalError {
    let what = if path.exists() { "is empty" } else { "is gone" };
    JournalError::Unusable(format!(
        "{} {what}, but a journal was here: bring the file back, or {REMEDY}. `sluice journal init` begins an empty one, which \
         knows nothing of what was sent before",
        path.display()
    ))
}

/// The writer's connection to a file that is there, checked, restricted to its owner and migrated. From then on `lock` holds the file too.
pub(super) fn open_writer(path: &Path, begun: bool, lock: &mut ProcessLock) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cannot = |error: rusqlite::Error| unusable(path, &error);
    has_one_name(path)?;
    lock.hold(path)?;
    let mut connection = Connection::open_with_flags(path, flags).map_err(cannot)?;
    setup(&connection).map_err(cannot)?;
    // SQLite falls back to reading when it may not write.
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(cannot)? {
        return Err(JournalError::Unusable(format!("cannot open {}: it may not be written", path.display())));
    }
    let version = version(&connection, path, REMEDY)?;
    if version == 0 && begun {
        return Err(lost(path));
    }
    if fs::metadata(path).is_ok_and(|file| file.len() <= CHECKED_WHOLE) {
        check(&connection, path)?;
    }
    restrict(path)?;
    (|| {
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            tracing::warn!(mode, "the journal's file system has no write-ahead log: readers will wait for the writer");
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Negative: KiB, not pages.
        connection.pragma_update(None, "cache_size", -WRITER_CACHE)?;
        // The writer moves the log into the file itself, after it has answered; see `Writer::checkpoint`.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
        migrate(&mut connection, version)
    })()
    .map_err(cannot)?;
    Ok(connection)
}

/// A connection that cannot write, to a journal of this version.
pub(super) fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    let (connection, version) = open_any(path, REMEDY)?;
    if version != MIGRATIONS.len() {
        return Err(JournalError::Unusable(format!("{} is not a journal of this version yet: start the gateway once", path.display())));
    }
    Ok(connection)
}

/// A connection that cannot write, to a journal of any version that this Sluice knows; with its version, 0 for an empty file.
/// `remedy`: what is to be done if there is none.
pub(super) fn open_any(path: &Path, remedy: &str) -> Result<(Connection, usize), JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| unusable_but(path, &error, remedy))?;
    setup(&connection).map_err(|error| unusable_but(path, &error, remedy))?;
    let version = version(&connection, path, remedy)?;
    Ok((connection, version))
}

/// An empty journal that no file has, for a simulation.
#[cfg(test)]
pub(super) fn open_in_memory() -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    setup(&connection)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection, 0)?;
    Ok(connection)
}

/// Bytes of the file and of its write-ahead log; what cannot be looked at counts for nothing.
pub(super) fn sizes(path: &Path) -> (u64, u64) {
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    (bytes(path), bytes(&beside(path, "-wal")))
}

fn setup(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Sorting must not leave rows in temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// How many migrations the file has had: 0 for an empty one.
pub(super) fn version(connection: &Connection, path: &Path, remedy: &str) -> Result<usize, JournalError> {
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        let id = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((id, version, tables))
    };
    match read().map_err(|error| unread(path, &error, remedy))? {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, version, _) => {
            usize::try_from(version).ok().filter(|version| (1..=MIGRATIONS.len()).contains(version)).ok_or_else(|| {
                JournalError::Unusable(format!(
                    "{} is a journal of version {version}, made by a newer Sluice: this one knows versions up to {}",
                    path.display(),
                    MIGRATIONS.len()
                ))
            })
        }
        _ => Err(JournalError::Unusable(format!(
            "{} is a database of another program, not a journal of Sluice; if it was one, {remedy}",
            path.display()
        ))),
    }
}

/// Reads every page; an error if one is damaged.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    checked_by("PRAGMA quick_check(1)", connection, path, REMEDY)
}

/// The same, and compares every index with its table.
pub(super) fn check_whole(connection: &Connection, path: &Path, remedy: &str) -> Result<(), JournalError> {
    checked_by("PRAGMA integrity_check(1)", connection, path, remedy)
}

fn checked_by(pragma: &str, connection: &Connection, path: &Path, remedy: &str) -> Result<(), JournalError> {
    let answer: String = connection.query_row(pragma, [], |row| row.get(0)).map_err(|error| unusable_but(path, &error, remedy))?;
    if answer == "ok" { Ok(()) } else { Err(JournalError::Damaged(format!("{} is damaged: {answer}; {remedy}", path.display()))) }
}

pub(super) fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(done + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

/// Whether the error says that the file is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

pub(super) fn unusable(path: &Path, error: &rusqlite::Error) -> JournalError {
    unusable_but(path, error, REMEDY)
}

/// The first read failed. If the file itself could be opened, it is its log or the index of that which could not.
fn unread(path: &Path, error: &rusqlite::Error, remedy: &str) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => JournalError::Unusable(format!(
            "cannot read {0}: {error}. A reader too makes {0}-wal and {0}-shm where there are none, and here it cannot: copy {0}, and \
             {0}-wal if there is one, to a folder that may be written",
            path.display()
        )),
        _ => unusable_but(path, error, remedy),
    }
}

fn unusable_but(path: &Path, error: &rusqlite::Error, remedy: &str) -> JournalError {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => JournalError::Damaged(format!("{path} is not a journal of Sluice, or damaged: {error}; {remedy}")),
        Some(ErrorCode::DatabaseCorrupt) => JournalError::Damaged(format!("{path} is damaged: {error}; {remedy}")),
        _ => JournalError::Unusable(format!("cannot open {path}: {error}")),
    }
}
