//! The clocks of the rooms. Both move with tokio's, so that a test or a simulation with a paused clock moves all of them.

use std::time::{Instant, SystemTime};

/// The monotonic time now.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day now, for what has to survive a restart.
pub fn wall() -> SystemTime {
    #[cfg(test)]
    if let Some(time) = simulated::time() {
        return time;
    }
    SystemTime::now()
}

/// The time of day that a simulation gives to its thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::{Instant, SystemTime};

    thread_local! {
        static ORIGIN: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    }

    /// From here on, this thread's time of day was `time` at `instant` and moves with the monotonic clock; `None`: it is the system's.
    pub(crate) fn set(origin: Option<(Instant, SystemTime)>) {
        ORIGIN.set(origin);
    }

    pub(super) fn time() -> Option<SystemTime> {
        ORIGIN.get().map(|(instant, time)| time + super::now().saturating_duration_since(instant))
    }
}
