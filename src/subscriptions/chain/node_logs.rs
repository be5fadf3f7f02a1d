//! `logs` as a node's own subscription tells them, byte for byte. When its connection is lost, what it did not tell is found in the chain as it is
//! followed here: it is subscribed again first, then the logs of the blocks that it may not have told in full are read, and what the new
//! subscription tells goes on from there. What is told twice by the two is told once.

mod ledger;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use serde_json::value::RawValue;

use self::ledger::{Facts, Ledger};
use super::block::{Block, removed};
use super::feed::{DEPTH, Feed};
use super::filter::LogFilter;
use super::ring::Linked as _;
use super::steps::{Step, Steps};
use crate::node::{CallError, Pool, StreamItem, Subscription};

/// A subscription that lives has told the logs of blocks so far below the newest one: an endpoint that lags that much is left before.
const MARGIN: u64 = 16;
/// So many blocks above the newest one that was known when it was subscribed again are read as well: its endpoint may have been ahead.
const AHEAD: u64 = 3;
/// Time before the logs of a block that could not be read are asked for again, and how often the nodes may refuse before that is a gap.
const RETRY: Duration = Duration::from_millis(250);
const REFUSALS: u32 = 60;

/// How it stands with the node's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It tells everything.
    Whole,
    /// It was away, or is: what follows may not join what came before.
    Lost,
    /// It is live again; what it did not tell is to be found.
    Back,
    /// That is too much to be found: it begins anew.
    Broken,
}

/// One stream.
pub(in crate::subscriptions) struct NodeLogs {
    upstream: Subscription,
    feed: Feed,
    filter: Arc<LogFilter>,
    steps: Steps,
    standing: Standing,
    /// The newest canonical blocks, oldest first.
    chain: VecDeque<Arc<Block>>,
    /// Logs of blocks up to this number were told in full.
    settled: u64,
    /// Blocks up to this number are read even if the subscription lives.
    doubted: u64,
    /// Blocks whose logs are to be read, oldest first.
    unread: VecDeque<Arc<Block>>,
    refusals: u32,
    ledger: Ledger,
    /// Logs that are next.
    next: VecDeque<Arc<RawValue>>,
}

impl NodeLogs {
    /// What the node tells from now on by this subscription, of which the filter means the same.
    pub(in crate::subscriptions) async fn open(feed: &Feed, pool: &Pool, params: &RawValue, filter: LogFilter) -> Result<Self, CallError> {
        let upstream = pool.subscribe(params).await?;
        let steps = feed.follow().await?;
        let number = steps.start().number();
        Ok(Self {
            upstream,
            feed: feed.clone(),
            filter: Arc::new(filter),
            standing: Standing::Whole,
            chain: VecDeque::from([Arc::clone(steps.start())]),
            steps,
            settled: number,
            doubted: 0,
            unread: VecDeque::new(),
            refusals: 0,
            ledger: Ledger::new(number),
            next: VecDeque::new(),
        })
    }

    /// The next log, or a gap. Cancel safe: what is being read stays at hand.
    pub(in crate::subscriptions) async fn next(&mut self) -> Option<StreamItem> {
        loop {
            if let Some(log) = self.next.pop_front() {
                return Some(StreamItem::Item(log));
            }
            if self.standing == Standing::Broken {
                let steps = self.feed.follow().await.ok()?;
                self.begin(steps);
                return Some(StreamItem::Gap);
            }
            if self.standing == Standing::Back {
                self.mend().await?;
                continue;
            }
            if let Some(block) = self.unread.front().cloned() {
                self.read(&block).await;
                continue;
            }
            tokio::select! {
                item = self.upstream.next() => match item? {
                    StreamItem::Item(log) if Facts::of(&log).is_none_or(|facts| self.ledger.is_news(facts, &log)) => return Some(StreamItem::Item(log)),
                    StreamItem::Item(_) => {}
                    StreamItem::Lost => self.standing = Standing::Lost,
                    StreamItem::Gap => self.standing = Standing::Back,
                },
                step = self.steps.next() => self.step(step?),
            }
        }
    }

    fn begin(&mut self, steps: Steps) {
        let number = steps.start().number();
        (self.settled, self.doubted, self.refusals) = (number, 0, 0);
        self.chain = VecDeque::from([Arc::clone(steps.start())]);
        self.unread.clear();
        self.ledger = Ledger::new(number);
        self.steps = steps;
        self.standing = Standing::Whole;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Added(block) => {
                let number = block.number();
                if number <= self.doubted {
                    self.unread.push_back(Arc::clone(&block));
                }
                self.chain.push_back(block);
                if self.chain.len() > DEPTH {
                    self.chain.pop_front();
                }
                if self.standing == Standing::Whole && self.unread.is_empty() {
                    self.settled = self.settled.max(number.saturating_sub(MARGIN));
                }
            }
            Step::Removed(block) | Step::Unwound(block) => {
                self.chain.pop_back_if(|tip| tip.hash() == block.hash());
                self.unread.retain(|unread| unread.hash() != block.hash());
                self.settled = self.settled.min(block.number().saturating_sub(1));
            }
            Step::Gap(_) => self.standing = Standing::Broken,
        }
    }

    /// The subscription is live again: says what is to be taken back, and what is to be read.
    async fn mend(&mut self) -> Option<()> {
        let newest = self.caught_up().await?;
        let oldest = self.chain.front().map_or(u64::MAX, |block| block.number());
        if self.standing == Standing::Broken || oldest > self.settled + 1 {
            self.standing = Standing::Broken;
            return Some(());
        }
        self.standing = Standing::Whole;
        let place = |number: u64| usize::try_from(number.checked_sub(oldest)?).ok();
        let is_canonical = |number: u64, hash: B256| match place(number) {
            Some(at) => self.chain.get(at).is_some_and(|block| block.hash() == hash),
            // Below everything that is known here.
            None => true,
        };
        let orphaned = self.ledger.take_back(is_canonical);
        self.next.extend(orphaned.iter().filter_map(|log| removed(log).ok()));
        self.unread = self.chain.iter().filter(|block| block.number() > self.settled).cloned().collect();
        self.doubted = newest + AHEAD;
        Some(())
    }

    /// Waits until the feed is as far as a node: what that gets from here on the subscription tells. Answers how far that is.
    async fn caught_up(&mut self) -> Option<u64> {
        loop {
            drop(self.feed.follow().await.ok()?);
            while let Some(step) = self.steps.ready() {
                self.step(step);
            }
            let newest = self.chain.back().map_or(0, |block| block.number());
            match self.feed.library().latest().await {
                Ok(Some(latest)) if latest.number() <= newest => return Some(newest),
                _ if self.standing == Standing::Broken => return Some(newest),
                _ => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Reads the logs of the oldest block that is not read.
    async fn read(&mut self, block: &Arc<Block>) {
        match self.feed.library().logs(block, &self.filter).await {
            Ok(found) => {
                let is_news = |log: &&Arc<RawValue>| Facts::of(log).is_none_or(|facts| self.ledger.is_news(facts, log));
                self.next.extend(found.logs().iter().filter(is_news).cloned());
                self.unread.pop_front();
                self.refusals = 0;
                self.settled = self.settled.max(block.number());
            }
            Err(error) => {
                self.refusals += u32::from(matches!(error, CallError::Node(_) | CallError::Malformed(_)));
                tracing::debug!(%error, block = block.number(), "the logs of a block cannot be read yet");
                if self.refusals == REFUSALS {
                    tracing::warn!(%error, block = block.number(), "the nodes do not tell the logs of a block: a gap");
                    self.standing = Standing::Broken;
                    return;
                }
                tokio::time::sleep(RETRY).await;
                // A reorg may have taken it back meanwhile: then nobody saw them, and nobody misses them.
                while let Some(step) = self.steps.ready() {
                    self.step(step);
                }
            }
        }
    }
}
