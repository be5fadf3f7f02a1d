//! Talking to the environment's nodes: one connection per endpoint, a pool over them, and the head of the chain.
//!
//! What a node says about a transaction is the caller's business and never counts against the node's health (I6).

mod board;
mod clocks;
mod command;
mod connection;
mod endpoint;
mod followed;
mod frame;
mod handshake;
mod heads;
mod http;
mod ipc;
mod judge;
mod outlet;
mod pool;
mod senders;
mod session;
mod socket;
mod subscription;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod truth;

pub use endpoint::EndpointState;
pub use followed::Followed;
pub use pool::Pool;
pub use senders::SendTicket;
pub use subscription::Subscription;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use serde_json::value::RawValue;

/// A JSON-RPC error object that the node answered, untouched.
#[derive(Debug, Clone)]
pub struct NodeError {
    /// JSON-RPC error code.
    pub code: i64,
    /// The node's own words.
    pub message: String,
    /// The node's `data`, byte for byte.
    pub data: Option<Arc<RawValue>>,
}

/// Why a call to the environment's nodes has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The node answered with an error.
    #[error("the node answered {}: {}", .0.code, .0.message)]
    Node(NodeError),
    /// No endpoint is connected and usable; nothing was sent.
    #[error("no node of the environment is reachable")]
    Unavailable,
    /// The node's chain id or genesis is not the pinned one; nothing was sent.
    #[error("{0}")]
    WrongChain(Arc<str>),
    /// The endpoint's queue is full; nothing was sent.
    #[error("the queue to the node is full")]
    Full,
    /// Sent, and no answer in time.
    #[error("no answer from the node within {0:?}")]
    Deadline(Duration),
    /// Sent, and the connection ended before the answer.
    #[error("the connection to the node was lost before it answered")]
    Lost,
    /// No endpoint can push what it would be subscribed to; nothing was sent.
    #[error("no node of the environment has subscriptions: all are asked over HTTP")]
    NoStreams,
    /// An answer that is not what the method returns.
    #[error("the node's answer could not be read: {0}")]
    Malformed(String),
}

/// The newest block that an environment's nodes have announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Block number.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Hash of the block before.
    pub parent_hash: B256,
    /// Seconds since the epoch.
    pub timestamp: u64,
    /// Base fee in wei (EIP-1559); absent on chains without one.
    pub base_fee: Option<u128>,
}

/// What an upstream subscription delivers.
#[derive(Debug, Clone)]
pub enum StreamItem {
    /// The `result` of one notification, byte for byte as the node sent it.
    Item(Arc<RawValue>),
    /// The connection is lost; a gap follows once the subscription is live again.
    Lost,
    /// What follows may not join what came before.
    Gap,
}
