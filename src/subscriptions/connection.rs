//! What a call knows of the connection that it came by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

/// How a call reached the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One request, one response.
    Http,
    /// Can carry notifications.
    WebSocket,
}

/// A client's connection; clones are the same connection. The server puts it into each request's extensions.
#[derive(Debug, Clone)]
pub struct ConnectionHandle {
    cut: CancellationToken,
    owed: Arc<AtomicUsize>,
}

impl ConnectionHandle {
    /// The connection that is cut by this token.
    pub fn new(cut: CancellationToken) -> Self {
        Self { cut, owed: Arc::default() }
    }

    /// Cuts the connection: nothing more is read from it or written to it, and calls in flight on it are dropped.
    /// What still waits in its queue is lost. Further calls do nothing.
    pub fn end(&self) {
        self.cut.cancel();
    }

    /// Resolves when [`ConnectionHandle::end`] was called or the gateway cut the connection itself (not when the client left).
    pub async fn ended(&self) {
        self.cut.cancelled().await;
    }

    /// What cuts the connection.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.cut
    }

    /// An answer of so many bytes is on its way. Never more than will be written, or the client would not be read from again.
    pub(crate) fn owe(&self, bytes: usize) {
        self.owed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes were written. What frames answers, and notifications, make it more than was owed.
    pub(crate) fn pay(&self, bytes: usize) {
        // The closure always has a value, so this cannot fail.
        let _ = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(owed.saturating_sub(bytes)));
    }

    /// Bytes of answers that are ready and not written, at most.
    pub(crate) fn owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }
}
