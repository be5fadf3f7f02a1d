//! One upstream subscription, relayed to many clients: each result is passed on byte for byte.

use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use jsonrpsee::SubscriptionSink;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::audience::Audience;
use super::chain::{Feed, Heads, Logs};
use super::connection::ConnectionHandle;
use super::hub::{Source, Subject};
use super::member::{Early, early};
use crate::node::{CallError, Pool, StreamItem, Subscription};

/// The last words of a subscription whose events may not be complete.
pub(super) const GAP: &str = "the connection to the node was lost: events may be missing";

/// Results that are told together.
const TOGETHER: usize = 64;

/// How the upstream subscription is.
#[derive(Debug, Clone)]
enum State {
    /// It is made, or made again after its connection was lost: nobody is answered an id.
    Opening,
    /// Results arrive.
    Live,
    /// It is no more; the answer to everybody who waited for it.
    Over(CallError),
}

/// How long a relay waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For its node: before clients are told that it cannot be asked, or that it was lost.
    pub(super) deadline: Duration,
    /// For clients, when nobody watches.
    pub(super) linger: Duration,
}

/// What a relay passes on.
enum Upstream {
    Node(Subscription),
    Heads(Heads),
    Logs(Box<Logs>),
}

impl Upstream {
    async fn open(subject: &Subject, pool: &Pool, feed: &Feed, deadline: Duration) -> Result<Self, CallError> {
        let opened = async {
            match &subject.source {
                Source::Node => {
                    let params = RawValue::from_string(subject.params.as_ref().to_owned());
                    let params = params.map_err(|error| CallError::Malformed(error.to_string()))?;
                    pool.subscribe(&params).await.map(Self::Node)
                }
                Source::Heads => Heads::open(feed).await.map(Self::Heads),
                Source::Logs(logs) => Logs::open(feed, logs.clone()).await.map(Box::new).map(Self::Logs),
            }
        };
        timeout(deadline, opened).await.unwrap_or_else(|_| Err(pool.fault().unwrap_or(CallError::Deadline(deadline))))
    }

    /// The next item; cancel safe.
    async fn next(&mut self) -> Option<StreamItem> {
        match self {
            Self::Node(subscription) => subscription.next().await,
            Self::Heads(heads) => heads.next().await.map(StreamItem::from),
            Self::Logs(logs) => logs.next().await.map(StreamItem::from),
        }
    }

    /// What [`Self::next`] has without waiting, and without asking a node: a question that is given up is asked twice.
    fn at_hand(&mut self) -> Option<Option<StreamItem>> {
        match self {
            Self::Logs(logs) if !logs.is_telling() => None,
            _ => self.next().now_or_never(),
        }
    }
}

/// See the module.
pub(super) struct Relay {
    pub(super) subject: Subject,
    members: Audience,
    next: AtomicU64,
    /// How many clients watch or are about to.
    wanted: watch::Sender<usize>,
    state: watch::Sender<State>,
    /// It has to make room.
    pub(super) evicted: CancellationToken,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("subject", &self.subject).field("members", &self.members).finish_non_exhaustive()
    }
}

impl Relay {
    /// Asks nothing of the node before [`Relay::run`].
    pub(super) fn new(subject: Subject) -> Arc<Self> {
        Arc::new(Self {
            subject,
            members: Audience::new(),
            next: AtomicU64::new(0),
            wanted: watch::Sender::new(0),
            state: watch::Sender::new(State::Opening),
            evicted: CancellationToken::new(),
        })
    }

    /// Keeps it from ending for want of clients.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.wanted.send_modify(|wanted| *wanted += 1);
        Lease(Arc::clone(self))
    }

    /// Whether a client watches or is about to.
    pub(super) fn is_wanted(&self) -> bool {
        *self.wanted.borrow() > 0
    }

    /// Relays until the node refuses, the subscription cannot be made again, or nobody wants it for as long as `linger` and
    /// `may_end` agrees. When its connection is lost, the members are ended once it is live again, after `deadline` at the latest.
    pub(super) async fn run(&self, pool: &Pool, feed: &Feed, Times { deadline, linger }: Times, may_end: impl Fn() -> bool) {
        let mut upstream = match Upstream::open(&self.subject, pool, feed, deadline).await {
            Ok(upstream) => upstream,
            Err(error) => return self.over(error),
        };
        self.state.send_replace(State::Live);
        let mut unwanted = pin!(self.unwanted(linger));
        // While it is away and there may be members who were not told.
        let mut tell = None;
        // What was taken from it and has not been looked at: no result.
        let mut ahead = None;
        loop {
            tokio::select! {
                item = next(&mut upstream, &mut ahead) => match item {
                    Some(StreamItem::Item(result)) => {
                        // What came with it is told with it: their messages leave together.
                        let mut results = vec![result];
                        while results.len() < TOGETHER && ahead.is_none() {
                            match upstream.at_hand() {
                                Some(Some(StreamItem::Item(result))) => results.push(result),
                                Some(other) => ahead = Some(other),
                                None => break,
                            }
                        }
                        self.members.tell(&results).await;
                    }
                    Some(StreamItem::Lost) => {
                        tell = Some(Instant::now() + deadline);
                        self.state.send_replace(State::Opening);
                    }
                    Some(StreamItem::Gap) => {
                        tell = None;
                        self.members.end(GAP);
                        self.state.send_replace(State::Live);
                    }
                    None => return self.over(pool.fault().unwrap_or(CallError::Unavailable)),
                },
                () = at(tell) => {
                    tell = None;
                    self.members.end(GAP);
                }
                () = &mut unwanted => {
                    if may_end() {
                        return;
                    }
                    unwanted.set(self.unwanted(linger));
                }
                () = self.evicted.cancelled() => return,
            }
        }
    }

    /// Resolves once nobody has wanted it for as long as `linger`.
    async fn unwanted(&self, linger: Duration) {
        let mut wanted = self.wanted.subscribe();
        loop {
            if wanted.wait_for(|wanted| *wanted == 0).await.is_err() {
                // It holds the sender itself, so this does not happen.
                return pending().await;
            }
            tokio::select! {
                () = sleep(linger) => return,
                _ = wanted.wait_for(|wanted| *wanted > 0) => {}
            }
        }
    }

    /// Ends it for everybody: those who wait are answered `error`, unless they were told another one before.
    pub(super) fn over(&self, error: CallError) {
        // Before the members are ended: who comes in between finds it over.
        self.state.send_if_modified(|state| {
            let first = !matches!(state, State::Over(_));
            if first {
                *state = State::Over(error);
            }
            first
        });
        self.members.end(GAP);
    }
}

/// What was taken ahead, else the next item. Cancel safe.
async fn next(upstream: &mut Upstream, ahead: &mut Option<Option<StreamItem>>) -> Option<StreamItem> {
    match ahead.take() {
        Some(item) => item,
        None => upstream.next().await,
    }
}

/// Resolves at that time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Interest in a relay.
#[derive(Debug)]
pub(super) struct Lease(Arc<Relay>);

impl Lease {
    /// A seat, once the upstream subscription is live; the node's error if it refuses, and why no node can be asked if it is not
    /// live within `deadline`.
    pub(super) async fn seat(self, pool: &Pool, deadline: Duration) -> Result<Seat, CallError> {
        let mut state = self.0.state.subscribe();
        match timeout(deadline, state.wait_for(|state| !matches!(state, State::Opening))).await {
            Ok(_) => {}
            Err(_) => return Err(pool.fault().unwrap_or(CallError::Deadline(deadline))),
        }
        let (member, early) = early();
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.members.insert(id, member);
        let seat = Seat { lease: self, id, early: Some(early) };
        // Looked at with the member in place: either it is ended with the others, or the end is seen here.
        let over = match &*seat.lease.0.state.borrow() {
            State::Over(error) => Some(error.clone()),
            State::Opening | State::Live => None,
        };
        over.map_or(Ok(seat), Err)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.wanted.send_modify(|wanted| *wanted -= 1);
    }
}

/// One client's place in a relay. From here on nothing is missed: what arrives before the client has its id waits for it.
#[derive(Debug)]
pub struct Seat {
    lease: Lease,
    id: u64,
    early: Option<Early>,
}

impl Seat {
    /// Serves the client until it goes; the error is the subscription's last words.
    pub async fn serve(mut self, sink: SubscriptionSink, connection: Option<ConnectionHandle>) -> Result<(), &'static str> {
        let Some(early) = self.early.take() else { return Ok(()) };
        self.lease.0.members.open(self.id, sink.clone(), connection.clone());
        early.watch(sink, connection).over().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lease.0.members.remove(self.id);
    }
}
