//! A simulated Ethereum node. [`Node`] is a state machine over values, without clock, sockets or chance of its own: blocks, pool
//! rules and words of six clients, faults by plan. [`SimNode`] serves it over WebSocket and HTTP. The same seed and the same calls
//! at the same times give the same bytes.
//!
//! What it does not have: code (calls move value or revert; one contract emits the logs that it is told to), blob transactions, peers,
//! uncles, a `pending` block of its own (it is the latest one), tries of state and receipts (their roots are hashes), and what a full pool
//! of geth evicts by price.

mod chain;
mod control;
mod faults;
mod gas;
mod logs;
mod methods;
mod node;
mod payloads;
mod pool;
mod protocol;
mod rules;
mod send;
mod server;
mod settings;
mod state;
mod steer;
mod subscriptions;
#[cfg(test)]
mod tests;
mod transaction;
mod views;
mod words;

pub use self::chain::{Block, Chain, Mined, Place};
pub use self::faults::Fault;
pub use self::logs::{EMITTER, emitting};
pub use self::node::{Delivery, Node, Outgoing, Reorg, Returned};
pub use self::payloads::Payload;
pub use self::pool::{Entry, Pool};
pub use self::send::{Arrival, Sent, Verdict};
pub use self::server::SimNode;
pub(crate) use self::server::swallow;
pub use self::settings::{BaseFee, Client, Limits, Settings};
pub use self::state::{Account, Executed, State};
pub use self::transaction::{Authority, Transaction};
pub use self::words::{Refusal, RpcError};
