//! /accounts and the orders of operators.

use http::Method;

use super::admin::Admin;
use super::*;
use crate::server::ask::{AskError, ask};

const JSON: (&str, &str) = ("content-type", "application/json");
const PAUSE: &str = "/accounts/dev/0x0000000000000000000000000000000000000007/pause";

impl Admin {
    async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (head, body) = exchange(stream, headers, method, path, body).await;
        (status(&head), body)
    }
}

fn error(body: &str) -> String {
    json(body)["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_accounts_are_read_by_get_and_changed_by_post() {
    let admin = Admin::start(None, None).await;
    assert_eq!(admin.exchange("GET", "/accounts", &[], "").await, (200, "{\"accounts\":[]}".into()));
    let (status, body) = admin.exchange("POST", PAUSE, &[JSON], "{\"reason\":\"maintenance\"}").await;
    assert_eq!((status, json(&body)["order"].as_str()), (200, Some("Pause { reason: \"maintenance\" }")));
    for (word, order) in [("resume", "Resume"), ("resync", "Resync")] {
        let path = PAUSE.replace("pause", word);
        for body in ["", "{}"] {
            let (status, body) = admin.exchange("POST", &path, &[JSON], body).await;
            assert_eq!((status, json(&body)["order"].as_str()), (200, Some(order)));
        }
        assert_eq!(admin.exchange("POST", &path, &[JSON], "{\"reason\":\"x\"}").await.0, 400, "{word} has no parameters");
    }
    for (method, path) in [("POST", "/accounts"), ("GET", PAUSE), ("PUT", PAUSE), ("DELETE", PAUSE)] {
        assert_eq!(admin.exchange(method, path, &[JSON], "{}").await.0, 405, "{method} {path}");
    }
    for path in ["/accounts/", "/accounts/dev", "/accounts/dev/0x07", "/accounts/dev/0x07/other", "/accounts/dev/0x07/pause/", "/accountsx"]
    {
        assert_eq!(admin.exchange("POST", path, &[JSON], "{}").await.0, 404, "{path}");
    }
    admin.finish().await;
}

#[tokio::test]
async fn an_order_that_is_wrong_says_what_is_wrong() {
    let admin = Admin::start(None, None).await;
    for reason in ["", " ", "two\\nlines", &"x".repeat(501)] {
        let (status, body) = admin.exchange("POST", PAUSE, &[JSON], &format!("{{\"reason\":\"{reason}\"}}")).await;
        assert_eq!((status, error(&body).as_str()), (400, "the reason must be one line of 1 to 500 characters"), "{reason:?}");
    }
    for body in ["", "{}", "[]", "{\"reason\":1}", "{\"reason\":\"x\",\"more\":1}"] {
        let (status, answer) = admin.exchange("POST", PAUSE, &[JSON], body).await;
        assert!(status == 400 && error(&answer).starts_with("the body must be {\"reason\": TEXT}: "), "{body}: {answer}");
    }
    assert_eq!(admin.exchange("POST", PAUSE, &[JSON], &" ".repeat(5000)).await.0, 400, "a body that is too large");
    let (status, body) = admin.exchange("POST", "/accounts/dev/0x07/pause", &[JSON], "{\"reason\":\"x\"}").await;
    assert_eq!((status, error(&body).as_str()), (400, "\"0x07\" is no address"));
    let elsewhere = |name| PAUSE.replace("dev", name);
    let (status, body) = admin.exchange("POST", &elsewhere("other"), &[JSON], "{\"reason\":\"x\"}").await;
    assert_eq!((status, error(&body).as_str()), (404, "no environment has the name or chain id other"));
    assert_eq!(admin.exchange("POST", &elsewhere("silent"), &[JSON], "{\"reason\":\"x\"}").await.0, 503);
    admin.finish().await;
}

#[tokio::test]
async fn no_browser_can_give_an_order() {
    let admin = Admin::start(None, None).await;
    let body = "{\"reason\":\"x\"}";
    // What a form can send without asking first, and what says that a page asks.
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(admin.exchange("POST", PAUSE, &[("content-type", content_type)], body).await.0, 415, "{content_type}");
    }
    assert_eq!(admin.exchange("POST", PAUSE, &[], body).await.0, 415);
    for origin in ["http://localhost", "null", "https://evil.example"] {
        assert_eq!(admin.exchange("POST", PAUSE, &[JSON, ("origin", origin)], body).await.0, 403, "{origin}");
    }
    assert_eq!(admin.exchange("OPTIONS", PAUSE, &[], "").await.0, 405, "no preflight is answered");
    admin.finish().await;
}

#[tokio::test]
async fn a_refresh_of_keys_has_the_rules_of_an_order() {
    const REFRESH: &str = "/keys/refresh";
    let admin = Admin::start(None, None).await;
    for body in ["", "{}"] {
        let (status, body) = admin.exchange("POST", REFRESH, &[JSON], body).await;
        assert_eq!((status, json(&body)["services"][0]["name"].as_str()), (200, Some("first")));
    }
    assert_eq!(admin.exchange("POST", REFRESH, &[JSON], "{\"service\":\"first\"}").await.0, 400, "it has no parameters");
    assert_eq!(admin.exchange("GET", REFRESH, &[], "").await.0, 405);
    assert_eq!(admin.exchange("POST", REFRESH, &[], "{}").await.0, 415);
    assert_eq!(admin.exchange("POST", REFRESH, &[JSON, ("origin", "http://localhost")], "{}").await.0, 403);
    assert_eq!(admin.exchange("POST", "/keys", &[JSON], "{}").await.0, 404);
    admin.finish().await;

    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "operator\n").unwrap();
    let admin = Admin::start(None, Some(token_file)).await;
    assert_eq!(admin.exchange("POST", REFRESH, &[JSON], "{}").await.0, 401);
    let token = ("authorization", "Bearer operator");
    assert_eq!(admin.exchange("POST", REFRESH, &[JSON, token], "{}").await.0, 200);
    admin.finish().await;
}

#[tokio::test]
async fn orders_need_the_token_and_the_command_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "operator\n").unwrap();
    let (files, _) = super::door::certificate(folder.path());
    let admin = Admin::start(Some(files.clone()), Some(token_file.clone())).await;
    let config = |tls, token_file| config::Admin { listen: admin.address, tls, plaintext: false, token_file };
    let body = serde_json::json!({ "reason": "x" });
    let order = |config: config::Admin| {
        let body = &body;
        async move { soon(ask(&config, Method::POST, PAUSE, Some(body))).await }
    };
    let done = order(config(Some(files.clone()), Some(token_file.clone()))).await.unwrap();
    assert_eq!(done["order"], "Pause { reason: \"x\" }");
    let refused = order(config(Some(files.clone()), None)).await;
    assert!(matches!(refused, Err(AskError::Refused { status, .. }) if status == 401), "{refused:?}");
    let accounts = soon(ask(&config(Some(files), Some(token_file.clone())), Method::GET, "/accounts", None)).await.unwrap();
    assert_eq!(accounts["accounts"], serde_json::json!([]));
    // The token goes to nobody who presents another certificate.
    let other = tempfile::tempdir().unwrap();
    let (others, _) = super::door::certificate(other.path());
    let stranger = order(config(Some(others), Some(token_file))).await;
    assert!(matches!(&stranger, Err(AskError::Connection(_, why)) if why.contains("another certificate")), "{stranger:?}");
    admin.finish().await;
}

#[tokio::test]
async fn a_command_knows_that_nobody_listens() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = |listen| config::Admin { listen, tls: None, plaintext: false, token_file: None };
    let gone = soon(ask(&config(socket.local_addr().unwrap()), Method::GET, "/accounts", None)).await;
    assert!(matches!(gone, Err(AskError::Nobody(_))), "{gone:?}");
    let port = soon(ask(&config("127.0.0.1:0".parse().unwrap()), Method::GET, "/accounts", None)).await;
    assert!(matches!(port, Err(AskError::NoPort)));
    // A listener of clients answers JSON, and is no listener of operators.
    let server = Running::start(super::config()).await;
    let stranger = soon(ask(&config(server.address), Method::GET, "/accounts", None)).await;
    assert!(matches!(stranger, Err(AskError::Refused { status, .. }) if status == 404), "{stranger:?}");
    server.finish().await;
}
