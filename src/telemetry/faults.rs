//! Faults that tests seed in the code, one at a time, to show that their checks would see them: the simulation (docs/simulation.md) and the
//! crash harness and the stream faults (docs/crash-testing.md). Each is one question, [`SeededFault::is_on`], at the place where the code would be wrong.
//!
//! Unit tests switch one on for their thread; in a build with the cargo feature `crash-points`, `SLUICE_SEEDED_FAULT=EDGE` switches on the
//! one of an edge, and `SLUICE_SEEDED_FAULT=stream-not-filled`, for example, one of streams. In any other build there are none: the answer is `false` at compile time.

use super::crash::{Commit, Edge, Point, Side, Told};

/// Whether this build has seeded faults.
pub const SEEDED: bool = cfg!(any(test, feature = "crash-points"));

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SeededFault {
    /// A record of this kind is said to be durable and was never written.
    Lost(Commit),
    /// A record of this kind is not seen where it is read; most are read at a restart.
    Unseen(Commit),
    /// A confirmation neither ends its slot nor what else was sent for it.
    ConfirmedLeftOpen,
    /// An attempt that another one replaced for good does not end its slot.
    ReplacedLeftOpen,
    /// A slot that an authorisation used up is dropped.
    UsedDropped,
    /// A public key is put on record for another address.
    KeyMisplaced,
    /// A commit that wrote nothing counts as done.
    FailedCommitIgnored,
    /// A change of state that was not written is not tried again.
    StateLost,
    /// A client is told its hash before the commit.
    ToldBeforeCommit,
    /// Signed bytes are sent before the commit.
    SentBeforeCommit,
    /// The commit does not wait for what is below.
    GapCommitted,
    /// A payload that moved down keeps the signature for its old nonce.
    MovedDownUnsigned,
    /// A signature is used before it was checked.
    SignatureUnchecked,
    /// A held slot is handed on.
    HeldHandedOn,
    /// Bytes that a client holds are sent from here at once.
    HeldSent,
    /// A restart never sends again what it found.
    RestartNeverSends,
    /// A restart signs what was committed and perhaps sent for another payload.
    RestartSignsAgain,
    /// A node's yes counts as a refusal.
    TakenIsRefused,
    /// Bytes that a node took are not looked for in blocks.
    TakenForgotten,
    /// An answer that nobody knows counts as a refusal.
    UnknownIsRefused,
    /// "Nonce too low" counts as a refusal.
    TooLowIsRefused,
    /// A refusal is told before it is on record.
    RefusalToldBeforeDurable,
    /// Bytes that were refused for good are sent again.
    RefusedSentAgain,
    /// Bytes of an orphaned block are not sent again.
    OrphanForgotten,
    /// One block is deep enough.
    ConfirmedAtOnce,
    /// A client is told an error for what is on record.
    ErrorToldForHash,
    /// A client is told another hash than the one on record.
    OtherHashTold,
    /// A client is told other bytes than those on record.
    OtherBytesTold,
    /// A client is told a hash for what is on record nowhere.
    HashToldForError,
    /// Streams go on with a head whose parents were missed.
    StreamNotFilled,
    /// Streams are not told which blocks a reorg took back.
    StreamNotUnwound,
    /// Streams are told twice what was missed.
    StreamDoubled,
}

impl SeededFault {
    /// Those of streams, with the names that switch them on.
    pub const STREAMS: [(&str, Self); 3] = [
        ("stream-not-filled", Self::StreamNotFilled),
        ("stream-not-unwound", Self::StreamNotUnwound),
        ("stream-doubled", Self::StreamDoubled),
    ];

    /// The one of this name: of streams, or that of an edge.
    pub fn parse(name: &str) -> Option<Self> {
        let of_streams = Self::STREAMS.into_iter().find(|(known, _)| *known == name).map(|(_, fault)| fault);
        of_streams.or_else(|| Edge::parse(name).map(Self::at))
    }

    /// The one that is seeded at an edge: what it harms shows when the process is killed there.
    pub const fn at(Edge(side, point): Edge) -> Self {
        match (side, point) {
            (Side::Before, Point::Commit(kind)) => Self::Lost(kind),
            (Side::After, Point::Commit(Commit::Confirmed)) => Self::ConfirmedLeftOpen,
            (Side::After, Point::Commit(Commit::Replaced)) => Self::ReplacedLeftOpen,
            (Side::After, Point::Commit(Commit::Used)) => Self::UsedDropped,
            (Side::After, Point::Commit(Commit::Key)) => Self::KeyMisplaced,
            (Side::After, Point::Commit(kind)) => Self::Unseen(kind),
            (Side::Before, Point::Send) => Self::RestartNeverSends,
            (Side::After, Point::Send) => Self::RestartSignsAgain,
            (Side::Before, Point::NodeAnswer) => Self::TakenIsRefused,
            (Side::After, Point::NodeAnswer) => Self::TakenForgotten,
            (Side::Before, Point::Answer(Told::Hash)) => Self::ErrorToldForHash,
            (Side::Before, Point::Answer(Told::Bytes)) => Self::OtherBytesTold,
            (Side::Before, Point::Answer(Told::Error)) => Self::HashToldForError,
            (Side::After, Point::Answer(Told::Hash)) => Self::OtherHashTold,
            (Side::After, Point::Answer(Told::Bytes)) => Self::HeldSent,
            (Side::After, Point::Answer(Told::Error)) => Self::RefusedSentAgain,
        }
    }

    /// Whether this fault is switched on.
    #[cfg(any(test, feature = "crash-points"))]
    pub fn is_on(self) -> bool {
        switched_on() == Some(self)
    }

    /// Whether this fault is switched on: never.
    #[cfg(not(any(test, feature = "crash-points")))]
    #[inline]
    pub const fn is_on(self) -> bool {
        false
    }
}

#[cfg(test)]
thread_local! {
    static SEED: std::cell::Cell<Option<SeededFault>> = const { std::cell::Cell::new(None) };
}

/// From here on, this thread's code has this fault alone; or none.
#[cfg(test)]
pub(crate) fn seed(fault: Option<SeededFault>) {
    SEED.set(fault);
}

#[cfg(test)]
fn switched_on() -> Option<SeededFault> {
    SEED.get()
}

#[cfg(all(not(test), feature = "crash-points"))]
fn switched_on() -> Option<SeededFault> {
    static FAULT: std::sync::LazyLock<Option<SeededFault>> =
        std::sync::LazyLock::new(|| super::crash::plan::variable("SLUICE_SEEDED_FAULT", SeededFault::parse));
    *FAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edge_has_a_seeded_fault_of_its_own() {
        let faults: std::collections::BTreeSet<SeededFault> = Edge::all().map(SeededFault::at).collect();
        assert_eq!(faults.len(), Edge::all().count());
    }

    #[test]
    fn faults_are_named_by_their_edges_and_those_of_streams_by_names_of_their_own() {
        for (name, fault) in SeededFault::STREAMS {
            assert_eq!(SeededFault::parse(name), Some(fault));
        }
        for edge in Edge::all() {
            assert_eq!(SeededFault::parse(&edge.to_string()), Some(SeededFault::at(edge)));
        }
        assert_eq!(SeededFault::parse("stream"), None);
    }

    #[test]
    fn a_seeded_fault_is_on_alone_and_in_its_thread() {
        seed(Some(SeededFault::Lost(Commit::Held)));
        assert!(SeededFault::Lost(Commit::Held).is_on());
        assert!(!SeededFault::Lost(Commit::Attempt).is_on() && !SeededFault::StateLost.is_on());
        assert!(!std::thread::spawn(|| SeededFault::Lost(Commit::Held).is_on()).join().unwrap());
        seed(None);
        assert!(!SeededFault::Lost(Commit::Held).is_on());
    }
}
