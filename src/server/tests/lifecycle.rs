//! The end of connections: by the gateway's stop, by the drain's end, by a method.

use super::*;

const WAIT: &str = r#"{"jsonrpc":"2.0","id":1,"method":"test_wait"}"#;

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight() {
    let server = Running::start(config()).await;
    let (mut socket, mut idle) = (server.ws().await, server.ws().await);
    send(&mut socket, WAIT).await;
    server.world.waiting(1).await;
    let post = {
        let stream = server.tcp().await;
        tokio::spawn(async move { exchange(stream, &[("content-type", "application/json")], "POST", "/", WAIT).await })
    };
    server.world.waiting(1).await;
    server.stop.cancel();
    assert_eq!(next(&mut idle).await, None, "who waits for nothing is closed at once");
    assert!(!server.task.is_finished());
    server.world.go.add_permits(2);
    assert_eq!(json(&next(&mut socket).await.unwrap())["result"], "waited");
    assert_eq!(next(&mut socket).await, None);
    let (head, body) = post.await.unwrap();
    assert_eq!((status(&head), json(&body)["result"].as_str()), (200, Some("waited")));
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody new is let in");
    assert!(server.finish().await, "nothing was cut");
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut() {
    let server = Running::start(config::Server { drain: Duration::from_millis(10), ..config() }).await;
    let mut socket = server.ws().await;
    send(&mut socket, WAIT).await;
    server.world.waiting(1).await;
    let post = {
        let stream = server.tcp().await;
        tokio::spawn(async move { exchange(stream, &[("content-type", "application/json")], "POST", "/", WAIT).await })
    };
    server.world.waiting(1).await;
    let silent = server.tcp().await;
    assert!(!server.finish().await, "the exit code tells that something was cut");
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(post.await.unwrap(), (String::new(), String::new()));
    drop(silent);
}

#[tokio::test]
async fn a_live_subscription_does_not_hold_a_stop_back() {
    let server = Running::start(config()).await;
    let mut socket = server.ws().await;
    ask(&mut socket, r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#).await;
    next(&mut socket).await.unwrap();
    server.finish().await;
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn a_connection_can_be_ended_alone() {
    let server = Running::start(config()).await;
    let (mut ended, mut other) = (server.ws().await, server.ws().await);
    send(&mut ended, r#"{"jsonrpc":"2.0","id":1,"method":"test_end"}"#).await;
    while next(&mut ended).await.is_some() {}
    assert_eq!(json(&ask(&mut other, r#"{"jsonrpc":"2.0","id":1,"method":"test_echo","params":[1]}"#).await)["result"][0], 1);
    server.finish().await;
}

/// I8: a client that sends and never reads is ended; until then it is not read from (tested beside the stream).
#[tokio::test]
async fn a_client_that_does_not_read_is_ended() {
    let config = config::Server { max_response_bytes: 300_000, write_timeout: Duration::from_millis(200), ..config() };
    let server = Running::start(config).await;
    let (mut sink, _unread) = server.ws().await.split();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"eth_big"}"#;
    // The loop ends with the connection.
    soon(async { while sink.send(Message::text(call)).await.is_ok() {} }).await;
    server.finish().await;
}
