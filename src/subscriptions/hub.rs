//! The relays of one environment: one upstream subscription for each distinct kind and filter, however many clients watch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::relay::{Lease, Relay, Seat, Times};
use crate::node::{CallError, Pool};

/// Time for which a relay that nobody watches keeps its upstream subscription: a client that comes back finds it.
const LINGER: Duration = Duration::from_secs(5);
/// Places for relays in one environment.
const PLACES: usize = 1024;
/// Bytes of parameters for which a relay takes one place; a longer one takes as many as it needs.
const PLACE_BYTES: usize = 16 * 1024;

/// Why a client gets no seat.
#[derive(Debug, Clone)]
pub enum JoinError {
    /// Every place is taken by relays that somebody watches.
    Full,
    /// The node refused, or cannot be asked.
    Call(CallError),
}

/// See the module; clones are the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    pool: Pool,
    /// By the parameters of `eth_subscribe`, in one spelling.
    relays: DashMap<Arc<str>, Registered>,
    places: Arc<Semaphore>,
    times: Times,
    stop: CancellationToken,
}

struct Registered {
    relay: Arc<Relay>,
    _places: OwnedSemaphorePermit,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("relays", &self.0.relays.len()).finish_non_exhaustive()
    }
}

impl Hub {
    /// Without a relay yet. A client waits `deadline` at most for an upstream subscription, and to be told that it was lost.
    /// Everything ends with `stop`.
    pub fn new(pool: Pool, deadline: Duration, stop: CancellationToken) -> Self {
        Self::with(pool, Times { deadline, linger: LINGER }, stop, PLACES)
    }

    pub(super) fn with(pool: Pool, times: Times, stop: CancellationToken, places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places));
        Self(Arc::new(Inner { pool, relays: DashMap::new(), places, times, stop }))
    }

    /// A seat at the upstream subscription with these parameters of `eth_subscribe`, which is made if there is none. Parameters
    /// that mean the same must be spelled the same.
    pub async fn join(&self, params: &str) -> Result<Seat, JoinError> {
        let lease = self.lease(params).or_else(|| {
            self.make_room();
            self.lease(params)
        });
        let lease = lease.ok_or(JoinError::Full)?;
        lease.seat(&self.0.pool, self.0.times.deadline).await.map_err(JoinError::Call)
    }

    /// Interest in the relay, taken while its entry is locked: it cannot end in between. `None` if there is no place for it.
    fn lease(&self, params: &str) -> Option<Lease> {
        let (lease, new) = match self.0.relays.entry(Arc::from(params)) {
            Entry::Occupied(entry) => (entry.get().relay.lease(), None),
            Entry::Vacant(entry) => {
                let places = u32::try_from(1 + params.len() / PLACE_BYTES).ok()?;
                let places = Arc::clone(&self.0.places).try_acquire_many_owned(places).ok()?;
                let relay = Relay::new(Arc::clone(entry.key()));
                let lease = relay.lease();
                entry.insert(Registered { relay: Arc::clone(&relay), _places: places });
                (lease, Some(relay))
            }
        };
        // With the entry unlocked: a runtime that shuts down drops what is spawned at once.
        if let Some(relay) = new {
            let running = Running { hub: self.clone(), relay };
            tokio::spawn(self.0.stop.clone().run_until_cancelled_owned(running.run()));
        }
        Some(lease)
    }

    /// Relays that only linger give way.
    fn make_room(&self) {
        self.0.relays.retain(|_, registered| {
            let wanted = registered.relay.is_wanted();
            if !wanted {
                registered.relay.evicted.cancel();
            }
            wanted
        });
    }
}

/// A relay at work. However it ends, its entry goes and nobody waits for it any more.
struct Running {
    hub: Hub,
    relay: Arc<Relay>,
}

impl Running {
    async fn run(self) {
        let Inner { pool, relays, times, .. } = &*self.hub.0;
        let may_end = || relays.remove_if(&self.relay.params, |_, registered| !registered.relay.is_wanted()).is_some();
        self.relay.run(pool, *times, may_end).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hub.0.relays.remove_if(&self.relay.params, |_, registered| Arc::ptr_eq(&registered.relay, &self.relay));
        self.relay.over(CallError::Unavailable);
    }
}

#[cfg(test)]
mod tests;
