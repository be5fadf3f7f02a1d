//! A signature on its way to everybody who asked for it. One that nobody takes is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloy_primitives::Signature;
use prometheus::IntCounter;

/// A handle on a signature that was made.
#[derive(Debug, Clone)]
pub(super) struct Made(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    signature: Signature,
    is_claimed: AtomicBool,
    unclaimed: IntCounter,
}

impl Made {
    /// `unclaimed` grows with its last handle if nobody has claimed it.
    pub(super) fn new(signature: Signature, unclaimed: &IntCounter) -> Self {
        Self(Arc::new(Shared { signature, is_claimed: AtomicBool::new(false), unclaimed: unclaimed.clone() }))
    }

    /// The signature, for who uses it.
    pub(super) fn claim(&self) -> Signature {
        self.0.is_claimed.store(true, Ordering::Relaxed);
        self.0.signature
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !*self.is_claimed.get_mut() {
            self.unclaimed.inc();
        }
    }
}
