//! What does not go on although it could: an account that is paused, or about to be opened again.

use super::{Halt, Nonces, Ticket};

impl Nonces {
    /// What does not go on from now.
    pub fn set_halt(&mut self, halt: Halt) {
        self.halt = halt;
    }

    /// Whether nothing is sent.
    pub fn sends_nothing(&self) -> bool {
        self.halt >= Halt::Sends
    }

    /// Whether nothing has a nonce that is not on record: no Sign and no commit is under way, also of no replacement, and no
    /// nonce is lent.
    pub fn is_settled(&self) -> bool {
        self.reserved.is_empty() && self.replacing.is_empty() && !self.committing
    }

    /// Forgets everything that waits without a nonce. Answers it: in order of arrival, then what wants a certain nonce.
    pub fn take_waiting(&mut self) -> Vec<Ticket> {
        self.spans.clear();
        let given = std::mem::take(&mut self.given).into_values().map(|given| given.entry.ticket);
        self.waiting.take_all().into_iter().map(|entry| entry.ticket).chain(given).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::AccountBounds;
    use crate::transactions::nonces::{Action, SlotState, Wish};

    fn actions(machine: &mut Nonces, now: Instant) -> Vec<Action> {
        std::iter::from_fn(|| machine.poll(now)).collect()
    }

    #[test]
    fn a_halt_hands_out_no_nonce_and_what_has_one_goes_its_way() {
        let now = Instant::now();
        let mut machine = Nonces::new(AccountBounds::default(), 5, [(4, SlotState::Unsent)]);
        machine.enqueue(1, Wish::Any, 1, now + Duration::from_secs(30)).unwrap();
        assert_eq!(actions(&mut machine, now), [Action::Send(4), Action::Sign { ticket: 1, nonce: 5, replaces: false }]);
        machine.enqueue(2, Wish::Any, 1, now + Duration::from_secs(30)).unwrap();
        machine.set_halt(Halt::Nonces);
        machine.signed(1);
        assert_eq!(actions(&mut machine, now), [Action::Commit(vec![1])]);
        assert!(!machine.is_settled());
        machine.committed(&[(1, false)]);
        assert_eq!(actions(&mut machine, now), [Action::Send(5)]);
        assert!(machine.is_settled());
        machine.set_halt(Halt::Nothing);
        assert_eq!(actions(&mut machine, now), [Action::Sign { ticket: 2, nonce: 6, replaces: false }]);
    }

    #[test]
    fn a_halt_of_sends_keeps_everything_until_it_is_over_and_no_filler_is_made() {
        let now = Instant::now();
        let slots = [(1, SlotState::Unsent), (2, SlotState::Open), (3, SlotState::Unsent)];
        let mut machine = Nonces::new(AccountBounds::default(), 4, slots);
        machine.set_halt(Halt::Sends);
        assert!(machine.sends_nothing());
        assert_eq!(actions(&mut machine, now), []);
        machine.set_halt(Halt::Nonces);
        assert_eq!(actions(&mut machine, now), [Action::Send(1), Action::Send(3)]);
        machine.set_halt(Halt::Nothing);
        assert_eq!(machine.poll(now), Some(Action::Fill(2)));
    }

    #[test]
    fn what_waits_is_taken_in_order_of_arrival_and_then_by_nonce() {
        let now = Instant::now();
        let mut machine = Nonces::new(AccountBounds::default(), 5, []);
        let later = now + Duration::from_secs(30);
        machine.set_halt(Halt::Nonces);
        machine.enqueue(1, Wish::Given(9), 1, later).unwrap();
        machine.enqueue(2, Wish::Any, 2, later).unwrap();
        machine.enqueue_loan(3, 7, 1, later).unwrap();
        machine.enqueue(4, Wish::Any, 1, later).unwrap();
        assert_eq!(machine.take_waiting(), [2, 4, 3, 1]);
        machine.set_halt(Halt::Nothing);
        assert_eq!((machine.queued(), actions(&mut machine, now)), (0, vec![]));
    }
}
