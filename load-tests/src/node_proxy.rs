//! A WebSocket proxy before a node: records every `eth_sendRawTransaction` in order of arrival, passes the text of all messages
//! on as it came, and breaks what a script says: refused connections, cut connections, other answers to raw sends.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async_with_config, client_async_with_config};

use crate::listener::Listener;
use crate::lock;
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

#[derive(Debug, Default)]
struct Inner {
    sent: Vec<Sent>,
    faults: VecDeque<RawFault>,
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
        let shared = Arc::new(Shared { upstream, inner: Mutex::default(), cuts: watch::Sender::new(0) });
        let entered = Arc::clone(&shared);
        let enter = move |stream| {
            // Before the look at `refusing`: who refuses first and cuts then must not miss this connection.
            let mut cuts = entered.cuts.subscribe();
            let open = Open::enter(&entered)?;
            Some(async move {
                tokio::select! {
                    () = relay(stream, &open.shared, open.number) => {}
                    _ = cuts.changed() => {}
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

/// A node's answers may be large (receipts of a block, logs): no limit of ours.
fn unlimited() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

type Upstream = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(upstream: SocketAddr) -> Option<Upstream> {
    let stream = TcpStream::connect(upstream).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let stream = MaybeTlsStream::Plain(stream);
    client_async_with_config(format!("ws://{upstream}/"), stream, Some(unlimited())).await.ok().map(|(socket, _)| socket)
}

/// What a rewritten answer becomes, by the request's id as JSON text.
type Rewrites = HashMap<String, Option<String>>;

async fn relay(stream: TcpStream, shared: &Shared, number: u64) {
    let Ok(client) = accept_async_with_config(stream, Some(unlimited())).await else { return };
    let Some(node) = connect(shared.upstream).await else { return };
    let (mut to_client, mut from_client) = client.split();
    let (mut to_node, mut from_node) = node.split();
    let mut rewrites = Rewrites::new();
    // One loop and one place for every frame: the order of arrival is the order on record and the order of passing on.
    loop {
        let passed = tokio::select! {
            message = from_client.next() => match message {
                Some(Ok(Message::Text(text))) => match request(shared, number, &text, &mut rewrites) {
                    Verdict::Pass => to_node.send(Message::Text(text)).await,
                    Verdict::Answer(answer) => to_client.send(Message::Text(answer.into())).await,
                    Verdict::Nothing => Ok(()),
                },
                Some(Ok(message)) => to_node.send(message).await,
                _ => return,
            },
            message = from_node.next() => match message {
                Some(Ok(Message::Text(text))) => match rewritten(&text, &mut rewrites) {
                    None => to_client.send(Message::Text(text)).await,
                    Some(Some(other)) => to_client.send(Message::Text(other.into())).await,
                    Some(None) => Ok(()),
                },
                Some(Ok(message)) => to_client.send(message).await,
                _ => return,
            },
        };
        if passed.is_err() {
            return;
        }
    }
}

enum Verdict {
    Pass,
    Answer(String),
    Nothing,
}

/// Records the raw sends of a frame and says what becomes of it.
fn request(shared: &Shared, number: u64, text: &Utf8Bytes, rewrites: &mut Rewrites) -> Verdict {
    if !text.as_str().contains("eth_sendRawTransaction") {
        return Verdict::Pass;
    }
    let Ok(json) = serde_json::from_str::<Value>(text.as_str()) else { return Verdict::Pass };
    let mut inner = lock(&shared.inner);
    if let Value::Array(items) = &json {
        inner.sent.extend(items.iter().filter_map(raw_of).map(|raw| Sent { connection: number, raw, forwarded: true }));
        return Verdict::Pass;
    }
    let Some(raw) = raw_of(&json) else { return Verdict::Pass };
    let answer = inner.faults.front_mut().map(|fault| {
        fault.count = if fault.count == u64::MAX { u64::MAX } else { fault.count.saturating_sub(1) };
        fault.answer.clone()
    });
    inner.faults.retain(|fault| fault.count > 0);
    let id = json.get("id").cloned().unwrap_or_default();
    let (forwarded, verdict) = match answer {
        None => (true, Verdict::Pass),
        Some(RawAnswer::Refuse { code, message }) => (false, Verdict::Answer(error(&id, code, &message))),
        Some(RawAnswer::Lose) => (false, Verdict::Nothing),
        Some(RawAnswer::Swallow) => {
            rewrites.insert(id.to_string(), None);
            (true, Verdict::Pass)
        }
        Some(RawAnswer::Lie { code, message }) => {
            rewrites.insert(id.to_string(), Some(error(&id, code, &message)));
            (true, Verdict::Pass)
        }
    };
    inner.sent.push(Sent { connection: number, raw, forwarded });
    verdict
}

/// `None`: the frame goes on as it is. `Some(None)`: it is thrown away. `Some(text)`: this goes on instead.
fn rewritten(text: &Utf8Bytes, rewrites: &mut Rewrites) -> Option<Option<String>> {
    if rewrites.is_empty() {
        return None;
    }
    let json = serde_json::from_str::<Value>(text.as_str()).ok()?;
    rewrites.remove(&json.get("id")?.to_string())
}

fn raw_of(request: &Value) -> Option<String> {
    if request.get("method")?.as_str()? != "eth_sendRawTransaction" {
        return None;
    }
    Some(request.get("params")?.get(0)?.as_str()?.to_owned())
}

fn error(id: &Value, code: i64, message: &str) -> String {
    serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
}
