//! The listener for operators.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::admin::AdminListener;
use super::super::probe::{ProbeError, livez};
use super::*;

/// One service, `first`, that is ready when it is told to.
struct Seen(Arc<AtomicBool>);

impl Overview for Seen {
    fn status<'a>(&'a self, now: &'a Generation) -> BoxFuture<'a, Value> {
        async move { serde_json::json!({ "services": ["first"], "connections": now.connections("first") }) }.boxed()
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        let ready = self.0.load(Ordering::Relaxed);
        async move { Readiness { ready, reasons: if ready { Vec::new() } else { vec!["no node".into()] } } }.boxed()
    }

    fn service_readiness<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Readiness>> {
        async move { if name == "first" { Some(self.readiness().await) } else { None } }.boxed()
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Value, OrderError>> {
        async { Ok(serde_json::json!({ "accounts": [] })) }.boxed()
    }

    fn refresh_keys(&self) -> BoxFuture<'_, Value> {
        async { serde_json::json!({ "services": [{ "name": "first", "error": null }] }) }.boxed()
    }

    fn order(&self, wanted: Wanted) -> BoxFuture<'_, Result<Value, OrderError>> {
        let done = match wanted.environment.as_str() {
            "dev" => Ok(serde_json::json!({ "address": wanted.address, "order": format!("{:?}", wanted.order) })),
            "silent" => Err(OrderError::Unavailable("the account gave no answer".into())),
            other => Err(OrderError::NotFound(format!("no environment has the name or chain id {other}"))),
        };
        async { done }.boxed()
    }
}

pub(super) struct Admin {
    live: Live,
    pub(super) address: std::net::SocketAddr,
    ready: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Admin {
    pub(super) async fn start(tls: Option<config::Tls>, token_file: Option<std::path::PathBuf>) -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let generation = Self::generation(tls, token_file, &ready).await;
        let metrics = Arc::clone(&generation.context.metrics);
        let live: Live = Arc::new(arc_swap::ArcSwap::from_pointee(generation));
        let socket = Socket::open("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let listener = AdminListener::new(socket, live.clone());
        let (address, stop) = (listener.local_addr(), CancellationToken::new());
        Self { live, address, ready, metrics, task: tokio::spawn(listener.run(stop.clone())), stop }
    }

    async fn generation(tls: Option<config::Tls>, token_file: Option<std::path::PathBuf>, ready: &Arc<AtomicBool>) -> Generation {
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.clients.connections.open.set(42);
        let context = AdminContext { metrics: metrics.clone(), overview: Arc::new(Seen(ready.clone())) };
        let admin = config::Admin { listen: "127.0.0.1:0".parse().unwrap(), tls, plaintext: false, token_file };
        let world = Arc::new(World::default());
        let services = vec![served(&config(), "first", module(&world), &world)];
        Generation::open(&whole(config(), Some(admin)), services, context, None, &metrics).await.unwrap()
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (head, body) = exchange(stream, headers, "GET", path, "").await;
        (status(&head), head.to_ascii_lowercase(), body)
    }

    pub(super) async fn finish(self) {
        self.stop.cancel();
        soon(self.task).await.unwrap();
    }
}

#[tokio::test]
async fn the_paths_answer() {
    let admin = Admin::start(None, None).await;
    let (status, head, body) = admin.get("/metrics", &[]).await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nsluice_connections 42\n"));
    let (status, head, body) = admin.get("/status", &[]).await;
    assert_eq!((status, json(&body)), (200, serde_json::json!({ "services": ["first"], "connections": 0 })));
    assert!(head.contains("content-type: application/json"));
    assert_eq!((admin.get("/livez", &[]).await.0, admin.get("/livez", &[]).await.2.as_str()), (200, "ok"));
    let (status, _, body) = admin.get("/readyz", &[]).await;
    assert_eq!((status, json(&body)), (503, serde_json::json!({ "ready": false, "reasons": ["no node"] })));
    assert_eq!(admin.get("/readyz/first", &[]).await.0, 503);
    admin.ready.store(true, Ordering::Relaxed);
    let (status, _, body) = admin.get("/readyz", &[]).await;
    assert_eq!((status, json(&body)), (200, serde_json::json!({ "ready": true, "reasons": [] })));
    assert_eq!(admin.get("/readyz/first", &[]).await.0, 200);
    for path in ["/", "/metrics/", "/other", "/readyz/", "/readyz/second", "/readyz/first/"] {
        assert_eq!(admin.get(path, &[]).await.0, 404, "{path}");
    }
    for path in ["/metrics", "/livez"] {
        let stream = TcpStream::connect(admin.address).await.unwrap();
        let (head, _) = exchange(stream, &[], "POST", path, "{}").await;
        assert_eq!(super::status(&head), 405);
    }
    assert_eq!(admin.get("/livez", &[("origin", "http://localhost")]).await.0, 403);
    admin.finish().await;
}

#[tokio::test]
async fn silent_connections_keep_no_probe_out() {
    let admin = Admin::start(None, None).await;
    let metrics = Arc::clone(&admin.metrics);
    // One has a request in hand: its page is not written before the table is released.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (held, holds) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _table = metrics.accounts.hold();
        held.send(()).unwrap();
        let _ = released.recv_timeout(Duration::from_secs(10));
    });
    holds.await.unwrap();
    let scrape = tokio::spawn({
        let stream = TcpStream::connect(admin.address).await.unwrap();
        async move { exchange(stream, &[], "GET", "/metrics", "").await }
    });
    // More than may be open, after which the scrape would be the oldest.
    let mut silent = Vec::new();
    for at in 0..crate::server::admin::CONNECTIONS + 64 {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        // Half of a request is as silent as none.
        if at % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a").await.unwrap();
        }
        silent.push(stream);
        if at % 64 == 63 {
            assert_eq!(soon(admin.get("/livez", &[])).await.0, 200, "after {at}");
        }
    }
    let mut rest = Vec::new();
    let _ = soon(silent[0].read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8(rest).unwrap(), "", "the oldest was closed");
    release.send(()).unwrap();
    assert_eq!(status(&soon(scrape).await.unwrap().0), 200, "one that is in a request is not");
    tokio::task::spawn_blocking(|| holder.join()).await.unwrap().unwrap();
    drop(silent);
    admin.finish().await;
}

#[tokio::test]
async fn a_page_of_metrics_that_takes_its_time_delays_nobody_else() {
    let admin = Admin::start(None, None).await;
    let metrics = Arc::clone(&admin.metrics);
    let (release, released) = std::sync::mpsc::channel();
    let (held, holds) = tokio::sync::oneshot::channel();
    // Whoever writes a page waits for this thread; should that be the runtime's own, it goes on after a while and the test fails.
    let holder = std::thread::spawn(move || {
        let _table = metrics.accounts.hold();
        held.send(()).unwrap();
        released.recv_timeout(Duration::from_secs(10)).is_ok()
    });
    holds.await.unwrap();
    let scrapes = async { futures_util::join!(admin.get("/metrics", &[]), admin.get("/metrics", &[])) };
    let others = async {
        let live = soon(admin.get("/livez", &[])).await;
        let _ = release.send(());
        live
    };
    let (scraped, live) = futures_util::join!(soon(scrapes), others);
    assert_eq!(live.0, 200);
    assert!(holder.join().unwrap(), "the answer came while the page was being written");
    for (status, _, body) in [scraped.0, scraped.1] {
        assert!(status == 200 && body.contains("\nsluice_connections 42\n"), "{status} {body}");
    }
    admin.finish().await;
}

#[tokio::test]
async fn metrics_and_status_need_the_token_if_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "operator\n").unwrap();
    let admin = Admin::start(None, Some(token_file)).await;
    for path in ["/metrics", "/status"] {
        assert_eq!(admin.get(path, &[]).await.0, 401);
        assert_eq!(admin.get(path, &[("authorization", "Bearer client")]).await.0, 401);
        assert_eq!(admin.get(path, &[("authorization", "Bearer operator")]).await.0, 200);
    }
    assert_eq!((admin.get("/livez", &[]).await.0, admin.get("/readyz", &[]).await.0), (200, 503));
    assert_eq!((admin.get("/readyz/first", &[]).await.0, admin.get("/readyz/second", &[]).await.0), (503, 404));
    admin.finish().await;
}

#[tokio::test]
async fn a_new_token_and_a_new_certificate_hold_from_the_next_request_on() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "old\n").unwrap();
    let admin = Admin::start(None, Some(token_file.clone())).await;
    assert_eq!(admin.get("/status", &[("authorization", "Bearer old")]).await.0, 200);
    std::fs::write(&token_file, "new\n").unwrap();
    assert_eq!(admin.get("/status", &[("authorization", "Bearer new")]).await.0, 401, "not before it is exchanged");
    let (files, roots) = super::door::certificate(folder.path());
    admin.live.store(Arc::new(Admin::generation(Some(files), Some(token_file), &admin.ready).await));
    let connector = super::door::connector(&roots, &rustls::version::TLS13);
    for (token, answer) in [("old", 401), ("new", 200)] {
        let stream = TcpStream::connect(admin.address).await.unwrap();
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let (head, _) = exchange(stream, &[("authorization", &format!("Bearer {token}"))], "GET", "/status", "").await;
        assert_eq!(status(&head), answer, "{token}");
    }
    admin.finish().await;
}

#[tokio::test]
async fn it_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = super::door::certificate(folder.path());
    let admin = Admin::start(Some(files), None).await;
    let connector = super::door::connector(&roots, &rustls::version::TLS13);
    let stream = TcpStream::connect(admin.address).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (head, body) = exchange(stream, &[], "GET", "/livez", "").await;
    assert_eq!((status(&head), body.as_str()), (200, "ok"));
    admin.finish().await;
}

fn of(listen: std::net::SocketAddr, tls: Option<config::Tls>) -> config::Admin {
    config::Admin { listen, tls, plaintext: false, token_file: None }
}

#[tokio::test]
async fn a_probe_knows_a_gateway_that_lives() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "operator").unwrap();
    let admin = Admin::start(None, Some(token_file)).await;
    soon(livez(&of(admin.address, None))).await.unwrap();
    admin.finish().await;
    let (files, _) = super::door::certificate(folder.path());
    let admin = Admin::start(Some(files.clone()), None).await;
    soon(livez(&of(admin.address, Some(files)))).await.unwrap();
    assert!(soon(livez(&of(admin.address, None))).await.is_err(), "plain text on a port with TLS");
    admin.finish().await;
}

#[tokio::test]
async fn a_probe_is_not_satisfied_by_anything_else() {
    let server = Running::start(config()).await;
    let other = soon(livez(&of(server.address, None))).await;
    assert!(matches!(other, Err(ProbeError::Status(_))), "{other:?}");
    server.finish().await;
    // Bound and not listening: nobody else can get the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = soon(livez(&of(socket.local_addr().unwrap(), None))).await;
    assert!(matches!(gone, Err(ProbeError::Connection(..))), "{gone:?}");
    assert!(matches!(livez(&of("127.0.0.1:0".parse().unwrap(), None)).await, Err(ProbeError::NoPort)));
}

/// The clock is the test's: it goes on when nothing else does.
#[tokio::test(start_paused = true)]
async fn a_probe_does_not_wait_for_ever() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nothing = livez(&of(silent.local_addr().unwrap(), None)).await;
    assert!(matches!(nothing, Err(ProbeError::Silent(_))), "{nothing:?}");
}
