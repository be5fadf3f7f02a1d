//! A cursor is valid for what it was made for, and for nothing else.

use proptest::prelude::*;

use super::*;
use crate::subscriptions::lifecycle::cursor::{Cursor, EventCursor, Seal};
use crate::subscriptions::lifecycle::filter::Filter;

fn seals() -> Vec<Seal> {
    let (a, b) = (account(1).address, account(2).address);
    let (x, y) = (TransactionId(uuid::Uuid::from_u128(1)), TransactionId(uuid::Uuid::from_u128(2)));
    let filters = [
        Filter::default(),
        Filter::new(vec![a], vec![]),
        Filter::new(vec![a, b], vec![]),
        Filter::new(vec![], vec![x]),
        Filter::new(vec![], vec![x, y]),
        Filter::new(vec![a], vec![x]),
    ];
    let scopes = [
        scope(),
        Scope { chain_id: 1, ..scope() },
        Scope { service: Arc::from("other"), ..scope() },
        Scope { principal: Arc::from("other"), ..scope() },
        // Where one name ends and the next begins is part of it.
        Scope { service: Arc::from("pay"), principal: Arc::from("mentsdefault"), ..scope() },
    ];
    let streams = scopes.iter().flat_map(|scope| filters.iter().map(move |filter| Seal::of_stream(scope, filter)));
    let lists = scopes.iter().map(|scope| Seal::of_list(scope, &serde_json::json!({ "from": null })));
    streams.chain(lists).collect()
}

#[test]
fn a_cursor_is_valid_for_its_own_stream_alone() {
    let seals = seals();
    let event = event(7);
    for (i, made) in seals.iter().enumerate() {
        let text = EventCursor::behind(*made, &event).to_string();
        let cursor = EventCursor::parse(&text).unwrap();
        assert_eq!(cursor.event(), (account(1).address, 7));
        for (j, asked) in seals.iter().enumerate() {
            assert_eq!(cursor.is_behind(*asked, &event), i == j, "{i} {j}");
            assert_eq!(EventCursor::start(*made) == EventCursor::start(*asked), i == j, "{i} {j}");
        }
    }
}

#[test]
fn the_order_of_a_filter_is_no_part_of_it() {
    let (a, b) = (account(1).address, account(2).address);
    assert_eq!(Filter::new(vec![a, b, a], vec![]), Filter::new(vec![b, a], vec![]));
}

#[test]
fn another_event_at_the_same_place_is_found_out() {
    let seal = seals()[0];
    let cursor = EventCursor::behind(seal, &event(7));
    assert!(cursor.is_behind(seal, &StoredEvent { position: 99, ..event(7) }), "a copy of the journal may number otherwise");
    for other in [
        StoredEvent { hash: Some(B256::ZERO), ..event(7) },
        StoredEvent { hash: None, ..event(7) },
        StoredEvent { state: AttemptState::Included, ..event(7) },
        StoredEvent { at: std::time::SystemTime::now(), ..event(7) },
    ] {
        assert!(!cursor.is_behind(seal, &other), "{other:?}");
    }
    let start = EventCursor::parse(&EventCursor::start(seal).to_string()).unwrap();
    assert!(start.is_start() && !cursor.is_start());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_of_any_character_is_told(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_=+/ -]") {
        let seal = seals()[0];
        let text = EventCursor::behind(seal, &event(7)).to_string();
        let at = at.index(text.len());
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != text);
        let accepted = EventCursor::parse(&changed).is_some_and(|cursor| {
            let found = cursor.event() == (account(1).address, 7);
            found && cursor.is_behind(seal, &event(7))
        });
        prop_assert!(!accepted, "{changed}");
    }

    #[test]
    fn anything_else_is_no_cursor(text in ".{0,200}") {
        prop_assert_eq!(EventCursor::parse(&text), None);
    }

    #[test]
    fn sizes_are_not_mixed(id in any::<[u8; 16]>()) {
        let seal = seals()[0];
        let text = Cursor::new(seal, id, &[]).to_string();
        prop_assert_eq!(EventCursor::parse(&text), None);
        prop_assert_eq!(Cursor::<16>::parse(&text).map(|cursor| cursor.place()), Some(id));
    }

    #[test]
    fn a_filter_wants_what_it_names(
        addresses in proptest::collection::vec(1..5_u8, 0..4),
        ids in proptest::collection::vec(1..5_u128, 0..4),
        address in 1..5_u8,
        id in 1..5_u128,
    ) {
        let transaction = |id| TransactionId(uuid::Uuid::from_u128(id));
        let filter = Filter::new(
            addresses.iter().map(|byte| account(*byte).address).collect(),
            ids.iter().copied().map(transaction).collect(),
        );
        let one = StoredEvent { account: account(address), transaction: transaction(id), ..event(1) };
        let wanted = (addresses.is_empty() || addresses.contains(&address)) && (ids.is_empty() || ids.contains(&id));
        prop_assert_eq!(filter.wants(&one), wanted);
    }
}
