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
        Figures {
            next_nonce: self.next_free(),
            queued: self.queued(),
            signing: self.reserved.len(),
            unsent: self.slots.count(SlotState::Unsent),
            in_flight: self.slots.count(SlotState::Sent),
            window: self.window,
            is_on_hold: self.on_hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::AccountBounds;
    use crate::transactions::nonces::Wish;

    #[test]
    fn what_waits_is_counted_where_it_waits() {
        let bounds = AccountBounds { sign_window: 1, ..AccountBounds::default() };
        let mut nonces = Nonces::new(bounds, 5, [(2, SlotState::Mined), (3, SlotState::Sent), (4, SlotState::Unsent)]);
        let now = Instant::now();
        for ticket in 1..=3 {
            nonces.enqueue(ticket, Wish::Any, 1, now + Duration::from_secs(30)).unwrap();
        }
        let before = Figures {
            next_nonce: 5,
            queued: 3,
            signing: 0,
            unsent: 1,
            in_flight: 1,
            window: AccountBounds::default().broadcast_window,
            is_on_hold: false,
        };
        assert_eq!(nonces.figures(), before);
        while nonces.poll(now).is_some() {}
        assert_eq!(nonces.figures(), Figures { next_nonce: 6, queued: 2, signing: 1, unsent: 0, in_flight: 2, ..before });
        nonces.set_on_hold(true);
        assert!(nonces.figures().is_on_hold);
    }
}
