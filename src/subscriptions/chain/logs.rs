//! `logs`: those of each block that a filter is about, and again, as removed, when their block is not canonical any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::block::{Block, BlockLogs, removed};
use super::feed::{Feed, Step, Steps};
use super::filter::LogFilter;
use super::ring::Linked;
use crate::node::{CallError, Pool, StreamItem};

/// Time before the logs of a block that could not be read are asked for again: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the nodes may refuse to tell the logs of a canonical block, or tell too few, before that is a gap.
const REFUSALS: u32 = 30;
/// Blocks whose logs are kept in case a reorg takes them back; one that takes back more is a gap.
const KEPT: usize = 128;

/// One stream of logs.
pub(in crate::subscriptions) struct Logs {
    steps: Steps,
    pool: Pool,
    filter: LogFilter,
    /// The block whose logs are being read.
    reading: Option<(Arc<Block>, Arc<BlockLogs>)>,
    refusals: u32,
    retry: Duration,
    /// Blocks of which logs were told, oldest first.
    told: VecDeque<(Arc<Block>, Vec<Arc<RawValue>>)>,
    /// Logs of this block, and of none above it, were told and are kept no more.
    forgotten: Option<u64>,
    /// Logs that are next.
    next: VecDeque<Arc<RawValue>>,
}

impl Logs {
    /// Those of blocks after the head of now.
    pub(in crate::subscriptions) async fn open(feed: &Feed, pool: &Pool, filter: LogFilter) -> Result<Self, CallError> {
        let steps = feed.follow().await?;
        let (pool, retry) = (pool.clone(), RETRY.0);
        let (told, next) = (VecDeque::new(), VecDeque::new());
        Ok(Self { steps, pool, filter, reading: None, refusals: 0, retry, told, forgotten: None, next })
    }

    /// The next log, or a gap. Cancel safe: a block whose logs are being read stays at hand.
    pub(in crate::subscriptions) async fn next(&mut self) -> Option<StreamItem> {
        loop {
            if let Some(log) = self.next.pop_front() {
                return Some(StreamItem::Item(log));
            }
            if let Some((block, logs)) = self.reading.clone() {
                match logs.matching(&block, &self.filter, &self.pool).await {
                    Ok(ours) => {
                        self.next.extend(ours.iter().cloned());
                        self.keep(Arc::clone(&block), ours);
                        self.read();
                    }
                    // Nobody saw them, so nobody misses that they are gone.
                    Err(_) if block.is_orphaned() => self.read(),
                    Err(error) => {
                        self.refusals += u32::from(matches!(error, CallError::Node(_) | CallError::Malformed(_)));
                        if self.refusals == REFUSALS {
                            tracing::warn!(%error, block = block.number(), "the nodes do not tell the logs of a block: a gap");
                            self.read();
                            return Some(StreamItem::Gap);
                        }
                        tracing::debug!(%error, block = block.number(), "the logs of a block cannot be read yet");
                        let pause = self.retry;
                        self.retry = (pause * 2).min(RETRY.1);
                        tokio::time::sleep(pause).await;
                    }
                }
                continue;
            }
            match self.steps.next().await? {
                Step::Added(block, logs) => {
                    if block.bloom.is_none_or(|bloom| self.filter.may_be_in(&bloom)) {
                        self.reading = Some((block, logs));
                    }
                }
                Step::Removed(block) if self.take_back(&block) => {}
                Step::Removed(_) | Step::Gap => {
                    self.told.clear();
                    self.forgotten = None;
                    return Some(StreamItem::Gap);
                }
            }
        }
    }

    /// The logs of the block are read, or never will be.
    fn read(&mut self) {
        self.reading = None;
        (self.refusals, self.retry) = (0, RETRY.0);
    }

    fn keep(&mut self, block: Arc<Block>, logs: Vec<Arc<RawValue>>) {
        if !logs.is_empty() {
            self.told.push_back((block, logs));
        }
        if self.told.len() > KEPT
            && let Some((oldest, _)) = self.told.pop_front()
        {
            self.forgotten = Some(oldest.number());
        }
    }

    /// Blocks are taken back newest first, and so are their logs. False if they are not known any more, or cannot be told.
    fn take_back(&mut self, block: &Arc<Block>) -> bool {
        let Some((_, logs)) = self.told.pop_back_if(|(newest, _)| newest.hash() == block.hash()) else {
            return self.forgotten.is_none_or(|forgotten| forgotten < block.number());
        };
        match logs.iter().rev().map(|log| removed(log)).collect::<Result<Vec<_>, _>>() {
            Ok(logs) => {
                self.next.extend(logs);
                true
            }
            Err(error) => {
                tracing::error!(%error, "logs that were told cannot be told as removed: a gap");
                false
            }
        }
    }
}
