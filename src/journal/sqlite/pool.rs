//! Read-only connections, used off the runtime.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;

use super::file;
use crate::journal::JournalError;

/// Reads at the same time; more of them wait.
const READERS: usize = 4;

/// Connections are opened when they are first needed and kept.
pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), turns: Semaphore::new(READERS) }
    }

    /// Runs the read on a blocking thread, in one snapshot: it sees every commit that was answered before it began.
    pub(super) async fn read<T, F>(self: Arc<Self>, read: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, ReadFault> + Send + 'static,
    {
        let _turn = self.turns.acquire().await.map_err(|_| JournalError::Closed)?;
        let pool = Arc::clone(&self);
        let done = tokio::task::spawn_blocking(move || pool.read_blocking(read)).await;
        done.map_err(|error| JournalError::NotRead(error.to_string()))?
    }

    /// The same on this thread.
    pub(super) fn read_blocking<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, ReadFault>) -> Result<T, JournalError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => file::open_reader(&self.path)?,
        };
        let snapshot = connection.unchecked_transaction().map_err(ReadFault::from)?;
        let result = read(&snapshot);
        drop(snapshot);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.turns.is_closed() {
            idle.push(connection);
        }
        drop(idle);
        Ok(result?)
    }

    /// No further reads; the connections go.
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A read that failed.
#[derive(Debug)]
pub(super) struct ReadFault(String);

impl From<rusqlite::Error> for ReadFault {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<ReadFault> for JournalError {
    fn from(fault: ReadFault) -> Self {
        Self::NotRead(fault.0)
    }
}
