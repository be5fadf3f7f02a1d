//! Connections that stay open and are dead: each of the clocks notices what the others do not. The third of them, the age of the head, is
//! tried in `heads.rs`.

use serde_json::json;

use super::backend::Backend;
use super::*;

const NEVER: Duration = Duration::from_secs(600);

/// A read and a stream of a pool whose node is deaf from now on. Both must go on once the connection is left; answers why it was.
pub(super) async fn left(mut node: Backend, clocks: NodeClocks, talks: bool) -> Arc<str> {
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node]).await;
    let params = raw(["logs"]);
    let (stream, ()) = soon(async { tokio::join!(pool.subscribe(&params), async { node.asked().await.answer(json!("0x5")) }) }).await;
    let mut stream = stream.unwrap();
    node.deafen();
    let read = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.call::<u8>("eth_x", ()).await }
    });
    let mut head = 10;
    while pool.endpoints()[0].reconnects == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if talks {
            head = if head == 10 { 11 } else { 10 };
            node.announce((head, head as u8));
        }
    }
    let why = pool.endpoints()[0].last_error.clone().unwrap().1;
    assert_eq!(text(soon(stream.next()).await), "lost");
    let script = async {
        // Each on the connection of the moment, in any order.
        for _ in 0..2 {
            let asked = node.asked().await;
            asked.answer(if asked.method == "eth_x" { json!(7) } else { json!("0x6") });
        }
    };
    let (read, item, ()) = soon(async { tokio::join!(read, stream.next(), script) }).await;
    assert_eq!(read.unwrap().unwrap(), 7);
    assert_eq!(text(item), "gap");
    why
}

#[tokio::test]
async fn a_node_that_answers_no_ping_is_left_although_its_heads_come() {
    let clocks = NodeClocks { ping: Duration::from_millis(50), pong: Duration::from_millis(500), silence: NEVER, ..quick() };
    assert_eq!(&*left(Backend::start().await, clocks, true).await, "a ping was not answered");
}

#[tokio::test]
async fn a_connection_on_which_nothing_arrives_is_left_before_its_ping_is_late() {
    let clocks = NodeClocks { ping: Duration::from_millis(50), pong: NEVER, silence: Duration::from_millis(500), ..quick() };
    assert_eq!(&*left(Backend::start().await, clocks, false).await, "no frame arrived for too long");
}
