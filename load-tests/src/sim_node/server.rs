//! The way to a simulated node: WebSocket over any stream, WebSocket and HTTP over TCP, and a block timer. All clocks are tokio's.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::B256;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::node::{Delivery, Node, Outgoing, Reorg};
use super::settings::Settings;
use crate::listener::Listener;
use crate::lock;

/// Largest HTTP request, in bytes.
const MAX_BODY: usize = 16 << 20;

#[derive(Debug)]
struct Inner {
    node: Node,
    outboxes: BTreeMap<u64, mpsc::UnboundedSender<Delivery>>,
}

/// A simulated node that can be reached. Clones are the same node.
#[derive(Debug, Clone)]
pub struct SimNode {
    inner: Arc<Mutex<Inner>>,
    /// The zero of the node's clock.
    start: Instant,
}

/// A connection of the node, which it forgets when this is dropped.
struct Connection {
    node: SimNode,
    number: u64,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    /// What is to be brought, by its time and then in its order.
    queue: BTreeMap<(Duration, u64), Outgoing>,
    queued: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut inner = lock(&self.node.inner);
        inner.outboxes.remove(&self.number);
        inner.node.disconnect(self.number);
    }
}

impl Connection {
    fn queue(&mut self, delivery: Delivery) {
        self.queued += 1;
        self.queue.insert((delivery.at, self.queued), delivery.what);
    }

    /// The next thing that is due; waits for it. `None` never comes while the node lives. Can be cancelled without loss.
    async fn due(&mut self) -> Outgoing {
        loop {
            while let Ok(delivery) = self.deliveries.try_recv() {
                self.queue(delivery);
            }
            let first = self.queue.first_key_value().map(|((at, _), _)| self.node.start + *at);
            if first.is_some_and(|at| at <= Instant::now())
                && let Some((_, outgoing)) = self.queue.pop_first()
            {
                return outgoing;
            }
            let timer = async {
                match first {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                delivery = self.deliveries.recv() => match delivery {
                    Some(delivery) => self.queue(delivery),
                    None => return Outgoing::Cut,
                },
                () = timer => {}
            }
        }
    }
}

impl SimNode {
    /// A node whose clock begins now. Must be called in a tokio runtime.
    pub fn new(settings: Settings) -> Self {
        Self::of(Node::new(settings))
    }

    /// The same around a node that is there already, and has no connections.
    pub fn of(node: Node) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { node, outboxes: BTreeMap::new() })), start: Instant::now() }
    }

    /// Time on the node's clock.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Looks at the node or steers it, at the given time; what comes of it goes to the connections.
    pub fn with<T>(&self, act: impl FnOnce(&mut Node, Duration) -> T) -> T {
        let mut inner = lock(&self.inner);
        let result = act(&mut inner.node, self.start.elapsed());
        for delivery in inner.node.take_deliveries() {
            if let Some(outbox) = inner.outboxes.get(&delivery.connection) {
                // Its connection is ending.
                let _gone = outbox.send(delivery);
            }
        }
        result
    }

    /// [`Node::mine`], now.
    pub fn mine(&self) -> B256 {
        self.with(Node::mine)
    }

    /// [`Node::reorg`], now.
    pub fn reorg(&self, reorg: Reorg) -> B256 {
        self.with(|node, now| node.reorg(now, reorg))
    }

    /// Makes a block after every interval, for ever.
    pub async fn run_blocks(&self, interval: Duration) {
        let mut timer = tokio::time::interval_at(Instant::now() + interval, interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.with(Node::tick);
        }
    }

    fn connection(&self) -> Connection {
        let (outbox, deliveries) = mpsc::unbounded_channel();
        let mut inner = lock(&self.inner);
        let number = inner.node.connect();
        inner.outboxes.insert(number, outbox);
        drop(inner);
        Connection { node: self.clone(), number, deliveries, queue: BTreeMap::new(), queued: 0 }
    }

    /// Serves one WebSocket to its end. The stream is dropped at once where the node is down or cuts the connection.
    pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(&self, stream: S) {
        if self.with(|node, now| node.is_down(now)) {
            return;
        }
        let Ok(mut socket) = accept_async(stream).await else { return };
        let mut connection = self.connection();
        loop {
            tokio::select! {
                biased;
                outgoing = connection.due() => {
                    let text = match outgoing {
                        Outgoing::Text(text) => text,
                        Outgoing::Cut => return,
                        Outgoing::Hang => break,
                    };
                    if socket.send(Message::Text(text.into())).await.is_err() {
                        return;
                    }
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.with(|node, now| node.receive(now, connection.number, text.as_str())),
                    Some(Ok(Message::Binary(bytes))) => {
                        let text = String::from_utf8_lossy(&bytes);
                        self.with(|node, now| node.receive(now, connection.number, &text));
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
        drop(connection);
        swallow(socket.into_inner()).await;
    }

    /// Listens for WebSockets, which are at its URL, and HTTP POST at the same port; port 0 is a free one.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let node = self.clone();
        let enter = move |stream| {
            let node = node.clone();
            Some(async move { serve(&node, stream).await })
        };
        Listener::start("ws", address, enter).await
    }

    async fn answer_http(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, CutConnection> {
        if request.method() != Method::POST {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return Ok(response);
        }
        let body = Limited::new(request.into_body(), MAX_BODY).collect().await.map_err(|_| CutConnection)?.to_bytes();
        let mut connection = self.connection();
        self.with(|node, now| node.receive(now, connection.number, &String::from_utf8_lossy(&body)));
        let text = match connection.due().await {
            Outgoing::Text(text) => text,
            Outgoing::Cut => return Err(CutConnection),
            // Until the caller gives up.
            Outgoing::Hang => std::future::pending().await,
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// Keeps a stream open until its peer ends it: what comes is taken, and nobody looks at it.
pub(crate) async fn swallow<S: AsyncRead + Unpin>(mut stream: S) {
    // An error is its end too.
    let _ended = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct CutConnection;

/// A WebSocket begins with GET; everything else is HTTP.
async fn serve(node: &SimNode, stream: TcpStream) {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == *b"G" => node.serve_connection(stream).await,
        Ok(1) if !node.with(|node, now| node.is_down(now)) => {
            let service = service_fn(|request| node.answer_http(request));
            // An error here is a cut connection, ours or the caller's.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
        _ => {}
    }
}
