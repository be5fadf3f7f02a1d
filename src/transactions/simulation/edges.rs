//! The moments at which a process may be killed.

use crate::journal::{AttemptState, Record};

/// Which kind of record a commit makes durable; a group has those of all its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Floor,
    Attempt,
    Held,
    Released,
    Broadcast,
    Refused,
    Included,
    Orphaned,
    Confirmed,
    Replaced,
    Pause,
}

const KINDS: [Kind; 11] = [
    Kind::Floor,
    Kind::Attempt,
    Kind::Held,
    Kind::Released,
    Kind::Broadcast,
    Kind::Refused,
    Kind::Included,
    Kind::Orphaned,
    Kind::Confirmed,
    Kind::Replaced,
    Kind::Pause,
];

impl Kind {
    pub(super) fn of(record: &Record) -> Option<Self> {
        Some(match record {
            Record::Floor { .. } => Self::Floor,
            Record::Attempt { state: AttemptState::Held, .. } => Self::Held,
            Record::Attempt { .. } => Self::Attempt,
            Record::State { state, .. } => match state {
                AttemptState::Queued => return None,
                AttemptState::Committed | AttemptState::Held => Self::Released,
                AttemptState::Broadcast => Self::Broadcast,
                AttemptState::Refused => Self::Refused,
                AttemptState::Included => Self::Included,
                AttemptState::Orphaned => Self::Orphaned,
                AttemptState::Confirmed => Self::Confirmed,
                AttemptState::Replaced => Self::Replaced,
            },
            Record::Pause { .. } => Self::Pause,
            Record::Tenure { .. }
            | Record::Intent(_)
            | Record::Taken { .. }
            | Record::Ended { .. }
            | Record::Key { .. }
            | Record::Used { .. } => return None,
        })
    }
}

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    /// Just before a commit.
    Before(Kind),
    /// It is durable, and nobody has been told.
    Durable(Kind),
    /// Its callers have their answer, and have done nothing yet.
    Answered(Kind),
    /// KMS has made a signature, and its answer is on the way.
    Signed,
    /// Bytes have reached a node.
    Sent,
    /// A client has been told a hash.
    ToldHash,
    /// A client has been told an error.
    ToldError,
}

impl Edge {
    pub(super) fn all() -> Vec<Self> {
        let commits = KINDS.into_iter().flat_map(|kind| [Self::Before(kind), Self::Durable(kind), Self::Answered(kind)]);
        commits.chain([Self::Signed, Self::Sent, Self::ToldHash, Self::ToldError]).collect()
    }
}
