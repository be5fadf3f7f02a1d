//! What changes, step by step: first what has since a stream was there last, then what the feed tells, without a gap between the two.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::block::Block;
use super::library::{Ahead, Library};
use super::ring::Linked as _;
use super::told::{Gap, Place};
use super::walk::{Next, Walk};
use crate::node::CallError;

/// Blocks that a stream is told when it is taken up again: so many that were taken back, and so many that were added. More is a gap.
const RESUMED: usize = 1024;
/// Time before a walk that the nodes could not answer is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often the nodes may say that they do not have a canonical block before that is a gap: they may be pruned, or begin there.
const MISSING: u32 = 40;

/// One change.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The next block of the chain.
    Added(Arc<Block>),
    /// The newest block is not canonical any more.
    Removed(Arc<Block>),
    /// What comes next does not join what came before.
    Gap(Box<Gap>),
}

/// See the module. `None` instead of a step: more waited than may, or the feed is over.
#[derive(Debug)]
pub(super) struct Steps {
    /// The block behind which the feed's steps begin.
    start: Arc<Block>,
    /// Where the stream was, and who finds the way from there to `start`; until that is done.
    after: Option<(Place, Arc<Library>)>,
    /// That way, as far as it is not told.
    ahead: VecDeque<Step>,
    live: mpsc::Receiver<Step>,
}

impl Steps {
    /// The feed's steps alone, which begin behind this block.
    pub(super) fn live(start: Arc<Block>, live: mpsc::Receiver<Step>) -> Self {
        Self { start, after: None, ahead: VecDeque::new(), live }
    }

    /// The same, with the way from this place to where they begin before them.
    pub(super) fn after(self, after: Place, library: Arc<Library>) -> Self {
        Self { after: Some((after, library)), ..self }
    }

    /// The block behind which the feed's steps begin.
    pub(super) fn start(&self) -> &Arc<Block> {
        &self.start
    }

    /// The next one; cancel safe.
    pub(super) async fn next(&mut self) -> Option<Step> {
        if let Some((after, library)) = &self.after {
            self.ahead = way(library, *after, &self.start).await;
            self.after = None;
        }
        match self.ahead.pop_front() {
            Some(step) => Some(step),
            None => self.live.recv().await,
        }
    }
}

/// The steps from there to this block; a gap where they cannot be found. Waits for as long as no node can be asked.
async fn way(library: &Library, after: Place, to: &Arc<Block>) -> VecDeque<Step> {
    let gap = || VecDeque::from([Step::Gap(Box::new(Gap { from: after, to: to.place() }))]);
    let mut missing = 0;
    loop {
        match walked(library, after, to).await {
            Ok(Some((unwound, added))) => {
                return unwound.into_iter().map(Step::Removed).chain(added.into_iter().map(Step::Added)).collect();
            }
            Ok(None) => return gap(),
            Err(error) => {
                tracing::debug!(%error, number = after.number, hash = %after.hash, "the way from a block to the newest one is not found yet");
                missing += u32::from(matches!(error, CallError::Node(_) | CallError::Malformed(_)));
                if missing == MISSING {
                    return gap();
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// Blocks that were taken back, newest first, and blocks that were added, oldest first.
type Way = (Vec<Arc<Block>>, Vec<Arc<Block>>);

/// `None` if there is no such way, or none that may be told.
async fn walked(library: &Library, after: Place, to: &Arc<Block>) -> Result<Option<Way>, CallError> {
    // The way is looked at before its first block is asked for: one that is too far costs nothing.
    if usize::try_from(to.number().saturating_sub(after.number)).map_or(true, |blocks| blocks > RESUMED) {
        return Ok(None);
    }
    let Some(seen) = library.find(after.hash).await? else { return Ok(None) };
    let mut walk = Walk::new(seen, Arc::clone(to), RESUMED);
    let mut ahead = Ahead::InTurn;
    loop {
        let is_linked = match walk.next() {
            Next::Met => return Ok(Some(walk.over())),
            Next::Deep => false,
            Next::Canonical => match library.below(walk.lowest(), walk.down_to(), &mut ahead).await? {
                Some(block) => walk.canonical(block),
                None => return Err(CallError::Malformed(format!("the nodes do not have block {}", walk.lowest().parent()))),
            },
            // A node has what a reorg took back, or it has not: it does not get it.
            Next::Seen(parent) => match library.find(parent).await? {
                Some(block) => walk.seen(block),
                None => false,
            },
        };
        if !is_linked {
            return Ok(None);
        }
    }
}
