//! What operators see: metrics and structured logs; and where tests kill the process.

pub mod bugs;
pub mod chance;
pub mod clock;
pub mod crash;
pub mod logs;
pub mod metrics;
pub mod waited;
