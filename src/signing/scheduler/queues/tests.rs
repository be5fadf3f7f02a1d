use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn group(n: u8) -> QuotaGroup {
    QuotaGroup(format!("{n}").into())
}

/// Queues whose groups 0 to 2 have this window.
fn queues(window: usize) -> Queues {
    let mut queues = Queues::default();
    (0..3).for_each(|n| queues.open(&group(n), window));
    queues
}

/// A key in these groups, with this window of its own.
fn seat(groups: &[u8], window: usize) -> Seat {
    Seat { groups: groups.iter().map(|n| group(*n)).collect(), window }
}

fn issue(id: u64, n: u8) -> Next {
    Next::Issue(CallId(id), group(n))
}

fn granted(_: Layer<'_>) -> Verdict {
    Verdict::Granted
}

fn in_time(_: CallId, _: &QuotaGroup) -> bool {
    true
}

/// Issues until nothing may go any more; every call ends at once.
fn drain(queues: &mut Queues, owner: impl Fn(CallId) -> Address) -> Vec<u64> {
    let mut issued = Vec::new();
    while let Next::Issue(id, group) = queues.next(Instant::now(), in_time, granted) {
        issued.push(id.0);
        queues.done(owner(id), &group);
    }
    issued
}

#[test]
fn messages_take_turns_with_transactions() {
    let mut queues = queues(9);
    for (order, id) in [(MESSAGE, 0), (MESSAGE, 1), (MESSAGE, 2), (7, 3), (6, 4), (MESSAGE, 5)] {
        queues.push(key(1), &seat(&[1], 9), (order, CallId(id)));
    }
    assert_eq!(drain(&mut queues, |_| key(1)), [0, 4, 1, 3, 2, 5]);
    for (order, id) in [(7, 6), (MESSAGE, 7), (8, 8), (9, 9)] {
        queues.push(key(1), &seat(&[1], 9), (order, CallId(id)));
    }
    assert_eq!(drain(&mut queues, |_| key(1)), [7, 6, 8, 9]);
}

#[test]
fn a_line_goes_by_nonce_then_by_arrival() {
    let mut queues = queues(9);
    for (order, id) in [(7, 0), (5, 1), (7, 2), (6, 3), (5, 4)] {
        queues.push(key(1), &seat(&[1], 9), (order, CallId(id)));
    }
    assert_eq!(drain(&mut queues, |_| key(1)), [1, 4, 3, 0, 2]);
    assert!(queues.lines.is_empty());
}

#[test]
fn what_has_no_time_left_costs_no_cell() {
    let mut queues = queues(9);
    for (order, id) in [(1, 0), (2, 1), (3, 2)] {
        queues.push(key(1), &seat(&[1], 9), (order, CallId(id)));
    }
    let now = Instant::now();
    let in_time = |id: CallId, _: &QuotaGroup| id.0 > 1;
    for id in [0, 1] {
        assert_eq!(queues.next(now, in_time, |_| panic!("asked")), Next::Over(CallId(id)));
        queues.remove(key(1), (id + 1, CallId(id)));
    }
    assert_eq!(queues.next(now, in_time, granted), issue(2, 1));
}

#[test]
fn both_bounds_hold_and_the_end_of_a_sign_makes_room() {
    let mut queues = queues(3);
    for id in 0..6 {
        queues.push(key(1), &seat(&[1], 2), (id, CallId(id)));
        queues.push(key(2), &seat(&[1], 2), (id, CallId(10 + id)));
    }
    let now = Instant::now();
    let first: Vec<_> = (0..3).map(|_| queues.next(now, in_time, granted)).collect();
    assert_eq!(first, [issue(0, 1), issue(10, 1), issue(1, 1)]);
    assert_eq!(queues.next(now, in_time, granted), Next::Wait(None));
    queues.done(key(2), &group(1));
    // Key 1 has two in flight: its bound. Key 2 goes, although it went last.
    assert_eq!(queues.next(now, in_time, granted), issue(11, 1));
    // Back from its bound, key 1 waits behind key 2, which was in turn already.
    queues.done(key(1), &group(1));
    assert_eq!(queues.next(now, in_time, granted), issue(12, 1));
    queues.done(key(1), &group(1));
    assert_eq!(queues.next(now, in_time, granted), issue(2, 1));
}

#[test]
fn a_cell_of_the_key_is_kept_while_the_group_denies() {
    let mut queues = queues(9);
    queues.push(key(1), &seat(&[1], 9), (0, CallId(0)));
    queues.push(key(2), &seat(&[1], 9), (0, CallId(1)));
    let now = Instant::now();
    let later = now + Duration::from_millis(10);
    let mut asked = Vec::new();
    let next = queues.next(now, in_time, |layer| {
        asked.push(format!("{layer:?}"));
        match layer {
            Layer::Key(_) => Verdict::Granted,
            Layer::Group(_) => Verdict::DeniedUntil(later),
        }
    });
    assert_eq!((next, asked.len()), (Next::Wait(Some(later)), 2));
    // Known to deny: nobody is asked.
    assert_eq!(queues.next(now, in_time, |_| panic!("asked")), Next::Wait(Some(later)));
    // Then the key is not asked again, and it still has its turn.
    let next = queues.next(later, in_time, |layer| match layer {
        Layer::Key(_) => panic!("asked for a second cell"),
        Layer::Group(_) => Verdict::Granted,
    });
    assert_eq!(next, issue(0, 1));
}

#[test]
fn a_key_at_its_ceiling_delays_nobody_and_costs_no_cell_of_the_group() {
    let mut queues = queues(9);
    queues.push(key(1), &seat(&[1], 9), (0, CallId(0)));
    queues.push(key(2), &seat(&[1], 9), (0, CallId(1)));
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
    assert_eq!(queues.next(now, in_time, &mut ask), issue(1, 1));
    assert_eq!(queues.next(now, in_time, &mut ask), Next::Wait(Some(later)));
    assert_eq!(cells, 1);
    assert_eq!(queues.next(later, in_time, granted), issue(0, 1));
}

#[test]
fn a_group_that_denies_delays_no_other_group() {
    let mut queues = queues(9);
    queues.push(key(1), &seat(&[1], 9), (0, CallId(0)));
    queues.push(key(2), &seat(&[2], 9), (0, CallId(1)));
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let next = queues.next(now, in_time, |layer| match layer {
        Layer::Group(name) if *name == group(1) => Verdict::DeniedUntil(later),
        _ => Verdict::Granted,
    });
    assert_eq!(next, issue(1, 2));
}

#[test]
fn what_is_removed_is_not_issued_and_leaves_nothing_behind() {
    let mut queues = queues(9);
    queues.push(key(1), &seat(&[1], 9), (0, CallId(0)));
    queues.remove(key(1), (0, CallId(0)));
    assert_eq!(queues.next(Instant::now(), in_time, granted), Next::Wait(None));
    assert!(queues.lines.is_empty());
    // Back while its old place in the turn was still there: one place, not two.
    queues.push(key(1), &seat(&[1], 9), (0, CallId(1)));
    queues.remove(key(1), (0, CallId(1)));
    queues.push(key(1), &seat(&[1], 9), (0, CallId(2)));
    assert_eq!(queues.groups[&group(1)].turn.len(), 1);
    assert_eq!(drain(&mut queues, |_| key(1)), [2]);
}

#[test]
fn a_full_window_of_a_group_delays_no_other_group() {
    let mut queues = queues(9);
    queues.open(&group(1), 1);
    for id in 0..3 {
        queues.push(key(1), &seat(&[1], 9), (id, CallId(id)));
        queues.push(key(2), &seat(&[2], 9), (id, CallId(10 + id)));
    }
    let now = Instant::now();
    let issued: Vec<_> = (0..5).map(|_| queues.next(now, in_time, granted)).collect();
    assert_eq!(issued, [issue(0, 1), issue(10, 2), issue(11, 2), issue(12, 2), Next::Wait(None)]);
    queues.done(key(1), &group(1));
    assert_eq!(queues.next(now, in_time, granted), issue(1, 1));
}

#[test]
fn a_replica_is_used_when_the_first_group_has_no_room_and_after_its_own_keys() {
    let mut queues = queues(9);
    queues.open(&group(1), 2);
    for id in 0..6 {
        queues.push(key(1), &seat(&[1, 2], 9), (id, CallId(id)));
    }
    queues.push(key(2), &seat(&[2], 9), (0, CallId(10)));
    let now = Instant::now();
    let later = now + Duration::from_millis(10);
    let issued: Vec<_> = (0..4).map(|_| queues.next(now, in_time, granted)).collect();
    assert_eq!(issued, [issue(0, 1), issue(10, 2), issue(1, 1), issue(2, 2)]);
    // The window is not full any more, but the rate is used up.
    queues.done(key(1), &group(1));
    let no_first = |layer: Layer<'_>| match layer {
        Layer::Group(name) if *name == group(1) => Verdict::DeniedUntil(later),
        _ => Verdict::Granted,
    };
    assert_eq!(queues.next(now, in_time, no_first), issue(3, 2));
    // Neither has room: whichever has it first.
    let soon = now + Duration::from_millis(5);
    let neither = |layer: Layer<'_>| match layer {
        Layer::Key(_) => Verdict::Granted,
        Layer::Group(name) => Verdict::DeniedUntil(if *name == group(1) { later } else { soon }),
    };
    assert_eq!(queues.next(now, in_time, neither), Next::Wait(Some(soon)));
    assert_eq!(queues.next(later, in_time, granted), issue(4, 1));
}

#[test]
fn a_line_goes_where_its_key_can_sign_now() {
    let mut queues = queues(9);
    for id in 0..4 {
        queues.push(key(1), &seat(&[1, 2], 9), (id, CallId(id)));
    }
    let now = Instant::now();
    assert_eq!(queues.next(now, in_time, granted), issue(0, 1));
    queues.reseat(key(1), &seat(&[2], 9));
    assert_eq!(queues.next(now, in_time, granted), issue(1, 2));
    queues.reseat(key(1), &seat(&[], 9));
    assert_eq!(queues.next(now, in_time, granted), Next::Wait(None));
    queues.reseat(key(1), &seat(&[2, 1], 9));
    assert_eq!([queues.next(now, in_time, granted), queues.next(now, in_time, granted)], [issue(2, 2), issue(3, 2)]);
}

#[test]
fn a_second_sign_counts_in_both_windows() {
    let mut queues = queues(2);
    queues.push(key(1), &seat(&[1, 2], 3), (0, CallId(0)));
    assert_eq!(queues.next(Instant::now(), in_time, granted), issue(0, 1));
    assert!(queues.hedge(key(1), &group(2)) && queues.hedge(key(1), &group(2)));
    assert!(!queues.hedge(key(1), &group(1)), "the key's window is full");
    queues.done(key(1), &group(1));
    assert!(!queues.hedge(key(1), &group(2)), "the group's window is full");
    assert!(queues.hedge(key(1), &group(1)) && !queues.hedge(key(2), &group(1)));
    assert_eq!(queues.windows().map(|(_, in_flight, _)| in_flight).collect::<Vec<_>>(), [0, 1, 2]);
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        key: u8,
        order: u64,
    },
    Remove(usize),
    /// What each ceiling says that is asked.
    Next(Vec<bool>),
    Done(usize),
    /// The key can sign in its first group, in both, in the second alone, or not.
    Reseat {
        key: u8,
        to: usize,
    },
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..5, prop_oneof![0u64..6, Just(MESSAGE)]).prop_map(|(key, order)| Step::Push { key, order }),
        1 => any::<usize>().prop_map(Step::Remove),
        5 => prop::collection::vec(any::<bool>(), 0..6).prop_map(Step::Next),
        3 => any::<usize>().prop_map(Step::Done),
        1 => (0u8..5, 0usize..4).prop_map(|(key, to)| Step::Reseat { key, to }),
        1 => Just(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: the lowest position of a line goes first unless it is the turn of its messages, windows hold, a group's cell is a
    /// Sign, at most one cell of a key is kept, a key goes only where it can sign, and in the end everything that was not removed has been
    /// issued once.
    #[test]
    fn order_windows_and_cells(steps in prop::collection::vec(step(), 1..120)) {
        const WINDOW: usize = 4;
        const PER_KEY: usize = 2;
        let seats = |k: u8, to: usize| {
            let (first, second) = (k % 2, 1 - k % 2);
            seat([&[first][..], &[first, second], &[second], &[]][to], PER_KEY)
        };
        let mut queues = queues(WINDOW);
        let mut now = Instant::now();
        let mut at: Vec<Seat> = (0..5).map(|k| seats(k, 0)).collect();
        let mut waiting = BTreeMap::<u8, BTreeSet<Position>>::new();
        let mut message_went = BTreeMap::<u8, bool>::new();
        let mut in_flight: Vec<(u8, QuotaGroup)> = Vec::new();
        let mut cells = BTreeMap::<u8, i64>::new();
        let (mut pushed, mut group_cells, mut issued, mut removed) = (0u64, 0u64, 0u64, 0u64);

        let open = (0..5).map(|key| Step::Reseat { key, to: 1 });
        let close = std::iter::repeat_n([Step::Next(vec![true; 2]), Step::Done(0), Step::Pass], 400).flatten();
        for step in steps.into_iter().chain(open).chain(close) {
            match step {
                Step::Push { key: k, order } => {
                    let position = (order, CallId(pushed));
                    queues.push(key(k), &at[usize::from(k)], position);
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
                        let (k, group) = in_flight.swap_remove(index % in_flight.len());
                        queues.done(key(k), &group);
                    }
                }
                Step::Reseat { key: k, to } => {
                    at[usize::from(k)] = seats(k, to);
                    queues.reseat(key(k), &at[usize::from(k)]);
                }
                Step::Pass => now += Duration::from_millis(10),
                Step::Next(verdicts) => {
                    let mut verdicts = verdicts.into_iter();
                    let next = queues.next(now, in_time, |layer| {
                        let grant = verdicts.next().unwrap_or(true);
                        match layer {
                            Layer::Key(address) => {
                                if grant {
                                    *cells.entry(address.0[0]).or_default() += 1;
                                }
                            }
                            Layer::Group(_) => group_cells += u64::from(grant),
                        }
                        if grant { Verdict::Granted } else { Verdict::DeniedUntil(now + Duration::from_millis(10)) }
                    });
                    if let Next::Issue(id, group) = next {
                        let found = waiting.iter().find_map(|(k, line)| Some((*k, *line.iter().find(|position| position.1 == id)?)));
                        prop_assert!(found.is_some(), "{id:?} was not waiting");
                        let (k, position) = found.unwrap();
                        let line = waiting.get_mut(&k).unwrap();
                        if position.0 == MESSAGE {
                            let has_transaction = line.first().unwrap().0 != MESSAGE;
                            prop_assert!(!(has_transaction && message_went.get(&k).copied().unwrap_or(false)), "two messages in a row");
                            prop_assert_eq!(line.range((MESSAGE, CallId(0))..).next(), Some(&position), "the first message");
                        } else {
                            prop_assert_eq!(line.first(), Some(&position), "the lowest nonce, then the first that came");
                        }
                        line.remove(&position);
                        message_went.insert(k, position.0 == MESSAGE);
                        prop_assert!(at[usize::from(k)].groups.contains(&group), "it cannot sign there");
                        in_flight.push((k, group.clone()));
                        *cells.get_mut(&k).unwrap() -= 1;
                        issued += 1;
                        prop_assert!(in_flight.iter().filter(|(_, other)| *other == group).count() <= WINDOW);
                        prop_assert!(in_flight.iter().filter(|(other, _)| *other == k).count() <= PER_KEY);
                    }
                    prop_assert_eq!(group_cells, issued, "a cell of the group without a Sign");
                    prop_assert!(cells.values().all(|kept| (0..=1).contains(kept)), "{:?}", cells);
                }
            }
            // A line that is done is forgotten, with whose turn it was.
            let is_done = |k: &u8| waiting.get(k).is_none_or(BTreeSet::is_empty) && !in_flight.iter().any(|(other, _)| other == k);
            message_went.retain(|k, _| !is_done(k));
        }
        prop_assert_eq!(issued + removed, pushed, "somebody starves");
        prop_assert!(queues.lines.is_empty());
        prop_assert!(queues.groups.values().all(|group| group.in_flight == 0 && group.turn.is_empty() && group.spare.is_empty()));
    }

    /// Keys of one group take turns: while two of them wait, neither is more than one Sign ahead of the other.
    #[test]
    fn keys_take_turns(lengths in prop::collection::vec(1usize..20, 1..8)) {
        let mut queues = queues(100);
        let mut owners = HashMap::new();
        let mut left: Vec<usize> = lengths.clone();
        for (k, length) in lengths.iter().enumerate() {
            for n in 0..*length {
                let id = CallId((k * 1000 + n) as u64);
                queues.push(key(k as u8), &seat(&[1], 100), (n as u64, id));
                owners.insert(id, k);
            }
        }
        let mut counts = vec![0usize; lengths.len()];
        while let Next::Issue(id, group) = queues.next(Instant::now(), in_time, granted) {
            let k = owners[&id];
            counts[k] += 1;
            left[k] -= 1;
            queues.done(key(k as u8), &group);
            let waiting: Vec<usize> = (0..lengths.len()).filter(|k| left[*k] > 0).map(|k| counts[k]).collect();
            let spread = waiting.iter().max().unwrap_or(&0) - waiting.iter().min().unwrap_or(&0);
            prop_assert!(spread <= 1, "{counts:?}");
        }
        prop_assert!(left.iter().all(|left| *left == 0));
    }

    /// A replacement, a cancel or a filler has a nonce below every new one: it goes next, or behind one message, however many wait.
    #[test]
    fn what_replaces_goes_before_everything_new(new in 1u64..200, messages in 0u64..200, gone in 0usize..100) {
        let mut queues = queues(1);
        for n in 0..new {
            queues.push(key(1), &seat(&[1], 1), (100 + n, CallId(n)));
        }
        for n in 0..messages {
            queues.push(key(1), &seat(&[1], 1), (MESSAGE, CallId(1000 + n)));
        }
        for _ in 0..gone {
            if let Next::Issue(_, group) = queues.next(Instant::now(), in_time, granted) {
                queues.done(key(1), &group);
            }
        }
        let replacement = CallId(5000);
        queues.push(key(1), &seat(&[1], 1), (7, replacement));
        let issued = drain(&mut queues, |_| key(1));
        let at = issued.iter().position(|id| *id == replacement.0).unwrap();
        prop_assert!(at <= 1, "{issued:?}");
        prop_assert!(issued[..at].iter().all(|id| (1000..5000).contains(id)), "{issued:?}");
    }
}
