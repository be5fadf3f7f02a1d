//! The one source of chance of the rooms that wait for a random share of a time, so that a simulation decides it.

/// A number in [0, 1).
pub fn share() -> f64 {
    #[cfg(test)]
    if let Some(share) = simulated::share() {
        return share;
    }
    rand::random()
}

/// Chance that a simulation gives to its thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;

    thread_local! {
        static SOURCE: RefCell<Option<Box<dyn FnMut() -> f64>>> = const { RefCell::new(None) };
    }

    /// From here on, this thread's numbers come from `source`; `None`: from where they always come from.
    pub(crate) fn set(source: Option<Box<dyn FnMut() -> f64>>) {
        SOURCE.set(source);
    }

    pub(super) fn share() -> Option<f64> {
        SOURCE.with_borrow_mut(|source| source.as_mut().map(|source| source()))
    }
}
