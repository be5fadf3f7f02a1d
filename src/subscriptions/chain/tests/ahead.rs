//! Blocks that are read ahead by number, many at a time.

use super::*;

/// Blocks of the main chain: number and byte of the hash are the same.
fn chain(numbers: std::ops::RangeInclusive<u8>) -> Vec<Value> {
    numbers.map(|number| block(number.into(), number, number - 1)).collect()
}

#[tokio::test]
async fn a_gap_of_a_hundred_blocks_is_asked_for_sixteen_at_a_time() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.node.announce((111, 111));
    // No answer before as many are asked for as may be: one after the other would never get there.
    let mut open = Vec::new();
    let mut asked_for = 0;
    while asked_for < 100 {
        while open.len() < 16 && asked_for < 100 {
            let asked = world.node.asked().await;
            assert_eq!(asked.method, "eth_getBlockByNumber");
            let number = u8::from_str_radix(asked.params[0].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
            assert!((11..=110).contains(&number));
            open.push((asked, number));
            asked_for += 1;
        }
        assert!(world.node.nothing_asked(), "no more than that");
        // In any order.
        let (asked, number) = open.remove(open.len() / 2);
        asked.answer(block(number.into(), number, number - 1));
    }
    for (asked, number) in open {
        asked.answer(block(number.into(), number, number - 1));
    }
    for number in 11..=111 {
        assert_eq!(head(&mut heads).await, header((number, number as u8)));
    }
    assert!(world.node.nothing_asked(), "each once");
}

#[tokio::test]
async fn what_was_read_ahead_of_another_branch_is_not_told() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    // From 15 on the numbers are those of another branch by the time they are asked for: a reorg came in between.
    let mut blocks = chain(11..=14);
    blocks.extend((15..=19).map(|number| block(number.into(), 100 + number, if number == 15 { 14 } else { 99 + number })));
    blocks.extend(chain(15..=19));
    world.node.announce((20, 20));
    let told = async {
        for number in 11..=20 {
            assert_eq!(head(&mut heads).await, header((number, number as u8)));
        }
    };
    answering(&mut world.node, &blocks, told).await;
}

#[tokio::test]
async fn what_a_node_does_not_tell_by_number_is_found_by_hash() {
    let mut world = World::start().await;
    let mut heads = world.heads().await;
    world.node.announce((16, 16));
    let told = async {
        for number in 11..=16 {
            assert_eq!(head(&mut heads).await["hash"], hash(number));
        }
    };
    let blocks = chain(11..=15);
    let node = &mut world.node;
    let script = async {
        loop {
            let asked = node.asked().await;
            match asked.method.as_str() {
                "eth_getBlockByNumber" => asked.error(-32000, "not by number"),
                _ => asked.answer(blocks.iter().find(|block| block["hash"] == asked.params[0]).cloned().unwrap()),
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = script => {}
    }
}

#[tokio::test]
async fn what_is_too_far_to_be_told_is_not_asked_for() {
    let mut world = World::with(4).await;
    let mut heads = world.heads().await;
    world.announced((15, 15)).await;
    let Some(Told::Gap(gap)) = soon(heads.next()).await else { panic!("no gap") };
    assert_eq!((gap.from.number, gap.to.number), (10, 15));
    assert!(world.node.nothing_asked());
    world.node.announce((16, 16));
    assert_eq!(head(&mut heads).await["number"], "0x10");
}
