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
pub(super) mod testing;
#[cfg(test)]
mod tests;
