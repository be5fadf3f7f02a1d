//! One reader of the journal per scope, while somebody follows it live.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::ring::Ring;
use super::{RETRY, Sizes};
use crate::journal::JournalError;
use crate::journal::history::{History, Scope};

/// The feeds that are followed.
pub(super) struct Feeds {
    history: Arc<dyn History>,
    sizes: Sizes,
    rings: Mutex<HashMap<Scope, watch::Sender<Ring>>>,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeds").field("open", &self.rings().len()).finish_non_exhaustive()
    }
}

impl Feeds {
    pub(super) fn new(history: Arc<dyn History>, sizes: Sizes) -> Self {
        Self { history, sizes, rings: Mutex::default() }
    }

    /// The scope's events as they come. A feed that nobody follows yet begins behind `newest`.
    pub(super) fn follow(self: &Arc<Self>, scope: &Scope, newest: i64) -> watch::Receiver<Ring> {
        let mut rings = self.rings();
        if let Some(ring) = rings.get(scope) {
            return ring.subscribe();
        }
        let (ring, follower) = watch::channel(Ring::new(newest, self.sizes.kept));
        rings.insert(scope.clone(), ring.clone());
        drop(rings);
        tokio::spawn(Arc::clone(self).run(scope.clone(), ring));
        follower
    }

    fn rings(&self) -> MutexGuard<'_, HashMap<Scope, watch::Sender<Ring>>> {
        // The map is whole after every statement that can panic, so a poisoned lock holds nothing broken.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, scope: Scope, ring: watch::Sender<Ring>) {
        let mut commits = self.history.commits();
        loop {
            // Before the read: what is committed during it wakes the next one.
            commits.mark_unchanged();
            let position = ring.borrow().end();
            match self.history.events(scope.clone(), position, self.sizes.page).await {
                Ok(events) if events.is_empty() => {
                    tokio::select! {
                        changed = commits.changed() => if changed.is_err() {
                            // The journal is closed: there will be no further event.
                            ring.closed().await;
                        },
                        () = ring.closed() => {}
                    }
                }
                Ok(events) => ring.send_modify(|ring| ring.push(events)),
                Err(error) => {
                    if !matches!(error, JournalError::Closed) {
                        tracing::warn!(%error, "the journal's events cannot be read yet");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
            if ring.is_closed() && self.leave(&scope, &ring) {
                return;
            }
        }
    }

    /// Nobody follows: the feed ends, unless somebody has come meanwhile.
    fn leave(&self, scope: &Scope, ring: &watch::Sender<Ring>) -> bool {
        let mut rings = self.rings();
        let over = ring.is_closed();
        if over {
            rings.remove(scope);
        }
        over
    }
}
