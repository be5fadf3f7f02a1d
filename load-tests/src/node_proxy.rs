//! A WebSocket proxy before a node: records every `eth_sendRawTransaction` in order of arrival, passes the text of all messages
//! on as it came, and breaks what a script says: refused, cut, half-open and stalled connections, other answers to raw sends, other heads.

mod relay;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use self::relay::relay;
use crate::announcements::HeadFault;
use crate::faults::Faults;
use crate::listener::Listener;
use crate::lock;
use crate::random::Random;
use crate::sim_node::swallow;
use crate::transaction::{Decoded, decode};

/// One raw transaction that was sent to the node (or taken from the way to it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Number of the connection it came on, from 1, in order of acceptance.
    pub connection: u64,
    /// The signed bytes as 0x-hex, as they came.
    pub raw: String,
    /// Whether the node got it.
    pub forwarded: bool,
}

impl Sent {
    /// Who signed it, its nonce and hash; `None` if the bytes are no transaction.
    pub fn decode(&self) -> Option<Decoded> {
        decode(&self.raw)
    }
}

/// What happens to a raw send instead of the node's own answer. Scripts reach single requests, not those in a JSON-RPC batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawAnswer {
    /// The node never sees it; the sender gets this error.
    Refuse {
        /// JSON-RPC error code.
        code: i64,
        /// Its message.
        message: String,
    },
    /// The node gets it and its answer is thrown away.
    Swallow,
    /// The node never sees it and the sender gets no answer.
    Lose,
    /// The node gets it, and the sender gets this error instead of the node's answer.
    Lie {
        /// JSON-RPC error code.
        code: i64,
        /// Its message.
        message: String,
    },
}

/// One line of the script: the next `count` raw sends get `answer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFault {
    /// How many; `u64::MAX` for all to come.
    pub count: u64,
    /// What they get.
    pub answer: RawAnswer,
}

impl RawFault {
    /// The node never sees the next `count` raw sends; their senders get -32000, as for most that nodes refuse, and this message.
    pub fn refuses(count: u64, message: &str) -> Self {
        Self { count, answer: RawAnswer::Refuse { code: -32000, message: message.into() } }
    }
}

#[derive(Debug)]
struct Inner {
    sent: Vec<Sent>,
    faults: VecDeque<RawFault>,
    head_faults: Faults<HeadFault>,
    /// Heads that were not told as the node did.
    misled: u64,
    /// Decides chances.
    luck: Random,
    refusing: bool,
    connections: u64,
    open: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    inner: Mutex<Inner>,
    /// Goes up by one to cut every connection that was made before.
    cuts: watch::Sender<u64>,
    /// Goes up by one to make every connection half-open that was made before.
    hangs: watch::Sender<u64>,
    /// Whether nothing passes.
    stalled: watch::Sender<bool>,
}

/// A running proxy; it stops, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct NodeProxy {
    listener: Listener,
    shared: Arc<Shared>,
}

impl NodeProxy {
    /// Listens on a free port of 127.0.0.1, before the node at `upstream` (plain WebSocket).
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let inner = Inner {
            sent: Vec::new(),
            faults: VecDeque::new(),
            head_faults: Faults::default(),
            misled: 0,
            luck: Random::new(u64::from(upstream.port()), "heads"),
            refusing: false,
            connections: 0,
            open: 0,
        };
        let (cuts, hangs, stalled) = (watch::Sender::new(0), watch::Sender::new(0), watch::Sender::new(false));
        let shared = Arc::new(Shared { upstream, inner: Mutex::new(inner), cuts, hangs, stalled });
        let entered = Arc::clone(&shared);
        let enter = move |stream| {
            // Before the look at `refusing`: who refuses first and cuts then must not miss this connection.
            let (mut cuts, mut hangs) = (entered.cuts.subscribe(), entered.hangs.subscribe());
            let open = Open::enter(&entered)?;
            Some(async move {
                let mut client = None;
                tokio::select! {
                    () = relay(stream, &mut client, &open.shared, open.number) => return,
                    _ = cuts.changed() => return,
                    _ = hangs.changed() => {}
                }
                // Half-open: the node's side of it is gone with the relay.
                if let Some(client) = client {
                    tokio::select! {
                        () = swallow(client.into_inner()) => {}
                        _ = cuts.changed() => {}
                    }
                }
            })
        };
        Ok(Self { listener: Listener::start("ws", (Ipv4Addr::LOCALHOST, 0).into(), enter).await?, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Its WebSocket URL.
    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// Every raw send so far, in order of arrival.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.shared.inner).sent.clone()
    }

    /// How many raw sends there were: cheaper than [`NodeProxy::sent`] for polling.
    pub fn sent_count(&self) -> usize {
        lock(&self.shared.inner).sent.len()
    }

    /// Forgets the raw sends.
    pub fn reset(&self) {
        lock(&self.shared.inner).sent.clear();
    }

    /// Connections accepted since the start, and those open now.
    pub fn connections(&self) -> (u64, u64) {
        let inner = lock(&self.shared.inner);
        (inner.connections, inner.open)
    }

    /// Replaces the script for raw sends; an empty one heals.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = RawFault>) {
        lock(&self.shared.inner).faults = faults.into_iter().collect();
    }

    /// What goes wrong with the heads that the node announces from now on, instead of what did. Each subscription counts for itself.
    pub fn set_head_faults(&self, faults: Faults<HeadFault>) {
        lock(&self.shared.inner).head_faults = faults;
    }

    /// Heads that were not told as the node told them: by their faults, or behind one that was.
    pub fn misled(&self) -> u64 {
        lock(&self.shared.inner).misled
    }

    /// Every open connection is half-open from here on: it stays, what comes on it is taken and not looked at, and nothing goes out on it, not even
    /// the answer to a ping. The node's side of it ends. New ones are as usual.
    pub fn hang(&self) {
        self.shared.hangs.send_modify(|hangs| *hangs += 1);
    }

    /// Nothing is read and nothing passes on any connection, new ones included, until this is ended; then all of it, in order.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.send_replace(stalled);
    }

    /// Cuts every open connection, without a closing handshake. New ones are accepted unless refused.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Refuses new connections (they end before the handshake), or accepts them again.
    pub fn refuse(&self, refuse: bool) {
        lock(&self.shared.inner).refusing = refuse;
    }
}

/// Counts an open connection until dropped.
struct Open {
    shared: Arc<Shared>,
    number: u64,
}

impl Open {
    fn enter(shared: &Arc<Shared>) -> Option<Self> {
        let mut inner = lock(&shared.inner);
        if inner.refusing {
            return None;
        }
        inner.connections += 1;
        inner.open += 1;
        Some(Self { shared: Arc::clone(shared), number: inner.connections })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut inner = lock(&self.shared.inner);
        inner.open = inner.open.saturating_sub(1);
    }
}
