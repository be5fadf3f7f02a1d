//! The moments at which a process may be killed.

use crate::telemetry::crash::{Commit, POINTS, Point};

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    /// Just before a commit of this kind.
    Before(Commit),
    /// It is durable, and nobody has been told.
    Durable(Commit),
    /// Its callers have their answer, and have done nothing yet.
    Answered(Commit),
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
        // Commits of a chain's identity and of public keys are not shown, and no request here lends a nonce.
        let is_passed = |kind: &Commit| !matches!(kind, Commit::Chain | Commit::Key | Commit::Used);
        let kinds = POINTS.into_iter().filter_map(|point| if let Point::Commit(kind) = point { Some(kind) } else { None });
        let commits = kinds.filter(is_passed).flat_map(|kind| [Self::Before(kind), Self::Durable(kind), Self::Answered(kind)]);
        commits.chain([Self::Signed, Self::Sent, Self::ToldHash, Self::ToldError]).collect()
    }
}
