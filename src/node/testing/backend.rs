//! A scripted node on a loopback WebSocket, over HTTP or on a Unix socket. It answers what belongs to connecting and to heads by itself; every
//! other request goes to the test, which says what is answered, when and how.

mod http;
mod ipc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use url::Url;

use crate::config::Transport;

/// What the node says by itself.
pub(crate) struct Script {
    pub(crate) chain_id: u64,
    pub(crate) genesis: u8,
    pub(crate) head: (u64, u8),
    /// Its blocks by number are those that end in this, added to the number; without it the test answers.
    pub(crate) history: Option<u8>,
    /// Leave even these requests to the test.
    pub(crate) manual: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { chain_id: 31337, genesis: 1, head: (10, 10), history: None, manual: false }
    }
}

#[derive(Default)]
struct State {
    script: Script,
    peers: Vec<Peer>,
    connections: usize,
}

/// What a connection is told.
enum Order {
    Write(String),
    /// Over HTTP: this status and no body.
    Status(u16),
    /// It reads nothing more, not even pings, and stays open.
    Deafen,
    Drop,
}

/// One connection's way out.
#[derive(Clone)]
pub(crate) struct Peer(mpsc::UnboundedSender<Order>);

impl Peer {
    pub(crate) fn text(&self, text: impl ToString) {
        self.0.send(Order::Write(text.to_string())).ok();
    }

    pub(crate) fn status(&self, code: u16) {
        self.0.send(Order::Status(code)).ok();
    }

    pub(crate) fn disconnect(&self) {
        self.0.send(Order::Drop).ok();
    }

    pub(crate) fn deafen(&self) {
        self.0.send(Order::Deafen).ok();
    }

    pub(crate) fn notify(&self, subscription: &str, item: Value) {
        let params = json!({ "subscription": subscription, "result": item });
        self.text(json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": params }));
    }
}

/// A request that the test answers.
pub(crate) struct Asked {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) peer: Peer,
    /// Requests that came with it, itself included.
    pub(crate) together: usize,
}

impl Asked {
    fn read(request: &Value, peer: Peer, together: usize) -> Self {
        assert_eq!(request["jsonrpc"], "2.0");
        let method = request["method"].as_str().unwrap().to_owned();
        Self { id: request["id"].clone(), method, params: request["params"].clone(), peer, together }
    }

    /// Answered by the node itself, or given to the test.
    fn settle(self, state: &Mutex<State>, ask: &mpsc::UnboundedSender<Self>) {
        match by_itself(&state.lock().unwrap().script, &self) {
            Some(result) => self.answer(result),
            None => drop(ask.send(self)),
        }
    }

    pub(crate) fn answer(&self, result: Value) {
        self.peer.text(json!({ "jsonrpc": "2.0", "id": self.id, "result": result }));
    }

    pub(crate) fn error(&self, code: i64, message: &str) {
        self.peer.text(json!({ "jsonrpc": "2.0", "id": self.id, "error": { "code": code, "message": message } }));
    }
}

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    asked: mpsc::UnboundedReceiver<Asked>,
    ask: mpsc::UnboundedSender<Asked>,
    accepting: Option<JoinHandle<()>>,
    tls: Option<TlsAcceptor>,
    transport: Transport,
    /// Of the Unix socket.
    path: Option<PathBuf>,
}

pub(crate) fn hash(byte: u8) -> String {
    format!("0x{}", format!("{byte:02x}").repeat(32))
}

pub(crate) fn header((number, byte): (u64, u8)) -> Value {
    json!({ "number": format!("{number:#x}"), "hash": hash(byte), "parentHash": hash(byte.wrapping_sub(1)),
            "timestamp": format!("{:#x}", 1000 + number), "baseFeePerGas": "0x7", "logsBloom": "0x00" })
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::with(Script::default()).await
    }

    pub(crate) async fn with(script: Script) -> Self {
        Self::by(Transport::WebSocket, script, None).await
    }

    /// A node that is asked over HTTP.
    pub(crate) async fn http() -> Self {
        Self::by(Transport::Http, Script::default(), None).await
    }

    /// A node with a Unix socket at this path.
    pub(crate) async fn ipc(path: PathBuf) -> Self {
        let mut backend = Self::new(Transport::Ipc, Script::default(), None);
        backend.path = Some(path);
        backend.up().await;
        backend
    }

    pub(crate) async fn by(transport: Transport, script: Script, tls: Option<TlsAcceptor>) -> Self {
        let mut backend = Self::new(transport, script, tls);
        backend.up().await;
        backend
    }

    fn new(transport: Transport, script: Script, tls: Option<TlsAcceptor>) -> Self {
        let (ask, asked) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(State { script, ..State::default() }));
        let address = "127.0.0.1:0".parse().unwrap();
        Self { address, state, asked, ask, accepting: None, tls, transport, path: None }
    }

    pub(crate) fn url(&self) -> Url {
        let url = match (&self.path, self.transport) {
            (Some(path), _) => format!("ipc://{}", path.display()),
            (None, Transport::Http) => format!("http://{}", self.address),
            (None, _) => format!("ws://{}", self.address),
        };
        Url::parse(&url).unwrap()
    }

    /// Accepts connections, on the same port as before.
    pub(crate) async fn up(&mut self) {
        if let Some(path) = &self.path {
            self.accepting = Some(tokio::spawn(ipc::accept(path.clone(), self.state.clone(), self.ask.clone())));
            return until_there(path).await;
        }
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, ask, tls, transport) = (self.state.clone(), self.ask.clone(), self.tls.clone(), self.transport);
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (state, ask) = (state.clone(), ask.clone());
                match tls.clone() {
                    None if transport == Transport::Http => drop(tokio::spawn(http::serve(tcp, state, ask))),
                    None => drop(tokio::spawn(serve(tcp, state, ask))),
                    Some(tls) => drop(tokio::spawn(async move {
                        match tls.accept(tcp).await {
                            Ok(stream) if transport == Transport::Http => http::serve(stream, state, ask).await,
                            Ok(stream) => serve(stream, state, ask).await,
                            Err(_) => {}
                        }
                    })),
                }
            }
        }));
    }

    /// Refuses connections and ends those that there are.
    pub(crate) async fn down(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            accepting.await.ok();
        }
        self.disconnect();
    }

    pub(crate) fn disconnect(&self) {
        self.state.lock().unwrap().peers.drain(..).for_each(|peer| peer.disconnect());
    }

    /// Leaves the connections that there are half open: they stay, and nothing that is written to them is read.
    pub(crate) fn deafen(&self) {
        self.state.lock().unwrap().peers.iter().for_each(Peer::deafen);
    }

    /// Changes what the node says by itself.
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.state.lock().unwrap().script);
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// A new head, announced to every connection.
    pub(crate) fn announce(&self, head: (u64, u8)) {
        let mut state = self.state.lock().unwrap();
        state.script.head = head;
        state.peers.iter().for_each(|peer| peer.notify("0xheads", header(head)));
    }

    /// A notification to every connection.
    pub(crate) fn notify(&self, subscription: &str, item: &Value) {
        self.state.lock().unwrap().peers.iter().for_each(|peer| peer.notify(subscription, item.clone()));
    }

    /// The next request that is not answered by itself.
    pub(crate) async fn asked(&mut self) -> Asked {
        super::soon(self.asked.recv()).await.unwrap()
    }

    pub(crate) fn nothing_asked(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

/// A new connection, and what it is told.
fn enter(state: &Mutex<State>) -> (Peer, mpsc::UnboundedReceiver<Order>) {
    let (out, outgoing) = mpsc::unbounded_channel();
    let peer = Peer(out);
    let mut state = state.lock().unwrap();
    state.connections += 1;
    state.peers.push(peer.clone());
    (peer, outgoing)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, state: Arc<Mutex<State>>, ask: mpsc::UnboundedSender<Asked>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (peer, mut outgoing) = enter(&state);
    let mut deaf = false;
    loop {
        tokio::select! {
            message = socket.next(), if !deaf => match message {
                Some(Ok(Message::Text(text))) => {
                    let request: Value = serde_json::from_str(&text).unwrap();
                    Asked::read(&request, peer.clone(), 1).settle(&state, &ask);
                }
                Some(Ok(_)) => {}
                _ => return,
            },
            order = outgoing.recv() => match order {
                Some(Order::Write(text)) => if socket.send(Message::Text(text.into())).await.is_err() { return },
                Some(Order::Deafen) => deaf = true,
                Some(Order::Status(_) | Order::Drop) | None => return,
            },
        }
    }
}

/// By a number, or by a hash that is the same byte many times.
fn history(script: &Script, block: &str) -> Option<Value> {
    let more = script.history?;
    let number = match block.len() {
        66 => u64::from(u8::from_str_radix(&block[64..], 16).ok()?.wrapping_sub(more)),
        _ => u64::from_str_radix(block.trim_start_matches("0x"), 16).ok()?,
    };
    Some(header((number, (number as u8).wrapping_add(more))))
}

async fn until_there(path: &std::path::Path) {
    super::soon(async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn by_itself(script: &Script, asked: &Asked) -> Option<Value> {
    let first = &asked.params[0];
    match asked.method.as_str() {
        _ if script.manual => None,
        "web3_clientVersion" if asked.id == "ping" => Some(json!("test")),
        "eth_chainId" => Some(json!(format!("{:#x}", script.chain_id))),
        "eth_getBlockByNumber" if first == "0x0" => Some(header((0, script.genesis))),
        "eth_getBlockByNumber" if first == "latest" => Some(header(script.head)),
        "eth_getBlockTransactionCountByHash" => Some(json!("0x0")),
        "eth_getBlockByNumber" | "eth_getBlockByHash" if script.history.is_some() => history(script, first.as_str()?),
        "eth_subscribe" if first == "newHeads" => Some(json!("0xheads")),
        "eth_unsubscribe" if first == "0xheads" => Some(json!(true)),
        _ => None,
    }
}
