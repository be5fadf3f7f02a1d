//! What to sign next, as a value: a line per key in order of nonce, in which messages take turns with transactions; keys take turns
//! within their quota group, groups take turns too. No clock, no I/O: time comes in, and what a ceiling says comes in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use alloy_primitives::Address;
use tokio::time::Instant;

use crate::signing::QuotaGroup;

/// A call for one signature, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CallId(pub(super) u64);

/// A place in a key's line: nonce first, then arrival.
pub(super) type Position = (u64, CallId);

/// In place of a nonce: the call is for a message. No transaction has this nonce (EIP-2681).
pub const MESSAGE: u64 = u64::MAX;

/// How many Signs may be in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) total: usize,
    pub(super) per_key: usize,
}

/// A ceiling that is asked for one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer<'a> {
    Key(&'a Address),
    Group(&'a QuotaGroup),
}

/// What a ceiling says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted,
    DeniedUntil(Instant),
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Issue this call now; it counts as in flight until [`Queues::done`].
    Issue(CallId),
    /// Nothing may go now. At this time at the latest, if any, ask again; otherwise when something arrives or ends.
    Wait(Option<Instant>),
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits for nothing: empty, or as many in flight as may be.
    Aside,
    /// In its group's turn.
    InTurn,
    /// Until the key's ceiling has a cell again.
    Parked,
}

#[derive(Debug)]
struct Line {
    group: QuotaGroup,
    waiting: BTreeSet<Position>,
    in_flight: usize,
    /// The key's ceiling has given a cell and the group's has not yet: kept, not wasted.
    has_cell: bool,
    /// A transaction went last.
    message_is_next: bool,
    place: Place,
}

impl Line {
    /// Messages and transactions take turns: neither a flood of the one nor of the other keeps the rest waiting.
    fn first(&self) -> Option<Position> {
        let first = self.waiting.first().copied()?;
        let message = self.waiting.range((MESSAGE, CallId(0))..).next().copied();
        Some(message.filter(|_| self.message_is_next).unwrap_or(first))
    }
}

#[derive(Debug, Default)]
struct Group {
    turn: VecDeque<Address>,
    denied_until: Option<Instant>,
}

/// Everything that waits.
#[derive(Debug)]
pub(super) struct Queues {
    bounds: Bounds,
    lines: HashMap<Address, Line>,
    groups: BTreeMap<QuotaGroup, Group>,
    group_turn: VecDeque<QuotaGroup>,
    parked: BTreeSet<(Instant, Address)>,
    in_flight: usize,
}

impl Queues {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, lines: HashMap::new(), groups: BTreeMap::new(), group_turn: VecDeque::new(), parked: BTreeSet::new(), in_flight: 0 }
    }

    /// Puts a call in its key's line. A line keeps the group that it began with until it is empty.
    pub(super) fn push(&mut self, address: Address, group: &QuotaGroup, position: Position) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.clone(), Group::default());
            self.group_turn.push_back(group.clone());
        }
        let line = self.lines.entry(address).or_insert_with(|| Line {
            group: group.clone(),
            waiting: BTreeSet::new(),
            in_flight: 0,
            has_cell: false,
            message_is_next: true,
            place: Place::Aside,
        });
        line.waiting.insert(position);
        self.enter_turn(address);
    }

    /// Takes a call that was not issued out of its line.
    pub(super) fn remove(&mut self, address: Address, position: Position) {
        if let Some(line) = self.lines.get_mut(&address) {
            line.waiting.remove(&position);
            self.tidy(address);
        }
    }

    /// A Sign of this key has ended.
    pub(super) fn done(&mut self, address: Address) {
        if let Some(line) = self.lines.get_mut(&address) {
            line.in_flight = line.in_flight.saturating_sub(1);
            self.in_flight = self.in_flight.saturating_sub(1);
            self.enter_turn(address);
            self.tidy(address);
        }
    }

    /// Chooses. `ask` is called for a key's cell first and then for its group's, and never for a layer that is known to deny.
    pub(super) fn next(&mut self, now: Instant, mut ask: impl FnMut(Layer<'_>) -> Verdict) -> Next {
        if self.in_flight >= self.bounds.total {
            return Next::Wait(None);
        }
        self.unpark(now);
        for _ in 0..self.group_turn.len() {
            let Some(name) = self.group_turn.pop_front() else { break };
            let issued = self.next_of(&name, now, &mut ask);
            self.group_turn.push_back(name);
            if let Some(call) = issued {
                return Next::Issue(call);
            }
        }
        let denied = self.groups.values().filter(|group| !group.turn.is_empty()).filter_map(|group| group.denied_until);
        let parked = self.parked.first().map(|(until, _)| *until);
        Next::Wait(denied.chain(parked).min())
    }

    fn next_of(&mut self, name: &QuotaGroup, now: Instant, ask: &mut impl FnMut(Layer<'_>) -> Verdict) -> Option<CallId> {
        let group = self.groups.get_mut(name)?;
        if group.denied_until.is_some_and(|until| until > now) {
            return None;
        }
        group.denied_until = None;
        while let Some(address) = group.turn.pop_front() {
            let Some(line) = self.lines.get_mut(&address) else { continue };
            line.place = Place::Aside;
            let Some(first) = line.first() else {
                if line.in_flight == 0 {
                    self.lines.remove(&address);
                }
                continue;
            };
            if !line.has_cell {
                match ask(Layer::Key(&address)) {
                    Verdict::Granted => line.has_cell = true,
                    Verdict::DeniedUntil(until) => {
                        line.place = Place::Parked;
                        self.parked.insert((until, address));
                        continue;
                    }
                }
            }
            if let Verdict::DeniedUntil(until) = ask(Layer::Group(name)) {
                line.place = Place::InTurn;
                group.turn.push_front(address);
                group.denied_until = Some(until);
                return None;
            }
            line.has_cell = false;
            line.waiting.remove(&first);
            line.message_is_next = first.0 != MESSAGE;
            line.in_flight += 1;
            self.in_flight += 1;
            self.enter_turn(address);
            return Some(first.1);
        }
        None
    }

    /// Lines whose ceiling may have a cell again take their turn.
    fn unpark(&mut self, now: Instant) {
        while let Some((until, address)) = self.parked.first().copied() {
            if until > now {
                return;
            }
            self.parked.pop_first();
            if let Some(line) = self.lines.get_mut(&address) {
                line.place = Place::Aside;
                self.enter_turn(address);
                self.tidy(address);
            }
        }
    }

    /// To the end of the turn, if the line is nowhere, has something to do and may.
    fn enter_turn(&mut self, address: Address) {
        let Some(line) = self.lines.get_mut(&address) else { return };
        if line.place != Place::Aside || line.waiting.is_empty() || line.in_flight >= self.bounds.per_key {
            return;
        }
        if let Some(group) = self.groups.get_mut(&line.group) {
            line.place = Place::InTurn;
            group.turn.push_back(address);
        }
    }

    /// An empty line keeps no cell; one that is nowhere and has nothing in flight goes.
    fn tidy(&mut self, address: Address) {
        let Some(line) = self.lines.get_mut(&address) else { return };
        if !line.waiting.is_empty() {
            return;
        }
        line.has_cell = false;
        if line.place == Place::Aside && line.in_flight == 0 {
            self.lines.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests;
