//! The listener for operators.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::admin::{AdminContext, Readiness, bind};
use super::*;

struct Admin {
    address: std::net::SocketAddr,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Admin {
    async fn start(tls: Option<config::Tls>, token_file: Option<std::path::PathBuf>) -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = ready.clone();
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.connections.set(42);
        let context = AdminContext {
            metrics,
            status: Arc::new(|| async { serde_json::json!({ "services": ["first"] }) }.boxed()),
            readiness: Arc::new(move || {
                let ready = asked.load(Ordering::Relaxed);
                async move { Readiness { ready, reasons: if ready { Vec::new() } else { vec!["no node".into()] } } }.boxed()
            }),
        };
        let config = config::Admin { listen: "127.0.0.1:0".parse().unwrap(), tls, plaintext: false, token_file };
        let listener = bind(&config, context).await.unwrap();
        let (address, stop) = (listener.local_addr(), CancellationToken::new());
        Self { address, ready, task: tokio::spawn(listener.run(stop.clone())), stop }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (head, body) = exchange(stream, headers, "GET", path, "").await;
        (status(&head), head.to_ascii_lowercase(), body)
    }

    async fn finish(self) {
        self.stop.cancel();
        soon(self.task).await.unwrap();
    }
}

#[tokio::test]
async fn the_four_paths_answer() {
    let admin = Admin::start(None, None).await;
    let (status, head, body) = admin.get("/metrics", &[]).await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nsluice_connections 42\n"));
    let (status, head, body) = admin.get("/status", &[]).await;
    assert_eq!((status, json(&body)), (200, serde_json::json!({ "services": ["first"] })));
    assert!(head.contains("content-type: application/json"));
    assert_eq!((admin.get("/livez", &[]).await.0, admin.get("/livez", &[]).await.2.as_str()), (200, "ok"));
    let (status, _, body) = admin.get("/readyz", &[]).await;
    assert_eq!((status, json(&body)), (503, serde_json::json!({ "ready": false, "reasons": ["no node"] })));
    admin.ready.store(true, Ordering::Relaxed);
    let (status, _, body) = admin.get("/readyz", &[]).await;
    assert_eq!((status, json(&body)), (200, serde_json::json!({ "ready": true, "reasons": [] })));
    for path in ["/", "/metrics/", "/other"] {
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
