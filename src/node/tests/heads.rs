//! The head of the environment.

use serde_json::json;
use tokio::sync::watch;

use super::backend::{Backend, Script};
use super::*;

async fn head(heads: &mut watch::Receiver<Option<Arc<Head>>>, number: u64, hash: u8) -> Arc<Head> {
    let found = soon(heads.wait_for(|head| head.as_ref().is_some_and(|head| head.hash == B256::repeat_byte(hash)))).await.unwrap();
    let found = found.clone().unwrap();
    assert_eq!(found.number, number);
    found
}

#[tokio::test]
async fn heads_come_on_connect_by_announcement_and_on_a_reorg() {
    let node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let mut heads = pool.heads();
    head(&mut heads, 10, 10).await;
    node.announce((11, 11));
    let newest = head(&mut heads, 11, 11).await;
    assert_eq!((newest.parent_hash, newest.timestamp, newest.base_fee), (B256::repeat_byte(10), 1011, Some(7)));
    node.announce((11, 91));
    head(&mut heads, 11, 91).await;
    node.announce((9, 89));
    head(&mut heads, 9, 89).await;
    assert_eq!(pool.metrics.nodes.head_number.with_label_values(&["dev"]).get(), 9);
    assert_eq!(pool.metrics.nodes.head_timestamp.with_label_values(&["dev"]).get() as u64, 1009);
    let endpoint = &pool.endpoints()[0];
    assert_eq!(endpoint.head, Some(9));
    assert_eq!(pool.metrics.nodes.endpoint_head.with_label_values(&["dev", &endpoint.label]).get(), 9);
}

#[tokio::test]
async fn reads_go_where_the_head_is() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    two.announce((13, 13));
    until(&pool, |pool| pool.endpoints()[1].head == Some(13)).await;
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { one.asked().await.answer(json!(1)) }) }).await;
    assert_eq!(result.unwrap(), 1, "three blocks behind is near enough");
    two.announce((14, 14));
    head(&mut pool.heads(), 14, 14).await;
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { two.asked().await.answer(json!(2)) }) }).await;
    assert_eq!(result.unwrap(), 2);
}

#[tokio::test]
async fn a_fail_over_to_a_node_a_block_behind_is_no_reorg() {
    let mut one = Backend::with(Script { head: (11, 11), ..Script::default() }).await;
    let two = Backend::start().await;
    let pool = ready(&[&one, &two]).await;
    let mut heads = pool.heads();
    head(&mut heads, 11, 11).await;
    one.down().await;
    until(&pool, |pool| !pool.endpoints()[0].up).await;
    assert!(!heads.has_changed().unwrap());
    two.announce((12, 12));
    head(&mut heads, 12, 12).await;
}

/// The other one was followed all the time: nothing is left out, and nothing has to be asked for.
#[tokio::test]
async fn a_fail_over_has_no_gap() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    let mut each = pool.each_head();
    for number in 11..14 {
        one.announce((number, number as u8));
        two.announce((number, number as u8));
    }
    until(&pool, |pool| pool.endpoints().iter().all(|endpoint| endpoint.head == Some(13))).await;
    one.down().await;
    for number in 14..17 {
        two.announce((number, number as u8));
    }
    for number in 11..17 {
        assert_eq!(soon(each.recv()).await.unwrap().number, number);
    }
    assert!(two.nothing_asked() && two.connections() == 1);
}

#[tokio::test]
async fn a_subscription_that_died_on_a_living_socket_is_noticed() {
    let mut node = Backend::start().await;
    let clocks = NodeClocks { head_silence: Duration::from_millis(100), ..quick() };
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node]).await;
    let mut stream = {
        let params = raw(["logs"]);
        let (stream, ()) = tokio::join!(pool.subscribe(&params), async { node.asked().await.answer(json!("0x5")) });
        stream.unwrap()
    };
    // The chain goes on, and nothing announces it.
    node.script(|script| script.head = (12, 12));
    head(&mut pool.heads(), 12, 12).await;
    assert_eq!(text(soon(stream.next()).await), "lost");
    // Everything on that connection is subscribed again, in whatever order.
    let script = async {
        let mut seen = [node.asked().await, node.asked().await].map(|asked| {
            if asked.method == "eth_subscribe" {
                asked.answer(json!("0x6"));
            }
            asked.method
        });
        seen.sort();
        assert_eq!(seen, ["eth_subscribe", "eth_unsubscribe"]);
    };
    let (item, ()) = soon(async { tokio::join!(stream.next(), script) }).await;
    assert_eq!(text(item), "gap");
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn without_new_heads_the_head_is_asked_for() {
    let mut node = Backend::with(Script { manual: true, ..Script::default() }).await;
    let clocks = NodeClocks { poll: Duration::from_millis(50), ..quick() };
    let pool = Setup { clocks, ..Setup::default() }.start(&[&node]);
    let mut number = 10;
    let script = async {
        while number < 14 {
            let asked = node.asked().await;
            match (asked.method.as_str(), asked.params[0].as_str()) {
                ("eth_chainId", _) => asked.answer(json!("0x7a69")),
                (_, Some("0x0")) => asked.answer(super::backend::header((0, 1))),
                (_, Some("latest")) => {
                    number += 1;
                    asked.answer(super::backend::header((number, number as u8)));
                }
                _ => asked.error(-32601, "the method does not exist"),
            }
        }
    };
    soon(script).await;
    head(&mut pool.heads(), 14, 14).await;
}
