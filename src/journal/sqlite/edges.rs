//! Which edges a group commit passes, and the faults that are seeded there, for the crash harness and the simulation.

use super::queue::Work;
use crate::journal::{AttemptState, Record, StoredKey};
use crate::telemetry::crash::{self, Commit, Point, Side};
use crate::telemetry::faults::SeededFault;

/// The kinds of record in a group; always empty in a build that cannot be killed.
pub(super) struct Kinds(Vec<Commit>);

impl Kinds {
    pub(super) fn of(group: &[Work]) -> Self {
        let mut kinds = Vec::new();
        if crash::ON {
            kinds.extend(group.iter().flat_map(kinds_of));
            kinds.sort_unstable();
            kinds.dedup();
        }
        Self(kinds)
    }

    /// The process passes the edges of all of them.
    pub(super) fn pass(&self, side: Side) {
        for kind in &self.0 {
            crash::edge(side, Point::Commit(*kind));
        }
    }
}

fn kinds_of(work: &Work) -> Vec<Commit> {
    match work {
        Work::Commit(records) => records.iter().filter_map(kind).collect(),
        Work::PinChain(_) => vec![Commit::Chain],
        Work::PutKey(_) => vec![Commit::Key],
        _ => Vec::new(),
    }
}

/// What a record makes durable.
pub(crate) fn kind(record: &Record) -> Option<Commit> {
    Some(match record {
        Record::Floor { .. } => Commit::Floor,
        Record::Attempt { state: AttemptState::Held, .. } => Commit::Held,
        // In one commit with the attempt that it became.
        Record::Attempt { .. } | Record::Taken { .. } => Commit::Attempt,
        Record::Intent(_) => Commit::Intent,
        Record::Ended { .. } => Commit::Refused,
        Record::Key { .. } => Commit::Claim,
        Record::State { state, .. } => match state {
            AttemptState::Committed | AttemptState::Held => Commit::Released,
            AttemptState::Broadcast => Commit::Broadcast,
            AttemptState::Queued => Commit::Intent,
            AttemptState::Refused => Commit::Refused,
            AttemptState::Included => Commit::Included,
            AttemptState::Orphaned => Commit::Orphaned,
            AttemptState::Confirmed => Commit::Confirmed,
            AttemptState::Replaced => Commit::Replaced,
        },
        Record::Pause { .. } => Commit::Pause,
        Record::Used { .. } => Commit::Used,
        // Compared, not written.
        Record::Tenure { .. } => return None,
    })
}

/// The seeded fault: what is said to be durable was never written.
pub(super) fn lose(work: Work) -> Work {
    let is_lost = |kind: Commit| SeededFault::Lost(kind).is_on();
    match work {
        Work::Commit(mut records) => {
            records.retain(|record| !kind(record).is_some_and(is_lost));
            Work::Commit(records)
        }
        // The record is another one than what was asked.
        Work::PutKey(key) if SeededFault::KeyMisplaced.is_on() => {
            Work::PutKey(StoredKey { address: alloy_primitives::Address::ZERO, ..key })
        }
        work if kinds_of(&work).into_iter().any(is_lost) => Work::Probe,
        work => work,
    }
}
