//! The one clock of the rooms: tokio's, so that a test or simulation with a paused clock moves all of them.

use std::time::Instant;

/// The monotonic time now.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
