//! What to sign next, as a value: a line per key in order of nonce, in which messages take turns with transactions; keys take turns
//! within their quota group, groups take turns too. A key that has replicas waits in its first group, and goes by another one that has
//! room when the first has none. No clock, no I/O: time comes in, and what a ceiling says comes in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

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

/// Where the Signs of a key may go.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// The quota groups of the holders that can sign, the preferred one first.
    pub(super) groups: Arc<[QuotaGroup]>,
    /// Signs of the key in flight, at most.
    pub(super) window: usize,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Issue this call now, by a holder of this group; it counts as in flight there until [`Queues::done`].
    Issue(CallId, QuotaGroup),
    /// This call is the next one and has no time left for a Sign: take it out, and ask again.
    Over(CallId),
    /// Nothing may go now. At this time at the latest, if any, ask again; otherwise when something arrives or ends.
    Wait(Option<Instant>),
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits for nothing: empty, or as many in flight as may be.
    Aside,
    /// In its groups' turns, at this number.
    InTurn(u64),
    /// Until the key's ceiling has a cell again.
    Parked,
}

#[derive(Debug)]
struct Line {
    seat: Seat,
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

#[derive(Debug)]
struct Group {
    window: usize,
    in_flight: usize,
    /// Lines whose first group this is.
    turn: BTreeMap<u64, Address>,
    /// Lines that may go by this group when their first one has no room.
    spare: BTreeMap<u64, Address>,
    denied_until: Option<Instant>,
}

impl Group {
    fn is_full(&self) -> bool {
        self.in_flight >= self.window
    }

    fn lines(&mut self, of_others: bool) -> &mut BTreeMap<u64, Address> {
        if of_others { &mut self.spare } else { &mut self.turn }
    }
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Queues {
    lines: HashMap<Address, Line>,
    groups: BTreeMap<QuotaGroup, Group>,
    group_turn: VecDeque<QuotaGroup>,
    parked: BTreeSet<(Instant, Address)>,
    next_turn: u64,
}

impl Queues {
    /// Makes sure that there is the group. `window`: its Signs in flight at most; of several, the least holds.
    pub(super) fn open(&mut self, group: &QuotaGroup, window: usize) {
        if let Some(known) = self.groups.get_mut(group) {
            known.window = known.window.min(window);
            return;
        }
        let new = Group { window, in_flight: 0, turn: BTreeMap::new(), spare: BTreeMap::new(), denied_until: None };
        self.groups.insert(group.clone(), new);
        self.group_turn.push_back(group.clone());
    }

    /// Puts a call in its key's line.
    pub(super) fn push(&mut self, address: Address, seat: &Seat, position: Position) {
        let line = self.lines.entry(address).or_insert_with(|| Line {
            seat: seat.clone(),
            waiting: BTreeSet::new(),
            in_flight: 0,
            has_cell: false,
            message_is_next: true,
            place: Place::Aside,
        });
        line.waiting.insert(position);
        self.reseat(address, seat);
        self.enter_turn(address);
    }

    /// The key's line goes by these groups from now on, if it has one.
    pub(super) fn reseat(&mut self, address: Address, seat: &Seat) {
        let Some(line) = self.lines.get_mut(&address) else { return };
        line.seat.window = seat.window;
        if !Arc::ptr_eq(&line.seat.groups, &seat.groups) && line.seat.groups != seat.groups {
            leave_turn(&mut self.groups, line);
            line.seat.groups = Arc::clone(&seat.groups);
            self.enter_turn(address);
        }
    }

    /// Takes a call that was not issued out of its line.
    pub(super) fn remove(&mut self, address: Address, position: Position) {
        if let Some(line) = self.lines.get_mut(&address) {
            line.waiting.remove(&position);
            self.tidy(address);
        }
    }

    /// A Sign of this key has ended.
    pub(super) fn done(&mut self, address: Address, group: &QuotaGroup) {
        if let Some(group) = self.groups.get_mut(group) {
            group.in_flight = group.in_flight.saturating_sub(1);
        }
        if let Some(line) = self.lines.get_mut(&address) {
            line.in_flight = line.in_flight.saturating_sub(1);
            self.enter_turn(address);
            self.tidy(address);
        }
    }

    /// Counts a second Sign of a call that is in flight, if both windows have room for it.
    pub(super) fn hedge(&mut self, address: Address, group: &QuotaGroup) -> bool {
        let (Some(line), Some(group)) = (self.lines.get_mut(&address), self.groups.get_mut(group)) else { return false };
        let has_room = line.in_flight < line.seat.window && !group.is_full();
        if has_room {
            line.in_flight += 1;
            group.in_flight += 1;
        }
        has_room
    }

    /// Signs in flight of every group, and its window.
    pub(super) fn windows(&self) -> impl Iterator<Item = (&QuotaGroup, usize, usize)> {
        self.groups.iter().map(|(name, group)| (name, group.in_flight, group.window))
    }

    /// Chooses. `has_time` says whether a call can still be answered in time by this group; no cell is asked for one that cannot. `ask`
    /// is called for a key's cell first and then for its group's, and never for a layer that is known to deny.
    pub(super) fn next(
        &mut self,
        now: Instant,
        has_time: impl Fn(CallId, &QuotaGroup) -> bool,
        mut ask: impl FnMut(Layer<'_>) -> Verdict,
    ) -> Next {
        self.unpark(now);
        // What a group has left goes to lines of others: where these still wait, their own group has no room.
        for of_others in [false, true] {
            for _ in 0..self.group_turn.len() {
                let Some(name) = self.group_turn.pop_front() else { break };
                let next = self.next_of(&name, of_others, now, &has_time, &mut ask);
                self.group_turn.push_back(name);
                if let Some(next) = next {
                    return next;
                }
            }
        }
        let waiting = self.groups.values().filter(|group| !(group.is_full() || group.turn.is_empty() && group.spare.is_empty()));
        let parked = self.parked.first().map(|(until, _)| *until);
        Next::Wait(waiting.filter_map(|group| group.denied_until).chain(parked).min())
    }

    fn next_of(
        &mut self,
        name: &QuotaGroup,
        of_others: bool,
        now: Instant,
        has_time: &impl Fn(CallId, &QuotaGroup) -> bool,
        ask: &mut impl FnMut(Layer<'_>) -> Verdict,
    ) -> Option<Next> {
        loop {
            let group = self.groups.get_mut(name)?;
            if group.is_full() || group.denied_until.is_some_and(|until| until > now) {
                return None;
            }
            group.denied_until = None;
            let (turn, address) = group.lines(of_others).first_key_value().map(|(turn, address)| (*turn, *address))?;
            let Some((line, first)) = self.lines.get_mut(&address).and_then(|line| line.first().map(|first| (line, first))) else {
                group.lines(of_others).remove(&turn);
                continue;
            };
            if !has_time(first.1, name) {
                return Some(Next::Over(first.1));
            }
            if !line.has_cell {
                match ask(Layer::Key(&address)) {
                    Verdict::Granted => line.has_cell = true,
                    Verdict::DeniedUntil(until) => {
                        leave_turn(&mut self.groups, line);
                        line.place = Place::Parked;
                        self.parked.insert((until, address));
                        continue;
                    }
                }
            }
            if let Verdict::DeniedUntil(until) = ask(Layer::Group(name)) {
                group.denied_until = Some(until);
                return None;
            }
            group.in_flight += 1;
            leave_turn(&mut self.groups, line);
            line.has_cell = false;
            line.waiting.remove(&first);
            line.message_is_next = first.0 != MESSAGE;
            line.in_flight += 1;
            self.enter_turn(address);
            return Some(Next::Issue(first.1, name.clone()));
        }
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
        if line.place != Place::Aside || line.waiting.is_empty() || line.in_flight >= line.seat.window {
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        for (nth, name) in line.seat.groups.iter().enumerate() {
            if let Some(group) = self.groups.get_mut(name) {
                group.lines(nth > 0).insert(turn, address);
                line.place = Place::InTurn(turn);
            }
        }
    }

    /// An empty line keeps no cell and no place in the turn; one that is nowhere and has nothing in flight goes.
    fn tidy(&mut self, address: Address) {
        let Some(line) = self.lines.get_mut(&address) else { return };
        if !line.waiting.is_empty() {
            return;
        }
        line.has_cell = false;
        leave_turn(&mut self.groups, line);
        if line.place == Place::Aside && line.in_flight == 0 {
            self.lines.remove(&address);
        }
    }
}

/// Takes a line out of the turns that it is in.
fn leave_turn(groups: &mut BTreeMap<QuotaGroup, Group>, line: &mut Line) {
    let Place::InTurn(turn) = line.place else { return };
    for (nth, name) in line.seat.groups.iter().enumerate() {
        if let Some(group) = groups.get_mut(name) {
            group.lines(nth > 0).remove(&turn);
        }
    }
    line.place = Place::Aside;
}

#[cfg(test)]
mod tests;
