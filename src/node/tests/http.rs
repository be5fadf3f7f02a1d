//! A node that is asked over HTTP.

use serde_json::json;
use tokio::task::yield_now;

use super::super::testing::Running;
use super::backend::{Asked, Backend, Script, hash};
use super::*;

/// Answers so many requests of any kind.
async fn answer(node: &mut Backend, count: usize) -> Vec<Asked> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(node.asked().await);
    }
    all.iter().for_each(|asked| asked.answer(json!(hash(1))));
    all
}

async fn send(pool: &Running, number: u64) -> super::super::SendTicket {
    let ticket = pool.send_raw(raw([number]).into()).remove(0);
    yield_now().await;
    ticket
}

#[tokio::test]
async fn reads_go_at_the_same_time_over_a_bounded_number_of_connections() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    let calls: Vec<_> = (0..40)
        .map(|n| {
            let pool = pool.pool.clone();
            tokio::spawn(async move { pool.call::<u64>("test_echo", (n,)).await })
        })
        .collect();
    let mut asked = Vec::new();
    for _ in 0..16 {
        asked.push(node.asked().await);
    }
    // A round trip of a send: a seventeenth read would have come before it.
    let ticket = send(&pool, 1).await;
    let sent = node.asked().await;
    assert_eq!(sent.method, "eth_sendRawTransaction", "a send waits for no read");
    sent.answer(json!(hash(1)));
    soon(ticket).await.unwrap();
    assert!(node.nothing_asked());
    asked.iter().rev().for_each(|asked| asked.answer(asked.params[0].clone()));
    for _ in 16..40 {
        let asked = node.asked().await;
        asked.answer(asked.params[0].clone());
    }
    for (n, call) in (0_u64..).zip(calls) {
        assert_eq!(soon(call).await.unwrap().unwrap(), n);
    }
    assert!(node.connections() <= 18, "connections are kept: {}", node.connections());
    assert_eq!(pool.endpoints()[0].reconnects, 0);
}

/// The connection was there before, and the node may have closed it by then: a read is asked again, what carries a transaction is not.
#[tokio::test]
async fn what_carries_a_transaction_is_written_once() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    let handed_in = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.hand_in("eth_sendBundle", None).await }
    });
    let asked = node.asked().await;
    assert_eq!(asked.method, "eth_sendBundle");
    node.disconnect();
    assert!(matches!(soon(handed_in).await.unwrap(), Err(CallError::Lost)));
    let read = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.call::<u64>("eth_x", ()).await }
    });
    let asked = node.asked().await;
    assert_eq!(asked.method, "eth_x", "the bundle does not come again");
    node.disconnect();
    let again = node.asked().await;
    assert_eq!(again.method, "eth_x");
    again.answer(json!(1));
    assert_eq!(soon(read).await.unwrap().unwrap(), 1);
}

/// I8: whoever asks much, and what takes long, leaves room for the questions that the streams and transactions of all rest on.
#[tokio::test]
async fn clients_never_take_all_connections() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    let clients: Vec<_> = (0..40)
        .map(|n| {
            let pool = pool.pool.clone();
            tokio::spawn(async move { pool.pass("test_slow", Some(&raw([n]))).await })
        })
        .collect();
    let mut slow = Vec::new();
    for _ in 0..12 {
        slow.push(node.asked().await);
    }
    for n in 0..5 {
        let script = async {
            let asked = node.asked().await;
            assert_eq!(asked.method, "test_own", "while every client's question waits");
            asked.answer(json!(n));
        };
        assert_eq!(soon(async { tokio::join!(pool.call::<u64>("test_own", ()), script) }).await.0.unwrap(), n);
    }
    assert!(node.nothing_asked());
    for n in 0..40 {
        if n >= 12 {
            slow.push(node.asked().await);
        }
        slow[n].answer(json!(0));
    }
    for client in clients {
        soon(client).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn sends_go_in_order_one_request_at_a_time_and_those_that_wait_go_together() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    let mut tickets = vec![send(&pool, 0).await];
    let first = node.asked().await;
    assert_eq!((&first.params, first.together), (&json!([0]), 1));
    for n in 1..251 {
        tickets.push(send(&pool, n).await);
    }
    // A round trip: nothing more is sent before the first is answered.
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { node.asked().await.answer(json!(1)) }) }).await;
    result.unwrap();
    assert!(node.nothing_asked());
    first.answer(json!(hash(1)));
    let mut next = 1;
    for together in [100, 100, 50] {
        let batch = answer(&mut node, together).await;
        for asked in batch {
            assert_eq!((&asked.params, asked.together), (&json!([next]), together));
            next += 1;
        }
    }
    for ticket in tickets {
        assert_eq!(soon(ticket).await.unwrap(), B256::repeat_byte(1));
    }
}

#[tokio::test]
async fn a_batch_that_was_not_taken_may_have_arrived_and_what_comes_later_goes_one_by_one() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    let mut tickets = vec![send(&pool, 0).await];
    let first = node.asked().await;
    for n in 1..5 {
        tickets.push(send(&pool, n).await);
    }
    first.answer(json!(hash(1)));
    let refused = node.asked().await;
    assert_eq!(refused.together, 4);
    for _ in 1..4 {
        node.asked().await;
    }
    refused.peer.text(json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "no batches" } }));
    assert!(soon(tickets.remove(0)).await.is_ok());
    for ticket in tickets.drain(..) {
        // What is said to the same bytes later must not pass for all that is known of them.
        assert!(matches!(soon(ticket).await, Err(CallError::Malformed(_))));
    }
    for n in 5..9 {
        tickets.push(send(&pool, n).await);
    }
    for n in 5..9 {
        let asked = node.asked().await;
        assert_eq!((&asked.params, asked.together), (&json!([n]), 1));
        assert!(node.nothing_asked(), "one at a time");
        asked.answer(json!(hash(1)));
    }
    for ticket in tickets {
        assert!(soon(ticket).await.is_ok());
    }
}

#[tokio::test]
async fn what_was_sent_is_lost_a_read_is_repeated_and_the_chain_is_proven_again() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    let ticket = send(&pool, 1).await;
    node.asked().await;
    let read = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.call::<u8>("eth_x", ()).await }
    });
    node.asked().await;
    node.down().await;
    assert!(matches!(soon(ticket).await, Err(CallError::Lost)));
    until(&pool, |pool| pool.fault().is_some()).await;
    assert!(matches!(soon(send(&pool, 2).await).await, Err(CallError::Unavailable)));
    node.up().await;
    let again = node.asked().await;
    assert_eq!(again.method, "eth_x", "no send is replayed");
    again.answer(json!(7));
    assert_eq!(soon(read).await.unwrap().unwrap(), 7);
    assert_eq!(pool.endpoints()[0].reconnects, 1);
    node.down().await;
    until(&pool, |pool| pool.fault().is_some()).await;
    node.script(|script| script.genesis = 9);
    node.up().await;
    until(&pool, |pool| matches!(pool.fault(), Some(CallError::WrongChain(_)))).await;
}

#[tokio::test]
async fn connections_that_the_node_closes_are_no_loss() {
    let mut node = Backend::http().await;
    let pool = ready(&[&node]).await;
    for n in 0..20_u8 {
        node.disconnect();
        let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { node.asked().await.answer(json!(n)) }) }).await;
        assert_eq!(result.unwrap(), n);
    }
    assert_eq!(pool.endpoints()[0].reconnects, 0);
}

#[tokio::test]
async fn another_chain_behind_the_same_url_is_noticed() {
    let node = Backend::http().await;
    let clocks = NodeClocks { ping: Duration::from_millis(20), ..quick() };
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node]).await;
    node.script(|script| script.chain_id = 5);
    until(&pool, |pool| matches!(pool.fault(), Some(CallError::WrongChain(why)) if why.contains("chain id 5"))).await;
    node.script(|script| script.chain_id = 31337);
    until(&pool, |pool| pool.fault().is_none()).await;
}

#[tokio::test]
async fn a_node_that_answers_nothing_any_more_is_left() {
    let node = Backend::http().await;
    let clocks = NodeClocks { ping: Duration::from_millis(50), pong: Duration::from_millis(500), ..quick() };
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node]).await;
    node.deafen();
    until(&pool, |pool| pool.endpoints()[0].reconnects > 0).await;
    assert_eq!(&*pool.endpoints()[0].last_error.clone().unwrap().1, "a ping was not answered");
    until(&pool, |pool| pool.fault().is_none()).await;
}

#[tokio::test]
async fn heads_are_asked_for_and_streams_go_to_an_endpoint_that_can_push() {
    let mut node = Backend::http().await;
    let clocks = NodeClocks { poll: Duration::from_millis(20), ..quick() };
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node]).await;
    node.script(|script| script.head = (12, 12));
    let mut heads = pool.heads();
    let found = soon(heads.wait_for(|head| head.as_ref().is_some_and(|head| head.number == 12))).await;
    assert_eq!(found.unwrap().as_ref().unwrap().hash, B256::repeat_byte(12));
    assert!(matches!(soon(pool.subscribe(&raw(["newPendingTransactions"]))).await, Err(CallError::NoStreams)));
    assert!(node.nothing_asked());

    let mut other = Backend::with(Script { head: (12, 12), ..Script::default() }).await;
    let pool = Setup { clocks, ..Setup::default() }.ready(&[&node, &other]).await;
    let params = raw(["syncing"]);
    let (stream, ()) = soon(async { tokio::join!(pool.subscribe(&params), async { other.asked().await.answer(json!("0x5")) }) }).await;
    let mut stream = stream.unwrap();
    other.down().await;
    assert_eq!(text(soon(stream.next()).await), "lost");
    other.up().await;
    let (item, ()) = soon(async { tokio::join!(stream.next(), async { other.asked().await.answer(json!("0x6")) }) }).await;
    assert_eq!(text(item), "gap", "it waits for the one that can, while the other is there");
    assert!(node.nothing_asked());
}

#[tokio::test]
async fn a_status_without_an_answer_is_none_and_takes_the_endpoint_from_nobody_else() {
    let (mut node, mut other) = (Backend::http().await, Backend::start().await);
    let pool = ready(&[&node, &other]).await;
    let ticket = send(&pool, 1).await;
    other.asked().await.answer(json!(hash(1)));
    node.asked().await.peer.status(403);
    assert!(matches!(soon(ticket).await, Err(CallError::Lost)), "it may have arrived");
    let script = async {
        node.asked().await.peer.status(429);
        other.asked().await.answer(json!(2));
    };
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), script) }).await;
    assert_eq!((result.unwrap(), pool.endpoints()[0].reconnects, pool.endpoints()[0].last_error.is_some()), (2, 0, false));
    let script = async {
        node.asked().await.peer.status(502);
        other.asked().await.answer(json!(3));
    };
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), script) }).await;
    assert_eq!(result.unwrap(), 3);
    // It may be that question alone: the node answers its ping, and goes on to be asked.
    let script = async { node.asked().await.answer(json!(4)) };
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_y", ()), script) }).await;
    assert_eq!((result.unwrap(), pool.endpoints()[0].reconnects, pool.endpoints()[0].up), (4, 0, true));
}

#[tokio::test]
async fn a_read_that_all_who_are_there_leave_unanswered_is_not_waited_for() {
    let mut node = Backend::http().await;
    let pool = Setup { deadline: Duration::from_secs(3600), ..Setup::default() }.ready(&[&node]).await;
    let script = async { node.asked().await.peer.status(413) };
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), script) }).await;
    assert!(matches!(result, Err(CallError::Lost)), "{result:?}");
    assert!(node.nothing_asked() && pool.endpoints()[0].up);
}

#[tokio::test]
async fn a_request_over_http_ends_at_its_deadline() {
    let mut node = Backend::http().await;
    let pool = Setup { deadline: Duration::from_millis(200), ..Setup::default() }.ready(&[&node]).await;
    assert!(matches!(soon(pool.call_raw("eth_x", None)).await, Err(CallError::Deadline(_))));
    let (in_flight, waiting) = (send(&pool, 1).await, send(&pool, 2).await);
    assert!(matches!(soon(in_flight).await, Err(CallError::Deadline(_))));
    assert!(matches!(soon(waiting).await, Err(CallError::Unavailable | CallError::Deadline(_))));
    node.asked().await;
    let (result, ()) = soon(async {
        tokio::join!(pool.call::<u8>("eth_z", ()), async {
            loop {
                let asked = node.asked().await;
                if asked.method == "eth_z" {
                    return asked.answer(json!(2));
                }
            }
        })
    })
    .await;
    assert_eq!(result.unwrap(), 2);
}
