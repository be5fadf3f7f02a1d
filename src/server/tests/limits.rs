//! Limits of one service: its own, and no other service's.

use std::num::NonZeroU32;

use super::*;

/// A server whose first service has these limits; the second has the server's.
async fn limited(change: impl FnOnce(&mut config::ServiceLimits)) -> Running {
    let server = Running::start(config()).await;
    let mut first = served(&config(), "first", module(&server.world), &server.world);
    change(&mut first.limits);
    let second = served(&config(), "second", module(&server.world), &server.world);
    server.exchange(&config(), vec![first, second]).await;
    server
}

#[tokio::test]
async fn connections_to_a_service_are_bounded() {
    let server = limited(|limits| limits.max_connections = 2).await;
    let (one, _two) = (server.try_ws("/first", &[]).await.unwrap(), server.try_ws("/", &[]).await.unwrap());
    assert_eq!(server.live.load().connections("first"), 2);
    assert_eq!(server.try_ws("/first", &[]).await.unwrap_err(), 503);
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), key, ("sec-websocket-version", "13")];
    let (status, body) = server.http(&upgrade, "GET", "/first", "").await;
    assert_eq!((status, json(&body)["error"].as_str()), (503, Some("too many connections to this service")));
    assert_eq!(server.metrics.clients.connections.refused.get(), 2);
    assert!(server.try_ws("/second", &[]).await.is_ok(), "another service has room of its own");
    assert_eq!(json(&server.post(&call("test_echo", "[1]")).await)["result"][0], 1, "HTTP requests hold no place");
    drop(one);
    let again = async {
        loop {
            if let Ok(socket) = server.try_ws("/first", &[]).await {
                return socket;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut again = soon(again).await;
    assert_eq!(json(&ask(&mut again, &call("test_echo", "[1]")).await)["result"][0], 1);
    server.finish().await;
}

/// More than may be unknown: each of them is found to be a call, so none of them waits.
#[tokio::test]
async fn calls_are_not_taken_for_what_is_none() {
    const CALLS: usize = 10_000;
    let server = limited(|limits| limits.max_calls_in_flight = 100_000).await;
    let (mut sink, mut stream) = server.ws().await.split();
    let sending = async {
        for _ in 0..CALLS {
            sink.feed(Message::text(call("test_echo", "[1]"))).await.unwrap();
        }
        sink.flush().await.unwrap();
    };
    let reading = async {
        let mut answered = 0;
        while answered < CALLS {
            answered += usize::from(matches!(stream.next().await, Some(Ok(Message::Text(_)))));
        }
    };
    soon(async { tokio::join!(sending, reading) }).await;
    server.finish().await;
}

#[tokio::test]
async fn a_handshake_that_fails_holds_no_place() {
    let server = limited(|limits| limits.max_connections = 1).await;
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for _ in 0..3 {
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), key, ("sec-websocket-version", "12")];
        assert_eq!(server.http(&upgrade, "GET", "/first", "").await.0, 400);
    }
    assert!(server.try_ws("/first", &[]).await.is_ok());
    server.finish().await;
}

#[tokio::test]
async fn subscriptions_batches_and_calls_in_flight_go_by_the_service() {
    let server = limited(|limits| {
        limits.max_subscriptions = 1;
        limits.max_batch_items = 2;
        limits.max_calls_in_flight = 2;
    })
    .await;
    let (mut first, mut second) = (server.try_ws("/first", &[]).await.unwrap(), server.try_ws("/second", &[]).await.unwrap());
    let subscribe = call("eth_subscribe", r#"["newHeads"]"#);
    for socket in [&mut first, &mut second] {
        assert!(json(&ask(socket, &subscribe).await)["result"].is_string());
        next(socket).await.unwrap();
    }
    assert_eq!(error(&json(&ask(&mut first, &subscribe).await)), (-32005, "too many subscriptions on this connection", "limit_exceeded"));
    assert!(json(&ask(&mut second, &subscribe).await)["result"].is_string());
    next(&mut second).await.unwrap();

    let batch = format!("[{}]", vec![call("test_echo", "[1]"); 3].join(","));
    assert_eq!(error(&json(&ask(&mut first, &batch).await)[0]), (-32600, "batch too large", "limit_exceeded"));
    assert_eq!(json(&ask(&mut second, &batch).await).as_array().unwrap().len(), 3);

    for socket in [&mut first, &mut second] {
        send(socket, &call("test_wait", "[]")).await;
        send(socket, &call("test_wait", "[]")).await;
        server.world.waiting(2).await;
    }
    let refused = json(&ask(&mut first, &call("test_echo", "[1]")).await);
    assert_eq!(error(&refused), (-32005, "too many calls in flight on this connection", "limit_exceeded"));
    assert_eq!(json(&ask(&mut second, &call("test_echo", "[1]")).await)["result"][0], 1);
    server.world.go.add_permits(4);
    server.finish().await;
}

#[tokio::test]
async fn calls_per_second_of_a_service_are_bounded() {
    let server = limited(|limits| limits.max_requests_per_second = NonZeroU32::new(1)).await;
    let mut sockets = [server.try_ws("/first", &[]).await.unwrap(), server.try_ws("/first", &[]).await.unwrap()];
    let mut refused = 0;
    // A minute's calls: only a machine that takes a minute for them would see none refused.
    for _ in 0..30 {
        for socket in &mut sockets {
            let answer = json(&ask(socket, &call("test_echo", "[1]")).await);
            if answer["error"].is_object() {
                assert_eq!(error(&answer), (-32005, "too many requests per second to this service", "rate_limited"));
                let wait = answer["error"]["data"]["retryAfterMs"].as_u64().unwrap();
                assert!((1..=1000).contains(&wait), "{wait}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    let mut second = server.try_ws("/second", &[]).await.unwrap();
    for _ in 0..30 {
        assert_eq!(json(&ask(&mut second, &call("test_echo", "[1]")).await)["result"][0], 1, "another service has a rate of its own");
    }
    server.finish().await;
}

/// Items of a batch are calls too.
#[tokio::test]
async fn a_batch_is_no_way_around_the_rate() {
    let server = limited(|limits| limits.max_requests_per_second = NonZeroU32::new(5)).await;
    let batch = format!("[{}]", vec![call("test_echo", "[1]"); 1000].join(","));
    let answers = json(&server.post(&batch).await);
    let taken = answers.as_array().unwrap().iter().filter(|answer| answer["result"].is_array()).count();
    assert!((5..1000).contains(&taken), "{taken}");
    server.finish().await;
}
