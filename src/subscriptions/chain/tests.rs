//! Streams of the chain over a scripted node.

mod ahead;
mod lasting;
mod resumed;
mod resumed_logs;

use std::sync::Arc;

use alloy_primitives::{B256, Bloom, U64};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::told::Told;
use super::*;
use crate::node::testing::backend::{Asked, Backend, hash, header};
use crate::node::testing::{Running, ready, soon, until};

struct World {
    node: Backend,
    pool: Running,
    feed: Feed,
}

/// A block as `eth_getBlockByHash` tells it.
fn block(number: u64, byte: u8, parent: u8) -> Value {
    let mut block = header((number, byte));
    block["parentHash"] = json!(hash(parent));
    block["transactions"] = json!([hash(1)]);
    block["size"] = json!("0x200");
    block
}

/// The header of the same block, as it is announced.
fn announced(number: u64, byte: u8, parent: u8) -> Value {
    let mut header = header((number, byte));
    header["parentHash"] = json!(hash(parent));
    header
}

fn log(block: u8, index: u64, address: u8) -> Value {
    json!({ "address": format!("0x{}", format!("{address:02x}").repeat(20)), "topics": [hash(7)], "data": "0x", "blockHash": hash(block),
            "logIndex": format!("{index:#x}"), "removed": false })
}

impl World {
    /// The head is block 10.
    async fn start() -> Self {
        Self::with(256).await
    }

    /// So many blocks are kept.
    async fn with(depth: usize) -> Self {
        let node = Backend::start().await;
        let pool = ready(&[&node]).await;
        let feed = Feed::with(pool.pool.clone(), StepMeter::new(&pool.metrics, "dev"), pool.stop.child_token(), depth);
        Self { node, pool, feed }
    }

    /// The next question, which is for this block.
    async fn asked_for(&mut self, byte: u8) -> Asked {
        let asked = self.node.asked().await;
        assert_eq!((asked.method.as_str(), &asked.params), ("eth_getBlockByHash", &json!([hash(byte), false])));
        asked
    }

    /// The next question, which is for the logs of this block.
    async fn asked_for_logs(&mut self, byte: u8) -> Asked {
        let asked = self.node.asked().await;
        assert_eq!((asked.method.as_str(), &asked.params), ("eth_getLogs", &json!([{ "blockHash": hash(byte) }])));
        asked
    }

    async fn heads(&self) -> Heads {
        soon(Heads::open(&self.feed)).await.unwrap()
    }

    async fn logs(&self, address: u8) -> Logs {
        let filter = LogFilter { addresses: [[address; 20].into()].into(), ..LogFilter::default() };
        soon(Logs::open(&self.feed, OfLogs { filter, ..OfLogs::default() })).await.unwrap()
    }

    /// Announces a head, and waits until the pool has it.
    async fn announced(&self, head: (u64, u8)) {
        self.node.announce(head);
        until(&self.pool, |pool| pool.endpoints().iter().all(|endpoint| endpoint.head == Some(head.0))).await;
    }

    /// A head that is not the child of the one before it in the script. It is the node's latest.
    fn announce(&self, head: &Value) {
        let (number, hash): (U64, B256) = serde_json::from_value(json!([head["number"], head["hash"]])).unwrap();
        self.node.script(|script| script.head = (number.to(), hash[0]));
        self.announce_late(head);
    }

    /// The same, when it is not the latest any more.
    fn announce_late(&self, head: &Value) {
        self.node.notify("0xheads", head);
    }
}

fn item(told: Option<Told>) -> Arc<RawValue> {
    match told {
        Some(Told::Item(item)) => item,
        other => panic!("{other:?}"),
    }
}

/// Answers questions for blocks by hash and by number out of these, until the work is done.
async fn answering<T>(node: &mut Backend, blocks: &[Value], work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            asked = node.asked() => {
                let by = if asked.method == "eth_getBlockByHash" { "hash" } else { "number" };
                assert!(asked.method.starts_with("eth_getBlockBy"), "{} {}", asked.method, asked.params);
                let found = blocks.iter().find(|block| block[by] == asked.params[0]);
                asked.answer(found.cloned().unwrap_or(Value::Null));
            }
        }
    }
}

async fn head(heads: &mut Heads) -> Value {
    serde_json::from_str(item(soon(heads.next()).await).get()).unwrap()
}

/// Block, index and whether it is removed.
async fn told(logs: &mut Logs) -> (Value, Value, Value) {
    let log: Value = serde_json::from_str(item(soon(logs.next()).await).get()).unwrap();
    (log["blockHash"].clone(), log["logIndex"].clone(), log["removed"].clone())
}

#[tokio::test]
async fn heads_are_told_as_they_are_announced_and_nothing_is_asked_for() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    for number in 11..=13 {
        world.node.announce((number, number as u8));
        assert_eq!(head(&mut heads).await, header((number, number as u8)));
    }
    assert!(world.node.nothing_asked());
}

#[tokio::test]
async fn heads_that_were_never_announced_are_found_by_their_hashes() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.node.announce((13, 13));
    world.asked_for(12).await.answer(block(12, 12, 11));
    world.asked_for(11).await.answer(block(11, 11, 10));
    for number in 11..=13 {
        assert_eq!(head(&mut heads).await, header((number, number as u8)), "as it would have been announced");
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_leaves_no_gap() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.node.script(|script| script.head = (12, 12));
    world.node.disconnect();
    world.asked_for(12).await.answer(block(12, 12, 11));
    world.asked_for(11).await.answer(block(11, 11, 10));
    assert_eq!(head(&mut heads).await["number"], "0xb");
    assert_eq!(head(&mut heads).await["number"], "0xc");
}

#[tokio::test]
async fn a_new_branch_is_told_from_its_first_block() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.node.announce((11, 11));
    world.node.announce((12, 12));
    assert_eq!(head(&mut heads).await["number"], "0xb");
    assert_eq!(head(&mut heads).await["number"], "0xc");
    let tip = announced(12, 42, 41);
    world.announce(&tip);
    world.asked_for(41).await.answer(block(11, 41, 10));
    assert_eq!(head(&mut heads).await, announced(11, 41, 10));
    assert_eq!(head(&mut heads).await, tip);
}

#[tokio::test]
async fn a_branch_from_before_the_stream_began_is_followed_to_where_it_begins() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.announce(&announced(11, 51, 50));
    world.asked_for(9).await.answer(block(9, 9, 8));
    world.asked_for(50).await.answer(block(10, 50, 9));
    assert_eq!(head(&mut heads).await["hash"], hash(50));
    assert_eq!(head(&mut heads).await["hash"], hash(51));
}

#[tokio::test]
async fn a_head_of_before_that_is_told_late_changes_nothing() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.announce(&announced(9, 9, 8));
    world.announce(&announced(11, 11, 10));
    assert_eq!(head(&mut heads).await["hash"], hash(11));
    assert!(world.node.nothing_asked(), "its header was announced");
}

#[tokio::test]
async fn a_head_of_another_branch_that_is_told_late_changes_nothing() {
    let world = World::start().await;
    let mut heads = world.heads().await;
    world.node.announce((11, 11));
    world.announce(&announced(11, 41, 10));
    // One that was taken back, and one that nobody saw.
    world.announce_late(&announced(11, 11, 10));
    world.announce_late(&announced(11, 51, 10));
    world.announce(&announced(12, 42, 41));
    for byte in [11, 41, 42] {
        assert_eq!(head(&mut heads).await["hash"], hash(byte));
    }
    world.announce(&announced(11, 11, 10));
    assert_eq!(head(&mut heads).await["hash"], hash(11), "the chain went back to it");
}

#[tokio::test]
async fn a_branch_that_leaves_the_blocks_on_record_is_a_gap_and_streams_go_on_after_it() {
    let world = World::with(1).await;
    let mut heads = world.heads().await;
    world.announce(&announced(11, 51, 50));
    assert!(matches!(soon(heads.next()).await, Some(Told::Gap(_))));
    world.announce(&announced(12, 52, 51));
    assert_eq!(head(&mut heads).await["hash"], hash(52));
}

#[tokio::test]
async fn logs_of_a_block_are_asked_for_once_and_told_to_whom_they_concern() {
    let mut world = World::start().await;
    let mut one = world.logs(1).await;
    let filter = LogFilter { addresses: [[2; 20].into()].into(), ..LogFilter::default() };
    let mut two = soon(Logs::open(&world.feed, OfLogs { filter, ..OfLogs::default() })).await.unwrap();
    world.node.announce((11, 11));
    let answered = async {
        let asked = world.asked_for_logs(11).await;
        asked.answer(json!([log(11, 0, 1), log(11, 1, 2), log(11, 2, 1)]));
    };
    let (first, ours, ()) = tokio::join!(told(&mut one), told(&mut two), answered);
    assert_eq!((first.1, ours.1), (json!("0x0"), json!("0x1")));
    assert_eq!(told(&mut one).await.1, "0x2");
    assert!(world.node.nothing_asked());
}

#[tokio::test]
async fn a_filter_that_clients_read_differently_is_the_nodes_to_judge() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    let filter = LogFilter { topics: vec![Some([[7; 32].into()].into()), None], ..LogFilter::default() };
    let mut logs = soon(Logs::open(&world.feed, OfLogs { filter, ..OfLogs::default() })).await.unwrap();
    world.node.announce((11, 11));
    head(&mut heads).await;
    let judged = async {
        let asked = world.node.asked().await;
        assert_eq!(asked.params, json!([{ "blockHash": hash(11), "address": [], "topics": [[hash(7)], null] }]));
        asked.answer(json!([log(11, 3, 9)]));
    };
    assert_eq!(tokio::join!(told(&mut logs), judged).0.1, "0x3");
}

#[tokio::test]
async fn logs_of_a_block_that_a_reorg_takes_back_come_again_as_removed_newest_first() {
    let mut world = World::start().await;
    let mut logs = world.logs(1).await;
    world.node.announce((11, 11));
    world.node.announce((12, 12));
    let blocks = async {
        world.asked_for_logs(11).await.answer(json!([log(11, 0, 1), log(11, 1, 1)]));
        world.asked_for_logs(12).await.answer(json!([log(12, 0, 1)]));
    };
    let told_all = async { (told(&mut logs).await, told(&mut logs).await, told(&mut logs).await) };
    tokio::join!(told_all, blocks);
    world.announce(&announced(11, 41, 10));
    let (is, was) = (json!(false), json!(true));
    for (byte, index) in [(12, "0x0"), (11, "0x1"), (11, "0x0")] {
        assert_eq!(told(&mut logs).await, (json!(hash(byte)), json!(index), was.clone()));
    }
    let branch = async { world.asked_for_logs(41).await.answer(json!([log(41, 0, 1)])) };
    assert_eq!(tokio::join!(told(&mut logs), branch).0, (json!(hash(41)), json!("0x0"), is));
}

#[tokio::test]
async fn logs_that_cannot_be_read_are_asked_for_again_unless_their_block_is_gone() {
    let mut world = World::start().await;
    let mut logs = world.logs(1).await;
    world.node.announce((11, 11));
    let refused = async {
        world.asked_for_logs(11).await.error(-32000, "header not found");
        world.asked_for_logs(11).await.answer(json!([log(11, 0, 1)]));
    };
    assert_eq!(tokio::join!(told(&mut logs), refused).0.1, "0x0");
    world.node.announce((12, 12));
    let gone = async {
        let asked = world.asked_for_logs(12).await;
        world.announce(&announced(12, 42, 11));
        // The head of another client shows that the feed has moved on.
        asked.error(-32000, "unknown block");
        loop {
            let asked = world.node.asked().await;
            match asked.params[0]["blockHash"].as_str() {
                Some(block) if block == hash(12) => asked.error(-32000, "unknown block"),
                _ => break asked.answer(json!([log(42, 0, 1)])),
            }
        }
    };
    assert_eq!(tokio::join!(told(&mut logs), gone).0.0, hash(42), "nothing of what nobody saw");
}

#[tokio::test]
async fn logs_above_those_that_were_never_told_of_a_branch_that_is_gone_are_not_told_either() {
    let mut world = World::start().await;
    let mut logs = world.logs(1).await;
    world.node.announce((11, 11));
    world.node.announce((12, 12));
    let gone = async {
        let asked = world.asked_for_logs(11).await;
        world.announce(&announced(11, 41, 10));
        asked.error(-32000, "header not found");
        loop {
            let asked = world.node.asked().await;
            match asked.params[0]["blockHash"].as_str() {
                Some(block) if block == hash(11) => asked.error(-32000, "header not found"),
                Some(block) => break asked.answer(json!([log(u8::from_str_radix(&block[2..4], 16).unwrap(), 0, 1)])),
                None => panic!("{}", asked.params),
            }
        }
    };
    assert_eq!(tokio::join!(told(&mut logs), gone).0.0, hash(41));
}

#[tokio::test]
async fn logs_that_are_fewer_than_the_bloom_of_their_block_says_are_asked_for_again() {
    let mut world = World::start().await;
    let mut logs = world.logs(1).await;
    let mut bloom = Bloom::default();
    for address in [1, 2] {
        bloom.accrue_raw_log([address; 20].into(), &[[7; 32].into()]);
    }
    let mut head = announced(11, 11, 10);
    head["logsBloom"] = json!(bloom);
    world.announce(&head);
    let whole = async {
        world.asked_for_logs(11).await.answer(json!([]));
        world.asked_for_logs(11).await.answer(json!([log(11, 0, 1)]));
        // More than it says is no fault: there are chains with logs outside of the bloom.
        world.asked_for_logs(11).await.answer(json!([log(11, 0, 1), log(11, 1, 2), log(11, 2, 3)]));
    };
    assert_eq!(tokio::join!(told(&mut logs), whole).0.1, "0x0");
    // Another block's bloom does not pass the filter: its logs are nobody's.
    let mut other = Bloom::default();
    other.accrue_raw_log([2; 20].into(), &[]);
    let mut head = announced(12, 12, 11);
    head["logsBloom"] = json!(other);
    world.announce(&head);
    world.announce(&announced(13, 13, 12));
    let next = async { world.asked_for_logs(13).await.answer(json!([log(13, 0, 1)])) };
    assert_eq!(tokio::join!(told(&mut logs), next).0.0, hash(13));
}

#[tokio::test]
async fn whoever_streams_from_the_chain_is_all_that_is_worked_for() {
    let mut world = World::start().await;
    world.node.announce((11, 11));
    let mut heads = soon(Heads::open(&world.feed)).await.unwrap();
    world.node.announce((12, 12));
    assert_eq!(head(&mut heads).await["number"], "0xc", "from the head of then");
    drop(heads);
    world.announced((13, 13)).await;
    world.announced((20, 20)).await;
    let mut heads = soon(Heads::open(&world.feed)).await.unwrap();
    world.node.announce((21, 21));
    assert_eq!(head(&mut heads).await["number"], "0x15");
    assert!(world.node.nothing_asked(), "nobody wanted what was between");
}
