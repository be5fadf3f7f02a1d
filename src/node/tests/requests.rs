//! Requests and their answers on connections that hold.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{B256, U256};
use serde_json::json;
use tokio::task::yield_now;

use super::backend::{Backend, Script, hash};
use super::*;

#[tokio::test]
async fn answers_find_their_callers_in_any_order() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let calls: Vec<_> = (0..3)
        .map(|n| {
            let pool = pool.pool.clone();
            tokio::spawn(async move { pool.call::<u64>("test_echo", (n,)).await })
        })
        .collect();
    let asked = [node.asked().await, node.asked().await, node.asked().await];
    for asked in asked.iter().rev() {
        assert_eq!(asked.method, "test_echo");
        asked.answer(asked.params[0].clone());
    }
    for (n, call) in (0_u64..).zip(calls) {
        assert_eq!(soon(call).await.unwrap().unwrap(), n);
    }
}

#[tokio::test]
async fn a_raw_result_is_untouched_and_a_typed_one_is_read() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let params = raw(json!([{"a": 1}]));
    let call = async {
        let asked = node.asked().await;
        assert_eq!((asked.method.as_str(), &asked.params), ("eth_x", &json!([{"a": 1}])));
        asked.peer.text(format!(r#"{{"id":{},"jsonrpc":"2.0","result":{{ "z":1, "a" : [2.50] }}}}"#, asked.id));
        let asked = node.asked().await;
        assert_eq!(asked.params, json!([]));
        asked.answer(json!(null));
        node.asked().await.answer(json!("0xff"));
        node.asked().await.answer(json!("nothing of the kind"));
    };
    let calls = async {
        assert_eq!(pool.call_raw("eth_x", Some(&params)).await.unwrap().get(), r#"{ "z":1, "a" : [2.50] }"#);
        assert_eq!(pool.call_raw("eth_y", None).await.unwrap().get(), "null");
        assert_eq!(pool.call::<U256>("eth_z", ()).await.unwrap(), U256::from(255));
        assert!(matches!(pool.call::<U256>("eth_z", ()).await, Err(CallError::Malformed(_))));
    };
    soon(async { tokio::join!(call, calls) }).await;
}

#[tokio::test]
async fn a_nodes_error_is_the_answer_and_never_counts_against_its_health() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let (result, ()) = tokio::join!(pool.call_raw("eth_call", None), async { node.asked().await.error(-32000, "nonce too low") });
    let Err(CallError::Node(error)) = result else { panic!("{result:?}") };
    assert_eq!((error.code, error.message.as_str()), (-32000, "nonce too low"));
    assert!(pool.fault().is_none() && pool.endpoints()[0].up);
    let nodes = &pool.metrics.nodes;
    assert_eq!(nodes.requests.with_label_values(&["dev", "error"]).get(), 1);
    let answered = nodes.requests.with_label_values(&["dev", "ok"]).get() + 1;
    let subscribed = 1;
    let timed = nodes.request_seconds.with_label_values(&["dev", &pool.endpoints()[0].label]).get_sample_count();
    assert_eq!(timed + subscribed, answered, "every answer is timed");
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn frames_that_nobody_understands_are_counted_and_tolerated() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let script = async {
        let asked = node.asked().await;
        for text in [
            "garbage",
            "[]",
            r#"{"id":99999999,"result":1}"#,
            r#"{"method":"eth_subscription","params":{"subscription":"0x5","result":1}}"#,
        ] {
            asked.peer.text(text);
        }
        asked.answer(json!("fine"));
    };
    let (result, ()) = soon(async { tokio::join!(pool.call::<String>("eth_x", ()), script) }).await;
    assert_eq!(result.unwrap(), "fine");
    assert_eq!(pool.endpoints()[0].stray_frames, 4);
}

#[tokio::test]
async fn a_request_without_an_answer_ends_at_its_deadline() {
    let mut node = Backend::start().await;
    let pool = Setup { deadline: Duration::from_millis(200), ..Setup::default() }.ready(&[&node]).await;
    assert!(matches!(soon(pool.call_raw("eth_x", None)).await, Err(CallError::Deadline(_))));
    let ticket = pool.send_raw(raw(["0x01"]).into()).pop().unwrap();
    assert!(matches!(soon(ticket).await, Err(CallError::Deadline(_))));
    let late = node.asked().await;
    late.answer(json!(1));
    node.asked().await;
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { node.asked().await.answer(json!(2)) }) }).await;
    assert_eq!(result.unwrap(), 2, "the connection works on, and a late answer reaches nobody else");
}

#[tokio::test]
async fn a_thousand_sends_are_pipelined_in_their_order() {
    let mut node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let mut tickets = Vec::new();
    for n in 0..1000_u64 {
        let [ticket] = <[SendTicket; 1]>::try_from(pool.send_raw(raw([format!("{n:#x}")]).into())).unwrap();
        tickets.push(ticket);
    }
    let mut all = Vec::new();
    for n in 0..1000_u64 {
        let asked = node.asked().await;
        assert_eq!((asked.method.as_str(), asked.params[0].as_str()), ("eth_sendRawTransaction", Some(format!("{n:#x}").as_str())));
        all.push(asked);
    }
    // Nothing was answered so far: not one send waited for another.
    for (n, asked) in all.iter().enumerate().rev() {
        asked.answer(json!(B256::from(U256::from(n))));
    }
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(soon(ticket).await.unwrap(), B256::from(U256::from(n)));
    }
}

#[tokio::test]
async fn every_endpoint_gets_a_send_and_is_asked_in_order() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    let tickets = pool.send_raw(raw(["0xaa"]).into());
    one.asked().await.error(-32000, "already known");
    two.asked().await.answer(json!(hash(7)));
    let answers = soon(futures_util::future::join_all(tickets)).await;
    assert!(matches!(&answers[0], Err(CallError::Node(error)) if error.message == "already known"));
    assert_eq!(*answers[1].as_ref().unwrap(), B256::repeat_byte(7));

    let script = async {
        two.asked().await.answer(json!("two"));
        one.asked().await.answer(json!("one"));
    };
    let (answers, ()) = soon(async { tokio::join!(pool.call_every::<String>("eth_x", ()), script) }).await;
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test]
async fn a_queue_that_is_full_says_so_at_once() {
    let node = Backend::start().await;
    let pool = ready(&[&node]).await;
    let params: Arc<RawValue> = raw(["0x01"]).into();
    // No await: the task cannot take anything meanwhile on this one thread.
    let mut tickets: Vec<_> = (0..command::QUEUE + 10).flat_map(|_| pool.send_raw(params.clone())).collect();
    for refused in tickets.split_off(command::QUEUE) {
        assert!(matches!(soon(refused).await, Err(CallError::Full)));
    }
    yield_now().await;
    drop(tickets);
}

#[tokio::test]
async fn the_wrong_chain_is_told_and_asked_again() {
    for wrong in [Script { chain_id: 1, ..Script::default() }, Script { genesis: 9, ..Script::default() }] {
        let mut node = Backend::with(wrong).await;
        let pool = Setup { pin: Some(B256::repeat_byte(1)), ..Setup::default() }.start(&[&node]);
        until(&pool, |pool| matches!(pool.fault(), Some(CallError::WrongChain(_)))).await;
        let state = pool.endpoints().remove(0);
        assert!(!state.up && state.detail.unwrap().contains("environment dev: expected "));
        assert!(matches!(soon(pool.call_raw("eth_x", None)).await, Err(CallError::WrongChain(_))));
        assert!(matches!(soon(pool.send_raw(raw(["0x01"]).into()).remove(0)).await, Err(CallError::WrongChain(_))));
        assert!(matches!(soon(pool.subscribe(&raw(["logs"]))).await, Err(CallError::WrongChain(_))));
        assert!(node.nothing_asked());
        node.script(|script| *script = Script::default());
        assert_eq!(soon(pool.genesis()).await, B256::repeat_byte(1));
        assert!(pool.fault().is_none());
    }
}

#[tokio::test]
async fn without_a_pin_the_first_genesis_is_everybodys() {
    let one = Backend::start().await;
    let pool = ready(&[&one]).await;
    assert_eq!(soon(pool.genesis()).await, B256::repeat_byte(1));
    one.script(|script| script.genesis = 2);
    one.disconnect();
    until(&pool, |pool| matches!(pool.fault(), Some(CallError::WrongChain(text)) if text.contains("forget-chain"))).await;
}
