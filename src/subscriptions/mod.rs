//! Streams to clients: heads relayed from the node, receipts answered here.

pub mod connection;
pub mod heads;
mod member;
pub mod receipts;
