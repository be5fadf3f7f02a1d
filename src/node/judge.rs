//! Looks at what the endpoints of an environment say of its settled blocks, and puts out whoever tells another history. It also looks again at
//! those that were put out for whatever reason, and lets them back when they tell the truth.

use std::sync::Arc;

use alloy_primitives::{B256, U64};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::value::to_raw_value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Head;
use super::board::Board;
use super::endpoint::Endpoint;
use super::frame::{Ids, Request};
use super::heads::parse_head;
use super::truth::{Lie, Testimony, judge};
use crate::config::NodeClocks;

/// The task of one environment.
pub(super) struct Judge {
    board: Arc<Board>,
    ids: Ids,
    clocks: NodeClocks,
    /// Blocks that a reorg can take back: what is deeper is settled.
    depth: u64,
    /// The newest settled block that is known.
    settled: Option<(u64, B256)>,
    /// The newest that was asked for.
    asked: Option<u64>,
}

/// What one endpoint answered.
#[derive(Default)]
struct Heard {
    testimony: Testimony,
    /// Of one that was put out: its head.
    latest: Option<Head>,
    contradiction: bool,
}

impl Judge {
    pub(super) fn new(board: Arc<Board>, ids: Ids, clocks: NodeClocks, depth: u64) -> Self {
        Self { board, ids, clocks, depth, settled: None, asked: None }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut heads = self.board.heads();
        let mut news = self.board.news();
        let mut look_at: Option<Instant> = None;
        loop {
            let head = heads.borrow_and_update().as_ref().map(|head| head.number);
            let new = head.and_then(|head| head.checked_sub(self.depth)).filter(|new| self.is_due(*new));
            let now = Instant::now();
            let again = look_at.is_some_and(|at| now >= at);
            if new.is_some() || again {
                self.look(new).await;
                look_at = None;
            }
            if self.board.readers().any(|endpoint| endpoint.distrust().is_some()) {
                look_at = look_at.or_else(|| Some(Instant::now() + self.clocks.head_silence));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {}
                // Somebody may have been put out.
                changed = news.changed(), if look_at.is_none() => if changed.is_err() { return },
            }
        }
    }

    /// Not at every block: twice within the depth of a reorg.
    fn is_due(&self, new: u64) -> bool {
        // A head that was never true must not be what all others are measured with.
        self.asked.is_none_or(|old| new < old || new >= old.saturating_add((self.depth / 2).max(1)))
    }

    /// Asks everybody, and does what follows.
    async fn look(&mut self, new: Option<u64>) {
        self.asked = new.or(self.asked);
        let mut asked: Vec<_> = self.board.readers().filter(|endpoint| endpoint.session().is_some()).cloned().collect();
        // Those that are trusted have the first word.
        asked.sort_by_key(|endpoint| endpoint.distrust().is_some());
        let heard = join_all(asked.iter().map(|endpoint| self.ask(endpoint, new))).await;
        let known = self.settled.map(|(_, hash)| hash);
        let testimonies: Vec<_> = heard.iter().map(|heard| heard.testimony).collect();
        let found = judge(known, &testimonies, self.board.readers().count());
        if found.is_rewritten {
            tracing::error!(
                number = self.settled.map(|(number, _)| number),
                "every node tells another history than before: it is the chain's now"
            );
            self.settled = None;
        }
        let head = self.board.trusted_head();
        for ((endpoint, heard), liar) in asked.iter().zip(&heard).zip(found.liars) {
            let old = self.settled.map(|(number, _)| number);
            let history = liar.and_then(|(is_new, told, known)| {
                let number = if is_new { new } else { old };
                number.map(|number| Lie::History { number, told, known })
            });
            let contradiction = heard.contradiction.then_some(Lie::Contradiction("a block that was asked for by its hash is another one"));
            if let Some(lie) = history.or(contradiction) {
                self.board.put_out(endpoint, lie);
            } else if endpoint.distrust().is_some() && self.may_return(endpoint, heard, head) {
                self.board.let_back(endpoint);
            }
        }
        if let (Some(number), Some(hash)) = (new, found.new) {
            self.settled = Some((number, hash));
        }
    }

    /// One that was put out comes back if nothing is found against it, and it says what it was asked.
    fn may_return(&self, endpoint: &Endpoint, heard: &Heard, head: Option<u64>) -> bool {
        let vouches = self.settled.is_none_or(|(_, hash)| heard.testimony.old == Some(hash));
        vouches && heard.latest.as_ref().is_some_and(|latest| endpoint.record().returns(latest, head))
    }

    /// Asks one endpoint. What it does not answer says nothing.
    async fn ask(&self, endpoint: &Arc<Endpoint>, new: Option<u64>) -> Heard {
        let number = |number: Option<u64>| async move {
            match number {
                Some(number) => self.block(endpoint, "eth_getBlockByNumber", (U64::from(number), false)).await,
                None => None,
            }
        };
        let latest = async {
            endpoint.distrust()?;
            self.block(endpoint, "eth_getBlockByNumber", ("latest", false)).await
        };
        let (old, new_block, latest) = tokio::join!(number(self.settled.map(|(number, _)| number)), number(new), latest);
        let mut heard = Heard::default();
        // The newest of what it tells has a parent that is the one that it names.
        if let Some(block) = latest.as_ref().or(new_block.as_ref())
            && let Some(parent) = self.block(endpoint, "eth_getBlockByHash", (block.parent_hash, false)).await
        {
            heard.contradiction = parent.hash != block.parent_hash || parent.number.checked_add(1) != Some(block.number);
        }
        let asked_for =
            |block: &Option<Head>, number: Option<u64>| block.as_ref().filter(|block| Some(block.number) == number).map(|block| block.hash);
        heard.testimony = Testimony { old: asked_for(&old, self.settled.map(|(number, _)| number)), new: asked_for(&new_block, new) };
        heard.latest = latest;
        heard
    }

    async fn block(&self, endpoint: &Arc<Endpoint>, method: &str, params: impl Serialize) -> Option<Head> {
        let params = to_raw_value(&params).ok()?;
        let answer = endpoint.call(Request::new(self.ids.next(), method, Some(&params))).await.ok()?;
        parse_head(&answer)
    }
}
