//! The engine without its threads, for the deterministic simulation: the same SQL by the same code, on the caller's thread and in virtual
//! time. Groups are committed by a task of the runtime, and a [`Watch`] decides how long that takes and how it ends.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rusqlite::Transaction;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::pool::{Pool, ReadFault};
use super::queue::{Done, Job, Work, answer};
use super::writer::{Failure, Writer};
use super::{SqliteJournal, file};
use crate::journal::{JournalError, Record};
use crate::telemetry::metrics::Metrics;

/// A database in memory. Clones are the same one; it outlives the journals that are opened on it, as a file does.
#[derive(Clone)]
pub(crate) struct Database(Arc<Mutex<Writer>>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// An empty one.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let connection = file::open_in_memory().unwrap();
        Self(Arc::new(Mutex::new(Writer { connection, metrics, commits: watch::channel(0).0, unchecked: 0 })))
    }

    /// Empties it, as if it had just been made.
    pub(crate) fn clear(&self) {
        let connection = &self.writer().connection;
        let clear = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "foreign_keys", false)?;
            let tables: Vec<String> = connection
                .prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for table in tables.iter().filter(|table| !table.starts_with("sqlite_") || *table == "sqlite_sequence") {
                connection.prepare_cached(&format!("DELETE FROM {table}"))?.execute([])?;
            }
            connection.pragma_update(None, "foreign_keys", true)
        };
        clear().unwrap();
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the tables, in one snapshot.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> T {
        read(&self.writer().connection).unwrap()
    }

    fn read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, ReadFault>) -> Result<T, JournalError> {
        let writer = self.writer();
        let failed = |fault: ReadFault| JournalError::NotRead(format!("{fault:?}"));
        let snapshot = writer.connection.unchecked_transaction().map_err(|error| failed(error.into()))?;
        read(&snapshot).map_err(failed)
    }
}

/// How a group commit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it does.
    Done,
    /// Nothing is written, and that is answered.
    NotWritten,
    /// Nobody can say whether it was written: it was, or it was not.
    Undecided {
        /// Which of them.
        written: bool,
    },
}

/// Who decides about groups, and sees them.
pub(crate) trait Watch: Send + Sync + 'static {
    /// How long a group, or a read, takes.
    fn pace(&self) -> Duration;
    /// The process is gone: nothing more is written or answered.
    fn is_over(&self) -> bool;
    /// A group is about to be written. Of each batch that is not one of records nothing is shown.
    fn before(&self, records: &[Record]) -> Fate;
    /// It is durable, and nobody has been told.
    fn durable(&self, records: &[Record]);
    /// It was answered.
    fn answered(&self, records: &[Record], fate: Fate);
}

/// What takes the place of the threads.
pub(super) struct Inline {
    database: Database,
    waiting: Mutex<VecDeque<Job>>,
    ready: Notify,
    watch: Arc<dyn Watch>,
    fatal: CancellationToken,
}

impl SqliteJournal {
    /// Opens the database, as a process does that starts.
    pub(crate) fn inline(database: &Database, watch: Arc<dyn Watch>) -> Arc<Self> {
        let fatal = CancellationToken::new();
        let inline =
            Arc::new(Inline { database: database.clone(), waiting: Mutex::default(), ready: Notify::new(), watch, fatal: fatal.clone() });
        tokio::spawn(Arc::clone(&inline).run());
        let path = PathBuf::from(":memory:");
        let commits = database.writer().commits.subscribe();
        Arc::new(Self {
            pool: Arc::new(Pool::inline(Arc::clone(&inline), fatal.clone())),
            path,
            writer: None,
            commits,
            fatal,
            inline: Some(inline),
        })
    }
}

impl Inline {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, work: Work) -> BoxFuture<'static, Result<Done, JournalError>> {
        let (reply, done) = oneshot::channel();
        if self.fatal.is_cancelled() || self.watch.is_over() {
            answer(reply, Err(JournalError::Closed));
        } else {
            self.waiting().push_back(Job { work, reply });
            self.ready.notify_one();
        }
        Box::pin(async move { done.await.unwrap_or(Err(JournalError::Closed)) })
    }

    pub(super) async fn read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, ReadFault>) -> Result<T, JournalError> {
        tokio::time::sleep(self.watch.pace()).await;
        self.database.read(read)
    }

    async fn run(self: Arc<Self>) {
        while !self.watch.is_over() && !self.fatal.is_cancelled() {
            if self.waiting().is_empty() {
                self.ready.notified().await;
                continue;
            }
            // Whatever comes while the group before is being written is in the next one.
            tokio::time::sleep(self.watch.pace()).await;
            let group: Vec<Job> = self.waiting().drain(..).collect();
            self.write(group);
        }
        self.waiting().clear();
    }

    fn write(&self, group: Vec<Job>) {
        if self.watch.is_over() {
            return;
        }
        let batches: Vec<Vec<Record>> =
            group.iter().map(|job| if let Work::Commit(records) = &job.work { records.clone() } else { Vec::new() }).collect();
        let records = batches.concat();
        let fate = self.watch.before(&records);
        if self.watch.is_over() {
            return;
        }
        let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.work, job.reply)).unzip();
        let mut results = Vec::new();
        if matches!(fate, Fate::Done | Fate::Undecided { written: true }) {
            match self.database.writer().commit(works) {
                Ok(done) => results = done,
                Err(Failure::NotWritten(why) | Failure::Undecided(why)) => panic!("the database does not work: {why}"),
            }
            // A batch that the journal refuses leaves nothing behind.
            let written: Vec<Record> =
                batches.into_iter().zip(&results).filter(|(_, result)| result.is_ok()).flat_map(|(batch, _)| batch).collect();
            self.watch.durable(&written);
            if self.watch.is_over() {
                return;
            }
        }
        let failed = match fate {
            Fate::Done => None,
            Fate::NotWritten => Some(JournalError::NotWritten("the disk is full".to_owned())),
            Fate::Undecided { .. } => Some(JournalError::Closed),
        };
        if failed.is_some() {
            results = replies.iter().map(|_| Err(failed.clone().unwrap_or(JournalError::Closed))).collect();
        }
        for (reply, result) in replies.into_iter().zip(results) {
            answer(reply, result);
        }
        if matches!(fate, Fate::Undecided { .. }) {
            self.fatal.cancel();
        }
        self.watch.answered(&records, fate);
    }
}
