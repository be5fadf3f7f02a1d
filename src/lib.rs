//! Sluice: a WebSocket-first streaming signer gateway for Ethereum.
//!
//! The rooms are listed in the order in which a transaction passes them; docs/architecture.md draws the way.

pub mod config;
pub mod gateway;
pub mod journal;
pub mod node;
pub mod policy;
pub mod rpc;
pub mod server;
pub mod signing;
pub mod subscriptions;
pub mod telemetry;
pub mod transactions;
