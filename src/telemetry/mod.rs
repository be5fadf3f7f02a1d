//! What operators see: metrics and structured logs; and where tests kill the process and seed faults.

#[cfg(test)]
pub(crate) mod captured;
pub mod chance;
pub mod clock;
pub mod crash;
pub mod faults;
pub mod logs;
pub mod metrics;
pub mod waited;
