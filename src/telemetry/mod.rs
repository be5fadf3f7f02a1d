//! What operators see: metrics and structured logs.

pub mod chance;
pub mod clock;
pub mod logs;
pub mod metrics;
pub mod waited;
