//! Reads of the journal that clients ask for. Each connection has one in hand at a time, so whoever asks for much waits behind
//! itself and not before others; and pages of streams do not wait for questions, nor questions for them.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::journal::JournalError;
use crate::journal::history::{Answer, History};
use crate::subscriptions::connection::ConnectionHandle;

/// Questions at the same time, of all connections. The rest of the journal's readers are left for everything else.
const QUESTIONS: usize = 2;
/// Pages of streams at the same time, of all connections.
const PAGES: usize = 1;

/// Why a question has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// As many questions of the connection wait as may.
    #[error("too many questions to the journal wait on this connection")]
    Busy,
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reads {
    history: Arc<dyn History>,
    questions: Semaphore,
    pages: Semaphore,
}

impl Reads {
    pub(super) fn new(history: Arc<dyn History>) -> Self {
        Self { history, questions: Semaphore::new(QUESTIONS), pages: Semaphore::new(PAGES) }
    }

    /// One question, when it is the connection's turn and then its own.
    pub(super) async fn question<T>(
        &self,
        connection: Option<&ConnectionHandle>,
        read: impl FnOnce(&dyn History) -> Answer<T>,
    ) -> Result<T, ReadError> {
        let _own = match connection {
            Some(connection) => Some(connection.question().await.ok_or(ReadError::Busy)?),
            None => None,
        };
        let _turn = self.questions.acquire().await;
        Ok(read(&*self.history).await?)
    }

    /// One page of a stream. Whoever asks has its connection's page in hand.
    pub(super) async fn page<T>(&self, read: impl FnOnce(&dyn History) -> Answer<T>) -> Result<T, JournalError> {
        let _turn = self.pages.acquire().await;
        read(&*self.history).await
    }
}
