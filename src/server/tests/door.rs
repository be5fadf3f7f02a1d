//! Who is let in, and by which path.

use rcgen::CertifiedKey;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::telemetry::captured::Captured;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"test_echo","params":["x"]}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn without_the_token_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "s3cret-t0ken\n").unwrap();
    let server = Running::start(config::Server { token_file: Some(token_file), ..config() }).await;
    for headers in [vec![JSON], vec![JSON, ("authorization", "Bearer other")], vec![JSON, ("authorization", "Basic s3cret-t0ken")]] {
        let (head, body) = exchange(server.tcp().await, &headers, "POST", "/", CALL).await;
        assert_eq!(status(&head), 401, "{head}");
        assert!(head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{head}");
        assert!(!body.contains("result"));
    }
    let (status, _) = server.http(&[JSON], "POST", "/nowhere", CALL).await;
    assert_eq!(status, 401, "paths are not told to strangers");
    assert_eq!(server.try_ws("/", &[]).await.unwrap_err(), 401);
    assert_eq!(server.try_ws("/?token=s3cret-t0ken", &[]).await.unwrap_err(), 401);
    let (status, body) = server.http(&[JSON, ("authorization", "Bearer s3cret-t0ken")], "POST", "/", CALL).await;
    assert_eq!((status, json(&body)["result"][0].as_str()), (200, Some("x")));
    let mut socket = server.try_ws("/", &[("authorization", "Bearer s3cret-t0ken")]).await.unwrap();
    assert_eq!(json(&ask(&mut socket, CALL).await)["result"][0], "x");
    server.finish().await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let server = Running::start(config()).await;
    for origin in ["https://evil.example", "null"] {
        assert_eq!(server.http(&[JSON, ("origin", origin)], "POST", "/", CALL).await.0, 403);
        assert_eq!(server.try_ws("/", &[("origin", origin)]).await.unwrap_err(), 403);
    }
    assert_eq!(server.http(&[JSON, ("origin", "https://app.example")], "POST", "/", CALL).await.0, 200);
    assert!(server.try_ws("/", &[("origin", "https://app.example")]).await.is_ok());
    server.finish().await;
}

#[tokio::test]
async fn every_service_has_its_path() {
    let server = Running::start(config()).await;
    for (path, result) in [("/", "[\"x\"]"), ("/first", "[\"x\"]"), ("/first/", "[\"x\"]"), ("/second", "\"from the second service\"")] {
        let (status, body) = server.http(&[JSON], "POST", path, CALL).await;
        assert_eq!((status, body), (200, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)), "{path}");
        let mut socket = server.try_ws(path, &[]).await.unwrap();
        assert_eq!(ask(&mut socket, CALL).await, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#), "{path}");
    }
    for path in ["/third", "/first/more", "//", "/FIRST"] {
        let (status, body) = server.http(&[JSON], "POST", path, CALL).await;
        assert_eq!(status, 404, "{path}");
        assert_eq!(json(&body)["paths"], serde_json::json!(["/first", "/second"]));
        assert_eq!(server.try_ws(path, &[]).await.unwrap_err(), 404, "{path}");
    }
    server.finish().await;
}

/// A payment must not leave from a service that nobody named.
#[tokio::test]
async fn of_several_services_none_is_the_default_unless_it_is_named() {
    let server = Running::start(config::Server { default_service: None, ..config() }).await;
    let (status, body) = server.http(&[JSON], "POST", "/", CALL).await;
    assert_eq!((status, &json(&body)["paths"]), (404, &serde_json::json!(["/first", "/second"])), "{body}");
    assert_eq!(server.try_ws("/", &[]).await.unwrap_err(), 404);
    assert_eq!(server.http(&[JSON], "POST", "/second", CALL).await.0, 200);
    // The only one needs no name.
    let config = config::Server { default_service: None, ..config() };
    server.exchange(&config, vec![served(&config, "only", module(&server.world), &server.world)]).await;
    assert_eq!(json(&server.post(CALL).await)["result"][0], "x");
    server.finish().await;
}

#[tokio::test]
async fn only_post_and_websocket_handshakes_are_served() {
    let server = Running::start(config()).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(server.http(&[JSON], method, "/", CALL).await.0, 405, "{method}");
    }
    assert_eq!(server.http(&[], "POST", "/", CALL).await.0, 415);
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "12"),
    ];
    assert_eq!(server.http(&upgrade, "GET", "/", "").await.0, 400, "another version");
    assert_eq!(server.http(&upgrade, "POST", "/", "").await.0, 405);
    server.finish().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = Running::start(config::Server { max_request_bytes: 1000, ..config() }).await;
    let large = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"test_echo","params":["{}"]}}"#, "x".repeat(2000));
    assert_eq!(server.http(&[JSON], "POST", "/", &large).await.0, 413);
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2000)
    );
    let mut stream = server.tcp().await;
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    soon(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");
    let mut socket = server.ws().await;
    assert!(json(&ask(&mut socket, &large).await)["error"]["code"].is_i64());
    server.finish().await;
}

#[tokio::test]
async fn connections_are_counted_and_bounded() {
    let server = Running::start(config::Server { max_connections: 1, ..config() }).await;
    let mut socket = server.ws().await;
    assert_eq!(server.metrics.clients.connections.open.get(), 1);
    let mut answer = Vec::new();
    let _ = soon(server.tcp().await.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!((server.metrics.clients.connections.open.get(), server.metrics.clients.connections.refused.get()), (1, 1));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(status(head), 503);
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(json(body)["error"].is_string());
    assert_eq!(json(&ask(&mut socket, CALL).await)["result"][0], "x", "the one that was there is served");
    server.finish().await;
}

/// A self-signed certificate for `localhost`.
pub(super) fn certificate(folder: &std::path::Path) -> (config::Tls, Arc<RootCertStore>) {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = config::Tls { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    (files, Arc::new(roots))
}

pub(super) fn connector(roots: &Arc<RootCertStore>, version: &'static rustls::SupportedProtocolVersion) -> TlsConnector {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn https_and_wss_by_tls_1_2_and_1_3() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let server = Running::start(config::Server { tls: Some(files), ..config() }).await;
    let name = ServerName::try_from("localhost").unwrap();
    for version in [&TLS12, &TLS13] {
        let connector = connector(&roots, version);
        let stream = connector.connect(name.clone(), server.tcp().await).await.unwrap();
        let (head, body) = exchange(stream, &[JSON], "POST", "/", CALL).await;
        assert_eq!((status(&head), json(&body)["result"][0].as_str()), (200, Some("x")));
        let stream = connector.connect(name.clone(), server.tcp().await).await.unwrap();
        let mut socket = upgrade(stream, "wss://localhost/", &[]).await.unwrap();
        assert_eq!(json(&ask(&mut socket, CALL).await)["result"][0], "x");
    }
    let (head, _) = exchange(server.tcp().await, &[JSON], "POST", "/", CALL).await;
    assert!(!head.contains("200"), "no plaintext beside TLS: {head}");
    server.finish().await;
}

#[tokio::test]
async fn a_wrong_certificate_or_key_is_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (files, other) = (certificate(one.path()).0, certificate(two.path()).0);
    let not_pem = one.path().join("not.pem");
    std::fs::write(&not_pem, "nothing of use").unwrap();
    let missing = one.path().join("missing.pem");
    let cases = [
        (config::Tls { certificate: files.certificate.clone(), key: other.key.clone() }, other.key.clone()),
        (config::Tls { certificate: not_pem.clone(), key: files.key.clone() }, not_pem.clone()),
        (config::Tls { certificate: files.certificate.clone(), key: not_pem.clone() }, not_pem),
        (config::Tls { certificate: missing.clone(), key: files.key.clone() }, missing.clone()),
        (config::Tls { certificate: files.certificate.clone(), key: missing.clone() }, missing),
    ];
    for (tls, named) in cases {
        let world = Arc::new(World::default());
        let config = config::Server { tls: Some(tls), default_service: None, ..config() };
        let services = vec![served(&config, "a", module(&world), &world)];
        let refused = generation(&config, services, None, &Arc::new(Metrics::new().unwrap())).await.err().unwrap();
        assert!(refused.to_string().contains(&named.display().to_string()), "{refused}");
    }
}

/// I10: whatever the level, the token is in no log line.
#[tokio::test]
async fn no_log_line_holds_the_token() {
    let log = Captured::begin(tracing::Level::TRACE);
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "s3cret-t0ken").unwrap();
    let server = Running::start(config::Server { token_file: Some(token_file), ..config() }).await;
    let header = ("authorization", "Bearer s3cret-t0ken");
    assert_eq!(server.http(&[JSON, header], "POST", "/?key=s3cret-t0ken", CALL).await.0, 200);
    let mut socket = server.try_ws("/?key=s3cret-t0ken", &[header]).await.unwrap();
    ask(&mut socket, CALL).await;
    drop(socket);
    server.finish().await;
    let text = log.text();
    let ours: Vec<&str> = text.lines().filter(|line| !line.contains("tungstenite")).collect();
    assert!(ours.iter().any(|line| line.contains("jsonrpsee")), "the subscriber sees the server's lines");
    assert!(!ours.iter().any(|line| line.contains("s3cret")), "{ours:#?}");
}
