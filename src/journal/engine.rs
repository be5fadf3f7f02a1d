//! What the process asks of an engine, beside what is in it.

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::{Journal, JournalError};

/// What operators see of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalStatus {
    /// Position of the newest event in commit order; 0 before the first.
    pub newest_position: i64,
    /// Bytes that it takes on disk, its log included.
    pub bytes: u64,
}

/// An engine at work: the store, its reads, and its life.
pub trait Engine: Journal + History {
    /// Its name, as /status tells it.
    fn name(&self) -> &'static str;

    /// Cancelled when the journal has become unusable: its writer panicked, it is damaged, its file was moved or deleted, or nobody can say whether a group of
    /// batches was written. Every later write answers [`JournalError::Closed`]; the process has to end with an error and recover at
    /// its next start.
    fn fatal(&self) -> CancellationToken;

    /// Proves by a write of its own that the journal can write now. It shares the commit of what waits beside it; alone it costs
    /// one.
    fn probe(&self) -> BoxFuture<'static, Result<(), JournalError>>;

    /// Its size, and the position of the newest event.
    fn status(&self) -> BoxFuture<'static, Result<JournalStatus, JournalError>>;

    /// Takes no further work from this call on, and writes what waits. Later writes and reads answer [`JournalError::Closed`].
    fn close(&self) -> BoxFuture<'static, ()>;
}
