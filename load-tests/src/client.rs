//! A small JSON-RPC client over one WebSocket (`ws://` only): pipelined requests, batches and subscriptions. It shares no code
//! with Sluice's own client to its nodes, on purpose.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::lock;

/// Frames that wait to be written, and notifications of one subscription that wait to be read. Who lags further behind loses the
/// connection: a test that does not read is a broken test.
const QUEUE: usize = 65_536;
/// Frames that are written as one.
const TOGETHER: usize = 64;

/// Why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error object.
    #[error("{code}: {message} ({data})")]
    Rpc {
        /// JSON-RPC code.
        code: i64,
        /// Its words.
        message: String,
        /// Its `data`; null without.
        data: Value,
    },
    /// The handshake was answered with another HTTP status than 101.
    #[error("HTTP status {0}")]
    Status(u16),
    /// No connection, or it ended before the answer.
    #[error("connection: {0}")]
    Connection(String),
}

impl ClientError {
    /// `data.reason` of an error object.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Rpc { data, .. } => data.get("reason").and_then(Value::as_str),
            _ => None,
        }
    }

    /// The JSON-RPC code of an error object.
    pub fn code(&self) -> Option<i64> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }
}

type Answer = Result<Value, ClientError>;

#[derive(Debug)]
enum Pending {
    One(oneshot::Sender<Answer>),
    Batch { first: u64, count: usize, answer: oneshot::Sender<Result<Vec<Answer>, ClientError>> },
}

#[derive(Debug)]
struct Stream {
    sender: mpsc::Sender<Value>,
    /// Until the subscriber fetches it: a notification may overtake the answer that names its subscription.
    receiver: Option<mpsc::Receiver<Value>>,
}

impl Stream {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver: Some(receiver) }
    }
}

#[derive(Debug, Default)]
struct Routes {
    pending: HashMap<u64, Pending>,
    streams: HashMap<String, Stream>,
    closed: bool,
}

/// One WebSocket to a JSON-RPC server; closed when dropped.
#[derive(Debug)]
pub struct Client {
    outgoing: mpsc::Sender<String>,
    routes: Arc<Mutex<Routes>>,
    next_id: AtomicU64,
    task: JoinHandle<()>,
}

/// The notifications of one subscription: `params.result` of each.
#[derive(Debug)]
pub struct Subscription {
    /// The server's id.
    pub id: String,
    receiver: mpsc::Receiver<Value>,
}

impl Subscription {
    /// The next notification; `None` once the connection has ended.
    pub async fn next(&mut self) -> Option<Value> {
        self.receiver.recv().await
    }
}

impl Client {
    /// Connects, with these extra headers in the handshake.
    pub async fn connect(url: &str, headers: &[(&'static str, &str)]) -> Result<Self, ClientError> {
        let broken = |error: &dyn std::fmt::Display| ClientError::Connection(error.to_string());
        let mut request = url.into_client_request().map_err(|error| broken(&error))?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().map_err(|error: http::header::InvalidHeaderValue| broken(&error))?);
        }
        // On the heap: the handshake is a large future, and who awaits it would carry it along.
        let connected = Box::pin(tokio_tungstenite::connect_async_with_config(request, None, true)).await;
        let (socket, _) = connected.map_err(|error| match error {
            tungstenite::Error::Http(answer) => ClientError::Status(answer.status().as_u16()),
            error => broken(&error),
        })?;
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let routes = Arc::new(Mutex::new(Routes::default()));
        let task = tokio::spawn(run(socket, queue, Arc::clone(&routes)));
        Ok(Self { outgoing, routes, next_id: AtomicU64::new(1), task })
    }

    /// Sends the request now; the future is its answer. Requests go out in the order of these calls.
    pub fn start(&self, method: &str, params: Value) -> impl Future<Output = Answer> + Send + 'static + use<> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let sent = self.send(id, Pending::One(answer), text);
        async move {
            sent?;
            answered.await.unwrap_or_else(|_| Err(closed()))
        }
    }

    /// One request and its answer.
    pub async fn request(&self, method: &str, params: Value) -> Answer {
        self.start(method, params).await
    }

    /// One JSON-RPC batch; the answers in the order of the requests, whatever order they came in.
    pub async fn batch(&self, requests: &[(&str, Value)]) -> Result<Vec<Answer>, ClientError> {
        let count = requests.len();
        let first = self.next_id.fetch_add(count as u64, Ordering::Relaxed);
        let items: Vec<Value> = (first..)
            .zip(requests)
            .map(|(id, (method, params))| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .collect();
        let (answer, answered) = oneshot::channel();
        self.send(first, Pending::Batch { first, count, answer }, Value::Array(items).to_string())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// `eth_subscribe` with these parameters.
    pub async fn subscribe(&self, params: Value) -> Result<Subscription, ClientError> {
        self.subscribe_by("eth_subscribe", params).await
    }

    /// A subscription by another method of the same shape.
    pub async fn subscribe_by(&self, method: &str, params: Value) -> Result<Subscription, ClientError> {
        let id = self.request(method, params).await?;
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let mut routes = lock(&self.routes);
        if routes.closed {
            return Err(closed());
        }
        let receiver = routes.streams.entry(id.clone()).or_insert_with(Stream::new).receiver.take();
        receiver.map(|receiver| Subscription { id, receiver }).ok_or_else(|| ClientError::Connection("a subscription id came twice".into()))
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        lock(&self.routes).closed
    }

    fn send(&self, id: u64, pending: Pending, text: String) -> Result<(), ClientError> {
        let mut routes = lock(&self.routes);
        if routes.closed {
            return Err(closed());
        }
        // Under the lock: ids go out in the order in which they are on record.
        self.outgoing.try_send(text).map_err(|error| ClientError::Connection(error.to_string()))?;
        routes.pending.insert(id, pending);
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn closed() -> ClientError {
    ClientError::Connection("closed".into())
}

/// Writes frames that are there at the same time as one: a client must not be what a benchmark measures.
async fn write_all(write: &mut (impl SinkExt<Message> + Unpin), texts: &mut Vec<String>) -> bool {
    for text in texts.drain(..) {
        if write.feed(Message::Text(text.into())).await.is_err() {
            return false;
        }
    }
    write.flush().await.is_ok()
}

async fn run(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, mut queue: mpsc::Receiver<String>, routes: Arc<Mutex<Routes>>) {
    let (mut write, mut read) = socket.split();
    let mut texts = Vec::new();
    loop {
        tokio::select! {
            count = queue.recv_many(&mut texts, TOGETHER) => {
                if count == 0 || !write_all(&mut write, &mut texts).await {
                    break;
                }
            }
            message = read.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let Ok(json) = serde_json::from_str::<Value>(text.as_str()) else { break };
                    if !deliver(&mut lock(&routes), json) {
                        break;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
    }
    let mut routes = lock(&routes);
    routes.closed = true;
    // Dropping the senders tells everybody who waits.
    routes.pending.clear();
    routes.streams.clear();
}

/// Brings a message to whoever waits for it; `false` if a reader has fallen too far behind.
fn deliver(routes: &mut Routes, json: Value) -> bool {
    match json {
        Value::Array(items) => {
            let first = items.iter().filter_map(|item| item.get("id").and_then(Value::as_u64)).min();
            if let Some(Pending::Batch { first, count, answer }) = first.and_then(|id| routes.pending.remove(&id)) {
                let _ = answer.send(Ok(in_order(first, count, items)));
            }
        }
        mut json => {
            if let Some(params) = json.get_mut("params") {
                let id = params.get("subscription").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
                let stream = routes.streams.entry(id.unwrap_or_default()).or_insert_with(Stream::new);
                return !matches!(stream.sender.try_send(params["result"].take()), Err(mpsc::error::TrySendError::Full(_)));
            }
            match json.get("id").and_then(Value::as_u64).and_then(|id| routes.pending.remove(&id)) {
                Some(Pending::One(answer)) => drop(answer.send(outcome(json))),
                // A batch may be refused as a whole, by one object.
                Some(Pending::Batch { answer, .. }) => drop(answer.send(outcome(json).map(|_| Vec::new()))),
                None => refuse_batch(routes, json),
            }
        }
    }
    true
}

/// An error object without an id, which a server sends when it refuses a whole batch, goes to the one batch in flight.
fn refuse_batch(routes: &mut Routes, json: Value) {
    let mut batches = routes.pending.iter().filter(|(_, pending)| matches!(pending, Pending::Batch { .. })).map(|(id, _)| *id);
    if let (Some(id), None) = (batches.next(), batches.next())
        && let Some(Pending::Batch { answer, .. }) = routes.pending.remove(&id)
    {
        let _ = answer.send(outcome(json).map(|_| Vec::new()));
    }
}

fn in_order(first: u64, count: usize, items: Vec<Value>) -> Vec<Answer> {
    let mut by_id: HashMap<u64, Value> = items.into_iter().filter_map(|item| Some((item.get("id")?.as_u64()?, item))).collect();
    (first..)
        .take(count)
        .map(|id| by_id.remove(&id).map_or_else(|| Err(ClientError::Connection("an item of the batch has no answer".into())), outcome))
        .collect()
}

/// The result or the error of one answer.
pub fn outcome(mut answer: Value) -> Answer {
    match answer.get_mut("error") {
        Some(error) if !error.is_null() => Err(ClientError::Rpc {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
            data: error["data"].take(),
        }),
        _ => Ok(answer.get_mut("result").map(Value::take).unwrap_or_default()),
    }
}
