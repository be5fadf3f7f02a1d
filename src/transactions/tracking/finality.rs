//! When an inclusion is final: so many blocks deep, or at or below the block that the nodes call `finalized`. Pure: heads and what the
//! nodes say about that block in, the highest final block out. A node that has no such block is found out, and depth counts instead.

use alloy_primitives::B256;

use crate::config::Confirmations;

/// What the nodes said about the `finalized` block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finalized {
    /// This one.
    Block {
        /// Its number.
        number: u64,
        /// Its hash.
        hash: B256,
    },
    /// An error, or `null`: there is none.
    None,
}

/// What somebody has to be told, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The nodes do not know the word.
    Missing,
    /// The block that they name has not moved since the start, while the head moved by this many blocks.
    Stuck(u64),
    /// There is one now: it counts from here on.
    Found,
}

/// Which blocks are final.
#[derive(Debug)]
pub(super) struct Finality {
    confirmations: Confirmations,
    /// Blocks, the including one counted, where no finalized block counts.
    depth: u64,
    /// The first and the newest finalized block that were told, and the head at the first.
    first: Option<(u64, u64)>,
    newest: Option<u64>,
    falls_back: bool,
}

impl Finality {
    /// `fallback`: how many blocks count where the nodes have no finalized block.
    pub(super) fn new(confirmations: Confirmations, fallback: u64) -> Self {
        let depth = match confirmations {
            Confirmations::Blocks(blocks) => blocks,
            Confirmations::Finalized => fallback,
        };
        Self { confirmations, depth, first: None, newest: None, falls_back: false }
    }

    /// Whether the nodes are to be asked at each head.
    pub(super) fn asks(&self) -> bool {
        self.confirmations == Confirmations::Finalized
    }

    /// Blocks that a reorg may take back: how many have to be on record.
    pub(super) fn depth(&self) -> u64 {
        self.depth
    }

    /// The nodes told this at that head.
    pub(super) fn told(&mut self, head: u64, finalized: Finalized) -> Option<News> {
        let Finalized::Block { number, .. } = finalized else {
            // One that was there before is late, not gone.
            let is_new = self.newest.is_none() && !self.falls_back;
            self.falls_back |= is_new;
            return is_new.then_some(News::Missing);
        };
        let (first, since) = *self.first.get_or_insert((number, head));
        let waited = head.saturating_sub(since);
        if number == first && !self.has_moved() {
            self.newest = self.newest.max(Some(number).filter(|_| !self.falls_back));
            // Finality comes in steps of some blocks (32 and more behind the head on Ethereum's main chain).
            if !self.falls_back && waited > self.depth.saturating_mul(2) {
                self.falls_back = true;
                return Some(News::Stuck(waited));
            }
            return None;
        }
        self.newest = self.newest.max(Some(number));
        std::mem::take(&mut self.falls_back).then_some(News::Found)
    }

    fn has_moved(&self) -> bool {
        matches!((self.first, self.newest), (Some((first, _)), Some(newest)) if newest > first)
    }

    /// The highest block that is final under this head; `None` while no block is.
    pub(super) fn height(&self, head: u64) -> Option<u64> {
        if self.confirmations == Confirmations::Finalized && !self.falls_back {
            return self.newest;
        }
        (head + 1).checked_sub(self.depth).max(self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Finalized {
        Finalized::Block { number, hash: B256::ZERO }
    }

    #[test]
    fn so_many_blocks_deep_counts_the_including_one() {
        let finality = Finality::new(Confirmations::Blocks(1), 64);
        assert_eq!((finality.height(7), finality.asks()), (Some(7), false));
        let finality = Finality::new(Confirmations::Blocks(12), 64);
        assert_eq!((finality.height(10), finality.height(11), finality.height(100)), (None, Some(0), Some(89)));
    }

    #[test]
    fn the_finalized_block_counts_and_never_goes_back() {
        let mut finality = Finality::new(Confirmations::Finalized, 64);
        assert_eq!((finality.height(1_000), finality.asks()), (None, true), "nothing is final before the nodes say so");
        assert_eq!(finality.told(1_000, at(930)), None);
        assert_eq!(finality.told(1_032, at(962)), None);
        assert_eq!(finality.told(1_033, at(961)), None, "another node, which is behind");
        assert_eq!(finality.told(1_034, Finalized::None), None, "another node, which does not know yet");
        assert_eq!(finality.height(1_040), Some(962));
        // A chain that does not finalise for a day is waited for.
        assert_eq!(finality.told(9_000, at(962)), None);
        assert_eq!(finality.height(9_000), Some(962));
    }

    #[test]
    fn a_node_without_the_word_is_told_once_and_depth_counts() {
        let mut finality = Finality::new(Confirmations::Finalized, 64);
        assert_eq!(finality.told(100, Finalized::None), Some(News::Missing));
        assert_eq!(finality.told(101, Finalized::None), None);
        assert_eq!(finality.height(101), Some(38));
        // A node that learns it, as after an upgrade.
        assert_eq!(finality.told(102, at(20)), None);
        assert_eq!(finality.told(103, at(50)), Some(News::Found));
        assert_eq!(finality.height(103), Some(50));
    }

    #[test]
    fn a_block_that_never_moves_is_told_once_and_depth_counts() {
        let mut finality = Finality::new(Confirmations::Finalized, 10);
        for head in 100..=120 {
            assert_eq!(finality.told(head, at(0)), None, "{head}");
            assert_eq!(finality.height(head), Some(0));
        }
        assert_eq!(finality.told(121, at(0)), Some(News::Stuck(21)));
        assert_eq!(finality.told(122, at(0)), None);
        assert_eq!(finality.height(122), Some(113));
    }
}
