use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;

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

/// What may happen to an account, in any order.
#[derive(Debug, Clone)]
enum Event {
    Ask(Option<u8>),
    Borrow(u8),
    LoanOver(bool),
    Signed(prop::sample::Index),
    SignFailed(prop::sample::Index),
    Committed,
    CommitFailed,
    Refused(prop::sample::Index),
    Mined,
    Replace(prop::sample::Index),
    /// A payload that was replaced on record is mined before its replacement.
    OlderMined,
    Orphaned,
    Later,
    Hold(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => prop::option::weighted(0.2, 0u8..12).prop_map(Event::Ask),
        1 => (0u8..12).prop_map(Event::Borrow),
        2 => any::<bool>().prop_map(Event::LoanOver),
        6 => index().prop_map(Event::Signed),
        2 => index().prop_map(Event::SignFailed),
        4 => Just(Event::Committed),
        1 => Just(Event::CommitFailed),
        1 => index().prop_map(Event::Refused),
        3 => Just(Event::Mined),
        2 => index().prop_map(Event::Replace),
        1 => Just(Event::OlderMined),
        1 => Just(Event::Orphaned),
        1 => Just(Event::Later),
        1 => any::<bool>().prop_map(Event::Hold),
    ]
}

/// A world around the machine that keeps the books that the invariants are read from.
struct World {
    bench: Bench,
    last: Ticket,
    signing: HashMap<Ticket, u64>,
    commit: Option<Vec<Ticket>>,
    /// The payload on record of each slot, and every ticket that ever was on record.
    record: BTreeMap<u64, Ticket>,
    recorded: BTreeSet<Ticket>,
    open: BTreeSet<u64>,
    sent: BTreeSet<u64>,
    /// Slots of which a node has a payload, perhaps an older one than that on record.
    reached: BTreeSet<u64>,
    /// Replacements under way.
    replacing: BTreeMap<Ticket, u64>,
    mined: BTreeSet<u64>,
    alive: BTreeSet<Ticket>,
    fillers: BTreeSet<Ticket>,
    /// Loans that wait or are out, with their nonce.
    borrowers: HashMap<Ticket, u64>,
    loan: Option<Ticket>,
    loans: BTreeSet<Ticket>,
}

impl World {
    fn new() -> Self {
        Self {
            bench: Bench::new(0, &[]),
            last: 0,
            signing: HashMap::new(),
            commit: None,
            record: BTreeMap::new(),
            recorded: BTreeSet::new(),
            open: BTreeSet::new(),
            sent: BTreeSet::new(),
            reached: BTreeSet::new(),
            replacing: BTreeMap::new(),
            mined: BTreeSet::new(),
            alive: BTreeSet::new(),
            fillers: BTreeSet::new(),
            borrowers: HashMap::new(),
            loan: None,
            loans: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        let machine = &mut self.bench.machine;
        match event {
            Event::Ask(given) => {
                self.last += 1;
                let wish = given.map_or(Wish::Any, |nonce| Wish::Given(u64::from(nonce)));
                if self.bench.ask(self.last, wish).is_ok() {
                    self.alive.insert(self.last);
                }
            }
            Event::Borrow(nonce) => {
                self.last += 1;
                let (nonce, deadline) = (u64::from(nonce), self.bench.now + Duration::from_secs(30));
                if machine.enqueue_loan(self.last, nonce, 1, deadline).is_ok() {
                    self.borrowers.insert(self.last, nonce);
                    self.alive.insert(self.last);
                }
            }
            Event::LoanOver(taken) => {
                if let Some(ticket) = self.loan.take() {
                    self.alive.remove(&ticket);
                    if taken {
                        for nonce in machine.lent(ticket) {
                            let before = self.record.insert(nonce, ticket);
                            assert!(
                                before.is_none() || self.open.remove(&nonce),
                                "a slot that was lent had a payload that was not refused"
                            );
                            self.loans.insert(ticket);
                            // Another account sends its payload.
                            self.sent.insert(nonce);
                        }
                    } else {
                        machine.returned(ticket);
                    }
                }
            }
            Event::Signed(at) => {
                if let Some(ticket) = pick(&at, &self.signing) {
                    machine.signed(ticket);
                }
            }
            Event::SignFailed(at) => {
                let committing = self.commit.clone().unwrap_or_default();
                if let Some(ticket) = pick(&at, &self.signing).filter(|ticket| !committing.contains(ticket)) {
                    self.signing.remove(&ticket);
                    self.replacing.remove(&ticket);
                    self.alive.remove(&ticket);
                    for void in machine.sign_failed(ticket) {
                        assert!(!committing.contains(&void), "what is being committed is not signed again");
                        self.signing.remove(&void);
                    }
                }
            }
            Event::Committed => {
                if let Some(tickets) = self.commit.take() {
                    for ticket in &tickets {
                        let nonce = self.signing.remove(ticket).expect("a ticket that is committed has a nonce");
                        let replacement = self.replacing.remove(ticket).is_some();
                        assert_eq!(machine.takes_slot(*ticket), !(replacement && self.mined.contains(&nonce)));
                        if replacement && self.mined.contains(&nonce) {
                            continue;
                        }
                        let before = self.record.insert(nonce, *ticket);
                        let replaces = self.open.remove(&nonce) || replacement;
                        assert_eq!(before.is_some(), replaces, "slot {nonce} had a payload that was neither refused nor replaced");
                        assert!(self.recorded.insert(*ticket), "a ticket is on record twice");
                        self.alive.remove(ticket);
                        self.sent.remove(&nonce);
                    }
                    let all: Vec<u64> = self.record.keys().copied().collect();
                    assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>(), "the record has a hole");
                    let done: Vec<(Ticket, bool)> = tickets.into_iter().map(|ticket| (ticket, false)).collect();
                    machine.committed(&done);
                }
            }
            Event::CommitFailed => {
                if let Some(tickets) = self.commit.take() {
                    for ticket in &tickets {
                        self.signing.remove(ticket);
                        self.replacing.remove(ticket);
                        self.alive.remove(ticket);
                    }
                    for void in machine.commit_failed(&tickets) {
                        self.signing.remove(&void);
                    }
                }
            }
            Event::Refused(at) => {
                let candidates: BTreeMap<u64, ()> = self
                    .sent
                    .iter()
                    .filter(|nonce| !self.mined.contains(nonce) && !machine.commits_replacement(**nonce))
                    .map(|nonce| (*nonce, ()))
                    .collect();
                if let Some(nonce) = pick_ordered(&at, &candidates) {
                    self.sent.remove(&nonce);
                    self.reached.remove(&nonce);
                    self.open.insert(nonce);
                    machine.set_slot(nonce, SlotState::Open);
                }
            }
            Event::Mined => {
                let lowest = self.record.keys().find(|nonce| !self.mined.contains(nonce)).copied();
                if let Some(nonce) = lowest.filter(|nonce| self.sent.contains(nonce)) {
                    self.mined.insert(nonce);
                    machine.set_slot(nonce, SlotState::Mined);
                }
            }
            Event::Replace(at) => {
                let candidates: BTreeMap<u64, ()> = self.record.keys().map(|nonce| (*nonce, ())).collect();
                if let Some(nonce) = pick_ordered(&at, &candidates) {
                    self.last += 1;
                    if machine.replace(self.last, nonce) {
                        assert!(!self.open.contains(&nonce) && !self.mined.contains(&nonce), "nothing waits in slot {nonce}");
                        assert!(self.replacing.values().all(|other| *other != nonce), "two replacements of slot {nonce}");
                        self.replacing.insert(self.last, nonce);
                    }
                }
            }
            Event::OlderMined => {
                let lowest = self.record.keys().find(|nonce| !self.mined.contains(nonce)).copied();
                if let Some(nonce) = lowest.filter(|nonce| self.reached.contains(nonce)) {
                    self.mined.insert(nonce);
                    machine.set_slot(nonce, SlotState::Mined);
                }
            }
            Event::Orphaned => {
                if let Some(nonce) = self.mined.pop_last() {
                    if self.loans.contains(&self.record[&nonce]) {
                        machine.set_slot(nonce, SlotState::Lent);
                    } else {
                        self.sent.remove(&nonce);
                        machine.set_slot(nonce, SlotState::Unsent);
                    }
                }
            }
            Event::Later => self.bench.now += Duration::from_secs(11),
            Event::Hold(on_hold) => machine.set_on_hold(on_hold),
        }
        self.act();
    }

    /// From here on everything works: every Sign, commit and send succeeds and every block is full of ours.
    fn settle(&mut self) {
        self.apply(Event::Hold(false));
        for _ in 0..400 {
            let signing: Vec<Ticket> = self.signing.keys().copied().collect();
            for ticket in signing {
                self.bench.machine.signed(ticket);
            }
            self.apply(Event::LoanOver(true));
            self.apply(Event::Committed);
            self.apply(Event::Mined);
            let is_mined = |nonce: &u64| self.mined.contains(nonce) || self.open.contains(nonce);
            if self.signing.is_empty() && self.loan.is_none() && self.bench.machine.waiting.is_empty() && self.record.keys().all(is_mined) {
                return;
            }
        }
    }

    fn act(&mut self) {
        for _ in 0..1000 {
            let Some(action) = self.bench.machine.poll(self.bench.now) else { return };
            match action {
                Action::Sign { ticket, nonce, replaces } => {
                    if let Some(of) = self.replacing.get(&ticket) {
                        assert!(replaces && *of == nonce && !self.mined.contains(&nonce), "slot {nonce} has nothing to replace");
                    } else {
                        assert_eq!(replaces, self.open.contains(&nonce), "a replacement is one of an open slot");
                    }
                    assert!(replaces || !self.record.contains_key(&nonce), "nonce {nonce} is on record");
                    assert!(self.signing.values().all(|other| *other != nonce), "nonce {nonce} is handed out twice");
                    self.signing.insert(ticket, nonce);
                }
                Action::Commit(tickets) => {
                    assert!(self.commit.is_none(), "two commits at a time");
                    self.commit = Some(tickets);
                }
                Action::Send(nonce) => {
                    assert!(self.record.contains_key(&nonce), "sent before it is on record");
                    assert!(!self.open.contains(&nonce), "refused bytes are sent again");
                    self.sent.insert(nonce);
                    self.reached.insert(nonce);
                }
                Action::Fill(nonce) => {
                    self.last += 1;
                    assert!(self.open.contains(&nonce) && self.record.range(nonce + 1..).next().is_some());
                    self.fillers.insert(self.last);
                    self.signing.insert(self.last, nonce);
                    self.bench.machine.fill(self.last, nonce, self.bench.now);
                }
                Action::Void(_) => panic!("no refused payload is mined in this world"),
                Action::Lend(ticket) => {
                    let nonce = self.borrowers.remove(&ticket).expect("somebody asked for it");
                    assert!(self.loan.replace(ticket).is_none(), "two loans at a time");
                    assert!((0..nonce).all(|below| self.mined.contains(&below)), "lent before everything below is mined");
                    // A replacement that is being committed for a slot that was mined meanwhile takes nothing.
                    let takes_nothing = |ticket: &Ticket| self.replacing.contains_key(ticket);
                    assert!(self.signing.keys().all(takes_nothing), "lent while something is being signed");
                }
                Action::Deny(ticket, why) if self.replacing.remove(&ticket).is_some() => {
                    assert!(matches!(why, Denial::Mined | Denial::Refused));
                    assert!(self.commit.as_ref().is_none_or(|tickets| !tickets.contains(&ticket)), "denied while it is being committed");
                    self.signing.remove(&ticket);
                }
                Action::Deny(ticket, _) => {
                    assert!(self.alive.remove(&ticket) && !self.signing.contains_key(&ticket), "denied with a nonce");
                }
            }
        }
        panic!("the machine never rests");
    }
}

fn pick(at: &prop::sample::Index, from: &HashMap<Ticket, u64>) -> Option<Ticket> {
    let mut all: Vec<Ticket> = from.keys().copied().collect();
    all.sort_unstable();
    (!all.is_empty()).then(|| *at.get(&all))
}

fn pick_ordered(at: &prop::sample::Index, from: &BTreeMap<u64, ()>) -> Option<u64> {
    let all: Vec<u64> = from.keys().copied().collect();
    (!all.is_empty()).then(|| *at.get(&all))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    /// I1, I2, I3 and the contiguous prefix, over any order of events; and no request is lost or stuck:
    /// once everything works again, each is on record or denied, and all that is on record is mined, but for an open slot above all others.
    #[test]
    fn the_invariants_hold_in_any_order_of_events(events in prop::collection::vec(event(), 1..200)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        prop_assert!(world.alive.iter().all(|ticket| !world.recorded.contains(ticket)));
        world.settle();
        let machine = &world.bench.machine;
        prop_assert!(machine.waiting.is_empty() && world.signing.is_empty(), "a request is stuck");
        prop_assert!(world.replacing.is_empty() && machine.replacing.is_empty(), "a replacement is stuck");
        let unmined: Vec<u64> = world.record.keys().filter(|nonce| !world.mined.contains(nonce)).copied().collect();
        prop_assert!(unmined.iter().all(|nonce| world.open.contains(nonce)), "{unmined:?} are stuck");
        // What waits still was given a nonce beyond a gap.
        let beyond = |nonce: u64| nonce > machine.next || world.open.range(..nonce).next().is_some();
        prop_assert!(machine.given.iter().all(|(nonce, given)| *nonce > machine.next || (given.lent && beyond(*nonce))));
        prop_assert_eq!(world.alive.len(), machine.queued());
    }
}
