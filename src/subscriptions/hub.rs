//! The relays of one environment: one upstream subscription for each distinct kind and filter, however many clients watch. Filters are
//! what a client can make many of, so each service has places of its own for those that it is the first to want.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::chain::{About, Feed, Lasting, OfLogs, StepMeter};
use super::connection::ConnectionHandle;
use super::relay::{Lease, Relay, Seat, Times};
use crate::config::Environment;
use crate::node::{CallError, Pool};
use crate::telemetry::metrics::Metrics;

/// Time for which a relay that nobody watches keeps its upstream subscription: a client that comes back finds it.
const LINGER: Duration = Duration::from_secs(5);
/// Places of one service for relays of its filters, in one environment.
const PLACES: usize = 1024;
/// Bytes of parameters for which a relay takes one place; a longer one takes as many as it needs.
const PLACE_BYTES: usize = 16 * 1024;

/// What is subscribed to. The parameters alone tell one from another: services share what they have in common.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Parameters of `eth_subscribe`, in one spelling for all that mean the same.
    pub(super) params: Arc<str>,
    /// Who wants it, if it is a filter: its places are taken if there is no relay yet.
    service: Option<Arc<str>>,
    pub(super) source: Source,
}

/// Where what is told comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A subscription at a node, passed on.
    Node,
    /// The chain's headers.
    Heads,
    /// The chain's logs.
    Logs(OfLogs),
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.params == other.params
    }
}

impl Eq for Subject {}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.params.hash(state);
    }
}

impl Subject {
    /// What a node tells by itself, of the few that all services share. They need no place: nobody can make more of them.
    pub fn shared(params: &'static str) -> Self {
        Self { params: Arc::from(params), service: None, source: Source::Node }
    }

    /// `newHeads`, from the chain as it is followed here.
    pub fn heads() -> Self {
        Self { source: Source::Heads, ..Self::shared(r#"["newHeads"]"#) }
    }

    /// A filter of this service's clients, which a node answers.
    pub fn filter(service: &Arc<str>, params: &str) -> Self {
        Self { params: Arc::from(params), service: Some(Arc::clone(service)), source: Source::Node }
    }

    /// The logs of a filter, from the chain as it is followed here. `params` is the filter's one spelling.
    pub fn logs(service: &Arc<str>, params: &str, logs: OfLogs) -> Self {
        Self { source: Source::Logs(logs), ..Self::filter(service, params) }
    }
}

/// Why a client gets no seat.
#[derive(Debug, Clone)]
pub enum JoinError {
    /// Every place of the service, or of the connection, is taken by relays that somebody watches.
    Full,
    /// The node refused, or cannot be asked.
    Call(CallError),
}

/// Why a client's own stream of the chain cannot begin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// No node has the block that it is to begin behind.
    #[error("no node has block {0}: what came after it cannot be told")]
    Unknown(B256),
    /// No node can be asked.
    #[error(transparent)]
    Call(CallError),
}

/// See the module; clones are the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    pool: Pool,
    feed: Feed,
    relays: DashMap<Subject, Registered>,
    /// Places that are not taken, by service.
    free: DashMap<Arc<str>, Arc<Semaphore>>,
    /// Places of a service.
    places: usize,
    times: Times,
    stop: CancellationToken,
}

struct Registered {
    relay: Arc<Relay>,
    _places: Places,
}

/// Places that a relay takes: of its service, and of the connection that it was made for.
#[derive(Default)]
struct Places {
    _service: Option<OwnedSemaphorePermit>,
    _connection: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("relays", &self.0.relays.len()).finish_non_exhaustive()
    }
}

impl Hub {
    /// Without a relay yet. A client waits `node_deadline` at most for an upstream subscription, and to be told that it was lost.
    /// Everything ends with `stop`.
    pub fn new(pool: Pool, environment: &Environment, metrics: &Metrics, stop: CancellationToken) -> Self {
        let times = Times { deadline: environment.node_deadline, linger: LINGER };
        Self::with(pool, times, StepMeter::new(metrics, &environment.name), stop, PLACES)
    }

    pub(super) fn with(pool: Pool, times: Times, meter: StepMeter, stop: CancellationToken, places: usize) -> Self {
        let feed = Feed::start(pool.clone(), meter, stop.clone());
        Self(Arc::new(Inner { pool, feed, relays: DashMap::new(), free: DashMap::new(), places, times, stop }))
    }

    /// A seat at the upstream subscription to the subject, which is made for this connection if there is none.
    pub async fn join(&self, subject: Subject, connection: &ConnectionHandle) -> Result<Seat, JoinError> {
        let lease = self.lease(&subject, connection).or_else(|| {
            self.make_room(&subject);
            self.lease(&subject, connection)
        });
        let lease = lease.ok_or(JoinError::Full)?;
        lease.seat(&self.0.pool, self.0.times.deadline).await.map_err(JoinError::Call)
    }

    /// A stream of the chain for one client, from the chain as it is followed here: behind the block of this hash, else from now on.
    pub async fn open(&self, about: About, after: Option<B256>) -> Result<Lasting, OpenError> {
        let Inner { pool, feed, times, .. } = &*self.0;
        let open = async {
            let after = match after {
                Some(hash) => Some(feed.place(hash).await.map_err(OpenError::Call)?.ok_or(OpenError::Unknown(hash))?),
                None => None,
            };
            Lasting::open(feed, about, after).await.map_err(OpenError::Call)
        };
        let late = || Err(OpenError::Call(pool.fault().unwrap_or(CallError::Deadline(times.deadline))));
        timeout(times.deadline, open).await.unwrap_or_else(|_| late())
    }

    /// Interest in the relay, taken while its entry is locked: it cannot end in between. `None` if there is no place for it.
    fn lease(&self, subject: &Subject, connection: &ConnectionHandle) -> Option<Lease> {
        let (lease, new) = match self.0.relays.entry(subject.clone()) {
            Entry::Occupied(entry) => (entry.get().relay.lease(), None),
            Entry::Vacant(entry) => {
                let places = self.take(subject, connection)?;
                let relay = Relay::new(subject.clone());
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

    /// The places that the subject needs.
    fn take(&self, subject: &Subject, connection: &ConnectionHandle) -> Option<Places> {
        let Some(service) = &subject.service else { return Some(Places::default()) };
        let free = Arc::clone(&self.0.free.entry(Arc::clone(service)).or_insert_with(|| Arc::new(Semaphore::new(self.0.places))));
        let places = u32::try_from(1 + subject.params.len() / PLACE_BYTES).ok()?;
        let of_service = free.try_acquire_many_owned(places).ok()?;
        Some(Places { _service: Some(of_service), _connection: Some(connection.filters(places)?) })
    }

    /// Relays that were made for the service and only linger give way.
    fn make_room(&self, subject: &Subject) {
        self.0.relays.retain(|other, registered| {
            let wanted = registered.relay.is_wanted() || other.service != subject.service;
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
        let Inner { pool, feed, relays, times, .. } = &*self.hub.0;
        let may_end = || relays.remove_if(&self.relay.subject, |_, registered| !registered.relay.is_wanted()).is_some();
        self.relay.run(pool, feed, *times, may_end).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hub.0.relays.remove_if(&self.relay.subject, |_, registered| Arc::ptr_eq(&registered.relay, &self.relay));
        self.relay.over(CallError::Unavailable);
    }
}

#[cfg(test)]
mod tests;
