//! Which blocks a stream has told the logs of, in case a reorg takes them back. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::block::Block;
use super::super::block_logs::Found;
use super::super::ring::Linked as _;

/// Blocks whose logs are kept; those of older ones are asked for again.
const KEPT: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Record {
    /// Blocks of which logs were told, oldest first.
    told: VecDeque<(Arc<Block>, Arc<Found>)>,
    /// The reader has seen nothing of blocks up to this number.
    unseen: Option<u64>,
    /// It may have seen logs of blocks up to this number that are not in `told`.
    not_kept: Option<u64>,
    /// Whether its readers end with a gap; else they read by themselves what is in it.
    ends_with_gaps: bool,
}

/// What is known of the logs of a block that is taken back.
#[derive(Debug)]
pub(super) enum Known {
    /// These were told.
    Told(Arc<Found>),
    /// They may have been told, and are not kept.
    NotKept,
    /// None were told.
    Untold,
}

impl Record {
    /// Of a stream that begins behind this block, for readers who end with a gap.
    pub(super) fn of_relay(number: u64) -> Self {
        Self { told: VecDeque::new(), unseen: Some(number), not_kept: None, ends_with_gaps: true }
    }

    /// Of a stream that begins behind this block. `is_seen`: its reader has seen everything up to there, else nothing.
    pub(super) fn of_client(number: u64, is_seen: bool) -> Self {
        let (unseen, not_kept) = if is_seen { (None, Some(number)) } else { (Some(number), None) };
        Self { told: VecDeque::new(), unseen, not_kept, ends_with_gaps: false }
    }

    /// These were told.
    pub(super) fn told(&mut self, block: Arc<Block>, found: Arc<Found>) {
        if !found.logs().is_empty() {
            self.told.push_back((block, found));
        }
        if self.told.len() > KEPT
            && let Some((oldest, _)) = self.told.pop_front()
        {
            self.not_kept = self.not_kept.max(Some(oldest.number()));
        }
    }

    /// The newest block is not canonical any more.
    pub(super) fn taken_back(&mut self, block: &Arc<Block>) -> Known {
        let (number, below) = (block.number(), Some(block.number().saturating_sub(1)));
        let may_be_seen = self.not_kept.is_some_and(|not_kept| number <= not_kept) && self.unseen.is_none_or(|unseen| number > unseen);
        // What takes its place, and everything above it, is told from now on.
        (self.unseen, self.not_kept) = (self.unseen.min(below), self.not_kept.min(below));
        match self.told.pop_back_if(|(newest, _)| newest.hash() == block.hash()) {
            Some((_, found)) => Known::Told(found),
            None if may_be_seen => Known::NotKept,
            None => Known::Untold,
        }
    }

    /// What comes next follows this block, and does not join what came before.
    pub(super) fn gap(&mut self, number: u64) {
        self.told.clear();
        if self.ends_with_gaps {
            (self.unseen, self.not_kept) = (Some(number), None);
        } else {
            self.not_kept = Some(number);
        }
    }
}
