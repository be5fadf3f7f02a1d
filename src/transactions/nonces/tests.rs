//! The machine, one rule at a time.

mod property;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

fn bounds(window: usize) -> AccountBounds {
    AccountBounds { queue: 8, sign_window: window, sign_ahead: window, broadcast_window: window, ..AccountBounds::default() }
}

struct Bench {
    machine: Nonces,
    now: Instant,
}

impl Bench {
    fn new(next: u64, slots: &[(u64, SlotState)]) -> Self {
        Self { machine: Nonces::new(bounds(4), next, slots.iter().copied()), now: Instant::now() }
    }

    fn ask(&mut self, ticket: Ticket, wish: Wish) -> Result<(), Denial> {
        self.machine.enqueue(ticket, wish, 1, self.now + Duration::from_secs(30))
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll(self.now) {
            actions.push(action);
        }
        actions
    }
}

fn sign(ticket: Ticket, nonce: u64) -> Action {
    Action::Sign { ticket, nonce, replaces: false }
}

#[test]
fn nonces_are_handed_out_in_order_of_arrival_up_to_the_window() {
    let mut bench = Bench::new(7, &[]);
    for ticket in 1..=6 {
        bench.ask(ticket, Wish::Any).unwrap();
    }
    assert_eq!(bench.actions(), [sign(1, 7), sign(2, 8), sign(3, 9), sign(4, 10)]);
    assert_eq!((bench.machine.next_free(), bench.machine.queued()), (11, 2));
}

#[test]
fn only_the_contiguous_signed_prefix_is_committed_and_then_sent_in_order() {
    let mut bench = Bench::new(0, &[]);
    for ticket in 1..=3 {
        bench.ask(ticket, Wish::Any).unwrap();
    }
    bench.actions();
    bench.machine.signed(2);
    bench.machine.signed(3);
    assert_eq!(bench.actions(), []);
    bench.machine.signed(1);
    assert_eq!(bench.actions(), [Action::Commit(vec![1, 2, 3])]);
    bench.machine.committed(&[(1, false), (2, false), (3, false)]);
    assert_eq!(bench.actions(), [Action::Send(0), Action::Send(1), Action::Send(2)]);
}

#[test]
fn one_commit_at_a_time() {
    let mut bench = Bench::new(0, &[]);
    bench.ask(1, Wish::Any).unwrap();
    bench.ask(2, Wish::Any).unwrap();
    bench.actions();
    bench.machine.signed(1);
    assert_eq!(bench.actions(), [Action::Commit(vec![1])]);
    bench.machine.signed(2);
    assert_eq!(bench.actions(), []);
    bench.machine.committed(&[(1, false)]);
    assert_eq!(bench.actions(), [Action::Commit(vec![2]), Action::Send(0)]);
}

#[test]
fn what_is_above_a_failed_sign_moves_down_in_order_and_is_signed_again() {
    let mut bench = Bench::new(5, &[]);
    for ticket in 1..=4 {
        bench.ask(ticket, Wish::Any).unwrap();
    }
    bench.actions();
    bench.machine.signed(3);
    assert_eq!(bench.machine.sign_failed(2), [3, 4]);
    assert_eq!(bench.actions(), [sign(3, 6), sign(4, 7)]);
}

#[test]
fn a_commit_that_wrote_nothing_gives_its_nonces_back() {
    let mut bench = Bench::new(5, &[]);
    for ticket in 1..=3 {
        bench.ask(ticket, Wish::Any).unwrap();
    }
    bench.actions();
    bench.machine.signed(1);
    bench.actions();
    assert_eq!(bench.machine.commit_failed(&[1]), [2, 3]);
    assert_eq!(bench.actions(), [sign(2, 5), sign(3, 6)]);
}

#[test]
fn a_full_queue_and_a_passed_deadline_are_denied_before_a_nonce_exists() {
    let mut bench = Bench::new(0, &[]);
    for ticket in 1..=4 {
        bench.ask(ticket, Wish::Any).unwrap();
    }
    bench.actions();
    for ticket in 5..=12 {
        bench.ask(ticket, Wish::Any).unwrap();
    }
    assert_eq!(bench.ask(13, Wish::Any), Err(Denial::QueueFull));
    bench.now += Duration::from_secs(31);
    let denied: Vec<Action> = (5..=12).map(|ticket| Action::Deny(ticket, Denial::Deadline)).collect();
    assert_eq!(bench.actions(), denied);
    assert_eq!(bench.machine.next_free(), 4);
}

#[test]
fn a_given_nonce_above_next_waits_and_the_others_go_first() {
    let mut bench = Bench::new(0, &[]);
    bench.ask(1, Wish::Given(2)).unwrap();
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.ask(2, Wish::Given(2)), Err(Denial::Held));
    bench.ask(3, Wish::Any).unwrap();
    bench.ask(4, Wish::Any).unwrap();
    bench.ask(5, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [sign(3, 0), sign(4, 1), sign(1, 2), sign(5, 3)]);
}

#[test]
fn a_gap_is_told_as_one_at_the_deadline() {
    let mut bench = Bench::new(0, &[]);
    bench.ask(1, Wish::Given(2)).unwrap();
    bench.now += Duration::from_secs(31);
    assert_eq!(bench.actions(), [Action::Deny(1, Denial::Gap)]);
}

#[test]
fn given_nonces_that_are_used_or_held_are_denied() {
    let slots = [(3, SlotState::Mined), (4, SlotState::Sent), (5, SlotState::Held), (6, SlotState::Open)];
    let mut bench = Bench::new(7, &slots);
    assert_eq!(bench.ask(1, Wish::Given(2)), Err(Denial::TooLow { next: 6 }));
    assert_eq!(bench.ask(1, Wish::Given(3)), Err(Denial::TooLow { next: 6 }));
    assert_eq!(bench.ask(1, Wish::Given(4)), Err(Denial::Held));
    assert_eq!(bench.ask(1, Wish::Given(5)), Err(Denial::Held));
    bench.ask(1, Wish::Given(6)).unwrap();
    assert_eq!(bench.actions(), [Action::Sign { ticket: 1, nonce: 6, replaces: true }]);
}

#[test]
fn an_open_slot_goes_to_the_next_request_as_a_replacement() {
    let mut bench = Bench::new(2, &[(0, SlotState::Open), (1, SlotState::Sent)]);
    bench.ask(1, Wish::Any).unwrap();
    assert_eq!(bench.machine.next_free(), 0);
    assert_eq!(bench.actions(), [Action::Sign { ticket: 1, nonce: 0, replaces: true }]);
    bench.machine.signed(1);
    assert_eq!(bench.actions(), [Action::Commit(vec![1])]);
    bench.machine.committed(&[(1, false)]);
    assert_eq!(bench.actions(), [Action::Send(0)]);
}

#[test]
fn an_open_slot_is_filled_only_below_a_committed_one_and_when_nobody_waits() {
    assert_eq!(Bench::new(1, &[(0, SlotState::Open)]).actions(), []);
    let mut bench = Bench::new(2, &[(0, SlotState::Open), (1, SlotState::Sent)]);
    assert_eq!(bench.machine.poll(bench.now), Some(Action::Fill(0)));
    bench.machine.fill(9, 0, bench.now);
    assert_eq!(bench.actions(), []);
    assert!(bench.machine.sign_failed(9).is_empty());
    bench.machine.set_can_fill(false);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.machine.slot(0), Some(SlotState::Open));
}

#[test]
fn no_more_is_sent_than_the_broadcast_window_and_inclusions_make_room() {
    let slots: Vec<_> = (0..6).map(|nonce| (nonce, SlotState::Unsent)).collect();
    let mut bench = Bench::new(6, &slots);
    assert_eq!(bench.actions(), (0..4).map(Action::Send).collect::<Vec<_>>());
    bench.machine.set_slot(0, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Send(4)]);
}

#[test]
fn a_full_pool_shrinks_the_window_and_inclusions_grow_it_back() {
    let slots: Vec<_> = (0..8).map(|nonce| (nonce, SlotState::Unsent)).collect();
    let mut bench = Bench::new(8, &slots);
    assert_eq!(bench.actions().len(), 4);
    // The node took 0 and 1 and had no room for 2 and 3.
    bench.machine.pool_full(2);
    bench.machine.pool_full(3);
    bench.machine.set_slot(2, SlotState::Unsent);
    bench.machine.set_slot(3, SlotState::Unsent);
    assert_eq!(bench.actions(), []);
    bench.machine.set_slot(0, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Send(2), Action::Send(3)]);
}

#[test]
fn a_full_window_does_not_keep_back_what_everything_in_flight_waits_for() {
    let slots = [(0, SlotState::Open), (1, SlotState::Sent), (2, SlotState::Sent), (3, SlotState::Sent), (4, SlotState::Sent)];
    let mut bench = Bench::new(5, &slots);
    bench.ask(1, Wish::Any).unwrap();
    bench.actions();
    bench.machine.signed(1);
    bench.actions();
    bench.machine.committed(&[(1, false)]);
    assert_eq!(bench.actions(), [Action::Send(0)]);
}

#[test]
fn what_reached_nobody_goes_out_again_before_what_is_above_it() {
    let mut bench = Bench::new(3, &[(0, SlotState::Sent), (1, SlotState::Unsent), (2, SlotState::Unsent)]);
    bench.machine.send_later(0, bench.now + Duration::from_millis(500));
    assert_eq!(bench.actions(), []);
    bench.now += Duration::from_millis(500);
    assert_eq!(bench.actions(), [Action::Send(0), Action::Send(1), Action::Send(2)]);
}

#[test]
fn a_refused_payload_that_is_mined_after_all_takes_its_slot_back() {
    let open = [(0, SlotState::Open), (1, SlotState::Sent)];
    let mut bench = Bench::new(2, &open);
    bench.ask(1, Wish::Any).unwrap();
    bench.actions();
    bench.machine.set_slot(0, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Void(1), sign(1, 2)]);
    // Its Sign fails later, when the slot is final: nothing below is handed out again.
    bench.machine.finish(0);
    assert!(bench.machine.sign_failed(1).is_empty());
    assert_eq!((bench.machine.next_free(), bench.machine.slot(0)), (2, None));

    let mut bench = Bench::new(2, &open);
    bench.ask(1, Wish::Given(0)).unwrap();
    bench.actions();
    bench.machine.signed(1);
    assert_eq!(bench.actions(), [Action::Commit(vec![1])]);
    bench.machine.set_slot(0, SlotState::Mined);
    bench.machine.committed(&[(1, false)]);
    assert_eq!((bench.actions(), bench.machine.slot(0)), (vec![], Some(SlotState::Mined)));
}

#[test]
fn what_a_lost_payload_would_have_used_up_is_open_once_somebody_elses_is_final() {
    let mut bench = Bench::new(6, &[(4, SlotState::Sent), (5, SlotState::Tied)]);
    bench.machine.tie(4, 1);
    bench.machine.set_slot(4, SlotState::Foreign);
    assert_eq!(bench.actions(), [], "a reorg may give it back");
    bench.machine.finish(4);
    assert_eq!((bench.machine.slot(4), bench.machine.slot(5), bench.machine.next_free()), (None, Some(SlotState::Open), 5));
    bench.ask(1, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [Action::Sign { ticket: 1, nonce: 5, replaces: true }]);
}

#[test]
fn an_authorised_slot_opens_with_the_slot_that_it_is_tied_to() {
    let mut bench = Bench::new(4, &[]);
    bench.machine.enqueue(1, Wish::Given(4), 2, bench.now + Duration::from_secs(99)).unwrap();
    bench.actions();
    bench.machine.signed(1);
    bench.actions();
    bench.machine.committed(&[(1, false)]);
    assert_eq!((bench.actions(), bench.machine.slot(5)), (vec![Action::Send(4)], Some(SlotState::Tied)));
    bench.machine.set_slot(4, SlotState::Open);
    bench.ask(2, Wish::Any).unwrap();
    bench.ask(3, Wish::Any).unwrap();
    let replace = |ticket, nonce| Action::Sign { ticket, nonce, replaces: true };
    assert_eq!(bench.actions(), [replace(2, 4), replace(3, 5)]);
    let mut bench = Bench::new(6, &[(5, SlotState::Open)]);
    assert_eq!(bench.machine.enqueue(1, Wish::Given(5), 2, bench.now), Err(Denial::Held));
}

#[test]
fn nonces_are_lent_once_everything_below_is_mined() {
    let mut bench = Bench::new(3, &[(2, SlotState::Sent)]);
    bench.machine.enqueue_loan(1, 3, 2, bench.now + Duration::from_secs(30)).unwrap();
    bench.ask(2, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [], "nothing overtakes a loan");
    bench.machine.set_slot(2, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Lend(1)]);
    assert_eq!(bench.ask(3, Wish::Given(4)), Err(Denial::Held));
    assert_eq!(bench.machine.lent(1), 3..5);
    assert_eq!(bench.actions(), [sign(2, 5)]);
    bench.machine.signed(2);
    assert_eq!(bench.actions(), [Action::Commit(vec![2])]);
    bench.machine.committed(&[(2, false)]);
    assert_eq!(bench.actions(), [], "what is above a lent slot is not sent");
    bench.machine.set_slot(3, SlotState::Mined);
    bench.machine.set_slot(4, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Send(5)]);
}

#[test]
fn open_slots_are_lent_too_and_open_again_if_it_comes_to_nothing() {
    let open = [(2, SlotState::Mined), (3, SlotState::Open), (4, SlotState::Sent)];
    let mut bench = Bench::new(5, &open);
    bench.machine.enqueue_loan(1, 3, 1, bench.now + Duration::from_secs(30)).unwrap();
    bench.ask(2, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [Action::Lend(1)], "neither a filler nor another request takes it");
    bench.machine.returned(1);
    assert_eq!(bench.machine.slot(3), Some(SlotState::Open));
    assert_eq!(bench.actions(), [Action::Sign { ticket: 2, nonce: 3, replaces: true }]);

    // An open slot and the next nonce, in one payload.
    let mut bench = Bench::new(4, &[(3, SlotState::Open)]);
    bench.machine.enqueue_loan(1, 3, 2, bench.now + Duration::from_secs(30)).unwrap();
    assert_eq!(bench.actions(), [Action::Lend(1)]);
    bench.machine.returned(1);
    assert_eq!((bench.machine.slot(3), bench.machine.slot(4), bench.machine.next_free()), (Some(SlotState::Open), None, 3));
    bench.machine.enqueue_loan(2, 3, 2, bench.now + Duration::from_secs(30)).unwrap();
    assert_eq!(bench.actions(), [Action::Lend(2)]);
    assert_eq!((bench.machine.lent(2), bench.machine.next_free()), (3..5, 5));
}

#[test]
fn a_loan_above_an_open_slot_is_told_as_a_gap() {
    let mut bench = Bench::new(4, &[(3, SlotState::Open)]);
    bench.machine.enqueue_loan(1, 4, 1, bench.now).unwrap();
    assert_eq!(bench.actions(), [Action::Deny(1, Denial::Gap)]);
}

#[test]
fn no_more_than_one_transaction_of_a_delegated_account_is_in_flight() {
    let mut bench = Bench::new(3, &[(0, SlotState::Unsent), (1, SlotState::Unsent), (2, SlotState::Unsent)]);
    bench.machine.set_delegated(true);
    assert_eq!(bench.actions(), [Action::Send(0)]);
    bench.machine.set_slot(0, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Send(1)]);
    bench.machine.set_delegated(false);
    assert_eq!(bench.actions(), [Action::Send(2)]);
}

#[test]
fn nothing_is_sent_above_an_authorisation_of_the_sender_that_waits() {
    let mut bench = Bench::new(3, &[(0, SlotState::Sent), (1, SlotState::Tied), (2, SlotState::Unsent)]);
    bench.machine.tie(0, 1);
    assert_eq!(bench.actions(), []);
    bench.machine.set_slot(0, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Send(2)]);
}

#[test]
fn a_loan_that_comes_to_nothing_gives_its_nonces_back() {
    let mut bench = Bench::new(3, &[]);
    bench.machine.enqueue_loan(1, 3, 2, bench.now + Duration::from_secs(30)).unwrap();
    bench.ask(2, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [Action::Lend(1)]);
    bench.machine.returned(1);
    assert_eq!(bench.actions(), [sign(2, 3)]);
}

#[test]
fn a_lent_slot_that_opens_is_taken_like_any_other() {
    let mut bench = Bench::new(4, &[(3, SlotState::Lent)]);
    assert_eq!(bench.machine.enqueue_loan(1, 3, 1, bench.now), Err(Denial::Held));
    bench.machine.set_slot(3, SlotState::Open);
    bench.ask(2, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [Action::Sign { ticket: 2, nonce: 3, replaces: true }]);
    let late = bench.now + Duration::from_secs(1);
    bench.machine.enqueue_loan(3, 9, 1, late).unwrap();
    bench.now = late;
    assert_eq!(bench.actions(), [Action::Deny(3, Denial::Gap)]);
}

#[test]
fn a_given_nonce_that_the_chain_passed_is_denied_at_once() {
    let mut bench = Bench::new(0, &[]);
    bench.ask(1, Wish::Given(3)).unwrap();
    assert!(bench.machine.resync(5));
    assert_eq!(bench.actions(), [Action::Deny(1, Denial::TooLow { next: 5 })]);
}

#[test]
fn nothing_is_handed_out_while_somebody_else_uses_the_key_and_then_from_where_the_chain_is() {
    let mut bench = Bench::new(3, &[]);
    bench.machine.set_on_hold(true);
    bench.ask(1, Wish::Any).unwrap();
    assert_eq!(bench.actions(), []);
    assert!(bench.machine.resync(9));
    bench.machine.set_on_hold(false);
    assert_eq!(bench.actions(), [sign(1, 9)]);
    assert!(!bench.machine.resync(20), "a reservation is under way");
}

#[test]
fn an_authorisation_by_the_sender_uses_up_the_nonce_that_follows() {
    let mut bench = Bench::new(4, &[]);
    bench.machine.enqueue(1, Wish::Given(4), 2, bench.now + Duration::from_secs(1)).unwrap();
    bench.ask(2, Wish::Any).unwrap();
    assert_eq!(bench.actions(), [sign(1, 4), sign(2, 6)]);
    assert_eq!(bench.ask(3, Wish::Given(5)), Err(Denial::Held));
    bench.machine.signed(2);
    bench.machine.signed(1);
    assert_eq!(bench.actions(), [Action::Commit(vec![1, 2])]);
}

#[test]
fn a_request_that_is_taken_back_is_forgotten() {
    let mut bench = Bench::new(0, &[]);
    bench.machine.set_on_hold(true);
    bench.ask(1, Wish::Any).unwrap();
    bench.ask(2, Wish::Given(5)).unwrap();
    assert!(bench.machine.cancel(1) && bench.machine.cancel(2) && !bench.machine.cancel(2));
    assert!(bench.machine.is_idle());
}

fn replacement(ticket: Ticket, nonce: u64) -> Action {
    Action::Sign { ticket, nonce, replaces: true }
}

#[test]
fn a_replacement_is_signed_first_recorded_and_sent_at_once_whatever_the_window_says() {
    let slots: Vec<_> = (0..4).map(|nonce| (nonce, SlotState::Sent)).chain([(4, SlotState::Unsent)]).collect();
    let mut bench = Bench::new(5, &slots);
    bench.ask(1, Wish::Any).unwrap();
    assert!(bench.machine.replace(9, 2) && !bench.machine.replace(10, 2), "one replacement of a slot at a time");
    assert_eq!(bench.actions(), [replacement(9, 2), sign(1, 5)]);
    assert_eq!(bench.machine.slot(2), Some(SlotState::Sent), "the payload on record is the slot's until then");
    bench.machine.signed(9);
    assert_eq!(bench.actions(), [Action::Commit(vec![9])]);
    assert!(bench.machine.takes_slot(9));
    bench.machine.committed(&[(9, false)]);
    assert_eq!(bench.actions(), [Action::Send(2)]);
    assert!(bench.machine.replace(11, 2));
}

#[test]
fn a_replacement_that_fails_leaves_the_payload_as_it_is() {
    let mut bench = Bench::new(1, &[(0, SlotState::Sent)]);
    assert!(bench.machine.replace(9, 0));
    bench.actions();
    assert!(bench.machine.sign_failed(9).is_empty());
    assert_eq!((bench.actions(), bench.machine.slot(0)), (vec![], Some(SlotState::Sent)));
    assert!(bench.machine.replace(10, 0));
    bench.actions();
    bench.machine.signed(10);
    bench.actions();
    assert!(bench.machine.commit_failed(&[10]).is_empty());
    assert_eq!((bench.actions(), bench.machine.slot(0), bench.machine.next_free()), (vec![], Some(SlotState::Sent), 1));
}

#[test]
fn a_slot_that_is_mined_meanwhile_voids_its_replacement_unless_that_is_being_committed() {
    let mut bench = Bench::new(1, &[(0, SlotState::Sent)]);
    assert!(bench.machine.replace(9, 0));
    bench.actions();
    bench.machine.set_slot(0, SlotState::Mined);
    assert_eq!(bench.actions(), [Action::Deny(9, Denial::Mined)]);
    assert!(!bench.machine.replace(10, 0));

    let mut bench = Bench::new(1, &[(0, SlotState::Sent)]);
    assert!(bench.machine.replace(9, 0));
    bench.actions();
    bench.machine.signed(9);
    bench.actions();
    bench.machine.set_slot(0, SlotState::Mined);
    assert!(!bench.machine.takes_slot(9));
    bench.machine.committed(&[(9, false)]);
    assert_eq!((bench.actions(), bench.machine.slot(0)), (vec![], Some(SlotState::Mined)));
}

#[test]
fn a_replacement_that_is_being_committed_takes_a_slot_whose_payload_is_refused_meanwhile() {
    let mut bench = Bench::new(1, &[(0, SlotState::Sent)]);
    assert!(bench.machine.replace(9, 0));
    bench.actions();
    bench.machine.signed(9);
    bench.actions();
    assert!(bench.machine.commits_replacement(0));
    bench.machine.set_slot(0, SlotState::Reopened);
    assert!(bench.machine.takes_slot(9));
    bench.machine.committed(&[(9, false)]);
    assert_eq!(bench.actions(), [Action::Send(0)]);
}

#[test]
fn held_bytes_are_replaced_too_and_open_slots_are_not() {
    let mut bench = Bench::new(2, &[(0, SlotState::Held), (1, SlotState::Sent)]);
    assert!(bench.machine.replace(9, 0));
    assert_eq!(bench.actions(), [replacement(9, 0)]);
    bench.machine.signed(9);
    bench.actions();
    bench.machine.committed(&[(9, false)]);
    assert_eq!(bench.actions(), [Action::Send(0)]);
    for state in [SlotState::Open, SlotState::Reopened, SlotState::Foreign, SlotState::Lent, SlotState::Tied] {
        assert!(!Bench::new(1, &[(0, state)]).machine.replace(9, 0), "{state:?}");
    }
}
