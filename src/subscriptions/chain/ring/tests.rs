use std::collections::HashMap;

use proptest::prelude::*;

use super::testing::{Block, block, main};
use super::*;

fn ring(depth: usize, numbers: std::ops::RangeInclusive<u64>) -> Ring<Block> {
    let mut ring = Ring::new(depth);
    for number in numbers {
        assert_eq!(ring.standing(&[main(number)]), Standing::Joins);
        ring.join(vec![main(number)]);
    }
    ring
}

#[test]
fn a_missing_parent_is_wanted_until_the_path_joins() {
    let mut ring = ring(8, 5..=6);
    let mut path = vec![main(9)];
    assert_eq!(ring.standing(&path), Standing::Wants(main(8).hash));
    path.push(main(8));
    assert_eq!(ring.standing(&path), Standing::Wants(main(7).hash));
    path.push(main(7));
    assert_eq!(ring.standing(&path), Standing::Joins);
    assert_eq!(ring.join(path), Change { removed: Vec::new(), added: vec![main(7), main(8), main(9)] });
    assert_eq!(ring.standing(&[main(7)]), Standing::Known, "an older view of the same chain");
}

#[test]
fn a_reorg_removes_newest_first_and_adds_oldest_first() {
    let mut ring = ring(8, 3..=6);
    let path = vec![block(7, 1, 4), block(6, 1, 4), block(5, 1, 4)];
    assert_eq!(ring.standing(&path[..1]), Standing::Wants(path[1].hash));
    assert_eq!(ring.standing(&path), Standing::Joins);
    let change = ring.join(path.clone());
    assert_eq!(change.removed, [main(6), main(5)]);
    assert_eq!(change.added, path.into_iter().rev().collect::<Vec<_>>());
    // A shorter branch counts too: the nodes say what is canonical.
    let short = block(5, 2, 4);
    assert_eq!(ring.standing(&[short]), Standing::Joins);
    assert!(ring.is_taken_back_by(&[short]) && !ring.is_taken_back_by(&[main(10)]));
    assert_eq!(ring.join(vec![short]).removed.len(), 3);
}

#[test]
fn a_head_too_far_above_is_out_of_reach() {
    let ring = ring(4, 5..=9);
    assert_eq!([3, 9, 13, 14].map(|number| ring.is_out_of_reach(number)), [false, false, false, true]);
    let far: Vec<_> = (10..=14).rev().map(main).collect();
    assert_eq!(ring.standing(&far[1..]), Standing::Joins, "the last that is within reach joins");
    assert!(!Ring::<Block>::new(4).is_out_of_reach(u64::MAX));
}

#[test]
fn what_is_older_than_the_ring_is_looked_for_below_it() {
    let mut ring = ring(8, 6..=7);
    // A reorg that begins before it did.
    let mut path = vec![block(7, 1, 4)];
    assert_eq!(ring.standing(&path), Standing::WantsOlder(main(5).hash));
    assert!(!ring.extend(main(4)) && ring.extend(main(5)));
    assert_eq!(ring.standing(&path), Standing::Wants(block(6, 1, 4).hash));
    path.push(block(6, 1, 4));
    assert_eq!(ring.standing(&path), Standing::WantsOlder(main(4).hash));
    assert!(ring.extend(main(4)));
    assert_eq!(ring.standing(&path), Standing::Wants(block(5, 1, 4).hash));
    path.push(block(5, 1, 4));
    assert_eq!(ring.standing(&path), Standing::Joins);
    // A head of before, told late.
    assert_eq!(ring.standing(&[main(3)]), Standing::WantsOlder(main(3).hash));
    assert!(ring.extend(main(3)));
    assert_eq!(ring.standing(&[main(3)]), Standing::Known);
    assert_eq!(ring.join(path).removed, [main(7), main(6), main(5)]);
}

#[test]
fn what_leaves_the_ring_behind_is_deep_and_what_is_no_chain_is_broken() {
    let ring = ring(3, 1..=6);
    assert_eq!(ring.standing(&[block(5, 1, 3), block(4, 1, 3)]), Standing::Deep, "block 3 has left the ring");
    let far: Vec<Block> = (7..=20).rev().map(main).collect();
    assert_eq!(ring.standing(&far[..3]), Standing::Wants(main(17).hash));
    assert_eq!(ring.standing(&far[..4]), Standing::Deep);
    assert_eq!(ring.standing(&[main(9), main(7)]), Standing::Broken);
    assert_eq!(ring.standing(&[main(9), Block { number: 7, ..main(8) }]), Standing::Broken);
    assert_eq!(Ring::<Block>::new(4).standing(&[main(9)]), Standing::Joins, "the first of all");
}

proptest! {
    /// Whatever heads are told of however many branches, a client that applies the changes has the chain of the last head that
    /// was told, and sees nothing twice.
    #[test]
    fn who_applies_the_changes_has_the_chain_of_the_newest_head(
        heads in proptest::collection::vec((0_u64..6, 1_u64..4, 0_u64..5), 1..60),
    ) {
        let mut blocks: HashMap<B256, Block> = HashMap::new();
        let mut canonical = vec![main(0)];
        blocks.insert(main(0).hash, main(0));
        let mut ring = Ring::new(1024);
        ring.restart(main(0));
        let mut seen = vec![main(0)];
        for (step, (back, forward, lost)) in heads.into_iter().enumerate() {
            let keep = canonical.len().saturating_sub(usize::try_from(back).unwrap()).max(1);
            canonical.truncate(keep);
            for n in 0..forward {
                let tip = *canonical.last().unwrap();
                let hash = B256::left_padding_from(&[u8::try_from(step).unwrap(), u8::try_from(n).unwrap(), 2]);
                let next = Block { number: tip.number + 1, hash, parent: tip.hash };
                blocks.insert(hash, next);
                canonical.push(next);
            }
            // Some heads are never told.
            if lost == 0 {
                continue;
            }
            let mut path = vec![*canonical.last().unwrap()];
            loop {
                match ring.standing(&path) {
                    Standing::Wants(parent) => path.push(blocks[&parent]),
                    Standing::Joins => break,
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let change = ring.join(path);
            for removed in change.removed {
                prop_assert_eq!(seen.pop(), Some(removed));
            }
            for added in change.added {
                prop_assert_eq!(seen.last().map(|tip| tip.hash), Some(added.parent));
                seen.push(added);
            }
            prop_assert_eq!(&seen, &canonical);
        }
    }
}
