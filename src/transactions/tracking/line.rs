//! The newest blocks of the canonical chain, linked by parent hash. Pure.

use std::collections::VecDeque;

use alloy_primitives::B256;

/// One block of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// Block number.
    pub(super) number: u64,
    /// Block hash.
    pub(super) hash: B256,
    /// Hash of the block before.
    pub(super) parent: B256,
}

/// A run of blocks without a gap, at most `depth` of them.
#[derive(Debug)]
pub(super) struct Line {
    links: VecDeque<Link>,
    depth: usize,
}

impl Line {
    pub(super) fn new(depth: usize) -> Self {
        Self { links: VecDeque::new(), depth: depth.max(1) }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Number of the oldest block.
    pub(super) fn front(&self) -> Option<u64> {
        self.links.front().map(|link| link.number)
    }

    /// Number of the newest block.
    pub(super) fn tip(&self) -> Option<u64> {
        self.links.back().map(|link| link.number)
    }

    pub(super) fn contains(&self, number: u64, hash: B256) -> bool {
        self.front()
            .and_then(|front| usize::try_from(number.checked_sub(front)?).ok())
            .and_then(|at| self.links.get(at))
            .is_some_and(|link| link.hash == hash)
    }

    /// Adds the block after the tip; the oldest goes when there are too many.
    pub(super) fn push(&mut self, link: Link) {
        debug_assert!(self.links.back().is_none_or(|tip| tip.hash == link.parent && tip.number + 1 == link.number));
        self.links.push_back(link);
        if self.links.len() > self.depth {
            self.links.pop_front();
        }
    }

    /// Takes the tip off if its number is `lowest` or above.
    pub(super) fn pop_from(&mut self, lowest: u64) -> Option<Link> {
        if self.tip()? < lowest { None } else { self.links.pop_back() }
    }

    pub(super) fn clear(&mut self) {
        self.links.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64, fork: u8) -> Link {
        let parent_fork = if number == 3 { 0 } else { fork };
        let hash = |number: u64, fork: u8| B256::left_padding_from(&[fork, u8::try_from(number).unwrap()]);
        Link { number, hash: hash(number, fork), parent: hash(number - 1, parent_fork) }
    }

    #[test]
    fn keeps_the_newest_and_unwinds_newest_first() {
        let mut line = Line::new(3);
        for number in 1..=4 {
            line.push(link(number, 0));
        }
        assert_eq!((line.front(), line.tip()), (Some(2), Some(4)));
        assert!(line.contains(3, link(3, 0).hash) && !line.contains(3, link(3, 1).hash) && !line.contains(1, link(1, 0).hash));
        assert_eq!(line.pop_from(3).map(|gone| gone.number), Some(4));
        assert_eq!(line.pop_from(3).map(|gone| gone.number), Some(3));
        assert_eq!(line.pop_from(3), None);
        line.push(link(3, 1));
        assert!(line.contains(3, link(3, 1).hash));
    }
}
