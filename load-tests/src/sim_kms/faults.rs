//! What can go wrong with a call of KMS.

use serde::{Deserialize, Serialize};

use super::errors::KmsError;

/// A fault of KMS, or of the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fault {
    /// This error instead of doing what is asked.
    Error(KmsError),
    /// It does what it is asked; its answer comes late.
    Late {
        /// By this much.
        milliseconds: u64,
    },
    /// It does what it is asked; its answer begins at once and comes byte by byte.
    Slow {
        /// From the first byte to the last.
        milliseconds: u64,
    },
    /// It does what it is asked; the connection is cut in the middle of the answer.
    Torn,
    /// The connection is cut before KMS sees the call.
    CutBefore,
    /// The connection is cut once KMS has done what it is asked.
    CutAfter,
    /// A Sign whose S is high for sure; otherwise it is for about half of them.
    HighS,
    /// A Sign whose S is low for sure.
    LowS,
    /// A Sign over another digest: a valid signature of something else.
    OtherDigest,
    /// A Sign that names another key than the one that signed.
    OtherKey,
    /// A Sign by a key that nobody has; the answer names the one that was asked for.
    OtherSigner,
    /// A Sign whose DER is wrong in one of five ways.
    MalformedDer,
    /// A Sign of which one number is none that a signature can have.
    OutOfRange {
        /// Which of the two.
        scalar: Scalar,
        /// What it is.
        value: OutOfRange,
    },
    /// The alias that a Sign names points at the next key of its account and Region from now on, before anything is signed.
    AliasMoved,
    /// A page with so many items at most, although there are more.
    ShortPage {
        /// Items; at least one.
        items: u64,
    },
    /// A page that says that it is truncated and gives the marker again by which it was asked for.
    RepeatedMarker,
    /// A CreateKey or ReplicateKey whose key cannot be found at first.
    Lag {
        /// For so long.
        milliseconds: u64,
    },
    /// From this call on, every call of its quota is throttled.
    Storm {
        /// For so long.
        milliseconds: u64,
    },
}

/// One of the two numbers of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scalar {
    /// The x of a point.
    R,
    /// The proof.
    S,
}

/// Numbers that no signature has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutOfRange {
    /// 0.
    Zero,
    /// The order n of the curve.
    Order,
    /// n + 1.
    Above,
}
