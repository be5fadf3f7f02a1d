//! Streams to clients: what the node announces relayed, receipts answered here.

pub mod connection;
pub mod hub;
mod member;
pub mod receipts;
mod relay;

pub use relay::Seat;
