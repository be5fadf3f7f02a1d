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
    /// The connection is cut before KMS sees the call.
    CutBefore,
    /// The connection is cut once KMS has done what it is asked.
    CutAfter,
    /// A Sign whose S is high for sure; otherwise it is for about half of them.
    HighS,
    /// A Sign over another digest: a valid signature of something else.
    OtherDigest,
    /// A Sign that names another key than the one that signed.
    OtherKey,
}
