//! The events in memory never lie: what they say to follow a position is what follows it.

use proptest::prelude::*;

use super::*;
use crate::journal::history::Bounds;
use crate::subscriptions::lifecycle::ring::{Next, Ring};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_follows_a_position_follows_it(
        start in 0..5_i64,
        steps in proptest::collection::vec(1..4_i64, 0..40),
        kept in 1..10_usize,
        pages in proptest::collection::vec((0..100_i64, 1..5_usize), 1..40),
    ) {
        let mut ring = Ring::new(start, Bounds { items: kept, bytes: usize::MAX });
        let mut all = Vec::new();
        let mut position = start;
        for step in steps {
            position += step;
            all.push(position);
            ring.push(vec![event(position)]);
            prop_assert_eq!(ring.end(), position);
        }
        for (from, items) in pages {
            let expected: Vec<i64> = all.iter().copied().filter(|position| *position > from).take(items).collect();
            match ring.after(from, Bounds { items, bytes: usize::MAX }) {
                Next::Events(events) => prop_assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>(), expected),
                Next::Nothing => prop_assert_eq!(expected, Vec::<i64>::new()),
                Next::Behind(begin) => {
                    prop_assert!(from < begin);
                    let held = all.iter().filter(|position| **position > begin).count();
                    prop_assert!(held >= all.len().min(kept), "more was dropped than had to be");
                }
            }
        }
    }
}

#[test]
fn bytes_are_bounded_too() {
    let heavy = |position| StoredEvent { detail: Some("x".repeat(1000)), ..event(position) };
    let mut ring = Ring::new(0, Bounds { items: 100, bytes: 5000 });
    ring.push((1..=50).map(heavy).collect());
    let Next::Behind(start) = ring.after(0, Bounds { items: 100, bytes: usize::MAX }) else { panic!("all is kept") };
    assert!((45..50).contains(&start), "{start}");
    let Next::Events(one) = ring.after(start, Bounds { items: 100, bytes: 1 }) else { panic!("nothing is kept") };
    assert_eq!(one.len(), 1, "a page has one event at least");
}
