//! What a live connection sees of a reload.

use std::num::NonZeroU32;

use super::*;

fn call(method: &str) -> String {
    super::call(method, "[1]")
}

/// A service that answers `test_echo` with this text, and streams.
fn saying(name: &str, text: &'static str, world: &Arc<World>) -> Served {
    let mut methods = RpcModule::new(());
    methods.register_method::<&str, _>("test_echo", move |_, _, _| text).unwrap();
    methods.register_async_method::<&str, _, _>("test_later", move |_, _, _| async move { text }).unwrap();
    served(&config(), name, methods, world)
}

const REMOVED: (i64, &str, &str) = (-32002, "the service is no longer served", "service_removed");

#[tokio::test]
async fn the_next_call_of_a_live_connection_is_answered_by_what_is_in_force() {
    let server = Running::start(config()).await;
    let mut socket = server.try_ws("/first", &[]).await.unwrap();
    assert_eq!(json(&ask(&mut socket, &call("test_echo")).await)["result"][0], 1);
    server.exchange(&config(), vec![saying("first", "anew", &server.world)]).await;
    for method in ["test_echo", "test_later"] {
        assert_eq!(json(&ask(&mut socket, &call(method)).await)["result"], "anew");
    }
    assert_eq!(error(&json(&ask(&mut socket, &call("test_who")).await)).2, "method_not_found", "what is gone is gone");
    server.finish().await;
}

#[tokio::test]
async fn a_removed_service_finishes_what_is_in_flight_and_takes_nothing_new() {
    let server = Running::start(config()).await;
    let mut socket = server.try_ws("/first", &[]).await.unwrap();
    let stream =
        json(&ask(&mut socket, r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#).await)["result"].clone();
    next(&mut socket).await.unwrap();
    send(&mut socket, &call("test_wait")).await;
    server.world.waiting(1).await;
    let other = config::Server { default_service: None, ..config() };
    server.exchange(&other, vec![saying("second", "still here", &server.world)]).await;

    assert_eq!(error(&json(&ask(&mut socket, &call("test_echo")).await)), REMOVED);
    assert_eq!(error(&json(&ask(&mut socket, &call("eth_blockNumber")).await)), REMOVED, "nor does anything reach the node");
    let batch = format!("[{},{}]", call("test_echo"), call("test_echo"));
    assert_eq!(error(&json(&ask(&mut socket, &batch).await)[1]), REMOVED);
    server.world.go.add_permits(1);
    assert_eq!(json(&next(&mut socket).await.unwrap())["result"], "waited", "what was in flight ends well");
    let unsubscribe = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_unsubscribe","params":[{stream}]}}"#);
    assert_eq!(json(&ask(&mut socket, &unsubscribe).await)["result"], true, "its streams are the client's to end");
    assert_eq!(server.try_ws("/first", &[]).await.unwrap_err(), 404);
    assert_eq!(json(&server.post(&call("test_echo")).await)["result"], "still here");
    assert!(server.world.passed.lock().unwrap().is_empty());
    server.finish().await;
}

/// The client may have asked for the chain id long ago: its transactions must not go to another chain now.
#[tokio::test]
async fn a_service_of_another_environment_is_another_service() {
    let server = Running::start(config()).await;
    let mut socket = server.try_ws("/first", &[]).await.unwrap();
    let moved = Served { environment: "main".into(), ..saying("first", "elsewhere", &server.world) };
    server.exchange(&config(), vec![moved]).await;
    assert_eq!(error(&json(&ask(&mut socket, &call("test_echo")).await)), REMOVED);
    let mut anew = server.try_ws("/first", &[]).await.unwrap();
    assert_eq!(json(&ask(&mut anew, &call("test_echo")).await)["result"], "elsewhere");
    assert_eq!(server.live.load().connections("first"), 1, "connections to the one before are not its own");
    // Back again: the first connection is of this service, the second is not.
    server.exchange(&config(), vec![saying("first", "back", &server.world)]).await;
    assert_eq!(json(&ask(&mut socket, &call("test_echo")).await)["result"], "back");
    assert_eq!(error(&json(&ask(&mut anew, &call("test_echo")).await)), REMOVED);
    server.finish().await;
}

#[tokio::test]
async fn a_service_that_is_put_back_serves_the_connections_that_it_left_open() {
    let server = Running::start(config()).await;
    let (mut socket, other) = (server.try_ws("/first", &[]).await.unwrap(), config::Server { default_service: None, ..config() });
    let second = || saying("second", "still here", &server.world);
    // Removed over more than one generation.
    for _ in 0..2 {
        server.exchange(&other, vec![second()]).await;
        assert_eq!(error(&json(&ask(&mut socket, &call("test_echo")).await)), REMOVED);
    }
    let mut first = saying("first", "back", &server.world);
    first.limits.max_connections = 1;
    server.exchange(&other, vec![first, second()]).await;
    assert_eq!(json(&ask(&mut socket, &call("test_echo")).await)["result"], "back");
    assert_eq!(server.live.load().connections("first"), 1);
    assert_eq!(server.try_ws("/first", &[]).await.unwrap_err(), 503, "it counts as any other");
    server.finish().await;
}

#[tokio::test]
async fn connections_and_the_use_of_a_rate_go_on_counting() {
    let server = Running::start(config()).await;
    let limit = |max_connections, rate| {
        let mut one = saying("first", "x", &server.world);
        (one.limits.max_connections, one.limits.max_requests_per_second) = (max_connections, NonZeroU32::new(rate));
        vec![one]
    };
    server.exchange(&config(), limit(2, 1)).await;
    let (mut one, _two) = (server.ws().await, server.ws().await);
    let used_up = async { while error_or_none(&ask(&mut one, &call("test_echo")).await).is_none() {} };
    soon(used_up).await;
    let before = server.live.load().services["first"].calls.rate().unwrap().clone();
    server.exchange(&config(), limit(1, 1)).await;
    assert_eq!(server.live.load().connections("first"), 2);
    assert_eq!(server.try_ws("/first", &[]).await.unwrap_err(), 503, "a lower limit holds for those that come");
    assert!(Arc::ptr_eq(&before, server.live.load().services["first"].calls.rate().unwrap()), "a reload gives no call for nothing");
    server.exchange(&config(), limit(3, 1000)).await;
    assert_eq!(json(&ask(&mut one, &call("test_echo")).await)["result"], "x", "a higher one holds at once");
    assert!(server.try_ws("/first", &[]).await.is_ok());
    server.finish().await;
}

fn error_or_none(answer: &str) -> Option<i64> {
    json(answer)["error"]["code"].as_i64()
}

#[tokio::test]
async fn a_rotated_token_holds_for_requests_and_handshakes_and_ends_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "old\n").unwrap();
    let config = config::Server { token_file: Some(token_file.clone()), ..config() };
    let server = Running::start(config.clone()).await;
    let (old, new) = (("authorization", "Bearer old"), ("authorization", "Bearer new"));
    let mut socket = server.try_ws("/first", &[old]).await.unwrap();
    std::fs::write(&token_file, "new\n").unwrap();
    server.exchange(&config, vec![saying("first", "x", &server.world)]).await;
    let json_type = ("content-type", "application/json");
    assert_eq!(server.http(&[json_type, old], "POST", "/", &call("test_echo")).await.0, 401);
    assert_eq!(server.http(&[json_type, new], "POST", "/", &call("test_echo")).await.0, 200);
    assert_eq!(server.try_ws("/first", &[old]).await.unwrap_err(), 401);
    assert!(server.try_ws("/first", &[new]).await.is_ok());
    assert_eq!(json(&ask(&mut socket, &call("test_echo")).await)["result"], "x");
    server.finish().await;
}

#[tokio::test]
async fn a_lower_bound_of_connections_holds_for_those_that_come() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    server.exchange(&config::Server { max_connections: 1, ..config() }, vec![saying("first", "x", &server.world)]).await;
    let mut answer = Vec::new();
    let _ = soon(server.tcp().await.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 503"));
    assert_eq!(json(&ask(&mut socket, &call("test_echo")).await)["result"], "x");
    server.finish().await;
}

/// One that names what cannot be had changes nothing: there is no generation to exchange.
#[tokio::test]
async fn a_token_file_that_is_gone_makes_no_generation() {
    let server = Running::start(config()).await;
    let config = config::Server { token_file: Some("/nonexistent/token".into()), ..config() };
    let services = vec![saying("first", "x", &server.world)];
    let refused = generation(&config, services, Some(&server.live.load_full()), &server.metrics).await.err().unwrap();
    assert!(refused.to_string().contains("/nonexistent/token"), "{refused}");
    assert_eq!(json(&server.post(&call("test_echo")).await)["result"][0], 1);
    server.finish().await;
}
