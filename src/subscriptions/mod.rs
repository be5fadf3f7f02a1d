//! Streams to clients: heads relayed from the node, receipts and the life of transactions answered here.

pub mod connection;
pub mod heads;
pub mod lifecycle;
mod member;
pub mod receipts;
