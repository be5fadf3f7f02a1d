//! The nonce machine of one account: which request gets which nonce, what may be committed, what may be sent. Pure: events in,
//! actions out, no clock and no I/O of its own.
//!
//! The rules it keeps:
//! - a nonce is handed out right before its Sign, in order of arrival, never before;
//! - signed payloads enter a commit only as the contiguous signed prefix, one commit at a time, so that the journal never
//!   holds a hole;
//! - when a Sign fails, what was above it moves down, in order, and is signed again: nothing of it had left the process;
//! - nonces for EIP-7702 authorisations in another account's payload (the next ones, or open slots) are lent once everything below them
//!   is mined; nothing is handed out before that payload is on record, and nothing above is sent before it is mined;
//! - a slot whose committed payload was refused for good is open: the next request takes it as a recorded replacement, and only if
//!   none waits while a higher nonce is committed is it filled;
//! - a slot whose payload waits may be replaced, once at a time: the payload on record stays what it is until the replacement is
//!   committed, and goes out at once then.

pub mod figures;
mod halt;
mod loans;
mod missing;
mod next;
mod queue;
mod replace;
mod reserved;
mod slots;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use self::queue::Queue;
use self::replace::Replacing;
use self::reserved::Reservations;
use self::slots::Slots;
pub use self::words::{Action, Denial, Halt, SlotState, Ticket, Wish};
use crate::config::AccountBounds;

/// The states of slots that have a payload of their own to be mined, or want one.
const WAITING: [SlotState; 5] = [SlotState::Unsent, SlotState::Sent, SlotState::Held, SlotState::Open, SlotState::Reopened];

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Its Sign is to be asked for: a replacement alone.
    Waiting,
    Signing,
    Signed,
    Committing,
}

#[derive(Debug, Clone, Copy)]
struct Reserved {
    ticket: Ticket,
    wish: Wish,
    deadline: Instant,
    progress: Progress,
    /// Nonces that the payload uses up: 1, and one more for each EIP-7702 authorisation of the sender by itself.
    span: u64,
    /// Whether the payload is another account's, which authorises with these nonces.
    lent: bool,
}

/// A request for certain nonces.
#[derive(Debug, Clone, Copy)]
struct Given {
    entry: Waiting,
    span: u64,
    lent: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Nonces {
    bounds: AccountBounds,
    /// Nonces that may wait for their signatures.
    sign_window: usize,
    window: usize,
    next: u64,
    committed: u64,
    waiting: Queue,
    given: BTreeMap<u64, Given>,
    spans: BTreeMap<Ticket, u64>,
    reserved: Reservations,
    /// Replacements under way, by the slot whose payload waits meanwhile.
    replacing: BTreeMap<u64, Replacing>,
    /// Slots whose replacement goes out whatever the window says: it counts in there already.
    at_once: BTreeSet<u64>,
    slots: Slots,
    /// How many nonces above a slot its payload uses up as well.
    ties: BTreeMap<u64, u64>,
    owed: VecDeque<Action>,
    committing: bool,
    on_hold: bool,
    halt: Halt,
    delegated: bool,
    can_fill: bool,
    sends_after: Option<Instant>,
}

impl Nonces {
    /// A machine whose next nonce is `next`, with the slots on record that are not final.
    pub fn new(bounds: AccountBounds, next: u64, slots: impl IntoIterator<Item = (u64, SlotState)>) -> Self {
        Self {
            bounds,
            sign_window: bounds.sign_window,
            window: bounds.broadcast_window,
            next,
            committed: next,
            waiting: Queue::default(),
            given: BTreeMap::new(),
            spans: BTreeMap::new(),
            reserved: Reservations::default(),
            replacing: BTreeMap::new(),
            at_once: BTreeSet::new(),
            slots: slots.into_iter().collect(),
            ties: BTreeMap::new(),
            owed: VecDeque::new(),
            committing: false,
            on_hold: false,
            halt: Halt::Nothing,
            delegated: false,
            can_fill: true,
            sends_after: None,
        }
    }

    /// A payload on record uses up this many nonces above its own slot.
    pub fn tie(&mut self, nonce: u64, above: u64) {
        if above > 0 {
            self.ties.insert(nonce, above);
        }
    }

    /// The nonce that would be handed out next.
    pub fn next_free(&self) -> u64 {
        self.lowest_open().unwrap_or_else(|| {
            let mut next = self.next;
            while self.given.contains_key(&next) {
                next += 1;
            }
            next
        })
    }

    /// The nonce after every slot that is on record or reserved: no payload of ours has a higher one.
    pub fn ceiling(&self) -> u64 {
        self.next
    }

    /// So many nonces may be handed out that are not on record, `account.sign_window` at most: what is above waits without one.
    pub fn set_sign_window(&mut self, size: usize) {
        self.sign_window = size.clamp(1, self.bounds.sign_window.max(1));
    }

    /// Whether as many as may are handed out and not on record.
    pub fn is_sign_window_full(&self) -> bool {
        self.reserved.len() >= self.sign_window
    }

    /// Requests that wait without a nonce.
    pub fn queued(&self) -> usize {
        self.waiting.len() + self.given.len()
    }

    /// Those of them that wait for whichever nonce is next.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits, is signed or is committed at the moment.
    pub fn is_idle(&self) -> bool {
        self.queued() == 0 && self.reserved.is_empty() && self.replacing.is_empty() && !self.committing
    }

    /// The state of a slot on record that is not final.
    pub fn slot(&self, nonce: u64) -> Option<SlotState> {
        self.slots.get(nonce)
    }

    /// The slots on record in this state, lowest first.
    pub fn in_state(&self, state: SlotState) -> impl Iterator<Item = u64> {
        self.slots.of(state)
    }

    /// The lowest slot on record that no block has used up.
    pub fn lowest_unmined(&self) -> Option<u64> {
        WAITING.into_iter().chain([SlotState::Tied, SlotState::Lent]).filter_map(|state| self.slots.lowest(state)).min()
    }

    /// The slots below `nonce` whose own payload waits for its block, or that wait for one; lowest first.
    pub fn waiting_below(&self, nonce: u64) -> Vec<u64> {
        let mut below: Vec<u64> = WAITING.into_iter().flat_map(|state| self.slots.within(state, ..nonce)).collect();
        below.sort_unstable();
        below
    }

    /// A request arrives. `span` is how many nonces it uses up (1, or more with EIP-7702 authorisations by the sender).
    pub fn enqueue(&mut self, ticket: Ticket, wish: Wish, span: u64, deadline: Instant) -> Result<(), Denial> {
        if let Wish::Given(nonce) = wish {
            self.check_given(nonce, span)?;
        }
        if self.queued() >= self.bounds.queue {
            return Err(Denial::QueueFull);
        }
        let entry = Waiting { ticket, deadline };
        match wish {
            Wish::Given(nonce) => {
                self.given.insert(nonce, Given { entry, span, lent: false });
            }
            Wish::Any => {
                self.waiting.push_back(entry);
                if span > 1 {
                    self.spans.insert(ticket, span);
                }
            }
        }
        Ok(())
    }

    fn check_given(&self, nonce: u64, span: u64) -> Result<(), Denial> {
        if self.given.contains_key(&nonce) || self.is_reserved(nonce) {
            return Err(Denial::Held);
        }
        match self.slots.get(nonce) {
            // An open slot is one nonce; what needs more of them takes new ones.
            Some(SlotState::Open) if span == 1 => Ok(()),
            Some(SlotState::Mined | SlotState::Foreign) => Err(Denial::TooLow { next: self.next_free() }),
            Some(_) => Err(Denial::Held),
            None if nonce < self.next => Err(Denial::TooLow { next: self.next_free() }),
            None => Ok(()),
        }
    }

    fn is_reserved(&self, nonce: u64) -> bool {
        self.reserved.at_or_below(nonce).is_some_and(|(first, slot)| nonce < first + slot.span)
    }

    /// The requester is gone, or its ticket is not worth a Sign any more: forget it if no Sign was asked for yet.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.queued();
        self.waiting.remove(ticket);
        self.given.retain(|_, given| given.entry.ticket != ticket);
        self.spans.remove(&ticket);
        before != self.queued()
    }

    /// The ticket's payload is signed and verified.
    pub fn signed(&mut self, ticket: Ticket) {
        if let Some(replacing) = self.replacement(ticket).filter(|replacing| replacing.progress == Progress::Signing) {
            replacing.progress = Progress::Signed;
        }
        if let Some(slot) = self.reserved.of(ticket) {
            slot.progress = Progress::Signed;
        }
    }

    /// The ticket's Sign failed for good: it gets no nonce. What was above it moves down. Answers the tickets whose Signs in
    /// flight are void now.
    pub fn sign_failed(&mut self, ticket: Ticket) -> Vec<Ticket> {
        if self.replacement_over(ticket).is_some() {
            return Vec::new();
        }
        let Some(nonce) = self.reserved.nonce_of(ticket) else {
            self.cancel(ticket);
            return Vec::new();
        };
        self.reserved.remove(nonce);
        if nonce < self.committed {
            self.reopen(nonce);
            return Vec::new();
        }
        self.move_down(nonce)
    }

    /// The replacement of an open slot did not come about: the slot waits for another, unless it was mined meanwhile.
    fn reopen(&mut self, nonce: u64) {
        if self.slots.get(nonce) == Some(SlotState::Reopened) {
            self.slots.insert(nonce, SlotState::Open);
        }
    }

    /// Puts every reservation from `nonce` up back to where it waited, in order, and makes `nonce` the next one.
    fn move_down(&mut self, nonce: u64) -> Vec<Ticket> {
        let mut void = Vec::new();
        let above = self.reserved.split_off(nonce);
        let mut back = Vec::with_capacity(above.len());
        for (own, slot) in above {
            void.push(slot.ticket);
            let entry = Waiting { ticket: slot.ticket, deadline: slot.deadline };
            match slot.wish {
                Wish::Given(_) => {
                    self.given.insert(own, Given { entry, span: slot.span, lent: slot.lent });
                }
                Wish::Any => {
                    if slot.span > 1 {
                        self.spans.insert(slot.ticket, slot.span);
                    }
                    back.push(entry);
                }
            }
        }
        for entry in back.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        self.next = nonce;
        void
    }

    /// The commit is durable. `held`: the payload was given out and is not sent from here.
    pub fn committed(&mut self, tickets: &[(Ticket, bool)]) {
        self.committing = false;
        for &(ticket, held) in tickets {
            if self.replaced(ticket) {
                continue;
            }
            let Some(nonce) = self.reserved.nonce_of(ticket) else { continue };
            let Some(slot) = self.reserved.remove(nonce) else { continue };
            if nonce < self.committed && self.slots.get(nonce) != Some(SlotState::Reopened) {
                continue;
            }
            self.slots.insert(nonce, if held { SlotState::Held } else { SlotState::Unsent });
            self.tie(nonce, slot.span - 1);
            self.slots.extend(nonce + 1..nonce + slot.span, SlotState::Tied);
            self.committed = self.committed.max(nonce + slot.span);
        }
    }

    /// The commit wrote nothing: its tickets get no nonce; what was above moves down. Answers the tickets whose Signs are void now.
    pub fn commit_failed(&mut self, tickets: &[Ticket]) -> Vec<Ticket> {
        self.committing = false;
        let mut lowest = None;
        for &ticket in tickets {
            if self.replacement_over(ticket).is_some() {
                continue;
            }
            let Some(nonce) = self.reserved.nonce_of(ticket) else { continue };
            self.reserved.remove(nonce);
            if nonce < self.committed {
                self.reopen(nonce);
            } else {
                lowest = Some(lowest.map_or(nonce, |low: u64| low.min(nonce)));
            }
        }
        lowest.map_or_else(Vec::new, |nonce| self.move_down(nonce))
    }

    /// The filler that [`Action::Fill`] asked for, to be signed.
    pub fn fill(&mut self, ticket: Ticket, nonce: u64, deadline: Instant) {
        self.slots.insert(nonce, SlotState::Reopened);
        let filler = Reserved { ticket, wish: Wish::Given(nonce), deadline, progress: Progress::Signing, span: 1, lent: false };
        self.reserved.insert(nonce, filler);
    }

    /// Fillers cannot be made (no key is at hand, or one was refused): wait for a request instead.
    pub fn set_can_fill(&mut self, can_fill: bool) {
        self.can_fill = can_fill;
    }

    /// A slot's state changed: sent again, refused, held over, mined, orphaned. Slots that are not on record are left alone.
    pub fn set_slot(&mut self, nonce: u64, state: SlotState) {
        let Some(before) = self.slots.change(nonce, state) else { return };
        let used = matches!(state, SlotState::Mined | SlotState::Foreign);
        if used && before != state {
            self.window = (self.window + 1).min(self.limit());
            self.give_way(nonce);
        }
        if !Self::can_be_replaced(state) {
            self.end_replacement(nonce, if used { Denial::Mined } else { Denial::Refused });
        }
        let Some(above) = self.ties.get(&nonce).copied() else { return };
        let tied = match state {
            SlotState::Open | SlotState::Mined | SlotState::Foreign => state,
            _ => SlotState::Tied,
        };
        for nonce in nonce + 1..=nonce + above {
            self.slots.change(nonce, tied);
        }
        if state == SlotState::Open {
            self.ties.remove(&nonce);
        }
    }

    /// An open slot was mined after all, by the payload that was thought refused: what was to replace it waits again, unless
    /// it is being committed.
    fn give_way(&mut self, nonce: u64) {
        let Some(slot) = self.reserved.get(nonce) else { return };
        if slot.progress == Progress::Committing {
            return;
        }
        self.reserved.remove(nonce);
        match slot.wish {
            Wish::Any => {
                self.waiting.push_front(Waiting { ticket: slot.ticket, deadline: slot.deadline });
                self.owed.push_back(Action::Void(slot.ticket));
            }
            Wish::Given(_) => {
                let denial = Denial::TooLow { next: self.next_free() };
                self.owed.push_back(Action::Deny(slot.ticket, denial));
            }
        }
    }

    /// The node's pool had no room for this payload: send no more than what is below it until something is mined. The payload
    /// stays with its slot and is sent again later.
    pub fn pool_full(&mut self, nonce: u64) {
        let below = self.slots.within(SlotState::Sent, ..nonce).count();
        self.window = below.clamp(1, self.window);
    }

    /// The account's code is a delegation (EIP-7702): nodes keep one transaction of it (geth's "in-flight transaction limit reached for
    /// delegated accounts"), so no more than one is in flight.
    pub fn set_delegated(&mut self, delegated: bool) {
        if self.delegated != delegated {
            self.delegated = delegated;
            self.window = self.limit();
        }
    }

    /// What the broadcast window grows back to.
    fn limit(&self) -> usize {
        if self.delegated { 1 } else { self.bounds.broadcast_window }
    }

    /// No endpoint could be reached: this payload goes out again, and nothing of the account before it, not sooner than `until`.
    pub fn send_later(&mut self, nonce: u64, until: Instant) {
        if self.slots.get(nonce) == Some(SlotState::Sent) {
            self.slots.insert(nonce, SlotState::Unsent);
            self.sends_after = Some(until);
        }
    }

    /// The slot's payload is final. What it would have used up above is open if somebody else's payload is what the chain has.
    pub fn finish(&mut self, nonce: u64) {
        let is_foreign = self.slots.get(nonce) == Some(SlotState::Foreign);
        self.slots.remove(nonce);
        self.end_replacement(nonce, Denial::Mined);
        for tied in (1..=self.ties.remove(&nonce).unwrap_or(0)).map(|above| nonce + above) {
            if is_foreign {
                self.slots.change(tied, SlotState::Open);
            } else {
                self.slots.remove(tied);
            }
        }
    }

    /// New nonces wait (somebody else uses the key) or go on.
    pub fn set_on_hold(&mut self, on_hold: bool) {
        self.on_hold = on_hold;
    }

    /// Whether new nonces wait.
    pub fn is_on_hold(&self) -> bool {
        self.on_hold
    }

    /// The chain is beyond what we know and nothing of ours is being signed: go on from there.
    pub fn resync(&mut self, next: u64) -> bool {
        if !self.reserved.is_empty() || next < self.next {
            return false;
        }
        self.next = next;
        self.committed = next;
        true
    }

    /// Nothing is on record or being signed: the first nonce is this one, also if it is a lower one.
    pub fn begin(&mut self, first: u64) -> bool {
        let is_new = self.slots.is_empty() && self.reserved.is_empty();
        if is_new {
            self.next = first;
            self.committed = first;
        }
        is_new
    }

    /// Whether a filler is wanted, and would be asked for if they can be made.
    pub fn wants_filler(&self) -> bool {
        self.waiting.is_empty() && self.to_fill().is_some()
    }

    /// The lowest open slot that nobody asked for by its nonce.
    fn lowest_open(&self) -> Option<u64> {
        self.slots.of(SlotState::Open).find(|nonce| !self.given.iter().any(|(first, given)| (*first..first + given.span).contains(nonce)))
    }

    fn in_flight(&self) -> usize {
        self.slots.count(SlotState::Sent)
    }

    fn unmined(&self) -> usize {
        self.slots.count_but(&[SlotState::Mined, SlotState::Foreign, SlotState::Tied, SlotState::Lent])
    }
}

#[cfg(test)]
mod tests;
