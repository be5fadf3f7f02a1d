//! What looks at Sluice from outside: proxies that count, record and break what passes through them, a JSON-RPC client,
//! the load generator `sluice-load`, and the benchmark `sluice-bench`. Everything listens on loopback only.

pub mod announcements;
pub mod bare;
pub mod bench;
pub mod client;
mod curve;
pub mod faults;
pub mod http;
pub mod kms_proxy;
pub mod latency;
pub mod listener;
pub mod node_proxy;
pub mod random;
pub mod sim_kms;
pub mod sim_node;
pub mod streams;
pub mod transaction;
pub mod wallet;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, also after a panic of somebody who held it: what it guards are counts, good after any statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
