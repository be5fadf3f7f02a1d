//! What the machine has in hand, counted.

use super::{Nonces, SlotState};

/// Counts of one account's work at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// The nonce that would be handed out next.
    pub next_nonce: u64,
    /// Requests that wait without a nonce.
    pub queued: usize,
    /// Requests with a nonce that are not on record: being signed, signed, being committed.
    pub signing: usize,
    /// Slots on record whose bytes are to be sent, or sent again.
    pub unsent: usize,
    /// Slots whose bytes were sent and are not mined.
    pub in_flight: usize,
    /// How many slots may be in flight.
    pub window: usize,
    /// Whether new nonces wait because somebody else uses the key.
    pub is_on_hold: bool,
}

impl Nonces {
    /// Counts what is waited for.
    pub fn figures(&self) -> Figures {
        let count = |wanted: SlotState| self.slots.values().filter(|state| **state == wanted).count();
        Figures {
            next_nonce: self.next_free(),
            queued: self.queued(),
            signing: self.reserved.len(),
            unsent: count(SlotState::Unsent),
            in_flight: count(SlotState::Sent),
            window: self.window,
            is_on_hold: self.on_hold,
        }
    }
}
