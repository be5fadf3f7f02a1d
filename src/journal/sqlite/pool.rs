//! Read-only connections, used off the runtime.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::file;
use crate::journal::JournalError;

/// Reads at the same time; more of them wait.
const READERS: usize = 4;

/// Connections are opened when they are first needed and kept.
pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
    fatal: CancellationToken,
    #[cfg(test)]
    inline: Option<Arc<super::inline::Inline>>,
}

impl Pool {
    /// `fatal` is cancelled by a read that meets damage: nothing may be sent on the word of a damaged file.
    pub(super) fn new(path: PathBuf, fatal: CancellationToken) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            turns: Semaphore::new(READERS),
            fatal,
            #[cfg(test)]
            inline: None,
        }
    }

    /// Reads are those of a simulation.
    #[cfg(test)]
    pub(super) fn inline(inline: Arc<super::inline::Inline>, fatal: CancellationToken) -> Self {
        Self { inline: Some(inline), ..Self::new(PathBuf::new(), fatal) }
    }

    /// Runs the read on a blocking thread, in one snapshot: it sees every commit that was answered before it began.
    pub(super) async fn read<T, F>(self: Arc<Self>, read: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, ReadFault> + Send + 'static,
    {
        #[cfg(test)]
        if let Some(inline) = &self.inline {
            return inline.read(read).await;
        }
        let _turn = self.turns.acquire().await.map_err(|_| JournalError::Closed)?;
        let pool = Arc::clone(&self);
        let done = tokio::task::spawn_blocking(move || pool.read_blocking(read)).await;
        done.map_err(|error| JournalError::NotRead(error.to_string()))?
    }

    /// The same on this thread.
    pub(super) fn read_blocking<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, ReadFault>) -> Result<T, JournalError> {
        let result = self.try_read(read);
        if let Err(JournalError::Damaged(why)) = &result
            && !self.fatal.is_cancelled()
        {
            tracing::error!(error = why, "the journal is damaged");
            self.fatal.cancel();
        }
        result
    }

    fn try_read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, ReadFault>) -> Result<T, JournalError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => file::open_reader(&self.path)?,
        };
        let snapshot = connection.unchecked_transaction().map_err(|error| self.fault(error.into()))?;
        let result = read(&snapshot);
        drop(snapshot);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.turns.is_closed() {
            idle.push(connection);
        }
        drop(idle);
        result.map_err(|fault| self.fault(fault))
    }

    fn fault(&self, ReadFault(error): ReadFault) -> JournalError {
        if file::is_damage(&error) { file::unusable(&self.path, &error) } else { JournalError::NotRead(error.to_string()) }
    }

    /// No further reads; the connections go.
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A read that failed.
#[derive(Debug)]
pub(super) struct ReadFault(rusqlite::Error);

impl From<rusqlite::Error> for ReadFault {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}
