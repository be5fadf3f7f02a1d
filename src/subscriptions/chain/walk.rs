//! The way from a block that somebody saw to the newest one: what was taken back since, and what was added. Pure.

use alloy_primitives::B256;

use super::ring::Linked;

/// Two blocks that are followed down until they meet.
#[derive(Debug)]
pub(super) struct Walk<B> {
    /// Blocks above `seen` that are not canonical any more, newest first; and the one below them.
    unwound: Vec<B>,
    seen: B,
    /// Canonical blocks above `lowest`, newest first; and the one below them.
    added: Vec<B>,
    lowest: B,
    /// So many of each, at most.
    most: usize,
}

/// What a walk needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: they have met.
    Met,
    /// The block below the lowest canonical one.
    Canonical,
    /// The block of this hash, below the one that somebody saw.
    Seen(B256),
    /// They do not meet within what may be told.
    Deep,
}

impl<B: Linked> Walk<B> {
    /// From the block that somebody saw to the newest one.
    pub(super) fn new(seen: B, newest: B, most: usize) -> Self {
        Self { unwound: Vec::new(), seen, added: Vec::new(), lowest: newest, most }
    }

    /// What it needs; of two blocks of one number first that below the canonical one.
    pub(super) fn next(&self) -> Next {
        let (seen, lowest) = (self.seen.number(), self.lowest.number());
        let fits = |so_far: usize, more: u64| usize::try_from(more).is_ok_and(|more| so_far.saturating_add(more) <= self.most);
        if let Some((is_unwound, is_added)) = self.meeting() {
            let fit = fits(self.unwound.len(), u64::from(is_unwound)) && fits(self.added.len(), u64::from(is_added));
            if fit { Next::Met } else { Next::Deep }
        } else if lowest >= seen && lowest > 0 {
            if fits(self.added.len(), lowest.max(seen + 1) - seen) { Next::Canonical } else { Next::Deep }
        } else if seen > lowest && fits(self.unwound.len(), seen - lowest) {
            Next::Seen(self.seen.parent())
        } else {
            Next::Deep
        }
    }

    /// Whether the two have met, and which of them is above what they have in common then.
    fn meeting(&self) -> Option<(bool, bool)> {
        let (seen, lowest) = (&self.seen, &self.lowest);
        if seen.hash() == lowest.hash() {
            Some((false, false))
        } else if lowest.parent() == seen.hash() {
            Some((false, true))
        } else if seen.parent() == lowest.hash() {
            Some((true, false))
        } else {
            (seen.parent() == lowest.parent() && seen.number() == lowest.number() && seen.number() > 0).then_some((true, true))
        }
    }

    /// The lowest canonical block.
    pub(super) fn lowest(&self) -> &B {
        &self.lowest
    }

    /// The number that canonical blocks are wanted above, as far as it is known.
    pub(super) fn down_to(&self) -> u64 {
        self.seen.number()
    }

    /// Takes in the block below the lowest canonical one. False if it is not that.
    pub(super) fn canonical(&mut self, block: B) -> bool {
        follows(&self.lowest, &block) && {
            self.added.push(std::mem::replace(&mut self.lowest, block));
            true
        }
    }

    /// Takes in the block below the one that was seen. False if it is not that.
    pub(super) fn seen(&mut self, block: B) -> bool {
        follows(&self.seen, &block) && {
            self.unwound.push(std::mem::replace(&mut self.seen, block));
            true
        }
    }

    /// What was taken back, newest first, and what was added, oldest first, once they have [met](Next::Met).
    pub(super) fn over(mut self) -> (Vec<B>, Vec<B>) {
        let (is_unwound, is_added) = self.meeting().unwrap_or_default();
        if is_unwound {
            self.unwound.push(self.seen);
        }
        if is_added {
            self.added.push(self.lowest);
        }
        self.added.reverse();
        (self.unwound, self.added)
    }
}

fn follows<B: Linked>(above: &B, below: &B) -> bool {
    above.parent() == below.hash() && above.number() == below.number() + 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::ring::testing::{Block, block, main};
    use super::*;

    /// Walks with what is known.
    fn walked(seen: Block, newest: Block, most: usize, known: &HashMap<B256, Block>) -> Option<(Vec<Block>, Vec<Block>)> {
        let mut walk = Walk::new(seen, newest, most);
        loop {
            match walk.next() {
                Next::Met => return Some(walk.over()),
                Next::Deep => return None,
                Next::Canonical => assert!(walk.canonical(known[&walk.lowest().parent()])),
                Next::Seen(parent) => assert!(walk.seen(known[&parent])),
            }
        }
    }

    fn known() -> HashMap<B256, Block> {
        let all = (0..20).flat_map(|number| [main(number), block(number, 1, 5), block(number, 2, 0)]);
        all.map(|block| (block.hash, block)).collect()
    }

    #[test]
    fn what_was_taken_back_comes_newest_first_and_what_was_added_oldest_first() {
        let (known, fork) = (known(), |number| block(number, 1, 5));
        let walk = |seen, newest| walked(seen, newest, 10, &known).unwrap();
        assert_eq!(walk(main(4), main(4)), (vec![], vec![]));
        assert_eq!(walk(main(4), main(6)), (vec![], vec![main(5), main(6)]));
        assert_eq!(walk(main(7), fork(8)), (vec![main(7), main(6)], vec![fork(6), fork(7), fork(8)]));
        assert_eq!(walk(main(7), fork(6)), (vec![main(7), main(6)], vec![fork(6)]), "a shorter branch");
        assert_eq!(walk(main(7), main(5)), (vec![main(7), main(6)], vec![]), "a node that is behind");
        assert_eq!(walk(main(2), block(2, 2, 0)), (vec![main(2), main(1)], vec![block(1, 2, 0), block(2, 2, 0)]));
    }

    #[test]
    fn what_is_too_far_is_not_walked() {
        let known = known();
        assert!(walked(main(5), main(15), 10, &known).is_some());
        assert_eq!(Walk::new(main(4), main(15), 10).next(), Next::Deep, "nothing is asked for in vain");
        assert!(walked(main(15), main(5), 10, &known).is_some());
        assert_eq!(Walk::new(main(15), main(4), 10).next(), Next::Deep);
        assert!(walked(main(10), block(10, 1, 5), 5, &known).is_some());
        assert!(walked(main(10), block(10, 1, 5), 4, &known).is_none());
        // Two chains that have nothing in common.
        let other = Block { hash: B256::repeat_byte(9), ..main(0) };
        assert!(walked(other, main(3), 10, &known).is_none());
    }

    #[test]
    fn what_is_no_chain_is_not_taken() {
        let mut walk = Walk::new(main(4), main(6), 10);
        assert!(!walk.canonical(block(5, 2, 0)) && !walk.canonical(Block { number: 4, ..main(5) }) && walk.canonical(main(5)));
        let mut walk = Walk::new(main(6), main(4), 10);
        assert!(!walk.seen(main(4)) && walk.seen(main(5)));
    }

    proptest! {
        /// Whoever has seen the one chain and applies what the walk says has the other.
        #[test]
        fn who_applies_it_has_the_newest_chain(seen in 0_u64..20, seen_branch in 0_u8..3, newest in 0_u64..20, newest_branch in 0_u8..3) {
            let known = known();
            let fork = |branch| [255, 5, 0][usize::from(branch)];
            let chain = |number: u64, branch: u8| (0..=number).map(|number| block(number, branch, fork(branch))).collect::<Vec<_>>();
            let (mut view, expected) = (chain(seen, seen_branch), chain(newest, newest_branch));
            let (unwound, added) = walked(*view.last().unwrap(), *expected.last().unwrap(), 32, &known).unwrap();
            let hashes = |blocks: &[Block]| blocks.iter().map(|block| block.hash).collect::<Vec<_>>();
            for block in unwound {
                prop_assert_eq!(view.pop().map(|block| block.hash), Some(block.hash));
            }
            view.extend(added);
            prop_assert_eq!(hashes(&view), hashes(&expected));
        }
    }
}
