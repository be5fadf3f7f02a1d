//! Sluice from outside: the real binary between real clients, a real node (anvil) and a KMS emulator that others wrote.
//!
//! Every test has a world of its own (processes, ports, folder) and takes it down by process id. What a test needs comes from
//! `scripts/parts`; where a part is missing, the test says `SKIP name: reason` on stderr and ends, and `make test` lists it.
// Tests may panic, and so may what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account_commands;
mod authorisations;
mod bench;
mod broadcast;
mod calls;
mod chains;
mod clients;
mod command_line;
mod dashboards;
mod deploy;
mod differential;
mod errors;
mod examples;
mod geth;
mod idempotency;
mod journal_commands;
mod key_store;
mod keys;
#[cfg(feature = "crash-points")]
mod kills;
mod kms_protocol;
mod lies;
mod lifecycle;
mod lifecycle_stream;
mod metrics;
mod moving_in;
mod nonces;
mod one_upstream;
mod openrpc;
mod proxies;
mod reasons;
mod receipts;
mod refresh;
mod reload;
mod replacement;
mod resumed;
mod roles;
mod services;
mod simulators;
mod sluice_namespace;
mod sources;
mod stream_faults;
mod streams;
mod support;
mod thousand;
mod transports;
