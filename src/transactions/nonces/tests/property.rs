//! The machine in any order of events.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

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
