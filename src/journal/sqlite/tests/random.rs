//! Any sequence of batches keeps the journal's promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Attempt { account: u8, nonce: u64, hash: u8, replaces: Option<u8> },
    State { hash: u8, state: usize },
    Floor { account: u8, nonce: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let attempt = (1..3_u8, 0..4_u64, 0..24_u8, proptest::option::of(0..24_u8))
        .prop_map(|(account, nonce, hash, replaces)| Step::Attempt { account, nonce, hash, replaces });
    // Never back to `Committed`: the model tells by it when a slot was taken.
    let state = (0..24_u8, 2..9_usize).prop_map(|(hash, state)| Step::State { hash, state });
    let floor = (1..3_u8, 0..6_u64).prop_map(|(account, nonce)| Step::Floor { account, nonce });
    prop_oneof![6 => attempt, 6 => state, 1 => floor]
}

/// What the journal has to say, kept the simple way.
#[derive(Debug, Clone, Default)]
struct Model {
    floors: BTreeMap<u8, u64>,
    slots: BTreeMap<(u8, u64), u8>,
    attempts: HashMap<u8, (u8, u64, AttemptState)>,
    events: Vec<EventRow>,
    /// Slots that went to something that is not on record.
    used: BTreeSet<(u8, u64)>,
}

impl Model {
    fn event(&mut self, account: u8, hash: u8, state: AttemptState) {
        let sequence = self.events.iter().filter(|event| event.0 == account).count() + 1;
        self.events.push(event(account, i64::try_from(sequence).unwrap(), hash, state.as_str()));
        self.attempts.get_mut(&hash).unwrap().2 = state;
    }

    /// Whether the nonce is used up, and none of its own attempts can be mined any more.
    fn done(&self, account: u8, nonce: u64) -> bool {
        let own = || self.attempts.values().filter(|(of, at, _)| (*of, *at) == (account, nonce)).map(|(_, _, state)| *state);
        let is_used = self.used.contains(&(account, nonce)) || own().any(AttemptState::is_final);
        is_used && own().all(|state| state.is_final() || state == AttemptState::Refused)
    }

    /// `false`: the batch must be refused.
    fn apply(&mut self, step: &Step) -> bool {
        match *step {
            Step::Floor { account, nonce } => {
                let floor = self.floors.entry(account).or_default();
                *floor = nonce.max(*floor);
            }
            Step::Attempt { account, nonce, hash, replaces } => {
                if self.attempts.get(&hash).is_some_and(|known| *known != (account, nonce, AttemptState::Refused)) {
                    return false;
                }
                let payload = self.slots.get(&(account, nonce));
                if payload.is_some_and(|payload| replaces != Some(*payload)) || self.done(account, nonce) {
                    return false;
                }
                self.floors.entry(account).or_default();
                self.slots.insert((account, nonce), hash);
                self.attempts.insert(hash, (account, nonce, AttemptState::Committed));
                self.event(account, hash, AttemptState::Committed);
            }
            Step::State { hash, state } => {
                let state = AttemptState::ALL[state];
                let Some(&(account, nonce, known)) = self.attempts.get(&hash) else { return false };
                if known.is_final() || known == state {
                    return true;
                }
                if known == AttemptState::Refused {
                    if self.done(account, nonce) {
                        return true;
                    }
                    if state == AttemptState::Replaced {
                        let mut others = self.attempts.values().filter(|(of, at, _)| (*of, *at) == (account, nonce));
                        if others.all(|(_, _, state)| state.is_final() || *state == AttemptState::Refused) {
                            self.used.insert((account, nonce));
                        }
                        return true;
                    }
                }
                self.event(account, hash, state);
                if state == AttemptState::Confirmed {
                    // In order of commit: that of the rivals' last taking.
                    let mut rivals: Vec<u8> = self
                        .attempts
                        .iter()
                        .filter(|(other, (of, at, state))| {
                            **other != hash && (*of, *at) == (account, nonce) && !state.is_final() && *state != AttemptState::Refused
                        })
                        .map(|(other, _)| *other)
                        .collect();
                    rivals.sort_by_key(|rival| self.events.iter().rposition(|event| event.2 == *rival && event.3 == "committed"));
                    for rival in rivals {
                        self.event(account, rival, AttemptState::Replaced);
                    }
                }
            }
        }
        true
    }
}

fn record(step: &Step, owner: &HashMap<u8, (u8, u64, AttemptState)>) -> Record {
    match *step {
        Step::Floor { account: byte, nonce } => Record::Floor { account: account(byte), nonce },
        Step::Attempt { account: byte, nonce, hash, replaces } => Record::Attempt {
            attempt: Box::new(attempt(account(byte), nonce, hash)),
            state: AttemptState::Committed,
            replaces: replaces.map(B256::repeat_byte),
            takes_over: Vec::new(),
        },
        Step::State { hash, state } => Record::State {
            account: account(owner.get(&hash).map_or(1, |known| known.0)),
            hash: B256::repeat_byte(hash),
            state: AttemptState::ALL[state],
            // The same block for every inclusion of an attempt: the model leaves changes of it out.
            block: Some(block(1, hash)),
            detail: None,
            receipt: None,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_batches_keeps_the_promises(
        batches in proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            let mut model = Model::default();
            let mut last = 0;
            for batch in &batches {
                let mut next = model.clone();
                let mut owner = model.attempts.clone();
                let mut accepted = true;
                let mut records = Vec::new();
                for step in batch {
                    records.push(record(step, &owner));
                    accepted = accepted && next.apply(step);
                    owner.clone_from(&next.attempts);
                }
                match fixture.journal.commit(records).await {
                    Ok(positions) => {
                        prop_assert!(accepted, "{batch:?} was taken");
                        for position in positions {
                            prop_assert!(position > last);
                            last = position;
                        }
                        model = next;
                    }
                    Err(error) => prop_assert!(!accepted, "{batch:?}: {error}"),
                }
            }
            check(&fixture, &model).await
        })?;
    }
}

async fn check(fixture: &Fixture, model: &Model) -> Result<(), TestCaseError> {
    // Events are dense by account and none of a refused batch is among them.
    let told = events(&fixture.path);
    prop_assert_eq!(&told, &model.events);
    for (byte, floor) in &model.floors {
        let slots = model.slots.keys().filter(|slot| slot.0 == *byte).map(|slot| slot.1 + 1).max().unwrap_or(0);
        prop_assert_eq!(fixture.next_nonce(account(*byte)).await, slots.max(*floor));
        let listed = fixture.journal.unfinished(account(*byte)).await.unwrap();
        prop_assert!(listed.is_sorted_by_key(|stored| stored.attempt.nonce));
        let open = model.attempts.values().filter(|(of, at, _)| of == byte && !model.done(*of, *at)).count();
        prop_assert_eq!(listed.len(), open);
    }
    for (hash, (byte, nonce, state)) in &model.attempts {
        let stored = fixture.stored(&attempt(account(*byte), *nonce, *hash)).await;
        prop_assert_eq!(stored.state, *state);
        prop_assert_eq!(stored.current, model.slots.get(&(*byte, *nonce)) == Some(hash));
        let has_block = matches!(state, AttemptState::Included | AttemptState::Confirmed);
        prop_assert_eq!(stored.block, has_block.then(|| block(1, *hash)));
    }
    Ok(())
}
