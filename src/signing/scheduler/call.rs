//! What is asked of the scheduler: wishes for signatures, and the calls that they become.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task;
use tokio::time::Instant;

use super::Progress;
use super::made::Made;
use super::routes::Route;
use super::watch::Group;
use crate::signing::key::Key;
use crate::signing::{ATTEMPT_TIMEOUT, KeyStoreError};

/// What handles and tickets say.
#[derive(Debug)]
pub(super) enum Command {
    Sign(Request),
    Cancel {
        ticket: u64,
        /// Held until the command is read.
        _permit: Arc<OwnedSemaphorePermit>,
    },
}

/// A ticket's wish.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ticket: u64,
    pub(super) key: Arc<Key>,
    pub(super) digest: B256,
    pub(super) order: u64,
    /// What is spent of its deadline.
    pub(super) spent: Duration,
    pub(super) reply: oneshot::Sender<Result<Made, KeyStoreError>>,
    pub(super) permit: Arc<OwnedSemaphorePermit>,
    pub(super) progress: Progress,
}

/// A ticket that waits for its call.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Made, KeyStoreError>>,
    pub(super) progress: Progress,
    pub(super) _permit: Arc<OwnedSemaphorePermit>,
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    InFlight,
    /// Until its next try.
    Resting(Instant),
}

/// One signature to be made, for everybody who asked for it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: Arc<Key>,
    pub(super) digest: B256,
    pub(super) order: u64,
    /// When its first ticket asked.
    pub(super) asked: Instant,
    /// The same, with what was spent before.
    pub(super) since: Instant,
    /// When it had its turn: the first Sign was issued for it.
    pub(super) issued: Option<Instant>,
    pub(super) stage: Stage,
    pub(super) waiters: Vec<Waiter>,
    /// Signs after the first, hedges left out.
    pub(super) retries: u32,
    /// Those of them that waited for a while of their own.
    pub(super) rests: u32,
    pub(super) bad_signatures: u32,
    pub(super) last_error: Option<KeyStoreError>,
    /// Its Sign in flight, and a second one.
    pub(super) sign: Option<task::Id>,
    pub(super) hedge: Option<task::Id>,
    /// When a second one is looked at.
    pub(super) hedge_at: Option<Instant>,
}

impl Call {
    pub(super) fn address(&self) -> Address {
        self.key.address()
    }

    /// Until when somebody waits.
    pub(super) fn last_deadline(&self, now: Instant) -> Instant {
        self.waiters.iter().map(|waiter| waiter.deadline).max().unwrap_or(now)
    }
}

/// The time that a store has at least for one Sign before it says something about the store that none came.
pub(super) fn fair(deadline: Duration) -> Duration {
    ATTEMPT_TIMEOUT.min(deadline / 2)
}

/// Whether a Sign of the call by this group can be answered while somebody waits: 95 % of the latest ones took no longer than what is
/// left. Half a deadline is always enough, or answers that are slow would keep everything from being asked.
pub(super) fn has_time(call: &Call, routes: &HashMap<Address, Route>, group: Option<&Group>, now: Instant) -> bool {
    let usual = group.and_then(|group| group.hedging.usual()).unwrap_or_default();
    let half = routes.get(&call.address()).map(|route| route.deadline / 2).unwrap_or_default();
    call.last_deadline(now).saturating_duration_since(now) >= usual.min(half)
}
