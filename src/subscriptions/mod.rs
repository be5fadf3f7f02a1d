//! Streams to clients: what the node announces relayed, receipts and the life of transactions answered here.

mod audience;
pub mod chain;
pub mod connection;
pub mod hub;
pub mod lifecycle;
mod member;
mod outbox;
pub mod places;
pub mod receipts;
mod relay;

pub use relay::Seat;
