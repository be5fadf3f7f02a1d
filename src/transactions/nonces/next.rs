//! What the machine does next: which request is denied or gets a nonce, which payloads are committed, which one is sent.

use std::time::Instant;

use super::{Action, Denial, Given, Halt, Nonces, Progress, Reserved, SlotState, Waiting, Wish};
use crate::telemetry::faults::SeededFault;

impl Nonces {
    /// What to do next; call until it answers `None`, after every event.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        self.owed
            .pop_front()
            .or_else(|| self.expire(now))
            .or_else(|| self.sign_replacement())
            .or_else(|| self.commit())
            .or_else(|| self.send(now))
            .or_else(|| self.assign())
            .or_else(|| self.filler())
    }

    fn expire(&mut self, now: Instant) -> Option<Action> {
        if let Some(entry) = self.waiting.take_late(now) {
            self.spans.remove(&entry.ticket);
            return Some(Action::Deny(entry.ticket, Denial::Deadline));
        }
        let passed = |nonce: u64| nonce < self.next && self.slots.get(nonce) != Some(SlotState::Open);
        let (&nonce, &Given { entry, .. }) = self.given.iter().find(|(nonce, given)| given.entry.deadline <= now || passed(**nonce))?;
        let why = match nonce {
            nonce if passed(nonce) => self.check_given_again(nonce),
            nonce if nonce > self.next || self.slots.within(SlotState::Open, ..nonce).next().is_some() => Denial::Gap,
            _ => Denial::Deadline,
        };
        self.given.remove(&nonce);
        Some(Action::Deny(entry.ticket, why))
    }

    /// Why a given nonce that waited cannot be had any more.
    fn check_given_again(&self, nonce: u64) -> Denial {
        match self.slots.get(nonce) {
            Some(SlotState::Mined | SlotState::Foreign) => Denial::TooLow { next: self.next_free() },
            None if !self.is_reserved(nonce) => Denial::TooLow { next: self.next_free() },
            _ => Denial::Held,
        }
    }

    fn commit(&mut self) -> Option<Action> {
        if self.committing {
            return None;
        }
        let mut tickets = self.commit_replacements();
        let mut end = self.committed;
        for (nonce, slot) in self.reserved.iter_mut() {
            let replacement = nonce < self.committed;
            let in_order = replacement || nonce == end || SeededFault::GapCommitted.is_on();
            if slot.progress != Progress::Signed || !in_order {
                if replacement || SeededFault::GapCommitted.is_on() {
                    continue;
                }
                break;
            }
            slot.progress = Progress::Committing;
            tickets.push(slot.ticket);
            if !replacement {
                end = nonce + slot.span;
            }
        }
        if tickets.is_empty() {
            return None;
        }
        self.committing = true;
        Some(Action::Commit(tickets))
    }

    fn send(&mut self, now: Instant) -> Option<Action> {
        if self.sends_nothing() || self.sends_after.is_some_and(|until| until > now) {
            return None;
        }
        self.sends_after = None;
        if let Some(action) = self.send_at_once() {
            return Some(action);
        }
        // What is below everything in flight goes out whatever the window says: nothing above it can be mined before it.
        let lowest_sent = self.slots.lowest(SlotState::Sent);
        let is_full = self.in_flight() >= self.window;
        // Nodes take nothing above an authorisation that waits (geth's "gapped-nonce tx from delegated accounts").
        let nonce = self.slots.lowest(SlotState::Unsent)?;
        if [SlotState::Lent, SlotState::Tied].into_iter().filter_map(|state| self.slots.lowest(state)).any(|below| below < nonce) {
            return None;
        }
        if is_full && lowest_sent.is_some_and(|lowest| lowest < nonce) {
            return None;
        }
        self.slots.insert(nonce, SlotState::Sent);
        Some(Action::Send(nonce))
    }

    fn assign(&mut self) -> Option<Action> {
        // Whether a loan becomes a payload is not known here: what is above would be signed in vain if it does not.
        let is_halted = self.on_hold || self.halt >= Halt::Nonces;
        if is_halted || self.is_sign_window_full() || self.reserved.has_loan() {
            return None;
        }
        if let Some(action) = self.lend().or_else(|| self.assign_open()) {
            return Some(action);
        }
        // A loan that waits for what is under way alone: nothing more may begin.
        if self.loan().is_some_and(|nonce| self.slots.within(SlotState::Open, ..nonce).next().is_none()) {
            return None;
        }
        if self.unmined() + self.reserved.len() >= self.bounds.sign_ahead + self.window {
            return None;
        }
        let nonce = self.next;
        let (entry, wish, span) = match self.given.remove(&nonce) {
            Some(Given { entry, span, .. }) => (entry, Wish::Given(nonce), span),
            None => {
                let span = self.waiting.front().and_then(|entry| self.spans.get(&entry.ticket).copied()).unwrap_or(1);
                if self.given.range(nonce..nonce + span).next().is_some() {
                    return None;
                }
                let entry = self.waiting.pop_front()?;
                self.spans.remove(&entry.ticket);
                (entry, Wish::Any, span)
            }
        };
        self.reserve(nonce, entry, wish, span, false);
        self.next = nonce + span;
        Some(Action::Sign { ticket: entry.ticket, nonce, replaces: false })
    }

    pub(super) fn reserve(&mut self, nonce: u64, entry: Waiting, wish: Wish, span: u64, lent: bool) {
        let Waiting { ticket, deadline } = entry;
        self.reserved.insert(nonce, Reserved { ticket, wish, deadline, progress: Progress::Signing, span, lent });
    }

    fn assign_open(&mut self) -> Option<Action> {
        let is_open = |nonce: &u64| self.slots.get(*nonce) == Some(SlotState::Open);
        let given = self.given.iter().find(|(nonce, given)| is_open(nonce) && !given.lent).map(|(nonce, _)| *nonce);
        let (nonce, entry, wish) = match given {
            Some(nonce) => (nonce, self.given.remove(&nonce)?.entry, Wish::Given(nonce)),
            None => {
                let nonce = self.lowest_open()?;
                (nonce, self.waiting.take_first(|entry| !self.spans.contains_key(&entry.ticket))?, Wish::Any)
            }
        };
        self.slots.insert(nonce, SlotState::Reopened);
        self.reserve(nonce, entry, wish, 1, false);
        Some(Action::Sign { ticket: entry.ticket, nonce, replaces: true })
    }

    fn filler(&self) -> Option<Action> {
        if self.on_hold || self.halt >= Halt::Nonces || !self.can_fill || !self.waiting.is_empty() {
            return None;
        }
        self.to_fill().map(Action::Fill)
    }

    /// The lowest open slot, if what is on record above it waits for it.
    pub(super) fn to_fill(&self) -> Option<u64> {
        let nonce = self.lowest_open()?;
        let waits = [SlotState::Unsent, SlotState::Sent, SlotState::Held, SlotState::Lent];
        waits.into_iter().any(|state| self.slots.within(state, nonce + 1..).next().is_some()).then_some(nonce)
    }
}
