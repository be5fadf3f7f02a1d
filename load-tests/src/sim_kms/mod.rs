//! A simulated AWS KMS: secp256k1 keys that belong to a seed, real signatures, accounts and Regions, quotas, and delays and errors by
//! plan. [`Kms`] is a state machine over values, without clock, sockets or chance of its own; [`SimKms`] serves it over HTTP in the
//! protocol of AWS (JSON 1.1, requests signed by Signature Version 4).
//!
//! What it does not do: grants and policies, other kinds of keys, custom key stores, rotation.

mod core;
mod delivery;
mod errors;
mod faults;
mod key;
mod lifecycle;
mod operations;
mod quota;
mod server;
mod settings;
mod signing;
mod sigv4;
mod steer;
#[cfg(test)]
mod tests;
mod time;
mod wrapping;

pub use self::core::{Delivery, Kms, Reply, ReplyBody, Signed};
pub use self::errors::KmsError;
pub use self::faults::{Fault, OutOfRange, Scalar};
pub use self::key::{Key, KeyState, Origin};
pub use self::quota::{Quota, Quotas, Usage};
pub use self::server::SimKms;
pub use self::settings::{AccessKey, Place, Settings};
pub use self::wrapping::wrap;
