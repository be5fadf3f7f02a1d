//! Endpoints that tell what is not true.

use serde_json::json;

use super::super::testing::Running;
use super::backend::{Backend, Script};
use super::*;

/// A chain that ends at this block, with these last bytes added to its numbers.
fn chain(head: u64, more: u8) -> Script {
    Script { head: (head, (head as u8).wrapping_add(more)), history: Some(more), ..Script::default() }
}

async fn pair(one: Script, two: Script) -> (Running, Backend, Backend) {
    let (one, two) = (Backend::with(one).await, Backend::with(two).await);
    let clocks = NodeClocks { head_silence: Duration::from_millis(50), ..quick() };
    let pool = Setup { clocks, depth: 8, ..Setup::default() }.start(&[&one, &two]);
    (pool, one, two)
}

/// Two round trips to both: what was asked before has been answered.
async fn round_trips(pool: &Pool, one: &mut Backend, two: &mut Backend) {
    for _ in 0..2 {
        let script = async { tokio::join!(async { one.asked().await.answer(json!(1)) }, async { two.asked().await.answer(json!(1)) }) };
        let (answers, _) = soon(async { tokio::join!(pool.call_every::<u8>("eth_x", ()), script) }).await;
        assert!(answers.iter().all(Result::is_ok));
    }
}

/// Tells the next head of this chain.
fn next(node: &Backend, head: u64, more: u8) {
    node.script(|script| *script = chain(head, more));
    node.announce((head, (head as u8).wrapping_add(more)));
}

async fn untrusted(pool: &Pool, index: usize, why: &str) {
    until(pool, |pool| pool.endpoints()[index].state == "untrusted").await;
    let state = pool.endpoints().remove(index);
    assert!(!state.up && state.detail.as_ref().is_some_and(|detail| detail.contains(why)), "{state:?}");
    assert!(state.last_error.is_some_and(|(_, error)| error.contains(why)));
}

fn metric(pool: &Running, index: usize, kind: &str) -> (i64, u64) {
    let label = &pool.endpoints()[index].label;
    let nodes = &pool.metrics.nodes;
    (nodes.up.with_label_values(&["dev", label]).get(), nodes.lies.with_label_values(&["dev", label, kind]).get())
}

#[tokio::test]
async fn an_endpoint_that_runs_backwards_is_put_out_and_comes_back() {
    let (pool, mut one, mut two) = pair(chain(100, 0), chain(100, 0)).await;
    until(&pool, |pool| pool.endpoints().iter().all(|endpoint| endpoint.head == Some(100))).await;
    next(&one, 92, 0);
    until(&pool, |pool| pool.endpoints()[0].head == Some(92)).await;
    assert!(pool.endpoints()[0].up, "a reorg can do that");
    next(&one, 91, 0);
    untrusted(&pool, 0, "runs backwards: its head was 100 and is 91").await;
    assert_eq!(metric(&pool, 0, "backwards"), (0, 1));
    assert_eq!(pool.heads().borrow().as_ref().map(|head| head.number), Some(100));
    // It is asked nothing, and takes what is sent: that is no matter of the chain.
    let (result, ()) = soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { two.asked().await.answer(json!(2)) }) }).await;
    assert_eq!(result.unwrap(), 2);
    let ticket = pool.send_raw(raw(["0x01"]).into()).remove(0);
    let asked = one.asked().await;
    assert_eq!(asked.method, "eth_sendRawTransaction");
    asked.answer(json!(super::backend::hash(1)));
    soon(ticket).await.unwrap();
    next(&one, 93, 0);
    until(&pool, |pool| pool.endpoints()[0].up).await;
    assert_eq!(metric(&pool, 0, "backwards"), (1, 1));
}

#[tokio::test]
async fn an_endpoint_with_another_history_is_put_out_and_its_heads_count_for_nothing() {
    let (pool, mut one, mut two) = pair(chain(100, 0), chain(100, 0)).await;
    until(&pool, |pool| pool.endpoints().iter().all(|endpoint| endpoint.head == Some(100))).await;
    round_trips(&pool, &mut one, &mut two).await;
    let mut heads = pool.heads();
    // The first leaves the chain, far ahead of it, and is the best for a while.
    next(&one, 120, 1);
    untrusted(&pool, 0, "tells another history: its block ").await;
    assert_eq!(metric(&pool, 0, "history"), (0, 1));
    next(&two, 101, 0);
    soon(heads.wait_for(|head| head.as_ref().is_some_and(|head| (head.number, head.hash) == (101, B256::repeat_byte(101))))).await.unwrap();
    next(&one, 102, 0);
    until(&pool, |pool| pool.endpoints()[0].up).await;
    next(&two, 102, 0);
    soon(heads.wait_for(|head| head.as_ref().is_some_and(|head| head.number == 102))).await.unwrap();
}

#[tokio::test]
async fn what_every_endpoint_tells_is_the_chain_however_deep_it_was_rewritten() {
    let node = Backend::with(chain(100, 0)).await;
    let clocks = NodeClocks { head_silence: Duration::from_millis(50), ..quick() };
    let pool = Setup { clocks, depth: 8, ..Setup::default() }.ready(&[&node]).await;
    for head in 101..130 {
        next(&node, head, 1);
        until(&pool, |pool| pool.endpoints()[0].head == Some(head)).await;
    }
    assert!(pool.endpoints()[0].up && pool.endpoints()[0].last_error.is_none());
}

#[tokio::test]
async fn an_endpoint_that_contradicts_itself_is_put_out() {
    let (pool, one, two) = pair(chain(100, 0), chain(100, 0)).await;
    until(&pool, |pool| pool.endpoints().iter().all(|endpoint| endpoint.head == Some(100))).await;
    // The same hash with another number.
    one.announce((101, 100));
    untrusted(&pool, 0, "contradicts itself").await;
    assert_eq!(metric(&pool, 0, "contradiction"), (0, 1));
    next(&one, 102, 0);
    next(&two, 102, 0);
    until(&pool, |pool| pool.endpoints()[0].up).await;
}

#[tokio::test]
async fn while_nobody_is_trusted_it_is_told_why() {
    let node = Backend::with(chain(100, 0)).await;
    let pool = Setup { depth: 8, ..Setup::default() }.ready(&[&node]).await;
    next(&node, 20, 0);
    until(&pool, |pool| matches!(pool.fault(), Some(CallError::WrongChain(why)) if why.contains("runs backwards"))).await;
    assert!(pool.send_fault().is_none());
}
