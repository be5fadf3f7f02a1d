//! Tests over real sockets: a server in this process, a small module of methods, a scripted node.

mod accounts;
mod admin;
mod batches;
mod calls;
mod door;
mod generations;
mod lifecycle;
mod limits;
mod reload;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::Address;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use jsonrpsee::RpcModule;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_util::sync::CancellationToken;

use self::generations::{generation, served, whole};
use super::admin::accounts::{OrderError, Wanted};
use super::admin::{AdminContext, Overview, Readiness};
use super::{Generation, Listener, Live, Served, ServerError, Socket};
use crate::config;
use crate::node::{CallError, NodeError};
use crate::policy::Principal;
use crate::rpc::batch::BatchOrder;
use crate::rpc::pass_through::{PassThrough, in_namespaces};
use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::metrics::Metrics;

/// No test asserts a duration; this only ends one that would hang.
const HANG: Duration = Duration::from_secs(60);

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, future).await.expect("hangs")
}

/// What the methods share with the test.
struct World {
    /// Lets `test_wait` go on; one permit each.
    go: Semaphore,
    /// One permit for each `test_wait` that has begun.
    begun: Semaphore,
    /// What ran, in order.
    log: Mutex<Vec<String>>,
    /// Method and params of what passed through.
    passed: Mutex<Vec<(String, Option<String>)>>,
}

impl Default for World {
    fn default() -> Self {
        Self { go: Semaphore::new(0), begun: Semaphore::new(0), log: Mutex::default(), passed: Mutex::default() }
    }
}

impl World {
    /// Resolves when so many `test_wait` run.
    async fn waiting(&self, calls: u32) {
        soon(self.begun.acquire_many(calls)).await.unwrap().forget();
    }

    fn log(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }
}

/// Bytes that any parser between client and node would change.
const ODD: &str = r#"{ "b" : 1.50e+2 ,"a":	18446744073709551616000,  "\u0061": [ 0.10 , -0 , 1E400 ] }"#;

struct Node(Arc<World>);

impl PassThrough for Node {
    fn allows(&self, method: &str) -> bool {
        in_namespaces(method, &["debug".to_owned()])
    }

    fn call<'a>(&'a self, method: &'a str, params: Option<&'a RawValue>) -> BoxFuture<'a, Result<Arc<RawValue>, CallError>> {
        self.0.passed.lock().unwrap().push((method.into(), params.map(|params| params.get().into())));
        let raw = |text: &str| Arc::from(RawValue::from_string(text.into()).unwrap());
        let answer = match method {
            "eth_odd" => Ok(raw(ODD)),
            "eth_big" => Ok(raw(&format!("\"{}\"", "x".repeat(200_000)))),
            "eth_call" => Err(CallError::Node(NodeError { code: 3, message: "execution reverted".into(), data: Some(raw(ODD)) })),
            "eth_gasPrice" => Err(CallError::Unavailable),
            "debug_panic" => panic!("the node's client panics"),
            _ => Ok(raw("\"node\"")),
        };
        async move { answer }.boxed()
    }
}

fn module(world: &Arc<World>) -> RpcModule<Arc<World>> {
    let mut module = RpcModule::new(world.clone());
    module.register_method::<Value, _>("test_echo", |params, _, _| params.parse().unwrap_or(Value::Null)).unwrap();
    module.register_method::<String, _>("test_panic", |_, _, _| panic!("in a method")).unwrap();
    module
        .register_async_method("test_panicLater", |_, _, _| async {
            tokio::task::yield_now().await;
            if std::hint::black_box(true) {
                panic!("in a future");
            }
        })
        .unwrap();
    module
        .register_async_method("test_wait", |_, world, _| async move {
            world.begun.add_permits(1);
            world.go.acquire().await.unwrap().forget();
            "waited"
        })
        .unwrap();
    module
        .register_async_method("test_big", |params, _, _| async move {
            // Small ones come last, so that nothing finishes in the order of the batch.
            let size: usize = params.one()?;
            for _ in 0..(200_000 - size) / 1000 {
                tokio::task::yield_now().await;
            }
            Ok::<_, jsonrpsee::types::ErrorObjectOwned>("x".repeat(size))
        })
        .unwrap();
    module
        .register_async_method("test_turn", |params, world, extensions| async move {
            let (address, number): (Address, usize) = params.parse().unwrap();
            let order = extensions.get::<BatchOrder>().cloned();
            let turn = order.map(|order| order.turn(address));
            world.log(format!("began {number}"));
            // Later items are faster than earlier ones: only the turns keep the order.
            for _ in 0..(1000 - number) % 7 {
                tokio::task::yield_now().await;
            }
            let Some(mut turn) = turn else { return "no batch".to_owned() };
            turn.wait().await;
            tokio::task::yield_now().await;
            world.log(format!("took {address} {number}"));
            number.to_string()
        })
        .unwrap();
    module
        .register_method::<String, _>("test_who", |_, _, extensions| extensions.get::<Arc<Principal>>().unwrap().name.to_string())
        .unwrap();
    module.register_method::<(), _>("test_end", |_, _, extensions| extensions.get::<ConnectionHandle>().unwrap().end()).unwrap();
    module
        .register_subscription::<Result<(), jsonrpsee::core::SubscriptionError>, _, _>(
            "eth_subscribe",
            "eth_subscription",
            "eth_unsubscribe",
            |_, pending, _, _| async move {
                let Ok(sink) = pending.accept().await else { return Ok(()) };
                sink.send(RawValue::from_string("\"first\"".into()).unwrap()).await?;
                sink.closed().await;
                Ok(())
            },
        )
        .unwrap();
    module
}

fn config() -> config::Server {
    config::Server {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        plaintext: false,
        token_file: None,
        origins: vec!["https://app.example".into()],
        max_connections: 100,
        max_request_bytes: 1 << 20,
        max_response_bytes: 100_000,
        max_batch_items: 1000,
        max_subscriptions: 3,
        max_principal_subscriptions: 100,
        max_calls_in_flight: 4096,
        max_requests_per_second: None,
        default_service: Some("first".into()),
        public_url: None,
        drain: HANG,
        ping_interval: Duration::from_secs(20),
        idle_timeout: HANG,
        write_timeout: HANG,
        max_backlog_bytes: 1 << 20,
        max_small_frames_per_second: 100,
    }
}

struct Running {
    address: std::net::SocketAddr,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    live: Live,
    stop: CancellationToken,
    task: JoinHandle<bool>,
}

impl Running {
    async fn start(config: config::Server) -> Self {
        Self::start_with(config, |_| {}).await
    }

    async fn start_with(config: config::Server, change: impl FnOnce(&mut Listener)) -> Self {
        let (world, other) = (Arc::new(World::default()), Arc::new(World::default()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut second = RpcModule::new(());
        second.register_method::<&str, _>("test_echo", |_, _, _| "from the second service").unwrap();
        let services = vec![served(&config, "first", module(&world), &world), served(&config, "second", second, &other)];
        let live: Live = Arc::new(arc_swap::ArcSwap::from_pointee(generation(&config, services, None, &metrics).await.unwrap()));
        let socket = Socket::open(config.listen, Some(metrics.clients.connections.clone())).unwrap();
        let mut listener = Listener::new(socket, live.clone());
        change(&mut listener);
        let address = listener.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(listener.run(stop.clone()));
        Self { address, world, metrics, live, stop, task }
    }

    /// Another generation, as a reload makes one.
    async fn exchange(&self, config: &config::Server, services: Vec<Served>) {
        let next = generation(config, services, Some(&self.live.load_full()), &self.metrics).await.unwrap();
        self.live.store(Arc::new(next));
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The body of a POST that must be answered with 200.
    async fn post(&self, body: &str) -> String {
        let (status, body) = self.http(&[("content-type", "application/json")], "POST", "/", body).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn http(&self, headers: &[(&str, &str)], method: &str, path: &str, body: &str) -> (u16, String) {
        let (head, body) = exchange(self.tcp().await, headers, method, path, body).await;
        (status(&head), body)
    }

    async fn ws(&self) -> WebSocketStream<TcpStream> {
        self.try_ws("/", &[]).await.unwrap()
    }

    async fn try_ws(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<WebSocketStream<TcpStream>, u16> {
        upgrade(self.tcp().await, &format!("ws://{}{path}", self.address), headers).await
    }

    /// Stops it; answers whether no connection had to be cut.
    async fn finish(self) -> bool {
        self.stop.cancel();
        let finished = soon(self.task).await.unwrap();
        assert_eq!(self.metrics.clients.connections.open.get(), 0);
        finished
    }
}

/// Both ends of TLS with a certificate for `localhost`.
pub(super) fn tls_pair() -> (tokio_rustls::TlsAcceptor, tokio_rustls::TlsConnector) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let connector = door::connector(&Arc::new(roots), &rustls::version::TLS13);
    (tokio_rustls::TlsAcceptor::from(Arc::new(server)), connector)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {head:?}")).parse().unwrap()
}

/// Head and body of one exchange on a stream of its own.
async fn exchange<IO: AsyncRead + AsyncWrite + Unpin>(
    mut stream: IO,
    headers: &[(&str, &str)],
    method: &str,
    path: &str,
    body: &str,
) -> (String, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    // A server that refuses early closes early.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

async fn upgrade<IO: AsyncRead + AsyncWrite + Unpin>(
    stream: IO,
    url: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<IO>, u16> {
    let mut request: Request<()> = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match soon(Box::pin(tokio_tungstenite::client_async(request, stream))).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn send<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<IO>, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

/// The next text, or `None` when the connection has ended.
async fn next<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<IO>) -> Option<String> {
    loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Text(text))) => return Some(text.to_string()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return None,
        }
    }
}

async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<IO>, text: &str) -> String {
    send(socket, text).await;
    next(socket).await.unwrap()
}

fn call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Code, message and reason of an answer.
fn error(answer: &Value) -> (i64, &str, &str) {
    let error = &answer["error"];
    (
        error["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}")),
        error["message"].as_str().unwrap(),
        error["data"]["reason"].as_str().unwrap_or(""),
    )
}
