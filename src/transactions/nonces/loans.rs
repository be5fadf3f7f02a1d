//! EIP-7702 authorisations in another account's payload: the nonces that are lent to it.

use std::ops::Range;
use std::time::Instant;

use super::{Action, Denial, Given, Nonces, SlotState, Ticket, Waiting, Wish};

impl Nonces {
    /// Another account's payload wants to authorise with these nonces (EIP-7702). They are lent when each is the next one or an open
    /// slot and everything below is mined: the chain skips an authorisation that is out of turn.
    pub fn enqueue_loan(&mut self, ticket: Ticket, nonce: u64, span: u64, deadline: Instant) -> Result<(), Denial> {
        for nonce in nonce..nonce + span {
            self.check_given(nonce, 1)?;
        }
        if self.queued() >= self.bounds.queue {
            return Err(Denial::QueueFull);
        }
        self.given.insert(nonce, Given { entry: Waiting { ticket, deadline }, span, lent: true });
        Ok(())
    }

    /// The other account's payload is on record, with an authorisation for each nonce that was lent. Answers these.
    pub fn lent(&mut self, ticket: Ticket) -> Range<u64> {
        let nonces = self.loan_over(ticket);
        self.slots.extend(nonces.clone(), SlotState::Lent);
        self.committed = self.committed.max(nonces.end);
        nonces
    }

    /// The loan came to nothing: its nonces go back. Nothing above them was handed out meanwhile.
    pub fn returned(&mut self, ticket: Ticket) {
        let nonces = self.loan_over(ticket);
        if nonces.end == self.next && !nonces.is_empty() {
            self.next = self.committed;
        }
        for nonce in nonces {
            self.reopen(nonce);
        }
    }

    fn loan_over(&mut self, ticket: Ticket) -> Range<u64> {
        let loan = self.reserved.nonce_of(ticket).and_then(|nonce| Some((nonce, self.reserved.remove(nonce)?)));
        loan.map_or(0..0, |(nonce, slot)| nonce..nonce + slot.span)
    }

    /// The lowest nonces that are asked for as a loan, if they can be had: open slots, or the next nonces, or one after the other.
    pub(super) fn loan(&self) -> Option<u64> {
        let (&nonce, given) = self.given.iter().find(|(_, given)| given.lent)?;
        let open = self.open_from(nonce, given.span);
        (open == given.span || nonce + open == self.next).then_some(nonce)
    }

    fn open_from(&self, nonce: u64, span: u64) -> u64 {
        (nonce..nonce + span).take_while(|nonce| self.slots.get(*nonce) == Some(SlotState::Open)).count() as u64
    }

    /// Lends, once everything below is mined.
    pub(super) fn lend(&mut self) -> Option<Action> {
        let nonce = self.loan()?;
        let is_mined = |state: SlotState| matches!(state, SlotState::Mined | SlotState::Foreign);
        if !self.reserved.is_empty() || !self.slots.range(..nonce).all(|(_, state)| is_mined(state)) {
            return None;
        }
        let Given { entry, span, .. } = self.given.remove(&nonce)?;
        let open = self.open_from(nonce, span);
        self.slots.extend(nonce..nonce + open, SlotState::Reopened);
        self.reserve(nonce, entry, Wish::Given(nonce), span, true);
        self.next = self.next.max(nonce + span);
        Some(Action::Lend(entry.ticket))
    }
}
