//! Subscriptions.

use serde_json::json;

use super::backend::{Asked, Backend};
use super::*;

/// Subscribes to logs; the node answers with this id.
async fn subscribe(pool: &Pool, node: &mut Backend, id: &str) -> (Subscription, Asked) {
    let params = raw(["logs"]);
    let script = async {
        let asked = node.asked().await;
        assert_eq!((asked.method.as_str(), &asked.params), ("eth_subscribe", &json!(["logs"])));
        asked.answer(json!(id));
        asked
    };
    let (stream, asked) = soon(async { tokio::join!(pool.subscribe(&params), script) }).await;
    (stream.unwrap(), asked)
}

/// A round trip: everything that the node wrote before it has been routed.
async fn round_trip(pool: &Pool, node: &mut Backend) {
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { node.asked().await.answer(json!(1)) }) }).await;
    result.unwrap();
}

#[tokio::test]
async fn items_before_the_answer_are_not_lost() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let params = raw(["logs"]);
    let script = async {
        let asked = node.asked().await;
        asked.peer.notify("0x5", json!(1));
        asked.peer.notify("0x6", json!("of nobody"));
        asked.peer.notify("0x5", json!(2));
        asked.answer(json!("0x5"));
        asked.peer.notify("0x5", json!(3));
    };
    let (stream, ()) = soon(async { tokio::join!(pool.subscribe(&params), script) }).await;
    let mut stream = stream.unwrap();
    for expected in ["1", "2", "3"] {
        assert_eq!(text(soon(stream.next()).await), expected);
    }
}

#[tokio::test]
async fn a_refused_subscription_is_the_nodes_error() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let params = raw(["no such kind"]);
    let script = async { node.asked().await.error(-32602, "no such subscription") };
    let (stream, ()) = soon(async { tokio::join!(pool.subscribe(&params), script) }).await;
    assert!(matches!(stream, Err(CallError::Node(error)) if error.code == -32602));
}

#[tokio::test]
async fn a_lost_subscription_is_made_again_with_one_gap() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let (mut stream, asked) = subscribe(&pool, &mut node, "0x5").await;
    asked.peer.notify("0x5", json!(1));
    assert_eq!(text(soon(stream.next()).await), "1");
    asked.peer.disconnect();
    assert_eq!(text(soon(stream.next()).await), "lost");
    let script = async {
        let again = node.asked().await;
        assert_eq!((again.method.as_str(), &again.params), ("eth_subscribe", &json!(["logs"])));
        again.answer(json!("0x9"));
        again.peer.notify("0x9", json!(2));
    };
    let (item, ()) = soon(async { tokio::join!(stream.next(), script) }).await;
    assert_eq!(text(item), "gap");
    assert_eq!(text(soon(stream.next()).await), "2");
}

#[tokio::test]
async fn a_slow_reader_gets_a_gap_and_delays_nobody() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let (mut slow, asked) = subscribe(&pool, &mut node, "0x5").await;
    let (mut quick, _) = subscribe(&pool, &mut node, "0x6").await;
    for n in 0..1500 {
        asked.peer.notify("0x5", json!(n));
    }
    asked.peer.notify("0x6", json!("quick"));
    assert_eq!(text(soon(quick.next()).await), "\"quick\"");
    round_trip(&pool, &mut node).await;
    for n in 0..1024 {
        assert_eq!(text(soon(slow.next()).await), n.to_string());
    }
    assert_eq!(text(soon(slow.next()).await), "gap");
    asked.peer.notify("0x5", json!("later"));
    assert_eq!(text(soon(slow.next()).await), "\"later\"");
}

#[tokio::test]
async fn a_dropped_subscription_is_ended_at_the_node() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let (stream, _) = subscribe(&pool, &mut node, "0x5").await;
    drop(stream);
    let asked = node.asked().await;
    assert_eq!((asked.method.as_str(), &asked.params), ("eth_unsubscribe", &json!(["0x5"])));
}

#[tokio::test]
async fn a_subscription_moves_to_another_endpoint() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    let (mut stream, asked) = subscribe(&pool, &mut one, "0x5").await;
    asked.peer.notify("0x5", json!(1));
    assert_eq!(text(soon(stream.next()).await), "1");
    one.down().await;
    assert_eq!(text(soon(stream.next()).await), "lost");
    let script = async {
        let again = two.asked().await;
        again.answer(json!("0x5"));
        again.peer.notify("0x5", json!(2));
    };
    let (item, ()) = soon(async { tokio::join!(stream.next(), script) }).await;
    assert_eq!(text(item), "gap");
    assert_eq!(text(soon(stream.next()).await), "2");
}

#[tokio::test]
async fn a_subscription_leaves_an_endpoint_that_falls_behind() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    let (mut stream, _) = subscribe(&pool, &mut one, "0x5").await;
    two.announce((50, 50));
    assert_eq!(text(soon(stream.next()).await), "lost");
    let script = async { two.asked().await.answer(json!("0x7")) };
    let (item, ()) = soon(async { tokio::join!(stream.next(), script) }).await;
    assert_eq!(text(item), "gap");
    let left = one.asked().await;
    assert_eq!((left.method.as_str(), &left.params), ("eth_unsubscribe", &json!(["0x5"])));
}

#[tokio::test]
async fn a_subscription_that_is_refused_again_and_again_ends() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let (mut stream, asked) = subscribe(&pool, &mut node, "0x5").await;
    asked.peer.disconnect();
    assert_eq!(text(soon(stream.next()).await), "lost");
    let script = async {
        for _ in 0..8 {
            node.asked().await.error(-32000, "not now");
        }
    };
    let (item, ()) = soon(async { tokio::join!(stream.next(), script) }).await;
    assert_eq!(text(item), "end");
    assert_eq!(text(soon(stream.next()).await), "end");
}

/// The node's ids mean nothing beyond their connection: after each reconnect they are dealt anew, and every reader keeps its stream.
#[tokio::test]
async fn a_stream_keeps_its_reader_however_often_the_node_comes_and_goes() {
    const STREAMS: usize = 4;
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let params = raw(("logs", n));
        let script = async { node.asked().await.answer(json!(format!("{n:#x}"))) };
        streams.push(soon(async { tokio::join!(pool.subscribe(&params), script) }).await.0.unwrap());
    }
    for round in 1..=20 {
        node.down().await;
        for stream in &mut streams {
            assert_eq!(text(soon(stream.next()).await), "lost");
        }
        node.up().await;
        // Asked in any order; each is answered the id that another one had before.
        let script = async {
            for _ in 0..STREAMS {
                let again = node.asked().await;
                assert_eq!((again.method.as_str(), &again.params[0]), ("eth_subscribe", &json!("logs")));
                let n = again.params[1].as_u64().unwrap();
                let id = format!("{:#x}", (n + round) % STREAMS as u64);
                again.answer(json!(id));
                again.peer.notify(&id, json!([n, round]));
            }
        };
        let gaps = futures_util::future::join_all(streams.iter_mut().map(Subscription::next));
        let (gaps, ()) = soon(async { tokio::join!(gaps, script) }).await;
        assert!(gaps.into_iter().all(|item| text(item) == "gap"));
        for (n, stream) in streams.iter_mut().enumerate() {
            assert_eq!(text(soon(stream.next()).await), format!("[{n},{round}]"));
        }
    }
    assert_eq!(pool.endpoints()[0].reconnects, 20);
}

#[tokio::test]
async fn a_subscription_that_is_not_answered_again_is_asked_for_again() {
    let mut node = Backend::start().await;
    let pool = Setup { deadline: Duration::from_secs(1), ..Setup::default() }.ready(&[&node]).await;
    let (mut stream, asked) = subscribe(&pool, &mut node, "0x5").await;
    asked.peer.disconnect();
    assert_eq!(text(soon(stream.next()).await), "lost");
    let script = async {
        let unanswered = node.asked().await;
        let again = node.asked().await;
        assert_eq!(again.method, "eth_subscribe");
        again.answer(json!("0x6"));
        // A yes that comes too late is undone.
        unanswered.answer(json!("0x7"));
        let undone = node.asked().await;
        assert_eq!((undone.method.as_str(), &undone.params), ("eth_unsubscribe", &json!(["0x7"])));
    };
    let (item, ()) = soon(async { tokio::join!(stream.next(), script) }).await;
    assert_eq!(text(item), "gap");
}
