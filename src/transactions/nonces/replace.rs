//! Replacements of payloads that wait: bumps and cancels. Until one is committed the slot's payload is what it was.

use super::{Action, Denial, Nonces, Progress, SlotState, Ticket};

/// A replacement under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replacing {
    ticket: Ticket,
    pub(super) progress: Progress,
}

impl Nonces {
    /// The payload of this slot is to be replaced by the ticket's. Answers whether it can be: it is on record and neither mined nor
    /// refused, and no other replacement of it is under way.
    pub fn replace(&mut self, ticket: Ticket, nonce: u64) -> bool {
        let free = self.slot(nonce).is_some_and(Self::can_be_replaced) && !self.replacing.contains_key(&nonce);
        if free {
            self.replacing.insert(nonce, Replacing { ticket, progress: Progress::Waiting });
        }
        free
    }

    /// Whether a replacement of this slot is under way.
    pub fn is_replacing(&self, nonce: u64) -> bool {
        self.replacing.contains_key(&nonce)
    }

    /// Whether a replacement of this slot is being committed: it can be taken back no more.
    pub fn commits_replacement(&self, nonce: u64) -> bool {
        self.replacing.get(&nonce).is_some_and(|replacing| replacing.progress == Progress::Committing)
    }

    /// Whether the ticket's payload, once it is committed, is its slot's: nothing of the slot was mined meanwhile.
    pub fn takes_slot(&self, ticket: Ticket) -> bool {
        match self.replacing.iter().find(|(_, replacing)| replacing.ticket == ticket) {
            Some((nonce, _)) => self.slot(*nonce).is_some_and(Self::takes_replacement),
            None => {
                self.reserved.nonce_of(ticket).is_some_and(|nonce| nonce >= self.committed || self.slot(nonce) == Some(SlotState::Reopened))
            }
        }
    }

    pub(super) fn can_be_replaced(state: SlotState) -> bool {
        matches!(state, SlotState::Unsent | SlotState::Sent | SlotState::Held)
    }

    /// Also a slot whose older payload was refused while the replacement was being committed.
    fn takes_replacement(state: SlotState) -> bool {
        Self::can_be_replaced(state) || state == SlotState::Reopened
    }

    pub(super) fn replacement(&mut self, ticket: Ticket) -> Option<&mut Replacing> {
        self.replacing.values_mut().find(|replacing| replacing.ticket == ticket)
    }

    /// Forgets the ticket's replacement; answers its slot.
    pub(super) fn replacement_over(&mut self, ticket: Ticket) -> Option<u64> {
        let nonce = self.replacing.iter().find(|(_, replacing)| replacing.ticket == ticket).map(|(nonce, _)| *nonce)?;
        self.replacing.remove(&nonce);
        Some(nonce)
    }

    /// The slot waits for no replacement any more, unless it is being committed: then it is on record beside the others.
    pub fn end_replacement(&mut self, nonce: u64, why: Denial) {
        if let Some(replacing) = self.replacing.get(&nonce).filter(|replacing| replacing.progress != Progress::Committing).copied() {
            self.replacing.remove(&nonce);
            self.owed.push_back(Action::Deny(replacing.ticket, why));
        }
    }

    /// What is replaced lies below everything that has no payload yet: its Sign goes first.
    pub(super) fn sign_replacement(&mut self) -> Option<Action> {
        let (nonce, replacing) = self.replacing.iter_mut().find(|(_, replacing)| replacing.progress == Progress::Waiting)?;
        replacing.progress = Progress::Signing;
        Some(Action::Sign { ticket: replacing.ticket, nonce: *nonce, replaces: true })
    }

    /// Replacements that are signed, for the next commit.
    pub(super) fn commit_replacements(&mut self) -> Vec<Ticket> {
        let signed = self.replacing.values_mut().filter(|replacing| replacing.progress == Progress::Signed);
        signed
            .map(|replacing| {
                replacing.progress = Progress::Committing;
                replacing.ticket
            })
            .collect()
    }

    /// The ticket's replacement is durable: its payload is the slot's, unless the slot was mined meanwhile. Answers whether the ticket
    /// is one of a replacement.
    pub(super) fn replaced(&mut self, ticket: Ticket) -> bool {
        let Some(nonce) = self.replacement_over(ticket) else { return false };
        if let Some(slot) = self.slots.get(nonce).filter(|slot| Self::takes_replacement(*slot)) {
            if slot == SlotState::Sent {
                self.at_once.insert(nonce);
            }
            self.slots.insert(nonce, SlotState::Unsent);
        }
        true
    }

    /// A replacement of bytes that were sent is in the place of those in the window.
    pub(super) fn send_at_once(&mut self) -> Option<Action> {
        while let Some(nonce) = self.at_once.pop_first() {
            if self.slots.get(nonce) == Some(SlotState::Unsent) {
                self.slots.insert(nonce, SlotState::Sent);
                return Some(Action::Send(nonce));
            }
        }
        None
    }
}
