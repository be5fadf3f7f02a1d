//! The moments at which a process may be killed, for the crash harness (docs/crash-testing.md). Only with the cargo feature
//! `crash-points`, which neither releases nor the demo have; without it every function here is empty.
//!
//! With it, `SLUICE_CRASH_AT=EDGE:N` makes the process kill itself (SIGKILL) at its n-th passing of the edge. The fault that is seeded at an
//! edge, so that the harness can show that it would be seen, is in [`super::faults`].

#[cfg(feature = "crash-points")]
pub(super) mod plan;

use std::fmt;

/// Which kind of record a commit makes durable. A commit with several kinds passes the edge of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Commit {
    /// Where an account's nonces begin or go on.
    Floor,
    /// A signed attempt that is to be sent.
    Attempt,
    /// Bytes that a client holds.
    Held,
    /// Held bytes that are sent from here now.
    Released,
    /// A node has the bytes.
    Broadcast,
    /// Every node refused the bytes for good, or a hold is over, or what was acknowledged has no future.
    Refused,
    /// In a block.
    Included,
    /// The block is not canonical any more.
    Orphaned,
    /// Final.
    Confirmed,
    /// Another payload has the slot for good.
    Replaced,
    /// The account stops, or goes on.
    Pause,
    /// A slot was used up by an authorisation.
    Used,
    /// A request that is acknowledged before it has an attempt.
    Intent,
    /// An idempotency key.
    Claim,
    /// A chain's identity.
    Chain,
    /// A public key.
    Key,
}

/// What a client is told of a request that may have become an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Told {
    /// A transaction hash.
    Hash,
    /// Signed bytes.
    Bytes,
    /// An error.
    Error,
}

/// What happens at an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A commit of the journal.
    Commit(Commit),
    /// Signed bytes are written to a node's socket.
    Send,
    /// A node's answer to signed bytes is taken in.
    NodeAnswer,
    /// A client is told what became of its request: written to its socket.
    Answer(Told),
}

/// Which side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Just before.
    Before,
    /// Just after.
    After,
}

/// One edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge(pub Side, pub Point);

/// Everything that has a before and an after.
pub const POINTS: [Point; 21] = [
    Point::Commit(Commit::Floor),
    Point::Commit(Commit::Attempt),
    Point::Commit(Commit::Held),
    Point::Commit(Commit::Released),
    Point::Commit(Commit::Broadcast),
    Point::Commit(Commit::Refused),
    Point::Commit(Commit::Included),
    Point::Commit(Commit::Orphaned),
    Point::Commit(Commit::Confirmed),
    Point::Commit(Commit::Replaced),
    Point::Commit(Commit::Pause),
    Point::Commit(Commit::Used),
    Point::Commit(Commit::Intent),
    Point::Commit(Commit::Claim),
    Point::Commit(Commit::Chain),
    Point::Commit(Commit::Key),
    Point::Send,
    Point::NodeAnswer,
    Point::Answer(Told::Hash),
    Point::Answer(Told::Bytes),
    Point::Answer(Told::Error),
];

impl Edge {
    /// Every edge, before and after in turn.
    pub fn all() -> impl Iterator<Item = Self> {
        POINTS.into_iter().flat_map(|point| [Self(Side::Before, point), Self(Side::After, point)])
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(word: &str) -> Option<Self> {
        Self::all().find(|edge| edge.to_string() == word)
    }
}

/// `before-commit-attempt`, `after-send`, `before-answer-hash`.
impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(side, point) = self;
        let side = match side {
            Side::Before => "before",
            Side::After => "after",
        };
        let point = match point {
            Point::Commit(kind) => format!("commit-{kind:?}"),
            Point::Send => "send".to_owned(),
            Point::NodeAnswer => "node-answer".to_owned(),
            Point::Answer(told) => format!("answer-{told:?}"),
        };
        write!(f, "{side}-{}", point.to_ascii_lowercase())
    }
}

/// Whether this build can be killed at an edge.
pub const ON: bool = cfg!(feature = "crash-points");

/// The process passes this edge: it ends here, at once, if it was told to.
#[cfg(feature = "crash-points")]
pub fn edge(side: Side, point: Point) {
    plan::pass(Edge(side, point));
}

/// The process passes this edge.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn edge(_: Side, _: Point) {}

/// A client is about to be told: before its answer is given to the connection.
#[cfg(feature = "crash-points")]
pub fn telling(told: Told) {
    plan::telling(told);
}

/// A client is about to be told.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn telling(_: Told) {}

/// Every answer that waited for a connection is written.
#[cfg(feature = "crash-points")]
pub fn written() {
    plan::written();
}

/// Every answer that waited for a connection is written.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn written() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_read_back_from_its_name_and_names_are_unique() {
        let names: std::collections::BTreeSet<String> = Edge::all().map(|edge| edge.to_string()).collect();
        assert_eq!(names.len(), 2 * POINTS.len());
        for edge in Edge::all() {
            assert_eq!(Edge::parse(&edge.to_string()), Some(edge));
        }
        assert!(names.contains("before-commit-attempt") && names.contains("after-node-answer") && names.contains("before-answer-hash"));
        assert_eq!(Edge::parse("before-lunch"), None);
    }
}
