//! Streams of logs that begin behind a block that the client names.

use super::told::Place;
use super::*;
use crate::config::LogSource;

impl World {
    async fn logs_behind(&self, address: u8, after: Place) -> Lasting {
        let filter = LogFilter { addresses: [[address; 20].into()].into(), ..LogFilter::default() };
        soon(Lasting::open(&self.feed, About::Logs(OfLogs { filter, ..OfLogs::default() }), Some(after))).await.unwrap()
    }

    /// Blocks 11 and 12 are announced, and have their logs read by a stream that ends.
    async fn two_blocks(&mut self) {
        let mut logs = self.logs(1).await;
        self.node.announce((11, 11));
        self.node.announce((12, 12));
        let blocks = async {
            self.asked_for_logs(11).await.answer(json!([log(11, 0, 1), log(11, 1, 1), log(11, 2, 2)]));
            self.asked_for_logs(12).await.answer(json!([log(12, 0, 1)]));
        };
        let told_all = async { (told(&mut logs).await, told(&mut logs).await, told(&mut logs).await) };
        tokio::join!(told_all, blocks);
    }

    async fn reorg(&self) {
        for (number, byte, parent) in [(11, 41, 10), (12, 42, 41)] {
            self.node.script(|script| script.head = (number, byte));
            self.announce(&announced(number, byte, parent));
        }
    }
}

async fn of(stream: &mut Lasting) -> (Value, Value, Value) {
    let log: Value = serde_json::from_str(item(soon(stream.next()).await).get()).unwrap();
    (log["blockHash"].clone(), log["logIndex"].clone(), log["removed"].clone())
}

fn is(byte: u8, index: &str, removed: bool) -> (Value, Value, Value) {
    (json!(hash(byte)), json!(index), json!(removed))
}

#[tokio::test]
async fn logs_of_blocks_since_are_told_and_then_those_that_come() {
    let mut world = World::start().await;
    world.two_blocks().await;
    let mut stream = world.logs_behind(1, world.place(11).await.unwrap()).await;
    assert_eq!(of(&mut stream).await, is(12, "0x0", false), "read before: nobody is asked again");
    world.node.announce((13, 13));
    let next = async { world.asked_for_logs(13).await.answer(json!([log(13, 0, 1)])) };
    assert_eq!(tokio::join!(of(&mut stream), next).0, is(13, "0x0", false));
    assert!(world.node.nothing_asked());
}

#[tokio::test]
async fn logs_that_a_reorg_took_back_meanwhile_come_first_as_removed() {
    let mut world = World::start().await;
    world.two_blocks().await;
    world.reorg().await;
    until(&world.pool, |pool| pool.heads().borrow().as_ref().is_some_and(|head| head.hash.to_string() == hash(42))).await;
    let mut stream = world.logs_behind(1, world.place(12).await.unwrap()).await;
    for expected in [is(12, "0x0", true), is(11, "0x1", true), is(11, "0x0", true)] {
        assert_eq!(of(&mut stream).await, expected);
    }
    let branch = async { world.asked_for_logs(41).await.answer(json!([log(41, 0, 1)])) };
    assert_eq!(tokio::join!(of(&mut stream), branch).0, is(41, "0x0", false));
    world.announce(&announced(13, 43, 42));
    let branch = async {
        world.asked_for_logs(42).await.answer(json!([]));
        world.asked_for_logs(43).await.answer(json!([log(43, 0, 1)]));
    };
    assert_eq!(tokio::join!(of(&mut stream), branch).0, is(43, "0x0", false));
}

/// It has seen them before it came back, not here.
#[tokio::test]
async fn logs_from_before_the_stream_began_are_taken_back_too() {
    let mut world = World::start().await;
    world.two_blocks().await;
    let mut stream = world.logs_behind(1, world.place(12).await.unwrap()).await;
    let new = LogFilter { addresses: [[1; 20].into()].into(), ..LogFilter::default() };
    let mut fresh = soon(Lasting::open(&world.feed, About::Logs(OfLogs { filter: new, ..OfLogs::default() }), None)).await.unwrap();
    world.reorg().await;
    for expected in [is(12, "0x0", true), is(11, "0x1", true), is(11, "0x0", true)] {
        assert_eq!(of(&mut stream).await, expected);
    }
    let branch = async {
        world.asked_for_logs(41).await.answer(json!([log(41, 0, 1)]));
        world.asked_for_logs(42).await.answer(json!([log(42, 0, 1)]));
    };
    let all = async {
        for stream in [&mut stream, &mut fresh] {
            assert_eq!(of(stream).await, is(41, "0x0", false), "who has seen nothing is told nothing of what is gone");
        }
        assert_eq!((of(&mut stream).await, of(&mut fresh).await), (is(42, "0x0", false), is(42, "0x0", false)));
    };
    tokio::join!(all, branch);
}

#[tokio::test]
async fn logs_of_an_orphaned_block_are_asked_of_the_nodes_and_a_gap_where_they_do_not_tell() {
    let mut world = World::start().await;
    let blocks = [block(9, 9, 8), block(9, 69, 8), block(10, 70, 69)];
    let place = answering(&mut world.node, &blocks, soon(world.feed.place(hash(70).parse().unwrap()))).await.unwrap().unwrap();
    let mut stream = world.logs_behind(1, place).await;
    let world = &mut world;
    let script = async {
        world.asked_for(9).await.answer(blocks[0].clone());
        world.asked_for(69).await.answer(blocks[1].clone());
        world.asked_for_logs(70).await.answer(json!([log(70, 0, 1)]));
        for _ in 0..3 {
            world.asked_for_logs(69).await.error(-32000, "unknown block");
        }
        world.asked_for_logs(9).await.answer(json!([log(9, 0, 1)]));
        world.asked_for_logs(10).await.answer(json!([log(10, 0, 1)]));
    };
    let all = async {
        assert_eq!(of(&mut stream).await, is(70, "0x0", true));
        let Some(Told::Gap(gap)) = soon(stream.next()).await else { panic!("no gap") };
        assert_eq!([gap.from, gap.to].map(|place| (place.number, place.hash.to_string())), [(9, hash(69)), (8, hash(8))]);
        assert_eq!([of(&mut stream).await, of(&mut stream).await], [is(9, "0x0", false), is(10, "0x0", false)]);
    };
    tokio::join!(all, script);
}

#[tokio::test]
async fn a_chain_with_logs_outside_of_the_bloom_is_looked_into_whole() {
    let mut world = World::start().await;
    let open = |source| {
        let filter = LogFilter { addresses: [[1; 20].into()].into(), ..LogFilter::default() };
        soon(Lasting::open(&world.feed, About::Logs(OfLogs { filter, source }), None))
    };
    let (mut whole, mut by_bloom) = (open(LogSource::Node).await.unwrap(), open(LogSource::Chain).await.unwrap());
    let mut bloom = Bloom::default();
    bloom.accrue_raw_log([2; 20].into(), &[[7; 32].into()]);
    let mut head = announced(11, 11, 10);
    head["logsBloom"] = json!(bloom);
    world.announce(&head);
    let logs = async { world.asked_for_logs(11).await.answer(json!([log(11, 0, 2), log(11, 1, 1)])) };
    assert_eq!(tokio::join!(of(&mut whole), logs).0, is(11, "0x1", false));
    world.announce(&announced(12, 12, 11));
    let logs = async { world.asked_for_logs(12).await.answer(json!([log(12, 0, 1)])) };
    let (one, other, ()) = tokio::join!(of(&mut whole), of(&mut by_bloom), logs);
    assert_eq!((one, other), (is(12, "0x0", false), is(12, "0x0", false)), "by the bloom there was nothing");
}

/// What was taken back while somebody followed is canonical again when the next one comes: nobody was there to see it turn.
#[tokio::test]
async fn a_branch_that_became_the_chain_again_while_nobody_looked_is_told_whole() {
    let mut world = World::start().await;
    world.two_blocks().await;
    let mut live = world.logs_behind(1, world.place(12).await.unwrap()).await;
    world.reorg().await;
    for expected in [is(12, "0x0", true), is(11, "0x1", true), is(11, "0x0", true)] {
        assert_eq!(of(&mut live).await, expected);
    }
    for byte in [41, 42] {
        let branch = async { world.asked_for_logs(byte).await.answer(json!([log(byte, 0, 1)])) };
        assert_eq!(tokio::join!(of(&mut live), branch).0, is(byte, "0x0", false));
    }
    drop(live);
    world.announce(&announced(13, 13, 12));
    until(&world.pool, |pool| pool.heads().borrow().as_ref().is_some_and(|head| head.hash.to_string() == hash(13))).await;
    let mut back = world.logs_behind(1, world.place(42).await.unwrap()).await;
    let expected = [is(42, "0x0", true), is(41, "0x0", true), is(11, "0x0", false), is(11, "0x1", false), is(12, "0x0", false)];
    for expected in expected {
        assert_eq!(of(&mut back).await, expected);
    }
    let newest = async { world.asked_for_logs(13).await.answer(json!([log(13, 0, 1)])) };
    assert_eq!(tokio::join!(of(&mut back), newest).0, is(13, "0x0", false));
}
