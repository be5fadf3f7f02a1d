//! What can go wrong with a call.

use serde::{Deserialize, Serialize};

/// A fault of the node, or of the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fault {
    /// The node does what it is asked; its answer gets lost.
    DropAnswer,
    /// The node never sees the call, and nobody answers.
    DropRequest,
    /// The node does what it is asked; its answer comes late.
    Late {
        /// By this much.
        milliseconds: u64,
    },
    /// The node does nothing and answers this.
    Refuse {
        /// JSON-RPC code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// The node does what it is asked and answers this all the same.
    Lie {
        /// JSON-RPC code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// The node does what it is asked and answers with some other 32 bytes.
    OtherHash,
    /// The node does what it is asked, answers, and forgets its whole pool.
    ForgetPool,
    /// The connection is cut before the node sees the call.
    CutBefore,
    /// The connection is cut once the node has done what it is asked.
    CutAfter,
    /// The call waits until the next frame of its connection, or the next block: what was sent later is pooled first, as geth
    /// does with frames of one WebSocket. Not inside a batch, where geth keeps the order.
    Overtaken,
    /// The node answers as it would have some blocks ago, as a load balancer's slower neighbour does. For reads.
    Stale {
        /// How many blocks ago.
        blocks: u64,
    },
}
