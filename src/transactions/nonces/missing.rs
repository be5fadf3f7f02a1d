//! Nonces below what is handed out that nothing has.

use super::{Nonces, SlotState};

impl Nonces {
    /// Whether the nonce has no slot although something is on record above it: nothing above can be mined before it.
    pub fn is_missing(&self, nonce: u64) -> bool {
        nonce < self.next
            && !self.slots.contains(nonce)
            && !self.is_reserved(nonce)
            && self.slots.range(nonce + 1..).any(|(_, state)| !matches!(state, SlotState::Mined | SlotState::Foreign))
    }

    /// The nonces from `nonce` up, below `end`, that nothing has are open slots: as many as may be signed at a time. Answers how many.
    pub fn open_missing(&mut self, nonce: u64, end: u64) -> usize {
        let end = end.min(self.next);
        let missing: Vec<u64> = (nonce..end)
            .take_while(|nonce| !self.slots.contains(*nonce) && !self.is_reserved(*nonce))
            .take(self.bounds.sign_window)
            .collect();
        self.slots.extend(missing.iter().copied(), SlotState::Open);
        missing.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::AccountBounds;
    use crate::transactions::nonces::{Action, Wish};

    fn actions(machine: &mut Nonces, now: Instant) -> Vec<Action> {
        std::iter::from_fn(|| machine.poll(now)).collect()
    }

    #[test]
    fn a_nonce_is_missing_if_something_waits_above_and_nothing_has_it() {
        let machine = Nonces::new(AccountBounds::default(), 8, [(5, SlotState::Sent), (7, SlotState::Sent)]);
        let missing: Vec<u64> = (0..10).filter(|nonce| machine.is_missing(*nonce)).collect();
        assert_eq!(missing, [0, 1, 2, 3, 4, 6]);
        let idle = Nonces::new(AccountBounds::default(), 8, [(7, SlotState::Mined)]);
        assert!(!(0..10).any(|nonce| idle.is_missing(nonce)), "nothing waits");
    }

    #[test]
    fn a_nonce_that_is_being_signed_is_not_missing() {
        let now = Instant::now();
        let mut machine = Nonces::new(AccountBounds::default(), 5, []);
        machine.enqueue(1, Wish::Any, 1, now + Duration::from_secs(1)).unwrap();
        assert_eq!(actions(&mut machine, now).len(), 1);
        assert!(!machine.is_missing(5));
    }

    #[test]
    fn missing_nonces_are_filled_or_taken_by_who_waits() {
        let now = Instant::now();
        let slots = [(3, SlotState::Sent)];
        let mut machine = Nonces::new(AccountBounds::default(), 4, slots);
        assert_eq!(machine.open_missing(1, 4), 2);
        assert_eq!((machine.next_free(), machine.poll(now)), (1, Some(Action::Fill(1))));
        let mut machine = Nonces::new(AccountBounds::default(), 4, slots);
        machine.enqueue(1, Wish::Any, 1, now + Duration::from_secs(1)).unwrap();
        assert_eq!(machine.open_missing(2, 4), 1);
        assert_eq!(machine.poll(now), Some(Action::Sign { ticket: 1, nonce: 2, replaces: true }));
    }

    #[test]
    fn no_more_are_opened_than_are_free_and_can_be_signed() {
        let bounds = AccountBounds { sign_window: 3, ..AccountBounds::default() };
        let mut machine = Nonces::new(bounds, 100, [(99, SlotState::Sent)]);
        assert_eq!(machine.open_missing(10, 12), 2, "what is on record final ends it");
        assert_eq!(machine.open_missing(20, u64::MAX), 3);
        assert_eq!(machine.open_missing(99, u64::MAX), 0);
    }
}
