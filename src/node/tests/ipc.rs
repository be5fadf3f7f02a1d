//! A node on a Unix socket.

use serde_json::json;
use tempfile::TempDir;

use super::backend::{Backend, hash};
use super::half_open::left;
use super::*;

async fn node() -> (Backend, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Backend::ipc(folder.path().join("a node.ipc")).await, folder)
}

#[tokio::test]
async fn reads_sends_and_streams_go_over_a_unix_socket() {
    let (mut node, _folder) = node().await;
    let pool = ready(&[&node]).await;
    assert!(pool.endpoints()[0].label.starts_with("ipc:///"));
    let params = raw(["}\"{"]);
    let call = pool.call_raw("eth_x", Some(&params));
    let (result, ()) = soon(async { tokio::join!(call, async { node.asked().await.answer(json!({ "a": "}]\"" })) }) }).await;
    assert_eq!(result.unwrap().get(), r#"{"a":"}]\""}"#);
    let tickets: Vec<_> = (0..100).flat_map(|n| pool.send_raw(raw([n]).into())).collect();
    for n in 0..100 {
        let asked = node.asked().await;
        assert_eq!(asked.params, json!([n]));
        asked.answer(json!(hash(1)));
    }
    for ticket in tickets {
        soon(ticket).await.unwrap();
    }
    node.announce((11, 11));
    until(&pool, |pool| pool.endpoints()[0].head == Some(11)).await;
    let params = raw(["logs"]);
    let (stream, ()) = soon(async { tokio::join!(pool.subscribe(&params), async { node.asked().await.answer(json!("0x5")) }) }).await;
    let mut stream = stream.unwrap();
    node.notify("0x5", &json!(1));
    assert_eq!(text(soon(stream.next()).await), "1");
    node.down().await;
    assert_eq!(text(soon(stream.next()).await), "lost");
    node.up().await;
    let (item, ()) = soon(async { tokio::join!(stream.next(), async { node.asked().await.answer(json!("0x6")) }) }).await;
    assert_eq!(text(item), "gap");
}

#[tokio::test]
async fn a_ping_is_a_request_and_one_without_an_answer_ends_the_connection() {
    let (node, _folder) = node().await;
    let clocks = NodeClocks { ping: Duration::from_millis(50), pong: Duration::from_millis(500), ..quick() };
    assert_eq!(&*left(node, clocks, true).await, "a ping was not answered");
}

/// Nothing else is said on this connection: it lives by the answers to its pings.
#[tokio::test]
async fn answered_pings_keep_a_quiet_connection() {
    let (node, _folder) = node().await;
    let clocks = NodeClocks { ping: Duration::from_millis(20), silence: Duration::from_millis(1500), ..quick() };
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((pool.endpoints()[0].reconnects, pool.endpoints()[0].stray_frames), (0, 0));
}
