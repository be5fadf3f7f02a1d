//! What was read of the chain lately, for all who ask: each block, and its logs, are asked for once.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use alloy_primitives::B256;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OnceCell, Semaphore};

use super::block::Block;
use super::block_logs::{BlockLogs, Found};
use super::filter::LogFilter;
use super::ring::Linked as _;
use super::shelf::{Most, Shelf};
use crate::node::{CallError, Pool};

/// Headers that are kept, those of orphaned blocks too: a client may come back to any of them.
const BLOCKS: Most = Most { items: 2048, bytes: 8 << 20 };
/// Logs that are kept, of blocks whose logs somebody wanted.
const LOGS: Most = Most { items: 256, bytes: 32 << 20 };
/// Blocks that are asked for at the same time.
const AT_A_TIME: usize = 16;
/// So many missing blocks are walked: one after the other, by their hashes.
const WALKED: u64 = 2;

/// See the module.
pub(super) struct Library {
    pool: Pool,
    blocks: Mutex<Shelf<Arc<Block>>>,
    /// The highest number of a block that was kept.
    newest: AtomicU64,
    logs: Mutex<Shelf<Arc<BlockLogs>>>,
    /// Blocks that are being asked for.
    asked: Mutex<HashMap<B256, Weak<Asked>>>,
    /// The turn to read ahead.
    turn: Semaphore,
}

/// Whether a walk reads ahead, which it does once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// It will, at once.
    AtOnce,
    /// It will when others have, unless they have read the same.
    InTurn,
    /// It has.
    Done,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

/// What a node answers; `None`: it has no such block.
type Asked = OnceCell<Option<Arc<Block>>>;

/// Numbers of the blocks below this one and above `down_to`; none if they are few.
fn missing(below: u64, down_to: u64) -> Range<u64> {
    let first = down_to.saturating_add(1);
    if below.saturating_sub(first) > WALKED { first..below } else { 0..0 }
}

impl Library {
    pub(super) fn new(pool: Pool) -> Arc<Self> {
        let (blocks, logs) = (Mutex::new(Shelf::new(BLOCKS)), Mutex::new(Shelf::new(LOGS)));
        Arc::new(Self { pool, blocks, newest: AtomicU64::new(0), logs, asked: Mutex::default(), turn: Semaphore::new(1) })
    }

    /// The block of this hash, without asking anybody.
    fn known(&self, hash: B256) -> Option<Arc<Block>> {
        if let Some(block) = lock(&self.blocks).get(hash) {
            return Some(block);
        }
        Block::announced(&self.pool, hash).map(|block| self.keep(block))
    }

    /// Not one far below the newest, which a client may name: it would displace one that others come back to.
    fn keep(&self, block: Arc<Block>) -> Arc<Block> {
        let newest = self.newest.fetch_max(block.number(), Ordering::Relaxed);
        if newest.saturating_sub(block.number()) > BLOCKS.items as u64 {
            return block;
        }
        let (hash, bytes) = (block.hash(), block.header.get().len());
        lock(&self.blocks).get_or_put(hash, block, bytes)
    }

    /// The block of this hash: as it was announced, else as a node has it. `None` if none does.
    pub(super) async fn find(&self, hash: B256) -> Result<Option<Arc<Block>>, CallError> {
        match self.known(hash) {
            Some(block) => Ok(Some(block)),
            None => Ok(self.ask(hash).await?.map(|block| self.keep(block))),
        }
    }

    async fn ask(&self, hash: B256) -> Result<Option<Arc<Block>>, CallError> {
        let asked = self.asked(hash);
        asked.get_or_try_init(|| Block::of_hash(&self.pool, hash)).await.cloned()
    }

    fn asked(&self, hash: B256) -> Arc<Asked> {
        let mut all = lock(&self.asked);
        if let Some(asked) = all.get(&hash).and_then(Weak::upgrade) {
            return asked;
        }
        all.retain(|_, asked| asked.strong_count() > 0);
        let asked = Arc::default();
        all.insert(hash, Arc::downgrade(&asked));
        asked
    }

    /// The newest block that a node has.
    pub(super) async fn latest(&self) -> Result<Option<Arc<Block>>, CallError> {
        // As it was announced, if it was.
        Ok(Block::called(&self.pool, "latest").await?.map(|block| self.known(block.hash()).unwrap_or_else(|| self.keep(block))))
    }

    /// The block below this one. `down_to`: the blocks above this number are wanted next; where they are many and unknown they are read ahead, by
    /// number and many at a time. What joins is said by the hashes alone: a block of another branch is read in vain.
    pub(super) async fn below(&self, block: &Block, down_to: u64, ahead: &mut Ahead) -> Result<Option<Arc<Block>>, CallError> {
        let below = block.place_below();
        let numbers = missing(below.number + 1, down_to);
        // The semaphore is never closed, so there is always a turn.
        let _turn = if *ahead == Ahead::InTurn && !numbers.is_empty() { self.turn.acquire().await.ok() } else { None };
        if let Some(known) = self.known(below.hash) {
            return Ok(Some(known));
        }
        if !numbers.is_empty() && std::mem::replace(ahead, Ahead::Done) != Ahead::Done {
            self.read_ahead(numbers).await;
        }
        self.find(below.hash).await
    }

    /// Best effort: what a node does not tell is found by its hash.
    async fn read_ahead(&self, numbers: Range<u64>) {
        let ask = |number| async move { Block::called(&self.pool, &format!("{number:#x}")).await };
        let mut answers = stream::iter(numbers.rev()).map(ask).buffer_unordered(AT_A_TIME);
        // Newest first, as they are walked; after the first fault whoever walks finds out what it is.
        while let Some(Ok(found)) = answers.next().await {
            if let Some(block) = found {
                self.keep(block);
            }
        }
    }

    /// The logs of a block that the filter is about.
    pub(super) async fn logs(&self, block: &Block, filter: &Arc<LogFilter>) -> Result<Arc<Found>, CallError> {
        let hash = block.place().hash;
        let logs = lock(&self.logs).get_or_put(hash, Arc::default(), 0);
        let found = logs.matching(block, filter, &self.pool).await?;
        lock(&self.logs).weigh(hash, logs.bytes());
        Ok(found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole after every statement that can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_blocks_are_walked_and_more_are_read_ahead() {
        assert_eq!(missing(11, 10), 0..0, "nothing is missing");
        assert_eq!(missing(13, 10), 0..0, "two");
        assert_eq!(missing(14, 10), 11..14);
        assert_eq!(missing(111, 10), 11..111);
        assert_eq!(missing(5, 10), 0..0, "a branch below");
        assert_eq!(missing(5, u64::MAX), 0..0);
    }
}
