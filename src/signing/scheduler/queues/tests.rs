use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn group(n: u8) -> QuotaGroup {
    QuotaGroup(format!("{n}").into())
}

fn queues(total: usize, per_key: usize) -> Queues {
    Queues::new(Bounds { total, per_key })
}

fn granted(_: Layer<'_>) -> Verdict {
    Verdict::Granted
}

/// Issues until nothing may go any more; every call ends at once.
fn drain(queues: &mut Queues, owner: impl Fn(CallId) -> Address) -> Vec<u64> {
    let mut issued = Vec::new();
    while let Next::Issue(id) = queues.next(Instant::now(), granted) {
        issued.push(id.0);
        queues.done(owner(id));
    }
    issued
}

#[test]
fn messages_take_turns_with_transactions() {
    let mut queues = queues(9, 9);
    for (order, id) in [(MESSAGE, 0), (MESSAGE, 1), (MESSAGE, 2), (7, 3), (6, 4), (MESSAGE, 5)] {
        queues.push(key(1), &group(1), (order, CallId(id)));
    }
    assert_eq!(drain(&mut queues, |_| key(1)), [0, 4, 1, 3, 2, 5]);
    for (order, id) in [(7, 6), (MESSAGE, 7), (8, 8), (9, 9)] {
        queues.push(key(1), &group(1), (order, CallId(id)));
    }
    assert_eq!(drain(&mut queues, |_| key(1)), [7, 6, 8, 9]);
}

#[test]
fn a_line_goes_by_nonce_then_by_arrival() {
    let mut queues = queues(9, 9);
    for (order, id) in [(7, 0), (5, 1), (7, 2), (6, 3), (5, 4)] {
        queues.push(key(1), &group(1), (order, CallId(id)));
    }
    assert_eq!(drain(&mut queues, |_| key(1)), [1, 4, 3, 0, 2]);
    assert!(queues.lines.is_empty());
}

#[test]
fn both_bounds_hold_and_the_end_of_a_sign_makes_room() {
    let mut queues = queues(3, 2);
    for id in 0..6 {
        queues.push(key(1), &group(1), (id, CallId(id)));
        queues.push(key(2), &group(1), (id, CallId(10 + id)));
    }
    let now = Instant::now();
    let first: Vec<_> = (0..3).map(|_| queues.next(now, granted)).collect();
    assert_eq!(first, [Next::Issue(CallId(0)), Next::Issue(CallId(10)), Next::Issue(CallId(1))]);
    assert_eq!(queues.next(now, granted), Next::Wait(None));
    queues.done(key(2));
    // Key 1 has two in flight: its bound. Key 2 goes, although it went last.
    assert_eq!(queues.next(now, granted), Next::Issue(CallId(11)));
    // Back from its bound, key 1 waits behind key 2, which was in turn already.
    queues.done(key(1));
    assert_eq!(queues.next(now, granted), Next::Issue(CallId(12)));
    queues.done(key(1));
    assert_eq!(queues.next(now, granted), Next::Issue(CallId(2)));
}

#[test]
fn a_cell_of_the_key_is_kept_while_the_group_denies() {
    let mut queues = queues(9, 9);
    queues.push(key(1), &group(1), (0, CallId(0)));
    queues.push(key(2), &group(1), (0, CallId(1)));
    let now = Instant::now();
    let later = now + Duration::from_millis(10);
    let mut asked = Vec::new();
    let next = queues.next(now, |layer| {
        asked.push(format!("{layer:?}"));
        match layer {
            Layer::Key(_) => Verdict::Granted,
            Layer::Group(_) => Verdict::DeniedUntil(later),
        }
    });
    assert_eq!((next, asked.len()), (Next::Wait(Some(later)), 2));
    // Known to deny: nobody is asked.
    assert_eq!(queues.next(now, |_| panic!("asked")), Next::Wait(Some(later)));
    // Then the key is not asked again, and it still has its turn.
    let next = queues.next(later, |layer| match layer {
        Layer::Key(_) => panic!("asked for a second cell"),
        Layer::Group(_) => Verdict::Granted,
    });
    assert_eq!(next, Next::Issue(CallId(0)));
}

#[test]
fn a_key_at_its_ceiling_delays_nobody_and_costs_no_cell_of_the_group() {
    let mut queues = queues(9, 9);
    queues.push(key(1), &group(1), (0, CallId(0)));
    queues.push(key(2), &group(1), (0, CallId(1)));
    let now = Instant::now();
    let later = now + Duration::from_millis(10);
    let mut cells = 0;
    let mut ask = |layer: Layer<'_>| match layer {
        Layer::Key(address) if *address == key(1) => Verdict::DeniedUntil(later),
        Layer::Key(_) => Verdict::Granted,
        Layer::Group(_) => {
            cells += 1;
            Verdict::Granted
        }
    };
    assert_eq!(queues.next(now, &mut ask), Next::Issue(CallId(1)));
    assert_eq!(queues.next(now, &mut ask), Next::Wait(Some(later)));
    assert_eq!(cells, 1);
    assert_eq!(queues.next(later, granted), Next::Issue(CallId(0)));
}

#[test]
fn a_group_that_denies_delays_no_other_group() {
    let mut queues = queues(9, 9);
    queues.push(key(1), &group(1), (0, CallId(0)));
    queues.push(key(2), &group(2), (0, CallId(1)));
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let next = queues.next(now, |layer| match layer {
        Layer::Group(name) if *name == group(1) => Verdict::DeniedUntil(later),
        _ => Verdict::Granted,
    });
    assert_eq!(next, Next::Issue(CallId(1)));
}

#[test]
fn what_is_removed_is_not_issued_and_leaves_nothing_behind() {
    let mut queues = queues(9, 9);
    queues.push(key(1), &group(1), (0, CallId(0)));
    queues.remove(key(1), (0, CallId(0)));
    assert_eq!(queues.next(Instant::now(), granted), Next::Wait(None));
    assert!(queues.lines.is_empty());
    // Back while its old place in the turn was still there: one place, not two.
    queues.push(key(1), &group(1), (0, CallId(1)));
    queues.remove(key(1), (0, CallId(1)));
    queues.push(key(1), &group(1), (0, CallId(2)));
    assert_eq!(queues.groups[&group(1)].turn.len(), 1);
    assert_eq!(drain(&mut queues, |_| key(1)), [2]);
}

#[derive(Debug, Clone)]
enum Step {
    Push { key: u8, order: u64 },
    Remove(usize),
    Next(Vec<bool>),
    Done(usize),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..5, 0u64..6).prop_map(|(key, order)| Step::Push { key, order }),
        1 => any::<usize>().prop_map(Step::Remove),
        5 => prop::collection::vec(any::<bool>(), 0..6).prop_map(Step::Next),
        3 => any::<usize>().prop_map(Step::Done),
        1 => Just(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: the lowest position of a line goes first, bounds hold, a group's cell is a Sign, at most one cell
    /// of a key is kept, and in the end everything that was not removed has been issued once.
    #[test]
    fn order_bounds_and_cells(steps in prop::collection::vec(step(), 1..120)) {
        const TOTAL: usize = 4;
        const PER_KEY: usize = 2;
        let mut queues = queues(TOTAL, PER_KEY);
        let mut now = Instant::now();
        let mut waiting = BTreeMap::<u8, BTreeSet<Position>>::new();
        let mut in_flight: Vec<u8> = Vec::new();
        let mut cells = BTreeMap::<u8, i64>::new();
        let (mut pushed, mut group_cells, mut issued, mut removed) = (0u64, 0u64, 0u64, 0u64);

        let close = std::iter::repeat_n([Step::Next(vec![true; 2]), Step::Done(0), Step::Pass], 400).flatten();
        for step in steps.into_iter().chain(close) {
            match step {
                Step::Push { key: k, order } => {
                    let position = (order, CallId(pushed));
                    queues.push(key(k), &group(k % 2), position);
                    waiting.entry(k).or_default().insert(position);
                    pushed += 1;
                }
                Step::Remove(index) => {
                    let all: Vec<_> = waiting.iter().flat_map(|(k, line)| line.iter().map(|position| (*k, *position))).collect();
                    if !all.is_empty() {
                        let (k, position) = all[index % all.len()];
                        queues.remove(key(k), position);
                        let line = waiting.get_mut(&k).unwrap();
                        line.remove(&position);
                        if line.is_empty() {
                            cells.remove(&k);
                        }
                        removed += 1;
                    }
                }
                Step::Done(index) => {
                    if !in_flight.is_empty() {
                        let k = in_flight.swap_remove(index % in_flight.len());
                        queues.done(key(k));
                    }
                }
                Step::Pass => now += Duration::from_millis(10),
                Step::Next(verdicts) => {
                    let mut verdicts = verdicts.into_iter();
                    let mut last_key = None;
                    let next = queues.next(now, |layer| {
                        let grant = verdicts.next().unwrap_or(true);
                        match layer {
                            Layer::Key(address) => {
                                last_key = Some(address.0[0]);
                                if grant {
                                    *cells.entry(address.0[0]).or_default() += 1;
                                }
                            }
                            Layer::Group(_) => group_cells += u64::from(grant),
                        }
                        if grant { Verdict::Granted } else { Verdict::DeniedUntil(now + Duration::from_millis(10)) }
                    });
                    if let Next::Issue(id) = next {
                        let k = waiting.iter().find(|(_, line)| line.iter().any(|position| position.1 == id)).map(|(k, _)| *k);
                        prop_assert!(k.is_some(), "{id:?} was not waiting");
                        let k = k.unwrap();
                        let line = waiting.get_mut(&k).unwrap();
                        prop_assert_eq!(line.pop_first().unwrap().1, id, "the lowest position goes first");
                        in_flight.push(k);
                        *cells.get_mut(&k).unwrap() -= 1;
                        issued += 1;
                        prop_assert!(in_flight.len() <= TOTAL);
                        prop_assert!(in_flight.iter().filter(|other| **other == k).count() <= PER_KEY);
                    }
                    prop_assert_eq!(group_cells, issued, "a cell of the group without a Sign");
                    prop_assert!(cells.values().all(|kept| (0..=1).contains(kept)), "{:?}", cells);
                }
            }
        }
        prop_assert_eq!(issued + removed, pushed, "somebody starves");
        prop_assert!(queues.lines.is_empty());
    }

    /// Keys of one group take turns: while two of them wait, neither is more than one Sign ahead of the other.
    #[test]
    fn keys_take_turns(lengths in prop::collection::vec(1usize..20, 1..8)) {
        let mut queues = queues(100, 100);
        let mut owners = HashMap::new();
        let mut left: Vec<usize> = lengths.clone();
        for (k, length) in lengths.iter().enumerate() {
            for n in 0..*length {
                let id = CallId((k * 1000 + n) as u64);
                queues.push(key(k as u8), &group(1), (n as u64, id));
                owners.insert(id, k);
            }
        }
        let mut counts = vec![0usize; lengths.len()];
        while let Next::Issue(id) = queues.next(Instant::now(), granted) {
            let k = owners[&id];
            counts[k] += 1;
            left[k] -= 1;
            queues.done(key(k as u8));
            let waiting: Vec<usize> = (0..lengths.len()).filter(|k| left[*k] > 0).map(|k| counts[k]).collect();
            let spread = waiting.iter().max().unwrap_or(&0) - waiting.iter().min().unwrap_or(&0);
            prop_assert!(spread <= 1, "{counts:?}");
        }
        prop_assert!(left.iter().all(|left| *left == 0));
    }
}
