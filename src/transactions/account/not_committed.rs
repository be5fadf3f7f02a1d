//! What becomes of requests whose commit failed.

use super::Task;
use crate::journal::{JournalError, Kind, TransactionId};
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::{SlotState, Ticket};

impl Task {
    pub(super) fn not_committed(&mut self, tickets: &[Ticket], error: JournalError) {
        // Ordinary races, which the journal decides: the same request on record under its key, or a cancel of what was acknowledged.
        let (transaction, told) = match error {
            JournalError::KeyTaken { transaction } => (transaction, TransactionError::KeyTaken),
            JournalError::NotQueued { transaction } => (transaction, TransactionError::NotQueued),
            error => return self.nothing_committed(tickets, error),
        };
        tracing::info!(error = %told, account = %self.address(), %transaction, "a request is not paid again; the others of its commit go on");
        let out: Vec<Ticket> = tickets.iter().copied().filter(|ticket| !self.goes_on(*ticket, transaction)).collect();
        let void = self.nonces.commit_failed(&out);
        self.void(&void);
        for &ticket in tickets {
            if !out.contains(&ticket) {
                // What is below the one that ended is signed as it is to be; what was above it waits again, in order.
                if !void.contains(&ticket) {
                    self.nonces.signed(ticket);
                }
                continue;
            }
            self.reopen_replaced(ticket);
            if self.is_of(ticket, transaction) {
                self.fail(ticket, told.clone());
            } else {
                self.sign_again(ticket);
            }
        }
    }

    /// Nothing of the commit is on record, and nobody knows when it can be: all of it ends.
    fn nothing_committed(&mut self, tickets: &[Ticket], error: JournalError) {
        tracing::error!(%error, account = %self.address(), "attempts were not committed");
        if matches!(error, JournalError::SlotTaken { address, .. } if address == self.address()) {
            self.alarm("slot_taken", "the journal has another payload for a slot of this account; the account is paused");
            self.slot_taken = true;
        }
        let void = self.nonces.commit_failed(tickets);
        self.void(&void);
        for &ticket in tickets {
            self.reopen_replaced(ticket);
            self.fail(ticket, TransactionError::Journal(error.clone()));
        }
    }

    /// Whether the ticket goes on by itself after a commit that another transaction of it ended: a request with a nonce of its own, or
    /// one for a slot that waits still, and nothing borrowed, which went back with the commit.
    fn goes_on(&self, ticket: Ticket, ended: TransactionId) -> bool {
        self.tickets.get(&ticket).is_some_and(|pending| {
            let takes_open = pending.replaces && self.nonces.slot(pending.nonce) == Some(SlotState::Reopened);
            let is_free = pending.replacement.is_none() && pending.submission.borrowed.nonces.is_empty();
            pending.submission.id != ended && is_free && (!pending.replaces || takes_open)
        })
    }

    /// A replacement was not committed.
    fn reopen_replaced(&mut self, ticket: Ticket) {
        if let Some(nonce) = self.tickets.get(&ticket).filter(|pending| pending.replacement.is_some()).map(|pending| pending.nonce) {
            self.put_back_refused(nonce);
        }
    }

    fn is_of(&self, ticket: Ticket, transaction: TransactionId) -> bool {
        self.tickets.get(&ticket).is_some_and(|pending| pending.submission.id == transaction)
    }

    /// Back into the queue: nothing of it is on record, and its nonce is another one's.
    fn sign_again(&mut self, ticket: Ticket) {
        let Some(pending) = self.tickets.get(&ticket) else { return };
        if pending.replacement.is_some() {
            let nonce = pending.nonce;
            self.void(&[ticket]);
            if !self.nonces.replace(ticket, nonce) {
                self.fail(ticket, TransactionError::NotReplaceable("the transaction was refused meanwhile".into()));
            }
            return;
        }
        // What it borrowed went back with the commit: its authorisations are worth nothing without.
        if pending.submission.kind == Kind::Filler || !pending.submission.borrowed.nonces.is_empty() {
            return self.fail(ticket, TransactionError::Internal);
        }
        let (cost, deadline) = (pending.submission.cost(), self.deadline(&pending.submission));
        self.void(&[ticket]);
        self.enqueue(ticket, cost, deadline);
    }
}
