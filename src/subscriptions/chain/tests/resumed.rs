//! Streams that begin behind a block that the client names.

use super::told::Place;
use super::*;

impl World {
    pub(super) async fn place(&self, byte: u8) -> Option<Place> {
        soon(self.feed.place(hash(byte).parse().unwrap())).await.unwrap()
    }

    /// Heads behind this place.
    pub(super) async fn behind(&self, after: Place) -> Lasting {
        soon(Lasting::open(&self.feed, About::Heads, Some(after))).await.unwrap()
    }
}

/// Number, hash, and whether it is taken back; of a gap both its places.
async fn told(stream: &mut Lasting) -> (Value, Value, bool) {
    match soon(stream.next()).await {
        Some(Told::Item(item)) => {
            let head: Value = serde_json::from_str(item.get()).unwrap();
            (head["number"].clone(), head["hash"].clone(), head["removed"] == true)
        }
        other => panic!("{other:?}"),
    }
}

fn added(number: u64, byte: u8) -> (Value, Value, bool) {
    (json!(format!("{number:#x}")), json!(hash(byte)), false)
}

fn removed(number: u64, byte: u8) -> (Value, Value, bool) {
    (json!(format!("{number:#x}")), json!(hash(byte)), true)
}

#[tokio::test]
async fn who_comes_back_is_told_what_was_added_and_then_what_is() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    for number in 11..=13 {
        world.node.announce((number, number as u8));
        head(&mut heads).await;
    }
    let mut stream = world.behind(world.place(11).await.unwrap()).await;
    let mut newest = world.behind(world.place(13).await.unwrap()).await;
    world.node.announce((14, 14));
    for number in 12..=14 {
        assert_eq!(told(&mut stream).await, added(number, number as u8));
    }
    assert_eq!(told(&mut newest).await, added(14, 14), "who has seen everything is told what is new alone");
    let mut live = soon(Lasting::open(&world.feed, About::Heads, None)).await.unwrap();
    world.node.announce((15, 15));
    assert_eq!(told(&mut live).await, added(15, 15));
    assert!(world.node.nothing_asked());
}

/// Nobody streams meanwhile, and the node has forgotten what it took back: it was announced here.
#[tokio::test]
async fn who_comes_back_after_a_reorg_is_told_what_was_taken_back_newest_first() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    for number in 11..=12 {
        world.node.announce((number, number as u8));
        head(&mut heads).await;
    }
    drop(heads);
    for (number, byte, parent) in [(11, 41, 10), (12, 42, 41), (13, 43, 42)] {
        world.node.script(|script| script.head = (number, byte));
        world.announce(&announced(number, byte, parent));
    }
    until(&world.pool, |pool| pool.endpoints().iter().all(|endpoint| endpoint.head == Some(13))).await;
    let mut stream = world.behind(world.place(12).await.unwrap()).await;
    assert_eq!(told(&mut stream).await, removed(12, 12));
    assert_eq!(told(&mut stream).await, removed(11, 11));
    for (number, byte) in [(11, 41), (12, 42), (13, 43)] {
        assert_eq!(told(&mut stream).await, added(number, byte));
    }
    // A live reorg is told in the same way.
    world.announce(&announced(13, 53, 42));
    assert_eq!(told(&mut stream).await, removed(13, 43));
    assert_eq!(told(&mut stream).await, added(13, 53));
    assert!(world.node.nothing_asked());
}

/// As after a restart: nothing is known here, and what is announced while the way is looked for waits behind it.
#[tokio::test]
async fn a_block_that_is_unknown_here_is_found_at_the_nodes() {
    let mut world = World::start().await;
    let blocks = [block(9, 9, 8), block(9, 69, 8), block(10, 70, 69), block(8, 8, 7)];
    let place = soon(world.feed.place(hash(70).parse().unwrap()));
    let place = answering(&mut world.node, &blocks, place).await.unwrap().unwrap();
    let mut stream = world.behind(place).await;
    world.node.announce((11, 11));
    world.node.announce((12, 12));
    let said = async {
        for expected in [removed(10, 70), removed(9, 69), added(9, 9), added(10, 10), added(11, 11), added(12, 12)] {
            assert_eq!(told(&mut stream).await, expected);
        }
    };
    answering(&mut world.node, &blocks, said).await;
    world.node.announce((13, 13));
    assert_eq!(told(&mut stream).await, added(13, 13));
}

#[tokio::test]
async fn a_block_that_no_node_has_is_told_before_the_stream_begins() {
    let mut world = World::start().await;
    let place = soon(world.feed.place(hash(77).parse().unwrap()));
    assert_eq!(answering(&mut world.node, &[], place).await.unwrap(), None);
}

#[tokio::test]
async fn what_cannot_be_told_is_a_gap_with_its_blocks_and_the_stream_goes_on() {
    let mut world = World::start().await;
    world.announced((5000, 50)).await;
    // Further than may be told: nothing is asked for.
    let far = Place { number: 1, hash: hash(1).parse().unwrap() };
    let mut stream = world.behind(far).await;
    let Some(Told::Gap(gap)) = soon(stream.next()).await else { panic!("no gap") };
    assert_eq!((gap.from, gap.to), (far, Place { number: 5000, hash: hash(50).parse().unwrap() }));
    assert!(world.node.nothing_asked());
    world.node.announce((5001, 51));
    assert_eq!(told(&mut stream).await, added(5001, 51));
    // On a branch of which a node does not have all.
    let blocks = [block(4998, 48, 47), block(4999, 49, 48), block(4999, 79, 78)];
    let place = soon(world.feed.place(hash(79).parse().unwrap()));
    let place = answering(&mut world.node, &blocks, place).await.unwrap().unwrap();
    let mut stream = world.behind(place).await;
    let gap = answering(&mut world.node, &blocks, soon(stream.next())).await;
    assert!(matches!(gap, Some(Told::Gap(gap)) if gap.from == place && gap.to.number == 5001), "{gap:?}");
}

/// It reads nothing for longer than steps wait for it: no queue grows, and it misses nothing.
#[tokio::test]
async fn a_stream_that_is_left_behind_goes_on_where_it_was() {
    let world = World::with(2).await;
    let mut slow = soon(Lasting::open(&world.feed, About::Heads, None)).await.unwrap();
    let mut heads = world.heads().await;
    for number in 11..=40 {
        world.node.announce((number, number as u8));
        assert_eq!(head(&mut heads).await["hash"], hash(number as u8));
    }
    for number in 11..=40 {
        assert_eq!(told(&mut slow).await, added(number, number as u8));
    }
    world.node.announce((41, 41));
    assert_eq!(told(&mut slow).await, added(41, 41));
}

/// A hundred clients come back at once: each missing block is asked for once.
#[tokio::test]
async fn a_crowd_that_comes_back_asks_for_each_block_once() {
    let mut world = World::start().await;
    let blocks: Vec<Value> = (2..=9).map(|number| block(number.into(), number, number - 1)).collect();
    let place = answering(&mut world.node, &blocks, soon(world.feed.place(hash(2).parse().unwrap()))).await.unwrap().unwrap();
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(world.behind(place).await);
    }
    let World { node, .. } = &mut world;
    let mut asked_for = Vec::new();
    let read = futures_util::future::join_all(streams.iter_mut().map(|stream| async move {
        for number in 3..=10 {
            assert_eq!(told(stream).await, added(number, number as u8));
        }
    }));
    let script = async {
        loop {
            let asked = node.asked().await;
            let by = if asked.method == "eth_getBlockByHash" { "hash" } else { "number" };
            let found = blocks.iter().find(|block| block[by] == asked.params[0]).cloned().unwrap();
            asked_for.push(found["number"].clone());
            asked.answer(found);
        }
    };
    tokio::select! {
        _ = read => {}
        () = script => {}
    }
    assert!(asked_for.len() <= 16, "{asked_for:?}");
}
