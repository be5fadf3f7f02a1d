//! Following the chain: which of our attempts are in which block, and how deep. One task per environment; heads come from the
//! pool, missing parents are fetched by hash, orphaned blocks are unwound newest first. Of a block no more is fetched than
//! its transaction hashes, and the receipts of those that are watched.

mod fetch;
mod finality;
mod line;
mod look_ups;
mod reason;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U64};
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::fetch::{Found, LookedUp, block, receipts_of};
use self::finality::{Finality, Finalized, News};
use self::line::{Line, Link};
use crate::config::Confirmations;
use crate::journal::BlockRef;
use crate::node::Pool;
use crate::node::{CallError, Followed, Head};
use crate::telemetry::clock;
use crate::telemetry::faults::SeededFault;

/// Whose attempt a hash is.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The account's address.
    pub address: Address,
    /// The service that took the request.
    pub service: Arc<str>,
    /// The principal that made it.
    pub principal: Arc<str>,
}

/// What the chain did with an attempt of an account.
#[derive(Debug, Clone)]
pub enum Sighting {
    /// In this block.
    Included {
        /// Which attempt.
        hash: B256,
        /// Its block.
        block: BlockRef,
        /// Whether execution succeeded (`status` of the receipt; absent before Byzantium counts as success).
        success: bool,
        /// Why execution failed, where the nodes tell it.
        reason: Option<String>,
        /// The receipt, byte for byte as the node gave it.
        receipt: Arc<RawValue>,
    },
    /// Its block is not canonical any more.
    Orphaned {
        /// Which attempt.
        hash: B256,
    },
    /// Deep enough to be final.
    Confirmed {
        /// Which attempt.
        hash: B256,
        /// Its block.
        block: BlockRef,
    },
    /// A look-up found no receipt.
    Absent {
        /// Which attempt.
        hash: B256,
    },
}

/// A receipt of something that is watched.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Transaction hash.
    pub hash: B256,
    /// Whose it is; `None` for a hash that a client only observes.
    pub owner: Option<Owner>,
    /// Its block.
    pub block: BlockRef,
    /// Its place in the block.
    pub index: u64,
    /// The receipt, byte for byte as the node gave it.
    pub json: Arc<RawValue>,
}

enum Command {
    Watch {
        hash: B256,
        owner: Owner,
        look_up: bool,
    },
    LookUp {
        hash: B256,
    },
    Forget {
        hash: B256,
    },
    Observe {
        hashes: Vec<B256>,
        reply: oneshot::Sender<Vec<Receipt>>,
    },
    Unobserve {
        hashes: Vec<B256>,
    },
    #[cfg(test)]
    Watched(oneshot::Sender<Vec<B256>>),
}

/// The way to the tracking task.
#[derive(Debug, Clone)]
pub struct Tracker {
    commands: mpsc::UnboundedSender<Command>,
    processed: Arc<Followed<Option<Arc<Head>>>>,
}

/// Where sightings and receipts go. Both are called from the tracking task and must not block.
pub trait Audience: Send + Sync + 'static {
    /// Something happened to an attempt of this account.
    fn sighting(&self, address: Address, sighting: Sighting);
    /// The watched receipts of one block (in the order of the block), or one that a look-up found.
    fn receipts(&self, receipts: Vec<Receipt>);
}

impl Tracker {
    /// Starts the task; it ends with `stop`. `fallback`: how many blocks count where the nodes have no finalized block.
    pub fn start(pool: Pool, confirmations: Confirmations, fallback: u64, audience: Arc<dyn Audience>, stop: CancellationToken) -> Self {
        let finality = Finality::new(confirmations, fallback);
        let (commands, inbox) = mpsc::unbounded_channel();
        let processed = Arc::new(Followed::new(None));
        let task = Task {
            pool,
            audience,
            line: Line::new(usize::try_from(finality.depth()).unwrap_or(usize::MAX).saturating_add(256).min(8192)),
            finality,
            asking: None,
            asked_at: None,
            watched: BTreeMap::new(),
            included: BTreeMap::new(),
            to_look_up: VecDeque::new(),
            looking_up: FuturesUnordered::new(),
            inclusions: 0,
            outdated: 0,
            observations: Vec::new(),
            found: Vec::new(),
            again_at: None,
            processed: Arc::clone(&processed),
        };
        tokio::spawn(stop.run_until_cancelled_owned(task.run(inbox)));
        Self { commands, processed }
    }

    /// Watches an attempt from now on. `look_up`: it may be in a block already.
    pub fn watch(&self, hash: B256, owner: Owner, look_up: bool) {
        self.send(Command::Watch { hash, owner, look_up });
    }

    /// Asks for the receipt of a watched attempt; answers by a sighting.
    pub fn look_up(&self, hash: B256) {
        self.send(Command::LookUp { hash });
    }

    /// Stops watching an attempt: another payload of its slot is final.
    pub fn forget(&self, hash: B256) {
        self.send(Command::Forget { hash });
    }

    /// Watches hashes for a client, whoever sent them; answers the receipts that exist already.
    pub async fn observe(&self, hashes: Vec<B256>) -> Vec<Receipt> {
        let (reply, found) = oneshot::channel();
        self.send(Command::Observe { hashes, reply });
        found.await.unwrap_or_default()
    }

    /// Ends one [`Tracker::observe`] of these hashes.
    pub fn unobserve(&self, hashes: Vec<B256>) {
        self.send(Command::Unobserve { hashes });
    }

    /// What is watched, for tests.
    #[cfg(test)]
    pub async fn watched(&self) -> Vec<B256> {
        let (reply, watched) = oneshot::channel();
        self.send(Command::Watched(reply));
        watched.await.unwrap()
    }

    /// The newest head up to which every sighting has been delivered.
    pub fn processed(&self) -> watch::Receiver<Option<Arc<Head>>> {
        self.processed.follow()
    }

    /// That head, as it is now.
    pub fn newest(&self) -> Option<Arc<Head>> {
        self.processed.newest()
    }

    fn send(&self, command: Command) {
        // The task ends only with the process; then nobody waits for sightings any more.
        let _gone = self.commands.send(command);
    }
}

#[derive(Debug, Default)]
struct Watched {
    owner: Option<Owner>,
    observers: u32,
    included: Option<BlockRef>,
    /// Which inclusion of the task's it was.
    inclusion: u64,
    /// It was included before the chain moved out of sight: if it is not found, it was orphaned.
    doubted: bool,
}

struct Task {
    pool: Pool,
    finality: Finality,
    /// The question for the finalized block, with the head that it was asked at.
    asking: Option<BoxFuture<'static, TaggedAt>>,
    /// The newest head that it was asked at.
    asked_at: Option<u64>,
    audience: Arc<dyn Audience>,
    line: Line,
    watched: BTreeMap<B256, Watched>,
    /// Inclusions that are not confirmed, by block number.
    included: BTreeMap<u64, Vec<B256>>,
    to_look_up: VecDeque<B256>,
    /// Each with the number of inclusions known when it began.
    looking_up: FuturesUnordered<BoxFuture<'static, (u64, LookedUp)>>,
    inclusions: u64,
    /// Look-ups that began below this number of inclusions may tell of orphaned blocks.
    outdated: u64,
    observations: Vec<Observation>,
    found: Vec<Receipt>,
    again_at: Option<Instant>,
    processed: Arc<Followed<Option<Arc<Head>>>>,
}

/// The head that it was asked at, and the finalized block that the node knows.
type TaggedAt = (u64, Result<Option<Tagged>, CallError>);

/// A client's hashes whose look-ups are under way.
struct Observation {
    missing: HashSet<B256>,
    found: Vec<Receipt>,
    reply: Option<oneshot::Sender<Vec<Receipt>>>,
}

/// A block that a node names by a word.
#[derive(Deserialize)]
struct Tagged {
    number: U64,
    hash: B256,
}

/// Time before a step that the node could not answer is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// So many missing blocks are walked, one after the other.
const FEW: u64 = 2;

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut heads = self.pool.heads();
        // A head that is known already is no change that would be told.
        let mut behind = true;
        loop {
            if behind && self.again_at.is_none() {
                let head = heads.borrow_and_update().clone();
                if let Some(head) = head {
                    behind = match self.advance(&head, &mut inbox).await {
                        Ok(()) => false,
                        Err(error) => {
                            tracing::debug!(%error, number = head.number, "the head cannot be followed yet");
                            self.again_at = Some(clock::now() + RETRY);
                            true
                        }
                    };
                }
            }
            self.start_look_ups();
            self.tell_found();
            self.ask_for_finalized();
            let again = self.again_at.unwrap_or_else(clock::now);
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => {
                        self.command(command);
                        while let Ok(command) = inbox.try_recv() {
                            self.command(command);
                        }
                    }
                    None => return,
                },
                changed = heads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    behind = true;
                    self.again_at = None;
                }
                Some(looked_up) = self.looking_up.next() => self.looked_up(looked_up),
                Some((head, answer)) = OptionFuture::from(self.asking.as_mut()) => {
                    self.asking = None;
                    self.finalized(head, answer);
                }
                () = tokio::time::sleep_until(again.into()), if self.again_at.is_some() => self.again_at = None,
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Watch { hash, owner, look_up } => {
                let entry = self.watched.entry(hash).or_default();
                entry.owner = Some(owner);
                // Known for a client that observes it: its owner is told of the inclusion before anything that follows from it.
                let known = entry.included.take();
                if let Some(block) = known {
                    self.drop_inclusion(block.number, hash);
                }
                if look_up || known.is_some() {
                    self.to_look_up.push_back(hash);
                }
            }
            Command::LookUp { hash } => self.to_look_up.push_back(hash),
            Command::Forget { hash } => {
                if let Some(entry) = self.watched.get_mut(&hash) {
                    entry.owner = None;
                    if entry.observers == 0 {
                        self.drop_watch(hash);
                    }
                }
            }
            Command::Observe { hashes, reply } => {
                for hash in &hashes {
                    self.watched.entry(*hash).or_default().observers += 1;
                    self.to_look_up.push_back(*hash);
                }
                self.observations.push(Observation { missing: hashes.into_iter().collect(), found: Vec::new(), reply: Some(reply) });
                self.answer_observations();
            }
            #[cfg(test)]
            Command::Watched(reply) => drop(reply.send(self.watched.keys().copied().collect())),
            Command::Unobserve { hashes } => {
                for hash in hashes {
                    if let Some(entry) = self.watched.get_mut(&hash) {
                        entry.observers = entry.observers.saturating_sub(1);
                        if entry.observers == 0 && entry.owner.is_none() {
                            self.drop_watch(hash);
                        }
                    }
                }
            }
        }
    }

    fn answer_observations(&mut self) {
        self.observations.retain_mut(|observation| {
            let gone = observation.reply.as_ref().is_none_or(oneshot::Sender::is_closed);
            if !gone && !observation.missing.is_empty() {
                return true;
            }
            if let Some(reply) = observation.reply.take() {
                let _gone = reply.send(std::mem::take(&mut observation.found));
            }
            false
        });
    }

    fn drop_watch(&mut self, hash: B256) {
        if let Some(block) = self.watched.remove(&hash).and_then(|entry| entry.included) {
            self.drop_inclusion(block.number, hash);
        }
    }

    fn drop_inclusion(&mut self, number: u64, hash: B256) {
        if let Some(hashes) = self.included.get_mut(&number) {
            hashes.retain(|other| *other != hash);
            if hashes.is_empty() {
                self.included.remove(&number);
            }
        }
    }

    async fn advance(&mut self, head: &Arc<Head>, inbox: &mut mpsc::UnboundedReceiver<Command>) -> Result<(), CallError> {
        let top = Link { number: head.number, hash: head.hash, parent: head.parent_hash };
        if self.line.contains(top.number, top.hash) {
            return Ok(());
        }
        let mut path = vec![(top, None)];
        let mut joined = self.line.is_empty();
        let mut ahead = HashMap::new();
        let mut is_read_ahead = false;
        while !joined {
            let lowest = path.last().map_or(top, |(link, _)| *link);
            if lowest.number == 0 || self.line.contains(lowest.number - 1, lowest.parent) {
                joined = true;
            } else if lowest.number <= self.line.front().unwrap_or(u64::MAX) || path.len() > self.line.depth() {
                break;
            } else {
                if !std::mem::replace(&mut is_read_ahead, true) {
                    ahead = fetch::ahead(&self.pool, self.missing(lowest.number)).await;
                }
                // By hash: what was read ahead may be of another branch.
                let body = match ahead.remove(&lowest.parent) {
                    Some(body) => body,
                    None => block(&self.pool, lowest.parent).await?,
                };
                let link = Link { number: body.number.to(), hash: body.hash, parent: body.parent_hash };
                path.push((link, Some(body.transactions)));
            }
        }
        if joined {
            let lowest = path.last().map_or(top.number, |(link, _)| link.number);
            self.unwind(lowest);
        } else {
            tracing::warn!(number = head.number, "the chain moved further than the blocks on record; every open transaction is looked up");
            self.line.clear();
            self.outdate();
            // No inclusion is believed any more before it has been looked up: its block may be gone.
            self.included.clear();
            for (hash, entry) in &mut self.watched {
                entry.doubted |= entry.included.take().is_some();
                self.to_look_up.push_back(*hash);
            }
            path.truncate(1);
        }
        while let Some((link, transactions)) = path.pop() {
            // What was sent before this block was announced is watched before the block is read.
            while let Ok(command) = inbox.try_recv() {
                self.command(command);
            }
            self.read_block(link, transactions).await?;
            self.line.push(link);
        }
        self.confirm(head.number);
        self.processed.tell(Some(Arc::clone(head)));
        Ok(())
    }

    /// Numbers of the blocks between the line and one above it; none if they are few, or more than can be joined.
    fn missing(&self, above: u64) -> Range<u64> {
        let first = self.line.tip().map_or(above, |tip| tip + 1);
        let count = above.saturating_sub(first);
        let is_worth_it = count > FEW && usize::try_from(count).is_ok_and(|count| count < self.line.depth());
        if is_worth_it { first..above } else { 0..0 }
    }

    /// Takes blocks from `lowest` up off the line, newest first.
    fn unwind(&mut self, lowest: u64) {
        while let Some(gone) = self.line.pop_from(lowest) {
            self.outdate();
            tracing::info!(number = gone.number, hash = %gone.hash, "a block was orphaned");
            for hash in self.included.remove(&gone.number).unwrap_or_default() {
                self.orphan(hash);
            }
        }
        let above: Vec<u64> = self.included.range(lowest..).map(|(number, _)| *number).collect();
        for number in above {
            for hash in self.included.remove(&number).unwrap_or_default() {
                self.orphan(hash);
            }
        }
    }

    /// What was asked until now is older than the chain.
    fn outdate(&mut self) {
        self.inclusions += 1;
        self.outdated = self.inclusions;
    }

    fn orphan(&mut self, hash: B256) {
        if let Some(entry) = self.watched.get_mut(&hash) {
            entry.included = None;
            if let Some(owner) = &entry.owner {
                self.audience.sighting(owner.address, Sighting::Orphaned { hash });
            }
        }
    }

    async fn read_block(&mut self, link: Link, transactions: Option<Vec<B256>>) -> Result<(), CallError> {
        if self.watched.values().all(|entry| entry.included.is_some()) {
            return Ok(());
        }
        let transactions = match transactions {
            Some(transactions) => transactions,
            None => block(&self.pool, link.hash).await?.transactions,
        };
        let ours: Vec<B256> = transactions.into_iter().filter(|hash| self.watched.contains_key(hash)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let mut receipts = Vec::with_capacity(ours.len());
        let ours = ours.into_iter().map(|hash| (hash, self.is_owned(hash))).collect();
        for (hash, receipt) in receipts_of(self.pool.clone(), ours).await {
            match receipt? {
                Some(found) if found.facts.block_hash == link.hash => receipts.push((hash, found)),
                // Not indexed yet, or moved to another block meanwhile: the block is read again.
                _ => return Err(CallError::Malformed(format!("no receipt yet for {hash}"))),
            }
        }
        let receipts: Vec<Receipt> = receipts.into_iter().filter_map(|(hash, found)| self.include(hash, found)).collect();
        if !receipts.is_empty() {
            self.audience.receipts(receipts);
        }
        Ok(())
    }

    fn is_owned(&self, hash: B256) -> bool {
        self.watched.get(&hash).is_some_and(|entry| entry.owner.is_some())
    }

    fn include(&mut self, hash: B256, Found { json, facts, reason }: Found) -> Option<Receipt> {
        let block = BlockRef { number: facts.block_number.to(), hash: facts.block_hash };
        let entry = self.watched.get_mut(&hash)?;
        let owner = entry.owner.clone();
        entry.doubted = false;
        // It may be final by what was told for this head already.
        self.asked_at = None;
        self.inclusions += 1;
        entry.inclusion = self.inclusions;
        if let Some(before) = entry.included.replace(block)
            && before != block
        {
            self.drop_inclusion(before.number, hash);
        }
        let hashes = self.included.entry(block.number).or_default();
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
        if let Some(owner) = &owner {
            let success = facts.succeeded();
            self.audience.sighting(owner.address, Sighting::Included { hash, block, success, reason, receipt: Arc::clone(&json) });
        }
        Some(Receipt { hash, owner, block, index: facts.transaction_index.to(), json })
    }

    /// Asks for the finalized block, once per head, while an inclusion waits for it. It is asked beside the heads, which wait for nothing.
    fn ask_for_finalized(&mut self) {
        let Some(head) = self.line.tip() else { return };
        if !self.finality.asks() || self.asking.is_some() || self.included.is_empty() || self.asked_at == Some(head) {
            return;
        }
        self.asked_at = Some(head);
        let pool = self.pool.clone();
        let ask = async move { (head, pool.call::<Option<Tagged>>("eth_getBlockByNumber", ("finalized", false)).await) };
        self.asking = Some(ask.boxed());
    }

    fn finalized(&mut self, head: u64, answer: Result<Option<Tagged>, CallError>) {
        let finalized = match answer {
            Ok(Some(Tagged { number, hash })) => {
                let number = number.to();
                // Another chain's, or of blocks that are not read yet: nothing is final by it.
                if self.line.front().is_some_and(|front| number >= front) && !self.line.contains(number, hash) {
                    return;
                }
                Finalized::Block { number, hash }
            }
            Ok(None) | Err(CallError::Node(_) | CallError::Malformed(_)) => Finalized::None,
            // Nobody was reached: asked again at the next head.
            Err(_) => return,
        };
        let blocks = self.finality.depth();
        match self.finality.told(head, finalized) {
            Some(News::Missing) => tracing::warn!(blocks, "the nodes have no `finalized` block: finalized_fallback counts"),
            Some(News::Stuck(since)) => {
                tracing::warn!(blocks, since, "the nodes' `finalized` block does not move with the head: finalized_fallback counts");
            }
            Some(News::Found) => tracing::info!("the nodes' `finalized` block moves: it counts from here on"),
            None => {}
        }
        if let Some(tip) = self.line.tip() {
            self.confirm(tip);
        }
    }

    fn confirm(&mut self, head: u64) {
        let height = if SeededFault::ConfirmedAtOnce.is_on() { Some(head) } else { self.finality.height(head) };
        let Some(height) = height else { return };
        while let Some(entry) = self.included.first_entry() {
            if *entry.key() > height {
                return;
            }
            for hash in entry.remove() {
                let Some(watched) = self.watched.remove(&hash) else { continue };
                if let (Some(owner), Some(block)) = (watched.owner, watched.included) {
                    self.audience.sighting(owner.address, Sighting::Confirmed { hash, block });
                }
            }
        }
    }
}
