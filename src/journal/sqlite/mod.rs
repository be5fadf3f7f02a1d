//! The embedded engine: one SQLite file, one writer thread with group commit, a few read-only connections.
//!
//! docs/journal.md describes the file and the rules.

mod codec;
mod copy;
mod discoveries;
pub(crate) mod edges;
mod events;
mod export;
mod file;
mod history;
#[cfg(test)]
pub(crate) mod inline;
mod intents;
mod lock;
mod look;
mod ownership;
mod place;
mod pool;
mod prune;
mod queries;
mod queue;
mod records;
mod registry;
mod states;
#[cfg(test)]
mod tests;
mod transactions;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use alloy_primitives::{Address, B256};
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::copy::{Restored, backup, restore};
pub use self::export::{ExportError, export};
use self::lock::ProcessLock;
use self::place::Place;
use self::pool::{Pool, ReadFault};
pub use self::prune::{Pruned, Pruning, prune};
use self::queue::{Done, Job, Queue, Work};
use super::inspect::{Overview, SlotRow};
use super::{
    Account, AccountSummary, ChainPin, DiscoveredKey, DiscoveryChange, DiscoveryName, Engine, Epoch, Intent, Journal, JournalError,
    JournalStatus, Record, StoredAccount, StoredAttempt, StoredIdempotencyKey, StoredKey, TransactionId,
};
use crate::telemetry::metrics::Metrics;

/// A journal in one SQLite file. Dropping it writes what waits and joins the writer, as [`SqliteJournal::close`] does.
pub struct SqliteJournal {
    path: PathBuf,
    /// `None` in a journal that was opened for reading only.
    writer: Option<Writer>,
    pool: Arc<Pool>,
    commits: watch::Receiver<u64>,
    fatal: CancellationToken,
    /// In place of threads, in a simulation.
    #[cfg(test)]
    inline: Option<Arc<inline::Inline>>,
}

struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteJournal {
    /// Opens the journal at `path` for this process alone, makes the file if there is none, and migrates it. Its directory must
    /// exist. Touches the disk on the calling thread, for some milliseconds; a file of up to 64 MiB is checked for damage.
    ///
    /// [`JournalError::Unusable`] says why not: another process uses it, it is damaged, of a newer version, or not a journal.
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<Arc<Self>, JournalError> {
        let path = file::resolve(path)?;
        let mut lock = ProcessLock::take(&path)?;
        file::prepare(&path, lock.has_begun())?;
        let begun = lock.has_begun();
        let connection = file::open_writer(&path, begun, &mut lock)?;
        Self::start(path, connection, lock, metrics)
    }

    fn start(path: PathBuf, connection: Connection, mut lock: ProcessLock, metrics: Arc<Metrics>) -> Result<Arc<Self>, JournalError> {
        lock.remember()?;
        let place = Place::note(&path)?;
        let queue = Arc::new(Queue::new());
        let fatal = CancellationToken::new();
        let (committed, commits) = watch::channel(0);
        let thread = {
            let (queue, fatal) = (Arc::clone(&queue), fatal.clone());
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
                // Given up only once the connection is closed, whatever happened.
                let _lock = lock;
                writer::run(connection, &place, queue, metrics, committed, fatal);
            })
        };
        let thread = thread.map_err(|error| JournalError::Unusable(format!("cannot start the journal's thread: {error}")))?;
        Ok(Arc::new(Self {
            pool: Arc::new(Pool::new(path.clone(), fatal.clone())),
            path,
            writer: Some(Writer { queue, thread: Mutex::new(Some(thread)) }),
            commits,
            fatal,
            #[cfg(test)]
            inline: None,
        }))
    }

    /// Begins an empty journal at `path` where one is gone or empty, which [`SqliteJournal::open`] refuses. What is left of the lost one
    /// is kept under another name; answers those names. An error if a journal is there.
    pub fn init(path: &Path, metrics: Arc<Metrics>) -> Result<(Arc<Self>, Vec<PathBuf>), JournalError> {
        let path = file::resolve(path)?;
        let mut lock = ProcessLock::take(&path)?;
        let aside = copy::give_up(&path)?;
        file::prepare(&path, false)?;
        let connection = file::open_writer(&path, false, &mut lock)?;
        Ok((Self::start(path, connection, lock, metrics)?, aside))
    }

    /// Opens an existing journal for reads, beside a gateway that uses it or without one. Writes are answered with
    /// [`JournalError::NotWritten`].
    pub fn open_read_only(path: &Path) -> Result<Arc<Self>, JournalError> {
        let path = file::resolve(path)?;
        let fatal = CancellationToken::new();
        let pool = Arc::new(Pool::new(path.clone(), fatal.clone()));
        // Says at once whether the file can be read.
        pool.read_blocking(|snapshot| queries::chains(snapshot).map(drop))?;
        Ok(Arc::new(Self {
            path,
            writer: None,
            pool,
            commits: watch::channel(0).1,
            fatal,
            #[cfg(test)]
            inline: None,
        }))
    }

    /// Whether a process uses the journal at `path`.
    pub fn is_in_use(path: &Path) -> Result<bool, JournalError> {
        ProcessLock::is_taken(&file::resolve(path)?)
    }

    /// Every pinned chain.
    pub async fn chains(&self) -> Result<Vec<ChainPin>, JournalError> {
        Arc::clone(&self.pool).read(|snapshot| queries::chains(snapshot)).await
    }

    /// The file as a whole.
    pub async fn overview(&self) -> Result<Overview, JournalError> {
        let path = self.path.clone();
        Arc::clone(&self.pool).read(move |snapshot| look::overview(snapshot, &path)).await
    }

    /// The slots of the address, on every chain, with their attempts: highest nonces first, `limit` attempts at most.
    pub async fn slots(&self, address: Address, limit: u32) -> Result<Vec<SlotRow>, JournalError> {
        Arc::clone(&self.pool).read(move |snapshot| look::slots(snapshot, address, limit)).await
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        let writer = self.writer.as_ref()?;
        writer.queue.close();
        writer.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Hands the work to the writer: at once if there is room, so that the order of calls is the order of commits and a
    /// dropped future recalls nothing; otherwise the future waits for room.
    fn submit(&self, work: Work) -> BoxFuture<'static, Result<Done, JournalError>> {
        #[cfg(test)]
        if let Some(inline) = &self.inline {
            return inline.submit(work);
        }
        let Some(writer) = &self.writer else {
            return Box::pin(async { Err(JournalError::NotWritten("it was opened for reading only".to_owned())) });
        };
        let (reply, answer) = oneshot::channel();
        let waiting = writer.queue.try_push(Job { work, reply }).err().map(|job| (Arc::clone(&writer.queue), job));
        Box::pin(async move {
            if let Some((queue, job)) = waiting {
                queue.push(job).await;
            }
            answer.await.unwrap_or(Err(JournalError::Closed))
        })
    }

    fn read<T, F>(&self, read: F) -> BoxFuture<'static, Result<T, JournalError>>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, ReadFault> + Send + 'static,
    {
        let pool = Arc::clone(&self.pool);
        Box::pin(pool.read(move |snapshot| read(snapshot)))
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.pool.close();
        if let Some(thread) = self.stop() {
            // As long as the last group takes: whoever opens the file next must find the lock free.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SqliteJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteJournal").field("path", &self.path).field("read_only", &self.writer.is_none()).finish_non_exhaustive()
    }
}

impl Engine for SqliteJournal {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn fatal(&self) -> CancellationToken {
        self.fatal.clone()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), JournalError>> {
        let done = self.submit(Work::Probe);
        Box::pin(async move { done.await.map(drop) })
    }

    fn status(&self) -> BoxFuture<'static, Result<JournalStatus, JournalError>> {
        let path = self.path.clone();
        self.read(move |connection| {
            let (file, log) = file::sizes(&path);
            Ok(JournalStatus { newest_position: queries::newest_position(connection)?, bytes: file + log })
        })
    }

    /// Moves the log into the file, and joins the writer.
    fn close(&self) -> BoxFuture<'static, ()> {
        self.pool.close();
        let thread = self.stop();
        Box::pin(async move {
            if let Some(thread) = thread {
                // A panic of the thread has been told by `fatal` already.
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
        })
    }
}

impl Journal for SqliteJournal {
    fn commit(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<i64>, JournalError>> {
        let done = self.submit(Work::Commit(records));
        Box::pin(async move { done.await.map(|done| done.positions) })
    }

    fn own(&self, account: Account) -> BoxFuture<'static, Result<Epoch, JournalError>> {
        let done = self.submit(Work::Own(account));
        Box::pin(async move { done.await?.epoch.ok_or(JournalError::Closed) })
    }

    fn accounts(&self, chain_id: u64) -> BoxFuture<'static, Result<Vec<StoredAccount>, JournalError>> {
        self.read(move |connection| queries::accounts(connection, chain_id))
    }

    fn account(&self, account: Account) -> BoxFuture<'static, Result<Option<StoredAccount>, JournalError>> {
        self.read(move |connection| queries::account(connection, account))
    }

    fn unfinished(&self, account: Account) -> BoxFuture<'static, Result<Vec<StoredAttempt>, JournalError>> {
        self.read(move |connection| queries::unfinished(connection, account))
    }

    fn next_slot(&self, account: Account, from: u64) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        self.read(move |connection| queries::next_slot(connection, account, from))
    }

    fn attempt(&self, chain_id: u64, hash: B256) -> BoxFuture<'static, Result<Option<StoredAttempt>, JournalError>> {
        self.read(move |connection| queries::attempt(connection, chain_id, hash))
    }

    fn unconfirmed(
        &self,
        chain_id: u64,
        service: Arc<str>,
        principal: Arc<str>,
    ) -> BoxFuture<'static, Result<Vec<StoredAttempt>, JournalError>> {
        self.read(move |connection| queries::unconfirmed(connection, chain_id, &service, &principal))
    }

    fn queued_ids(&self, account: Account, limit: usize) -> BoxFuture<'static, Result<Vec<TransactionId>, JournalError>> {
        self.read(move |connection| intents::queued_ids(connection, account, limit))
    }

    fn queued_count(&self, account: Account) -> BoxFuture<'static, Result<u64, JournalError>> {
        self.read(move |connection| intents::queued_count(connection, account))
    }

    fn intent(&self, transaction: TransactionId) -> BoxFuture<'static, Result<Option<Intent>, JournalError>> {
        self.read(move |connection| intents::intent(connection, transaction))
    }

    fn waits_ahead(&self, account: Account, transaction: TransactionId) -> BoxFuture<'static, Result<bool, JournalError>> {
        self.read(move |connection| intents::waits_ahead(connection, account, transaction))
    }

    fn idempotency_key(
        &self,
        service: Arc<str>,
        principal: Arc<str>,
        key: Arc<str>,
    ) -> BoxFuture<'static, Result<Option<StoredIdempotencyKey>, JournalError>> {
        self.read(move |connection| intents::idempotency_key(connection, &service, &principal, &key))
    }

    fn chain(&self, chain_id: u64) -> BoxFuture<'static, Result<Option<ChainPin>, JournalError>> {
        self.read(move |connection| queries::pin(connection, chain_id))
    }

    fn pin_chain(&self, pin: ChainPin) -> BoxFuture<'static, Result<(), JournalError>> {
        let done = self.submit(Work::PinChain(pin));
        Box::pin(async move { done.await.map(drop) })
    }

    fn forget_chain(&self, chain_id: u64) -> BoxFuture<'static, Result<u64, JournalError>> {
        let done = self.submit(Work::ForgetChain(chain_id));
        Box::pin(async move { done.await.map(|done| done.removed) })
    }

    fn keys(&self) -> BoxFuture<'static, Result<Vec<StoredKey>, JournalError>> {
        self.read(queries::keys)
    }

    fn put_key(&self, key: StoredKey) -> BoxFuture<'static, Result<(), JournalError>> {
        let done = self.submit(Work::PutKey(key));
        Box::pin(async move { done.await.map(drop) })
    }

    fn discovery(&self, name: DiscoveryName) -> BoxFuture<'static, Result<Option<Vec<DiscoveredKey>>, JournalError>> {
        self.read(move |connection| discoveries::discovery(connection, &name))
    }

    fn change_discovery(&self, change: DiscoveryChange) -> BoxFuture<'static, Result<(), JournalError>> {
        let done = self.submit(Work::Discovery(change));
        Box::pin(async move { done.await.map(drop) })
    }

    fn keep_discoveries(&self, names: Vec<DiscoveryName>) -> BoxFuture<'static, Result<(), JournalError>> {
        let done = self.submit(Work::KeepDiscoveries(names));
        Box::pin(async move { done.await.map(drop) })
    }

    fn summary(&self) -> BoxFuture<'static, Result<Vec<AccountSummary>, JournalError>> {
        self.read(queries::summary)
    }
}
