//! One task per environment follows the head and tells everybody who streams from the chain what changed, in order. It works only while
//! somebody does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use alloy_primitives::B256;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::block::Block;
use super::library::{Ahead, Library};
use super::meter::StepMeter;
use super::ring::{Linked as _, Ring, Standing};
use super::steps::{Step, Steps};
use super::told::{Gap, Place};
use crate::node::{CallError, Head, Pool};
use crate::telemetry::faults::SeededFault;

/// Blocks that are linked. A reorg, or an absence of the nodes, that is deeper is a gap.
pub(super) const DEPTH: usize = 256;
/// Steps that wait for a stream, for each block of the depth; when there are more it has to begin again behind what it has read.
const WAITING: usize = 4;
/// Time before a step that the nodes could not answer is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often the nodes may say that they do not have a block below their head before that is a gap: they may be pruned, or begin there.
const MISSING: u32 = 40;
/// How long a node may take to say which head it has when somebody begins.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the task; clones are the same.
#[derive(Debug, Clone)]
pub(in crate::subscriptions) struct Feed {
    followers: mpsc::UnboundedSender<Follower>,
    library: Arc<Library>,
    /// Steps that wait for one stream, at most.
    waiting: usize,
}

#[derive(Debug)]
struct Follower {
    steps: mpsc::Sender<Step>,
    /// Told the block that its steps begin behind, once that is known.
    begun: Option<oneshot::Sender<Arc<Block>>>,
    /// Where it was before; without that it begins with what follows the newest head of a node.
    after: Option<Place>,
}

impl Feed {
    /// Starts the task; it ends with `stop`.
    pub(in crate::subscriptions) fn start(pool: Pool, meter: StepMeter, stop: CancellationToken) -> Self {
        Self::with(pool, meter, stop, DEPTH)
    }

    pub(super) fn with(pool: Pool, meter: StepMeter, stop: CancellationToken, depth: usize) -> Self {
        let (way, followers) = mpsc::unbounded_channel();
        let library = Library::new(pool.clone());
        let (ring, missing) = (Ring::new(depth), (B256::ZERO, 0));
        let task = Task { pool, library: Arc::clone(&library), meter, ring, followers: Vec::new(), orphans: Vec::new(), missing };
        tokio::spawn(stop.run_until_cancelled_owned(task.run(followers)));
        Self { followers: way, library, waiting: WAITING * depth }
    }

    pub(super) fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// The place of the block that a client names; `None` if no node has it.
    pub(in crate::subscriptions) async fn place(&self, hash: B256) -> Result<Option<Place>, CallError> {
        Ok(self.library.find(hash).await?.map(|block| block.place()))
    }

    /// Everything after the head of now; waits until a node has told one.
    pub(super) async fn follow(&self) -> Result<Steps, CallError> {
        self.join(None).await
    }

    /// Everything that changed since the chain stood there: what was taken back, what was added, and what follows.
    pub(super) async fn resume(&self, after: Place) -> Result<Steps, CallError> {
        Ok(self.join(Some(after)).await?.after(after, Arc::clone(&self.library)))
    }

    async fn join(&self, after: Option<Place>) -> Result<Steps, CallError> {
        let (steps, receiver) = mpsc::channel(self.waiting);
        let (begun, told) = oneshot::channel();
        self.followers.send(Follower { steps, begun: Some(begun), after }).map_err(|_| CallError::Unavailable)?;
        let start = told.await.map_err(|_| CallError::Unavailable)?;
        Ok(Steps::live(start, receiver))
    }
}

/// How the ring gets to a block.
enum Way {
    /// It has it.
    Known,
    /// By these, newest first.
    Joins(Vec<Arc<Block>>),
    /// Not at all.
    Gap,
}

struct Task {
    pool: Pool,
    library: Arc<Library>,
    meter: StepMeter,
    ring: Ring<Arc<Block>>,
    followers: Vec<Follower>,
    /// Blocks that were taken back, and are marked so for as long as the chain is followed without a break.
    orphans: Vec<Weak<Block>>,
    /// The block that the nodes do not have, and how often they said so.
    missing: (B256, u32),
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Follower>) {
        let mut heads = self.pool.each_head();
        // The head that is to be followed next.
        let mut next: Option<Arc<Head>> = None;
        let mut again_at: Option<Instant> = None;
        loop {
            self.followers.retain(|follower| !follower.steps.is_closed());
            if self.followers.is_empty() {
                // What happens while nobody looks is nobody's gap.
                self.begin_anew();
                match inbox.recv().await {
                    Some(follower) => self.followers.push(follower),
                    None => return,
                }
                while heads.try_recv().is_ok() {}
                (next, again_at) = (None, None);
            }
            while let Ok(follower) = inbox.try_recv() {
                self.followers.push(follower);
            }
            if self.followers.iter().any(|follower| follower.begun.is_some()) {
                if self.is_behind() {
                    self.catch_up().await;
                }
                if self.ring.is_empty() {
                    next = self.pool.heads().borrow().clone();
                }
            }
            while again_at.is_none()
                && let Some(head) = next.take().or_else(|| heads.try_recv().ok())
            {
                if let Err(error) = self.advance(&head).await {
                    tracing::debug!(%error, number = head.number, "the chain cannot be followed yet");
                    // A newer head leads there too.
                    next = heads.try_recv().ok();
                    if next.is_none() {
                        (next, again_at) = (Some(head), Some(Instant::now() + RETRY));
                    }
                }
            }
            self.begin();
            tokio::select! {
                biased;
                follower = inbox.recv() => match follower {
                    Some(follower) => self.followers.push(follower),
                    None => return,
                },
                head = heads.recv() => match head {
                    Some(head) => (next, again_at) = (Some(head), None),
                    None => return,
                },
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => again_at = None,
            }
        }
    }

    /// Those who came since have what follows.
    fn begin(&mut self) {
        let Some(tip) = self.ring.tip() else { return };
        for begun in self.followers.iter_mut().filter_map(|follower| follower.begun.take()) {
            let _gone = begun.send(Arc::clone(tip));
        }
    }

    /// Whether somebody who begins may know of a newer block than was heard of here. A crowd that comes back to blocks below costs no question.
    fn is_behind(&self) -> bool {
        let tip = self.ring.tip().map(|tip| tip.number());
        let mut begin = self.followers.iter().filter(|follower| follower.begun.is_some());
        begin.any(|follower| follower.after.is_none_or(|after| Some(after.number) > tip))
    }

    /// Whoever begins has what follows the newest head of a node, not of what was heard of it. While no node can be asked, what was heard counts.
    async fn catch_up(&mut self) {
        if self.pool.fault().is_some() {
            return;
        }
        let Ok(Ok(Some(latest))) = timeout(PATIENCE, self.library.latest()).await else { return };
        // An older view of the chain says nothing.
        if self.ring.tip().is_none_or(|tip| tip.number() < latest.number())
            && let Err(error) = self.follow_to(latest).await
        {
            tracing::debug!(%error, "the chain cannot be followed to its newest block yet");
        }
    }

    /// Follows the chain to this head.
    async fn advance(&mut self, head: &Head) -> Result<(), CallError> {
        if self.ring.has(head.number, head.hash) {
            return Ok(());
        }
        let head = self.block(head.hash).await?.ok_or_else(|| missing(head.hash))?;
        self.follow_to(head).await
    }

    /// Follows the chain to this block. Before blocks are taken back, or a gap is told, the node is asked for its latest, and that is followed: an endpoint that is
    /// behind the others tells late what they have left already.
    async fn follow_to(&mut self, head: Arc<Block>) -> Result<(), CallError> {
        if self.ring.is_empty() {
            self.begin_anew();
            self.ring.restart(head);
            return Ok(());
        }
        let mut way = self.way_to(&head).await?;
        let is_news = match &way {
            Way::Joins(path) => !self.ring.is_taken_back_by(path),
            Way::Known => true,
            Way::Gap => false,
        };
        let mut to = head;
        if !is_news && let Some(latest) = self.library.latest().await?.filter(|latest| latest.hash() != to.hash()) {
            way = self.way_to(&latest).await?;
            to = latest;
        }
        match way {
            Way::Known => {}
            Way::Joins(path) => self.join(path),
            Way::Gap => self.gap(to),
        }
        Ok(())
    }

    async fn way_to(&mut self, head: &Arc<Block>) -> Result<Way, CallError> {
        if self.ring.is_out_of_reach(head.number()) {
            return Ok(Way::Gap);
        }
        let down_to = self.ring.tip().map_or(u64::MAX, |tip| tip.number());
        let mut ahead = Ahead::AtOnce;
        let mut path = vec![Arc::clone(head)];
        loop {
            match self.ring.standing(&path) {
                Standing::Known => return Ok(Way::Known),
                Standing::Wants(_) if SeededFault::StreamNotFilled.is_on() => {
                    self.begin_anew();
                    return Ok(Way::Joins(path));
                }
                Standing::Wants(parent) => {
                    let lowest = path.last().unwrap_or(head);
                    let below = self.library.below(lowest, down_to, &mut ahead).await?;
                    match self.or_missing(parent, below)? {
                        Some(block) => path.push(block),
                        None => return Ok(Way::Gap),
                    }
                }
                Standing::WantsOlder(parent) => {
                    let Some(block) = self.block(parent).await? else { return Ok(Way::Gap) };
                    if !self.ring.extend(block) {
                        return Err(broken());
                    }
                }
                Standing::Deep => return Ok(Way::Gap),
                Standing::Broken => return Err(broken()),
                Standing::Joins => return Ok(Way::Joins(path)),
            }
        }
    }

    /// What comes next does not follow what was: any block may be canonical again.
    fn begin_anew(&mut self) {
        self.orphans.drain(..).filter_map(|block| block.upgrade()).for_each(|block| block.orphan(false));
        self.ring.clear();
    }

    fn join(&mut self, path: Vec<Arc<Block>>) {
        self.orphans.retain(|block| block.strong_count() > 0);
        let change = self.ring.join(path);
        for block in change.removed {
            block.orphan(true);
            self.orphans.push(Arc::downgrade(&block));
            if !SeededFault::StreamNotUnwound.is_on() {
                self.tell(&Step::Removed(block));
            }
        }
        for block in change.added {
            block.orphan(false);
            if SeededFault::StreamDoubled.is_on() && !block.is_announced {
                self.tell(&Step::Added(Arc::clone(&block)));
            }
            self.tell(&Step::Added(block));
        }
    }

    /// A block; `None` once the nodes have said often enough that they do not have it.
    async fn block(&mut self, hash: B256) -> Result<Option<Arc<Block>>, CallError> {
        let found = self.library.find(hash).await?;
        self.or_missing(hash, found)
    }

    fn or_missing(&mut self, hash: B256, found: Option<Arc<Block>>) -> Result<Option<Arc<Block>>, CallError> {
        if found.is_some() {
            return Ok(found);
        }
        let (known, times) = self.missing;
        self.missing = (hash, if known == hash { times + 1 } else { 1 });
        if self.missing.1 < MISSING { Err(missing(hash)) } else { Ok(None) }
    }

    fn gap(&mut self, head: Arc<Block>) {
        let to = head.place();
        tracing::warn!(number = to.number, hash = %to.hash, "the chain moved further than the blocks on record: streams of it have a gap");
        let from = self.ring.tip().map_or(to, |tip| tip.place());
        self.begin_anew();
        self.ring.restart(head);
        self.tell(&Step::Gap(Box::new(Gap { from, to })));
    }

    /// Who does not read is dropped, and finds out when what waits is read.
    fn tell(&mut self, step: &Step) {
        let counter = match step {
            Step::Added(block) if block.is_announced => &self.meter.announced,
            Step::Added(..) => &self.meter.fetched,
            Step::Removed(_) => &self.meter.orphaned,
            Step::Gap(_) => &self.meter.gap,
        };
        counter.inc();
        self.followers.retain(|follower| follower.begun.is_some() || follower.steps.try_send(step.clone()).is_ok());
    }
}

fn broken() -> CallError {
    CallError::Malformed("the blocks below the head are no chain".to_owned())
}

fn missing(hash: B256) -> CallError {
    CallError::Malformed(format!("the nodes do not have block {hash}"))
}
