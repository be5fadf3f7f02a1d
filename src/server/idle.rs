//! Connections that are in no request, in the order in which they began to wait: where silence must keep nobody out, the oldest
//! makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The idle connections of one listener; as many as are open at most.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By the order of their waiting: what cuts each, and what is cancelled once its slot is free.
    connections: BTreeMap<u64, (CancellationToken, CancellationToken)>,
}

impl Idle {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the connection that has waited longest; what is answered is cancelled once its slot is free.
    pub(super) fn end_oldest(&self) -> Option<CancellationToken> {
        let (_, (cut, gone)) = self.waiting().connections.pop_first()?;
        cut.cancel();
        Some(gone)
    }
}

/// The place of one connection among the idle: it leaves for each request, and for good when dropped.
pub(super) struct Place {
    idle: Arc<Idle>,
    cut: CancellationToken,
    gone: CancellationToken,
    at: Mutex<Option<u64>>,
}

impl Place {
    /// A connection that has sent nothing yet. `cut` ends it; `gone` is cancelled after its slot is free.
    pub(super) fn new(idle: Arc<Idle>, cut: CancellationToken, gone: CancellationToken) -> Self {
        let place = Self { idle, cut, gone, at: Mutex::new(None) };
        place.enter();
        place
    }

    /// A whole request head has come; idle again when the answer is dropped.
    pub(super) fn request(&self) -> Busy<'_> {
        self.leave();
        Busy(self)
    }

    fn enter(&self) {
        let mut waiting = self.idle.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.connections.insert(number, (self.cut.clone(), self.gone.clone()));
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
    }

    fn leave(&self) {
        let mut waiting = self.idle.waiting();
        if let Some(number) = self.at.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waiting.connections.remove(&number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A request in hand.
pub(super) struct Busy<'a>(&'a Place);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.enter();
    }
}
