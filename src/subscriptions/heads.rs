//! `eth_subscribe("newHeads")`: one upstream subscription per environment, however many clients watch; each head is passed on
//! byte for byte.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use jsonrpsee::SubscriptionSink;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::member::{Member, pair};
use crate::node::Pool;
use crate::node::{CallError, StreamItem};
use crate::subscriptions::connection::ConnectionHandle;

/// Time for which a refusal upstream is the answer to every client, before the node is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Relays one upstream subscription to many clients.
pub struct Relay {
    pool: Pool,
    params: Box<RawValue>,
    members: DashMap<u64, Member>,
    next: AtomicU64,
    /// How many clients watch: the upstream subscription lives while it is not 0.
    wanted: watch::Sender<usize>,
    live: watch::Sender<Option<Result<(), CallError>>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("params", &self.params).field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay of `eth_subscribe` with these parameters; asks nothing of the node until the first client comes.
    pub fn start(pool: Pool, params: Box<RawValue>, stop: CancellationToken) -> Arc<Self> {
        let relay = Arc::new(Self {
            pool,
            params,
            members: DashMap::new(),
            next: AtomicU64::new(0),
            wanted: watch::Sender::new(0),
            live: watch::Sender::new(None),
        });
        tokio::spawn(stop.run_until_cancelled_owned(Arc::clone(&relay).run()));
        relay
    }

    /// Waits until the upstream subscription stands; the node's error otherwise. The lease keeps it up.
    pub async fn lease(self: &Arc<Self>) -> Result<Lease, CallError> {
        self.wanted.send_modify(|wanted| *wanted += 1);
        let lease = Lease(Arc::clone(self));
        let mut live = self.live.subscribe();
        match live.wait_for(Option::is_some).await {
            Ok(state) => match state.as_ref() {
                Some(Err(error)) => Err(error.clone()),
                _ => {
                    drop(state);
                    Ok(lease)
                }
            },
            Err(_) => Err(CallError::Unavailable),
        }
    }

    /// Serves one client until it goes; the error is the subscription's last words.
    pub async fn serve(&self, sink: SubscriptionSink, connection: Option<ConnectionHandle>) -> Result<(), &'static str> {
        let (member, watch) = pair(sink, connection);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.members.insert(id, member);
        let over = watch.over().await;
        self.members.remove(&id);
        over
    }

    async fn run(self: Arc<Self>) {
        let mut wanted = self.wanted.subscribe();
        while wanted.wait_for(|wanted| *wanted > 0).await.is_ok() {
            match self.pool.subscribe(&self.params).await {
                Err(error) => {
                    // Told to whoever waits; the next one asks again.
                    self.live.send_replace(Some(Err(error)));
                    tokio::time::sleep(AGAIN).await;
                    self.live.send_replace(None);
                }
                Ok(mut upstream) => {
                    self.live.send_replace(Some(Ok(())));
                    loop {
                        tokio::select! {
                            item = upstream.next() => match item {
                                Some(StreamItem::Item(head)) => self.members.retain(|_, member| member.send(&head)),
                                Some(StreamItem::Gap) => self.end_all(),
                                None => {
                                    self.live.send_replace(None);
                                    self.end_all();
                                    break;
                                }
                            },
                            _ = wanted.wait_for(|wanted| *wanted == 0) => {
                                self.live.send_replace(None);
                                if *self.wanted.borrow() == 0 {
                                    break;
                                }
                                // A client came while the last one left: nothing was missed, so it keeps this subscription.
                                self.live.send_replace(Some(Ok(())));
                            }
                        }
                    }
                }
            }
        }
    }

    fn end_all(&self) {
        self.members.retain(|_, member| {
            member.end("the connection to the node was lost: heads may be missing");
            false
        });
    }
}

/// Keeps a relay's upstream subscription up.
#[derive(Debug)]
pub struct Lease(Arc<Relay>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.wanted.send_modify(|wanted| *wanted -= 1);
    }
}
