use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A payload's hash tells its nonce and which payload of the slot it is.
fn hash(nonce: u64, version: u8) -> B256 {
    B256::left_padding_from(&[version, u8::try_from(nonce).unwrap()])
}

fn nonce_of(hash: B256) -> u64 {
    u64::from(hash[31])
}

fn refused() -> Outcome {
    Outcome::Refused { code: -32000, message: "intrinsic gas too low".into() }
}

fn unknown() -> Outcome {
    Outcome::Unknown("time-out".into())
}

fn steps(outboxes: &mut Outboxes, now: Instant) -> Vec<Step> {
    std::iter::from_fn(|| outboxes.poll(now)).collect()
}

fn to(endpoint: usize, nonces: &[u64]) -> Step {
    Step::To { endpoint, hashes: nonces.iter().map(|nonce| hash(*nonce, 0)).collect() }
}

fn pushed(mode: Broadcast, endpoints: usize, nonces: std::ops::Range<u64>) -> Outboxes {
    let mut outboxes = Outboxes::new(mode, endpoints);
    nonces.for_each(|nonce| outboxes.push(nonce, hash(nonce, 0), 100));
    outboxes
}

#[test]
fn pipelined_gives_everything_to_everybody_at_once() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Pipelined, 2, 0..3);
    assert_eq!(steps(&mut outboxes, now), (0..3).map(|nonce| Step::Everywhere(hash(nonce, 0))).collect::<Vec<_>>());
    outboxes.answered(0, hash(0, 0), &unknown(), now);
    outboxes.push(3, hash(3, 0), 100);
    assert_eq!(steps(&mut outboxes, now), [Step::Everywhere(hash(3, 0))]);
}

#[test]
fn batched_gives_what_waits_when_the_batch_before_is_answered() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Batched, 2, 0..3);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[0, 1, 2]), to(1, &[0, 1, 2])]);
    outboxes.push(4, hash(4, 0), 100);
    outboxes.push(3, hash(3, 0), 100);
    for nonce in [0, 1] {
        outboxes.answered(1, hash(nonce, 0), &Outcome::Accepted, now);
        assert_eq!(steps(&mut outboxes, now), []);
    }
    outboxes.answered(1, hash(2, 0), &refused(), now);
    assert_eq!(steps(&mut outboxes, now), [to(1, &[3, 4])], "in order, and without waiting for the other endpoint");
}

#[test]
fn a_batch_is_bounded_by_payloads_and_by_bytes() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Batched, 1, 0..BATCH as u64 + 1);
    let first: Vec<u64> = (0..BATCH as u64).collect();
    assert_eq!(steps(&mut outboxes, now), [to(0, &first)]);
    let mut outboxes = Outboxes::new(Broadcast::Batched, 1);
    for (nonce, bytes) in [(0, 2 * BATCH_BYTES), (1, BATCH_BYTES / 2), (2, BATCH_BYTES / 2), (3, 1)] {
        outboxes.push(nonce, hash(nonce, 0), bytes);
    }
    for batch in [vec![0], vec![1, 2], vec![3]] {
        assert_eq!(steps(&mut outboxes, now), [to(0, &batch)]);
        batch.iter().for_each(|nonce| outboxes.answered(0, hash(*nonce, 0), &Outcome::Accepted, now));
    }
}

#[test]
fn an_endpoint_that_can_make_nothing_of_a_batch_gets_smaller_ones_until_it_can() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Batched, 1, 0..64);
    let mut sizes = Vec::new();
    let mut next = 64;
    for outcome in [unknown(), unknown(), Outcome::Accepted, Outcome::Accepted] {
        let [Step::To { hashes, .. }] = &steps(&mut outboxes, now)[..] else { panic!("no batch") };
        sizes.push(hashes.len());
        for hash in hashes {
            outboxes.answered(0, *hash, &outcome, now);
        }
        (next..next + 32).for_each(|nonce| outboxes.push(nonce, hash(nonce, 0), 100));
        next += 32;
    }
    assert_eq!(sizes, [64, 32, 16, 32]);
}

#[test]
fn sequential_gives_the_next_one_only_when_the_one_before_is_taken() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Sequential, 1, 0..3);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[0])]);
    outboxes.answered(0, hash(0, 0), &Outcome::Accepted, now);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[1])]);
    outboxes.answered(0, hash(1, 0), &unknown(), now);
    assert_eq!(steps(&mut outboxes, now), [Step::Withheld { endpoint: 0, hash: hash(2, 0) }], "it waits, and so does what is above");
    assert_eq!(steps(&mut outboxes, now + FIRST), [to(0, &[1])]);
    outboxes.answered(0, hash(1, 0), &refused(), now + FIRST);
    assert!(!steps(&mut outboxes, now + 2 * FIRST).contains(&to(0, &[1])), "the pause is longer now");
    assert_eq!(steps(&mut outboxes, now + 3 * FIRST), [to(0, &[1])]);
    outboxes.answered(0, hash(1, 0), &Outcome::Known, now);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[2])]);
}

#[test]
fn what_the_chain_has_used_keeps_nothing_back() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Sequential, 1, 0..3);
    steps(&mut outboxes, now);
    outboxes.settled(0);
    outboxes.answered(0, hash(0, 0), &unknown(), now);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[1])], "mined while its answer was missing");
    outboxes.answered(0, hash(1, 0), &unknown(), now);
    steps(&mut outboxes, now);
    outboxes.settled(1);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[2])], "mined while it waited for another try");
    outboxes.answered(0, hash(2, 0), &Outcome::NonceTooLow, now);
    assert_eq!(steps(&mut outboxes, now + LONGEST), []);
}

#[test]
fn above_a_refused_slot_nothing_goes_before_its_new_payload() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Sequential, 1, 0..3);
    steps(&mut outboxes, now);
    outboxes.answered(0, hash(0, 0), &refused(), now);
    outboxes.refused(0);
    assert!(!steps(&mut outboxes, now + LONGEST).iter().any(|step| matches!(step, Step::To { .. })), "never the refused bytes again");
    outboxes.push(0, hash(0, 1), 100);
    assert_eq!(steps(&mut outboxes, now), [Step::To { endpoint: 0, hashes: vec![hash(0, 1)] }]);
    outboxes.answered(0, hash(0, 1), &Outcome::Accepted, now);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[1])]);
}

#[test]
fn another_payload_of_a_slot_takes_the_place_of_the_one_that_waits() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Sequential, 1, 0..2);
    steps(&mut outboxes, now);
    outboxes.push(1, hash(1, 1), 100);
    outboxes.push(0, hash(0, 1), 100);
    assert_eq!(steps(&mut outboxes, now), [Step::Withheld { endpoint: 0, hash: hash(1, 0) }]);
    outboxes.answered(0, hash(0, 0), &refused(), now);
    let first = Step::To { endpoint: 0, hashes: vec![hash(0, 1)] };
    assert_eq!(steps(&mut outboxes, now), [first], "and an older payload is not tried again");
}

#[test]
fn a_payload_that_is_withdrawn_is_not_tried_again_and_what_is_above_waits_for_the_other_one() {
    let now = Instant::now();
    let mut outboxes = pushed(Broadcast::Sequential, 1, 0..2);
    steps(&mut outboxes, now);
    outboxes.answered(0, hash(0, 0), &refused(), now);
    outboxes.withdraw(0, hash(0, 0));
    assert!(!steps(&mut outboxes, now + LONGEST).iter().any(|step| matches!(step, Step::To { .. })));
    outboxes.push(0, hash(0, 1), 100);
    outboxes.withdraw(0, hash(0, 0));
    assert_eq!(steps(&mut outboxes, now), [Step::To { endpoint: 0, hashes: vec![hash(0, 1)] }], "the other one is left alone");
    outboxes.answered(0, hash(0, 1), &Outcome::Known, now);
    assert_eq!(steps(&mut outboxes, now), [to(0, &[1])]);
    let mut outboxes = pushed(Broadcast::Batched, 1, 0..2);
    outboxes.withdraw(0, hash(0, 0));
    assert_eq!(steps(&mut outboxes, now), [to(0, &[1])]);
}

#[derive(Debug, Clone)]
enum Event {
    Push,
    Again(u64),
    Answer(usize, u8),
    Settle,
    Refuse(u64),
    Replace(u64),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Push),
        1 => (0..40_u64).prop_map(Event::Again),
        12 => (0..3_usize, 0..6_u8).prop_map(|(endpoint, outcome)| Event::Answer(endpoint, outcome)),
        2 => Just(Event::Settle),
        1 => (0..40_u64).prop_map(Event::Refuse),
        1 => (0..40_u64).prop_map(Event::Replace),
        3 => (0..5_000_u64).prop_map(Event::Wait),
    ]
}

fn outcome(word: u8) -> Outcome {
    match word {
        0 | 1 => Outcome::Accepted,
        2 => unknown(),
        3 => refused(),
        4 => Outcome::NotSent,
        _ => Outcome::PoolFull,
    }
}

/// What the machine was told and what it did.
struct Model {
    outboxes: Outboxes,
    mode: Broadcast,
    now: Instant,
    /// The payload of each slot that is not settled; `None` where it was refused.
    slots: BTreeMap<u64, Option<B256>>,
    /// Nonces that an endpoint has something for.
    taken: Vec<BTreeSet<u64>>,
    under_way: Vec<Vec<B256>>,
    given: Vec<BTreeSet<B256>>,
    dead: BTreeSet<B256>,
}

const ENDPOINTS: usize = 3;

impl Model {
    fn new(mode: Broadcast) -> Self {
        Self {
            outboxes: Outboxes::new(mode, ENDPOINTS),
            mode,
            now: Instant::now(),
            slots: BTreeMap::new(),
            taken: vec![BTreeSet::new(); ENDPOINTS],
            under_way: vec![Vec::new(); ENDPOINTS],
            given: vec![BTreeSet::new(); ENDPOINTS],
            dead: BTreeSet::new(),
        }
    }

    fn push(&mut self, nonce: u64, payload: B256) {
        self.slots.insert(nonce, Some(payload));
        self.outboxes.push(nonce, payload, 100);
    }

    fn work(&mut self) {
        while let Some(step) = self.outboxes.poll(self.now) {
            match step {
                Step::Everywhere(hash) => (0..ENDPOINTS).for_each(|endpoint| self.give(endpoint, &[hash])),
                Step::To { endpoint, hashes } => {
                    assert!(self.under_way[endpoint].is_empty(), "one request unanswered at a time");
                    assert!(self.mode == Broadcast::Batched || hashes.len() == 1);
                    self.give(endpoint, &hashes);
                }
                Step::Withheld { .. } => {}
            }
        }
    }

    fn give(&mut self, endpoint: usize, hashes: &[B256]) {
        assert!(hashes.is_sorted_by_key(|hash| nonce_of(*hash)), "in order of nonces");
        for hash in hashes {
            assert!(!self.dead.contains(hash), "refused bytes are never sent again");
            let below = self.slots.range(..nonce_of(*hash)).map(|(nonce, _)| *nonce);
            if self.mode == Broadcast::Sequential {
                assert!(below.clone().all(|nonce| self.taken[endpoint].contains(&nonce)), "no gap at this endpoint");
            }
            self.given[endpoint].insert(*hash);
            self.under_way[endpoint].push(*hash);
        }
    }

    fn answer(&mut self, endpoint: usize, at: usize, outcome: &Outcome) {
        let hash = self.under_way[endpoint].remove(at);
        if outcome.is_taken() {
            self.taken[endpoint].insert(nonce_of(hash));
        }
        self.outboxes.answered(endpoint, hash, outcome, self.now);
    }

    fn apply(&mut self, event: &Event, next: &mut u64, version: &mut u8) {
        match *event {
            Event::Push if *next < 40 => {
                self.push(*next, hash(*next, 0));
                *next += 1;
            }
            Event::Again(nonce) => {
                if let Some(payload) = self.slots.get(&nonce).copied().flatten() {
                    self.push(nonce, payload);
                }
            }
            Event::Answer(endpoint, word) if !self.under_way[endpoint].is_empty() => self.answer(endpoint, 0, &outcome(word)),
            Event::Settle => {
                if let Some((nonce, _)) = self.slots.pop_first() {
                    self.outboxes.settled(nonce);
                }
            }
            Event::Refuse(nonce) => {
                // All refused it: nothing of it is under way, and no pool has it.
                let in_pool = self.taken.iter().any(|taken| taken.contains(&nonce));
                let on_its_way = self.under_way.iter().flatten().any(|hash| nonce_of(*hash) == nonce);
                if let Some(slot) = self.slots.get_mut(&nonce)
                    && !in_pool
                    && !on_its_way
                {
                    self.dead.extend(slot.take());
                    self.outboxes.refused(nonce);
                }
            }
            Event::Replace(nonce) if self.slots.contains_key(&nonce) => {
                *version += 1;
                self.push(nonce, hash(nonce, *version));
            }
            Event::Wait(millis) => self.now += Duration::from_millis(millis),
            Event::Push | Event::Answer(..) | Event::Replace(_) => {}
        }
        self.work();
    }
}

proptest! {
    #[test]
    fn order_is_kept_nothing_is_lost_and_a_silent_endpoint_delays_nobody(
        mode in prop_oneof![Just(Broadcast::Pipelined), Just(Broadcast::Batched), Just(Broadcast::Sequential)],
        events in prop::collection::vec(event(), 1..160),
        silent in 0..ENDPOINTS,
    ) {
        let mut model = Model::new(mode);
        let (mut next, mut version) = (0, 0);
        for event in &events {
            model.apply(event, &mut next, &mut version);
        }
        // What was refused gets another payload; then all but one endpoint take whatever comes.
        let holes: Vec<u64> = model.slots.iter().filter(|(_, payload)| payload.is_none()).map(|(nonce, _)| *nonce).collect();
        for nonce in holes {
            version += 1;
            model.push(nonce, hash(nonce, version));
        }
        for _ in 0..400 {
            model.now += LONGEST;
            model.work();
            for endpoint in (0..ENDPOINTS).filter(|endpoint| *endpoint != silent) {
                while !model.under_way[endpoint].is_empty() {
                    model.answer(endpoint, 0, &Outcome::Accepted);
                }
            }
        }
        for endpoint in (0..ENDPOINTS).filter(|endpoint| *endpoint != silent) {
            for payload in model.slots.values().flatten() {
                prop_assert!(model.given[endpoint].contains(payload), "{payload} never went to {endpoint}");
            }
        }
    }
}
