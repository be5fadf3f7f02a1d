//! Connections that end.

use serde_json::json;

use super::backend::{Backend, hash};
use super::*;

#[tokio::test]
async fn what_was_sent_is_lost_and_what_was_not_is_unavailable() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let sent = pool.send_raw(raw(["0x01"]).into()).remove(0);
    let asked = node.asked().await;
    assert_eq!(asked.params, json!(["0x01"]));
    node.down().await;
    assert!(matches!(soon(sent).await, Err(CallError::Lost)));
    until(&pool, |pool| pool.fault().is_some()).await;
    let unsent = pool.send_raw(raw(["0x02"]).into()).remove(0);
    assert!(matches!(soon(unsent).await, Err(CallError::Unavailable)));
    assert!(matches!(soon(pool.call_every::<u64>("eth_x", ())).await[..], [Err(CallError::Unavailable)]));

    node.up().await;
    until(&pool, |pool| pool.fault().is_none()).await;
    let third = pool.send_raw(raw(["0x03"]).into()).remove(0);
    let asked = node.asked().await;
    assert_eq!(asked.params, json!(["0x03"]), "no send is replayed");
    asked.answer(json!(hash(3)));
    assert!(soon(third).await.is_ok());
    let state = pool.endpoints().remove(0);
    assert_eq!(state.reconnects, 1);
    assert_eq!(pool.metrics.nodes.reconnects.with_label_values(&["dev", &state.label]).get(), 1);
    assert_eq!(pool.metrics.nodes.up.with_label_values(&["dev", &state.label]).get(), 1);
}

#[tokio::test]
async fn a_read_is_repeated_once_the_endpoint_is_back() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let script = async {
        let first = node.asked().await;
        first.peer.disconnect();
        let second = node.asked().await;
        assert_eq!((&second.method, &second.params), (&first.method, &first.params));
        second.answer(json!("again"));
    };
    let (result, ()) = soon(async { tokio::join!(pool.call::<String>("eth_x", (1, 2)), script) }).await;
    assert_eq!(result.unwrap(), "again");
}

#[tokio::test]
async fn a_read_waits_for_a_node_within_its_deadline_only() {
    let mut node = Backend::start().await;
    let pool = Setup { deadline: Duration::from_millis(200), ..Setup::default() }.ready(&[&node]).await;
    node.down().await;
    until(&pool, |pool| pool.fault().is_some()).await;
    assert!(matches!(soon(pool.call_raw("eth_x", None)).await, Err(CallError::Unavailable)));
    assert!(matches!(pool.fault(), Some(CallError::Unavailable)));
    assert!(pool.endpoints()[0].detail.is_some());
}

#[tokio::test]
async fn a_pool_starts_while_its_node_is_down() {
    let mut node = Backend::start().await;
    node.down().await;
    let pool = Setup::default().start(&[&node]);
    assert!(matches!(pool.fault(), Some(CallError::Unavailable)));
    let script = async {
        node.up().await;
        node.asked().await.answer(json!(1));
    };
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), script) }).await;
    assert_eq!(result.unwrap(), 1);
}

#[tokio::test]
async fn reads_fail_over_and_come_back() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    let script = async {
        // Lost in the middle on the first, repeated on the second.
        one.asked().await;
        one.down().await;
        two.asked().await.answer(json!("two"));
    };
    let (result, ()) = soon(async { tokio::join!(pool.call::<String>("eth_x", ()), script) }).await;
    assert_eq!(result.unwrap(), "two");
    assert!(pool.fault().is_none());
    until(&pool, |pool| !pool.endpoints()[0].up).await;
    let (result, ()) = soon(async { tokio::join!(pool.call::<String>("eth_x", ()), async { two.asked().await.answer(json!("2")) }) }).await;
    assert_eq!(result.unwrap(), "2");
    one.up().await;
    // Until its head is known it counts as behind.
    until(&pool, |pool| pool.endpoints()[0].up && pool.endpoints()[0].head.is_some()).await;
    let (result, ()) = soon(async { tokio::join!(pool.call::<String>("eth_x", ()), async { one.asked().await.answer(json!("1")) }) }).await;
    assert_eq!(result.unwrap(), "1", "the order of the configuration decides again");
}

#[tokio::test]
async fn a_node_that_never_answers_is_left_at_the_deadline_and_tried_for_ever() {
    let clocks = NodeClocks { connect: Duration::from_millis(50), ..quick() };
    let mut node = Backend::with(backend::Script { manual: true, ..Default::default() }).await;
    let pool = Setup { clocks, ..Setup::default() }.start(&[&node]);
    // It takes the connection and the question for its chain, and says nothing.
    while node.connections() < 5 {
        assert!(["eth_chainId", "eth_getBlockByNumber"].contains(&node.asked().await.method.as_str()));
    }
    let why = pool.endpoints()[0].detail.clone().unwrap();
    assert_eq!(why, "no connection within 50ms");
    node.script(|script| script.manual = false);
    until(&pool, |pool| pool.fault().is_none()).await;
}

#[tokio::test]
async fn a_stop_answers_everybody() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let ticket = pool.send_raw(raw(["0x01"]).into()).remove(0);
    node.asked().await;
    let mut stream = {
        let params = raw(["logs"]);
        let (stream, ()) = tokio::join!(pool.subscribe(&params), async { node.asked().await.answer(json!("0x5")) });
        stream.unwrap()
    };
    pool.stop.cancel();
    assert!(matches!(soon(ticket).await, Err(CallError::Lost)));
    assert_eq!(text(soon(stream.next()).await), "lost");
    assert_eq!(text(soon(stream.next()).await), "end");
    assert!(matches!(soon(pool.call_raw("eth_x", None)).await, Err(CallError::Unavailable)));
    assert!(matches!(soon(pool.send_raw(raw(["0x02"]).into()).remove(0)).await, Err(CallError::Unavailable)));
}
