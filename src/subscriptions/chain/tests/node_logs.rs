//! A node's own subscription to logs, and what is done when it was away.

use super::*;
use crate::node::StreamItem;
use crate::node::testing::backend::Peer;

struct Relayed {
    world: World,
    logs: NodeLogs,
    /// Where the node tells by.
    peer: Peer,
}

/// A log as a node tells it.
fn told_log(number: u64, byte: u8, index: u64, removed: bool) -> Value {
    let mut log = log(byte, index, 1);
    log["blockNumber"] = json!(format!("{number:#x}"));
    log["removed"] = json!(removed);
    log
}

impl Relayed {
    async fn start() -> Self {
        Self::with(256).await
    }

    async fn with(depth: usize) -> Self {
        let mut world = World::with(depth).await;
        let params = RawValue::from_string(r#"["logs",{}]"#.into()).unwrap();
        let asked = async {
            let asked = world.node.asked().await;
            assert_eq!((asked.method.as_str(), &asked.params), ("eth_subscribe", &json!(["logs", {}])));
            asked.answer(json!("0x5"));
            asked.peer
        };
        let open = soon(NodeLogs::open(&world.feed, &world.pool.pool, &params, LogFilter::default()));
        let (peer, logs) = tokio::join!(asked, open);
        Self { logs: logs.unwrap(), world, peer }
    }

    /// Block, index and whether it is removed.
    async fn next(&mut self) -> (Value, Value, Value) {
        match soon(self.logs.next()).await {
            Some(StreamItem::Item(item)) => parts(&item),
            other => panic!("{other:?}"),
        }
    }

    /// The same, while the node is asked: for blocks by hash, logs by block, and the subscription.
    async fn next_of(&mut self, blocks: &[Value], logs: &[(u8, Value)], count: usize) -> Vec<(Value, Value, Value)> {
        let Self { world, logs: stream, .. } = self;
        let mut all = Vec::new();
        let read = async {
            while all.len() < count {
                match soon(stream.next()).await {
                    Some(StreamItem::Item(item)) => all.push(parts(&item)),
                    other => panic!("{other:?}"),
                }
            }
        };
        let script = async {
            loop {
                let asked = world.node.asked().await;
                match asked.method.as_str() {
                    "eth_subscribe" => asked.answer(json!("0x9")),
                    "eth_getLogs" => {
                        let found = logs.iter().find(|(byte, _)| asked.params[0]["blockHash"] == hash(*byte));
                        asked.answer(found.map_or(json!([]), |(_, logs)| logs.clone()));
                    }
                    by => {
                        let by = if by == "eth_getBlockByHash" { "hash" } else { "number" };
                        asked.answer(blocks.iter().find(|block| block[by] == asked.params[0]).cloned().unwrap_or(Value::Null));
                    }
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = script => {}
        }
        all
    }
}

fn parts(log: &RawValue) -> (Value, Value, Value) {
    let log: Value = serde_json::from_str(log.get()).unwrap();
    (log["blockHash"].clone(), log["logIndex"].clone(), log["removed"].clone())
}

fn is(byte: u8, index: &str, removed: bool) -> (Value, Value, Value) {
    (json!(hash(byte)), json!(index), json!(removed))
}

#[tokio::test]
async fn what_the_node_tells_is_passed_on_as_it_is_and_nothing_is_asked_for() {
    let mut relayed = Relayed::start().await;
    relayed.world.node.announce((11, 11));
    let odd = json!({ "nothing": "that can be read" });
    for told in [told_log(11, 11, 0, false), told_log(11, 11, 1, false), odd.clone(), told_log(11, 11, 1, true)] {
        relayed.peer.notify("0x5", told);
    }
    assert_eq!(relayed.next().await, is(11, "0x0", false));
    assert_eq!(relayed.next().await, is(11, "0x1", false));
    assert_eq!(relayed.next().await.0, Value::Null);
    assert_eq!(relayed.next().await, is(11, "0x1", true));
    assert!(relayed.world.node.nothing_asked());
}

#[tokio::test]
async fn logs_of_the_time_when_it_was_away_are_found_in_the_chain() {
    let mut relayed = Relayed::start().await;
    relayed.world.announced((11, 11)).await;
    relayed.peer.notify("0x5", told_log(11, 11, 0, false));
    assert_eq!(relayed.next().await, is(11, "0x0", false));
    // Cut in the middle of block 11; 12 and 13 come while it is away.
    relayed.world.node.script(|script| script.head = (13, 13));
    relayed.peer.disconnect();
    let blocks = [block(12, 12, 11), block(13, 13, 12)];
    let logs = [(11, json!([told_log(11, 11, 0, false), told_log(11, 11, 1, false)])), (13, json!([told_log(13, 13, 0, false)]))];
    assert_eq!(relayed.next_of(&blocks, &logs, 2).await, [is(11, "0x1", false), is(13, "0x0", false)]);
    // What the new subscription says of it is not told again.
    for told in [told_log(13, 13, 0, false), told_log(13, 13, 0, true), told_log(13, 13, 0, true), told_log(13, 43, 0, false)] {
        relayed.world.node.notify("0x9", &told);
    }
    assert_eq!(relayed.next_of(&[], &[], 2).await, [is(13, "0x0", true), is(43, "0x0", false)]);
}

#[tokio::test]
async fn a_reorg_of_the_time_when_it_was_away_takes_back_what_was_told() {
    let mut relayed = Relayed::start().await;
    for number in [11, 12] {
        relayed.world.announced((number, number as u8)).await;
        for index in 0..2 {
            relayed.peer.notify("0x5", told_log(number, number as u8, index, false));
            relayed.next().await;
        }
    }
    // It tells half of what it takes back, and is cut.
    relayed.peer.notify("0x5", told_log(12, 12, 1, true));
    assert_eq!(relayed.next().await, is(12, "0x1", true));
    relayed.world.node.script(|script| script.head = (13, 43));
    relayed.peer.disconnect();
    let blocks = [block(11, 41, 10), block(12, 42, 41)];
    let logs = [(41, json!([told_log(11, 41, 0, false)])), (43, json!([told_log(13, 43, 0, false)]))];
    let expected = [is(12, "0x0", true), is(11, "0x1", true), is(11, "0x0", true), is(41, "0x0", false), is(43, "0x0", false)];
    assert_eq!(relayed.next_of(&blocks, &logs, 5).await, expected);
}

/// The endpoint that it is subscribed at again may have been ahead of what was known: what it had by then it does not tell.
#[tokio::test]
async fn blocks_right_above_those_that_were_known_are_read_too() {
    let mut relayed = Relayed::start().await;
    relayed.world.announced((11, 11)).await;
    relayed.peer.disconnect();
    let logs = [(11, json!([told_log(11, 11, 0, false)])), (12, json!([told_log(12, 12, 0, false)]))];
    assert_eq!(relayed.next_of(&[], &logs, 1).await, [is(11, "0x0", false)]);
    relayed.world.node.announce((12, 12));
    assert_eq!(relayed.next_of(&[], &logs, 1).await, [is(12, "0x0", false)]);
    // It tells it after all, and then what is beyond that.
    relayed.world.node.notify("0x9", &told_log(12, 12, 0, false));
    relayed.world.node.notify("0x9", &told_log(20, 20, 0, false));
    assert_eq!(relayed.next_of(&[], &logs, 1).await, [is(20, "0x0", false)]);
}

#[tokio::test]
async fn what_is_deeper_than_the_ring_is_a_gap_and_the_stream_begins_anew() {
    let mut relayed = Relayed::with(4).await;
    relayed.peer.notify("0x5", told_log(11, 11, 0, false));
    relayed.next().await;
    relayed.world.node.script(|script| script.head = (30, 30));
    relayed.peer.disconnect();
    let Relayed { world, logs, .. } = &mut relayed;
    let again = async {
        let asked = world.node.asked().await;
        asked.answer(json!("0x9"));
        asked.peer
    };
    let (gap, peer) = tokio::join!(soon(logs.next()), again);
    assert!(matches!(gap, Some(StreamItem::Gap)), "{gap:?}");
    peer.notify("0x9", told_log(31, 31, 0, false));
    assert_eq!(relayed.next().await, is(31, "0x0", false));
}
