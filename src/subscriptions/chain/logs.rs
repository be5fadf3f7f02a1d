//! `logs`: those of each block that a filter is about, and again, as removed, when their block is not canonical any more.

mod record;

use std::sync::Arc;
use std::time::Duration;

use self::record::{Known, Record};
use super::block::Block;
use super::block_logs::Found;
use super::feed::Feed;
use super::filter::{LogFilter, OfLogs};
use super::library::Library;
use super::ring::Linked;
use super::steps::{Step, Steps};
use super::told::{Gap, Place, Told};
use crate::node::CallError;

/// Time before the logs of a block that could not be read are asked for again: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the nodes may refuse to tell the logs of a canonical block, or tell too few, before that is a gap.
const REFUSALS: u32 = 30;
/// The same for a block that a reorg took back: a node has its logs, or it has not.
const REFUSALS_OF_ORPHANED: u32 = 3;

/// One stream of logs.
pub(in crate::subscriptions) struct Logs {
    steps: Steps,
    library: Arc<Library>,
    about: OfLogs,
    filter: Arc<LogFilter>,
    /// The block whose logs are being read.
    reading: Option<Reading>,
    refusals: u32,
    retry: Duration,
    record: Record,
    telling: Telling,
    /// Where the stream stands once everything is told that is at hand.
    position: Place,
}

#[derive(Debug, Clone)]
struct Reading {
    block: Arc<Block>,
    /// They are to be told as removed.
    is_removed: bool,
}

/// Logs of one block that are next.
#[derive(Debug, Default)]
struct Telling {
    found: Arc<Found>,
    is_removed: bool,
    /// So many of them are told.
    told: usize,
}

impl Telling {
    fn of(found: Arc<Found>, is_removed: bool) -> Self {
        Self { found, is_removed, told: 0 }
    }

    fn is_left(&self) -> bool {
        self.told < self.found.logs().len()
    }

    /// Those of a block that was taken back come newest first.
    fn next(&mut self) -> Option<Result<Told, serde_json::Error>> {
        let logs = self.found.logs();
        let at = if self.is_removed { logs.len().checked_sub(self.told + 1)? } else { self.told };
        let log = logs.get(at)?;
        self.told += 1;
        Some(if self.is_removed { super::block::removed(log).map(Told::Item) } else { Ok(Told::Item(Arc::clone(log))) })
    }
}

impl Logs {
    /// Those of blocks after the head of now.
    pub(in crate::subscriptions) async fn open(feed: &Feed, about: OfLogs) -> Result<Self, CallError> {
        let steps = feed.follow().await?;
        let position = steps.start().place();
        Ok(Self::new(feed, about, position, steps, Record::of_relay(position.number)))
    }

    /// All that changes behind this position. `is_seen`: its reader has seen everything up to there, else nothing.
    pub(super) fn behind(feed: &Feed, about: OfLogs, position: Place, is_seen: bool, steps: Steps) -> Self {
        Self::new(feed, about, position, steps, Record::of_client(position.number, is_seen))
    }

    fn new(feed: &Feed, about: OfLogs, position: Place, steps: Steps, record: Record) -> Self {
        let (library, filter, telling) = (Arc::clone(feed.library()), Arc::new(about.filter.clone()), Telling::default());
        Self { steps, library, about, filter, reading: None, refusals: 0, retry: RETRY.0, record, telling, position }
    }

    /// Where the stream stands once it has no next item at hand.
    pub(super) fn position(&self) -> Place {
        self.position
    }

    /// Whether logs that were read are not told yet.
    pub(in crate::subscriptions) fn is_telling(&self) -> bool {
        self.telling.is_left()
    }

    /// Goes on with these, which follow its position.
    pub(super) fn go_on(&mut self, steps: Steps) {
        self.steps = steps;
    }

    /// The next log, or a gap. Cancel safe: a block whose logs are being read stays at hand.
    pub(in crate::subscriptions) async fn next(&mut self) -> Option<Told> {
        loop {
            match self.telling.next() {
                Some(Ok(told)) => return Some(told),
                Some(Err(error)) => {
                    tracing::error!(%error, "logs that were told cannot be told as removed: a gap");
                    self.telling = Telling::default();
                    return Some(Told::Gap(Gap { from: self.position, to: self.position }));
                }
                None => {}
            }
            if let Some(reading) = self.reading.clone() {
                // Nobody saw them, so nobody misses that they are gone. That holds for all above it, too: those would be told without these.
                if !reading.is_removed && reading.block.is_orphaned() {
                    self.is_read();
                } else if let Some(gap) = self.read(reading).await {
                    return Some(Told::Gap(gap));
                }
                continue;
            }
            match self.steps.next().await? {
                Step::Added(block) => {
                    self.position = block.place();
                    self.look_into(block, false);
                }
                Step::Removed(block) => self.take_back(block),
                Step::Gap(gap) => {
                    self.position = gap.to;
                    self.record.gap(gap.to.number);
                    return Some(Told::Gap(*gap));
                }
            }
        }
    }

    fn look_into(&mut self, block: Arc<Block>, is_removed: bool) {
        if self.about.may_be_in(block.bloom.as_ref()) {
            self.reading = Some(Reading { block, is_removed });
        }
    }

    /// Asks for the logs of the block at hand; a gap once they cannot be told.
    async fn read(&mut self, Reading { block, is_removed }: Reading) -> Option<Gap> {
        match self.library.logs(&block, &self.filter).await {
            Ok(found) => {
                self.telling = Telling::of(Arc::clone(&found), is_removed);
                if !is_removed {
                    self.record.told(block, found);
                }
                self.is_read();
            }
            Err(_) if !is_removed && block.is_orphaned() => {}
            Err(error) => {
                self.refusals += u32::from(matches!(error, CallError::Node(_) | CallError::Malformed(_)));
                if self.refusals == if is_removed { REFUSALS_OF_ORPHANED } else { REFUSALS } {
                    tracing::warn!(%error, block = block.number(), is_removed, "the nodes do not tell the logs of a block: a gap");
                    self.is_read();
                    let (above, below) = (block.place(), block.place_below());
                    return Some(if is_removed { Gap { from: above, to: below } } else { Gap { from: below, to: above } });
                }
                tracing::debug!(%error, block = block.number(), "the logs of a block cannot be read yet");
                let pause = self.retry;
                self.retry = (pause * 2).min(RETRY.1);
                tokio::time::sleep(pause).await;
            }
        }
        None
    }

    /// The logs of the block are read, or never will be.
    fn is_read(&mut self) {
        self.reading = None;
        (self.refusals, self.retry) = (0, RETRY.0);
    }

    /// Blocks are taken back newest first, and so are their logs.
    fn take_back(&mut self, block: Arc<Block>) {
        self.position = block.place_below();
        match self.record.taken_back(&block) {
            Known::Told(found) => self.telling = Telling::of(found, true),
            Known::NotKept => self.look_into(block, true),
            Known::Untold => {}
        }
    }
}
