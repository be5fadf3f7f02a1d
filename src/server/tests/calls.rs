//! Single calls on both transports.

use super::*;
use crate::telemetry::captured::Captured;

/// The answer to one call over HTTP and over a WebSocket, which must be the same.
async fn both(server: &Running, body: &str) -> String {
    let (http, ws) = (server.post(body).await, ask(&mut server.ws().await, body).await);
    assert_eq!(http, ws);
    http
}

#[tokio::test]
async fn what_is_not_answered_here_passes_through_byte_for_byte() {
    let server = Running::start(config()).await;
    let params = r#"[ {"to" :"0x\u0030",  "n":1.0e+2, "big":123456789012345678901234567890}	, [ ] ]"#;
    let answer = both(&server, &call("eth_odd", params)).await;
    assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":7,"result":{ODD}}}"#));
    let passed = server.world.passed.lock().unwrap().clone();
    assert_eq!(passed, vec![("eth_odd".to_owned(), Some(params.to_owned())); 2]);

    let answer = both(&server, &call("eth_call", "[]")).await;
    assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":3,"message":"execution reverted","data":{ODD}}}}}"#));
    both(&server, r#"{"jsonrpc":"2.0","id":7,"method":"net_version"}"#).await;
    assert_eq!(server.world.passed.lock().unwrap().last().unwrap(), &("net_version".to_owned(), None));
    let answer = json(&both(&server, &call("eth_gasPrice", "[]")).await);
    assert_eq!(error(&answer), (-32002, "no node of the environment is reachable", "node_unavailable"));
    server.finish().await;
}

#[tokio::test]
async fn other_methods_do_not_exist() {
    let server = Running::start(config()).await;
    for method in ["admin_peers", "personal_unlockAccount", "eth", "rpc_modules"] {
        let answer = json(&both(&server, &call(method, "[]")).await);
        let message = format!("the method {method} does not exist/is not available");
        assert_eq!(error(&answer), (-32601, message.as_str(), "method_not_found"));
        assert_eq!(answer["id"], 7);
    }
    let answer = json(&both(&server, &call(&"x".repeat(5000), "[]")).await);
    assert!(error(&answer).1.len() < 200, "a long name is not told back whole");
    assert!(server.world.passed.lock().unwrap().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn a_panic_ends_one_request() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    for method in ["test_panic", "test_panicLater", "debug_panic"] {
        for answer in [server.post(&call(method, "[]")).await, ask(&mut socket, &call(method, "[]")).await] {
            assert_eq!(error(&json(&answer)), (-32603, "internal error", "internal"), "{method}");
            assert_eq!(json(&answer)["id"], 7);
        }
    }
    let batch = format!("[{},{}]", call("test_panic", "[]"), call("test_echo", "[1]"));
    for answer in [server.post(&batch).await, ask(&mut socket, &batch).await] {
        assert_eq!(error(&json(&answer)[0]).0, -32603);
        assert_eq!(json(&answer)[1]["result"][0], 1);
    }
    server.finish().await;
}

#[tokio::test]
async fn large_answers_are_errors() {
    let server = Running::start(config()).await;
    for request in [call("eth_big", "[]"), call("test_big", "[150000]")] {
        assert_eq!(error(&json(&both(&server, &request).await)), (-32003, "response too large", "limit_exceeded"));
    }
    assert_eq!(json(&both(&server, &call("test_big", "[90000]")).await)["result"].as_str().unwrap().len(), 90_000);
    server.finish().await;
}

#[tokio::test]
async fn a_call_knows_its_principal() {
    let server = Running::start(config()).await;
    assert_eq!(json(&both(&server, &call("test_who", "[]")).await)["result"], "default");
    server.finish().await;
}

#[tokio::test]
async fn subscriptions_need_a_socket_and_a_request_of_their_own() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    let subscribe = call("eth_subscribe", r#"["newHeads"]"#);
    let refused = (-32601, "notifications not supported", "unsupported");
    assert_eq!(error(&json(&server.post(&subscribe).await)), refused);
    assert_eq!(error(&json(&server.post(&call("eth_unsubscribe", r#"["0x1"]"#)).await)), refused);
    assert_eq!(error(&json(&ask(&mut server.try_ws("/second", &[]).await.unwrap(), &subscribe).await)), refused, "never the node's");

    let batch = format!("[{subscribe},{}]", call("test_echo", "[1]"));
    let answers = json(&ask(&mut socket, &batch).await);
    assert_eq!(error(&answers[0]), refused);
    assert_eq!((answers.as_array().unwrap().len(), &answers[1]["result"][0]), (2, &Value::from(1)));

    // The next message answers the next request: nothing was answered twice.
    let answer = json(&ask(&mut socket, &subscribe).await);
    assert_eq!(answer["id"], 7);
    let id = answer["result"].as_str().unwrap().to_owned();
    let digits = id.strip_prefix("0x").unwrap();
    assert!((1..=32).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    let event = json(&next(&mut socket).await.unwrap());
    assert_eq!(event["params"], serde_json::json!({ "subscription": id, "result": "first" }));
    assert_eq!(event["method"], "eth_subscription");
    assert_eq!(json(&ask(&mut socket, &call("eth_unsubscribe", &format!("[\"{id}\"]"))).await)["result"], true);
    server.finish().await;
}

/// What is owed to a client is paid by what is written: no number of calls of any kind shuts its window for good.
#[tokio::test]
async fn a_long_lived_socket_is_read_from_for_ever() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    for _ in 0..30 {
        assert_eq!(json(&ask(&mut socket, &call("test_big", "[95000]")).await)["id"], 7);
        let id = json(&ask(&mut socket, &call("eth_subscribe", r#"["newHeads"]"#)).await)["result"].clone();
        next(&mut socket).await.unwrap();
        assert_eq!(json(&ask(&mut socket, &call("eth_unsubscribe", &format!("[{id}]"))).await)["result"], true);
        let batch = format!("[{}]", vec![call("test_big", "[40000]"); 4].join(","));
        assert_eq!(json(&ask(&mut socket, &batch).await).as_array().unwrap().len(), 4);
    }
    server.finish().await;
}

#[tokio::test]
async fn subscriptions_are_bounded() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    for _ in 0..3 {
        assert!(json(&ask(&mut socket, &call("eth_subscribe", r#"["newHeads"]"#)).await)["result"].is_string());
        next(&mut socket).await.unwrap();
    }
    let refused = json(&ask(&mut socket, &call("eth_subscribe", r#"["newHeads"]"#)).await);
    assert_eq!(error(&refused), (-32005, "too many subscriptions on this connection", "limit_exceeded"));
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    let cases = [
        ("nonsense", -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"#, -32700),
        (r#"{"id":1,"method":"test_echo"}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"test_echo"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
    ];
    for (body, code) in cases {
        assert_eq!(json(&server.post(body).await)["error"]["code"], code, "{body}");
        assert_eq!(json(&ask(&mut socket, body).await)["error"]["code"], code, "{body}");
    }
    for (id, told) in [("-1", "-1"), ("1.5", "1.5"), ("{}", "null"), (r#"1,"id":2"#, "null")] {
        let answer = server.post(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"test_echo"}}"#)).await;
        assert!(answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{told},"error":{{"code":-32600"#)), "{answer}");
    }
    server.finish().await;
}

#[tokio::test]
async fn calls_are_counted_by_service_and_method() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    ask(&mut socket, &call("test_echo", "[1]")).await;
    ask(&mut socket, &format!("[{},{}]", call("test_echo", "[1]"), call("test_panic", "[]"))).await;
    for method in ["eth_blockNumber", "eth_inventedByTheClient", "x_y"] {
        ask(&mut socket, &call(method, "[]")).await;
    }
    let text = server.metrics.render().unwrap();
    for line in [
        r#"sluice_requests_total{method="test_echo",outcome="ok",service="first"} 2"#,
        r#"sluice_requests_total{method="test_panic",outcome="error",service="first"} 1"#,
        r#"sluice_requests_total{method="eth_blockNumber",outcome="ok",service="first"} 1"#,
        r#"sluice_requests_total{method="other",outcome="ok",service="first"} 1"#,
        r#"sluice_requests_total{method="other",outcome="error",service="first"} 1"#,
        r#"sluice_request_duration_seconds_count{method="test_echo"} 2"#,
        r#"sluice_request_own_duration_seconds_count{method="test_echo"} 2"#,
        r#"sluice_request_errors_total{reason="internal",service="first"} 1"#,
        r#"sluice_request_errors_total{reason="method_not_found",service="first"} 1"#,
        r#"sluice_request_errors_total{reason="node",service="first"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("invented"));
    server.finish().await;
}

/// I8, I10: what a client sends is in no log.
#[tokio::test]
async fn what_is_no_subscription_id_is_answered_false_and_not_logged() {
    let log = Captured::begin(tracing::Level::WARN);
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    let large = format!(r#"[{{"secret":"{}"}}]"#, "x".repeat(100_000));
    let long = format!(r#"["secret{}"]"#, "x".repeat(1000));
    let odd = ["[]", "null", r#"{"secret":1}"#, r#"["secret", 1]"#, r#"[["secret"]]"#, "[1.5]", large.as_str(), long.as_str()];
    for params in odd {
        let answer = ask(&mut socket, &call("eth_unsubscribe", params)).await;
        assert_eq!(answer, r#"{"jsonrpc":"2.0","id":7,"result":false}"#, "{params:.40}");
    }
    let opened = json(&ask(&mut socket, &call("eth_subscribe", "[]")).await);
    assert!(next(&mut socket).await.unwrap().contains("first"));
    let answer = ask(&mut socket, &call("eth_unsubscribe", &format!("[ {}\t]", opened["result"]))).await;
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":7,"result":true}"#);
    tracing::warn!("the log is read");
    let logged = log.text();
    assert!(logged.contains("the log is read"));
    assert!(!logged.contains("secret") && !logged.contains("Unsubscribe"), "{logged:.400}");
    server.finish().await;
}
