//! A simulated AWS KMS: secp256k1 keys that belong to a seed, real signatures, delays and errors by plan. [`Kms`] is a state machine
//! over values, without clock, sockets or chance of its own; [`SimKms`] serves it over HTTP in the protocol of AWS (JSON 1.1).
//!
//! What it does not do yet: quotas (it throttles only by plan), signatures of requests (SigV4 is not looked at), grants and
//! policies, replicas, import of key material, other kinds of keys, Verify, scheduled deletion.

mod core;
mod errors;
mod faults;
mod operations;
mod server;
#[cfg(test)]
mod tests;

pub use self::core::{Key, KeyState, Kms, Reply, ReplyBody, Settings, Signed};
pub use self::errors::KmsError;
pub use self::faults::Fault;
pub use self::server::SimKms;
