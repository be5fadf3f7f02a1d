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

/// A WebSocket whose client does nothing by itself: frames are read as bytes, and pings are not answered.
async fn silent(server: &Running) -> TcpStream {
    let mut stream = server.tcp().await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert_eq!(status(std::str::from_utf8(&head).unwrap()), 101);
    stream
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_ended_and_one_that_does_is_not() {
    let times = (Duration::from_millis(20), Duration::from_secs(1));
    let server = Running::start(config::Server { ping_interval: times.0, idle_timeout: times.1, ..config() }).await;
    let mut silent = silent(&server).await;
    let mut answering = server.ws().await;
    let mut pings = Vec::new();
    let ended = silent.read_to_end(&mut pings);
    // Reading answers pings. It goes on beyond the other one's end.
    let answers = async {
        loop {
            assert!(matches!(answering.next().await, Some(Ok(Message::Ping(_)))), "it is still there");
        }
    };
    tokio::select! {
        ended = soon(ended) => drop(ended.unwrap()),
        () = answers => {}
    }
    assert_eq!(pings[0], 0x89, "it was pinged");
    assert_eq!(json(&ask(&mut answering, &call("test_echo", "[1]")).await)["result"][0], 1);
    server.finish().await;
}

#[tokio::test]
async fn frames_before_the_handshake_is_answered_end_the_connection() {
    let server = Running::start(config()).await;
    let mut stream = server.tcp().await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A ping that comes with it, and whatever else comes later.
    let early = [request.as_bytes(), &[0x89, 0x80, 0, 0, 0, 0]].concat();
    stream.write_all(&early).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let _ = stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await;
    let _ended = soon(stream.read_to_end(&mut head)).await;
    server.finish().await;
}

/// Neither side of its stream may be left waiting for the other: its place would never be free again.
#[tokio::test]
async fn a_silent_client_that_holds_up_a_write_leaves_nothing_behind() {
    let times = (Duration::from_millis(20), Duration::from_millis(60), Duration::from_millis(300));
    let (ping_interval, idle_timeout, write_timeout) = times;
    let server =
        Running::start(config::Server { max_response_bytes: 300_000, ping_interval, idle_timeout, write_timeout, ..config() }).await;
    let mut socket = server.ws().await;
    // More than what lies between the two takes.
    for _ in 0..300 {
        send(&mut socket, r#"{"jsonrpc":"2.0","id":1,"method":"eth_big"}"#).await;
    }
    soon(async {
        while server.metrics.clients.connections.open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(server.live.load().connections("first"), 0);
    drop(socket);
    server.finish().await;
}
