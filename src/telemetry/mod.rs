//! What operators see: metrics and structured logs.

pub mod metrics;
