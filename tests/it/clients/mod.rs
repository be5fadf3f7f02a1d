//! Clients and signers that others wrote, unmodified.
//!
//! The matrix: every client does the same things (`tests/clients/plan.json`) over HTTP and WebSocket, before anvil and before geth,
//! and prints what it saw; `report.rs` compares that with what the node has.

mod alloy;
mod cast;
mod ethers;
mod matrix;
mod page;
mod report;
mod signatures;
mod stage;
mod streams;
