//! The newest blocks of the canonical chain and how a new head joins them. Pure.

use std::collections::VecDeque;

use alloy_primitives::B256;

/// What links one block to the one before.
pub(super) trait Linked {
    /// Block number.
    fn number(&self) -> u64;
    /// Block hash.
    fn hash(&self) -> B256;
    /// Hash of the block before.
    fn parent(&self) -> B256;
}

/// How a head and the blocks below it that were found stand to the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is in the ring: nothing new, or an older view of the same chain.
    Known,
    /// The lowest of them follows a block of the ring, or is the first of all.
    Joins,
    /// This block, below them, has to be found.
    Wants(B256),
    /// This block, below the ring, has to be [found](Ring::extend): what they have in common is older than the ring, or they are late.
    WantsOlder(B256),
    /// The block that they have in common with the ring is older than it can be.
    Deep,
    /// They are no chain: a block does not have the number that follows from the one above it.
    Broken,
}

/// What a head changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change<B> {
    /// Blocks that are not canonical any more, newest first.
    pub(super) removed: Vec<B>,
    /// Blocks that are canonical now, oldest first.
    pub(super) added: Vec<B>,
}

/// A run of blocks without a gap, at most `depth` of them.
#[derive(Debug)]
pub(super) struct Ring<B> {
    blocks: VecDeque<B>,
    depth: usize,
}

impl<B: Linked + Clone> Ring<B> {
    pub(super) fn new(depth: usize) -> Self {
        Self { blocks: VecDeque::new(), depth: depth.max(1) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The newest block.
    pub(super) fn tip(&self) -> Option<&B> {
        self.blocks.back()
    }

    /// Takes in the block before its oldest one. False if it is not that.
    pub(super) fn extend(&mut self, block: B) -> bool {
        let fits = self.blocks.front().is_some_and(|front| front.parent() == block.hash() && front.number() == block.number() + 1);
        if fits {
            self.blocks.push_front(block);
        }
        fits
    }

    /// Begins again with this block.
    pub(super) fn restart(&mut self, block: B) {
        self.blocks.clear();
        self.blocks.push_back(block);
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
    }

    /// Whether it has this block.
    pub(super) fn has(&self, number: u64, hash: B256) -> bool {
        let at = self.blocks.front().and_then(|front| usize::try_from(number.checked_sub(front.number())?).ok());
        at.and_then(|at| self.blocks.get(at)).is_some_and(|block| block.hash() == hash)
    }

    /// Whether a head with this number is further above the ring than its depth: what joins them would not fit, however it is found.
    pub(super) fn is_out_of_reach(&self, number: u64) -> bool {
        self.tip().is_some_and(|tip| usize::try_from(number.saturating_sub(tip.number())).map_or(true, |above| above > self.depth))
    }

    /// `path`: a head, its parent, and so on, newest first, as far as they were found.
    pub(super) fn standing(&self, path: &[B]) -> Standing {
        let (Some(head), Some(lowest)) = (path.first(), path.last()) else { return Standing::Known };
        let is_chain = path.windows(2).all(|pair| match pair {
            [above, below] => below.number() + 1 == above.number() && below.hash() == above.parent(),
            _ => true,
        });
        if !is_chain {
            return Standing::Broken;
        }
        if self.has(head.number(), head.hash()) {
            return Standing::Known;
        }
        let Some(front) = self.blocks.front() else { return Standing::Joins };
        match lowest.number().checked_sub(1) {
            Some(below) if self.has(below, lowest.parent()) => Standing::Joins,
            _ if path.len() > self.depth => Standing::Deep,
            Some(below) if below > front.number() => Standing::Wants(lowest.parent()),
            _ if self.blocks.len() < self.depth && front.number() > 0 => Standing::WantsOlder(front.parent()),
            _ => Standing::Deep,
        }
    }

    /// Whether blocks would not be canonical any more if this path joined.
    pub(super) fn is_taken_back_by(&self, path: &[B]) -> bool {
        self.tip().zip(path.last()).is_some_and(|(tip, lowest)| lowest.number() <= tip.number())
    }

    /// Takes in a path that [joins](Standing::Joins).
    pub(super) fn join(&mut self, path: Vec<B>) -> Change<B> {
        let lowest = path.last().map_or(u64::MAX, Linked::number);
        let mut removed = Vec::new();
        while let Some(orphan) = self.blocks.pop_back_if(|tip| tip.number() >= lowest) {
            removed.push(orphan);
        }
        let added: Vec<B> = path.into_iter().rev().collect();
        self.blocks.extend(added.iter().cloned());
        let surplus = self.blocks.len().saturating_sub(self.depth);
        self.blocks.drain(..surplus);
        Change { removed, added }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::subscriptions::chain) struct Block {
        pub(in crate::subscriptions::chain) number: u64,
        pub(in crate::subscriptions::chain) hash: B256,
        pub(in crate::subscriptions::chain) parent: B256,
    }

    impl Linked for Block {
        fn number(&self) -> u64 {
            self.number
        }
        fn hash(&self) -> B256 {
            self.hash
        }
        fn parent(&self) -> B256 {
            self.parent
        }
    }

    /// Block `number` of a branch that leaves the main one (branch 0) after block `fork`.
    pub(in crate::subscriptions::chain) fn block(number: u64, branch: u8, fork: u64) -> Block {
        let hash = |number: u64| {
            let branch = if number <= fork { 0 } else { branch };
            B256::left_padding_from(&[branch, u8::try_from(number).unwrap(), 1])
        };
        Block { number, hash: hash(number), parent: hash(number.wrapping_sub(1).min(200)) }
    }

    pub(in crate::subscriptions::chain) fn main(number: u64) -> Block {
        block(number, 0, 255)
    }
}

#[cfg(test)]
mod tests {
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
}
