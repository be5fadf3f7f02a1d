//! Faults that tests seed in the code, one at a time, to show that their checks would see them. In any other build there are none:
//! [`has`] is `false` at compile time.

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bug {
    /// A client is told its hash before the commit.
    ToldBeforeCommit,
    /// Signed bytes are sent before the commit.
    SentBeforeCommit,
    /// The commit does not wait for what is below.
    GapCommitted,
    /// A commit that wrote nothing counts as done.
    FailedCommitIgnored,
    /// A payload that moved down keeps the signature for its old nonce.
    MovedDownUnsigned,
    /// An answer that nobody knows counts as a refusal.
    UnknownIsRefused,
    /// "Nonce too low" counts as a refusal.
    TooLowIsRefused,
    /// A refusal is told before it is on record.
    RefusalToldBeforeDurable,
    /// Bytes that were refused for good are sent again.
    RefusedSentAgain,
    /// A change of state that was not written is not tried again.
    StateLost,
    /// A restart does not see the newest attempt.
    RestartForgets,
    /// A restart signs what was committed and perhaps sent for another payload.
    RestartSignsAgain,
    /// A restart never sends again what it found.
    RestartNeverSends,
    /// Bytes of an orphaned block are not sent again.
    OrphanForgotten,
    /// One block is deep enough.
    ConfirmedAtOnce,
    /// A held slot is handed on.
    HeldHandedOn,
    /// A signature is used before it was checked.
    SignatureUnchecked,
}

/// Whether this fault is seeded.
#[cfg(not(test))]
#[inline]
pub const fn has(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use seeded::{has, seed};

#[cfg(test)]
mod seeded {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// From here on, this thread's code has this fault alone; or none.
    pub(crate) fn seed(bug: Option<Bug>) {
        BUG.set(bug);
    }

    pub(crate) fn has(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}
