//! EIP-7702 authorisations across accounts: an account lends its next nonces to the payload of another one, which authorises with
//! them. Whether the chain used them is read from the account's nonce: it skips an authorisation that is out of turn.

use std::ops::Range;
use std::time::Instant;

use alloy_primitives::{Address, B256};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::Task;
use super::admit::Probe;
use crate::journal::{Account, AttemptState, Record};
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::{SlotState, Ticket};

/// Nonces of other accounts, reserved for the authorisations of one payload. Dropped before [`Borrowed::taken`], they go back.
#[derive(Debug, Default)]
pub struct Borrowed {
    /// By authority, the nonces of its authorisations.
    pub nonces: Vec<(Address, Range<u64>)>,
    pub(super) loans: Vec<Loan>,
}

impl Borrowed {
    /// Adds what an account lent.
    pub fn add(&mut self, authority: Address, nonces: Range<u64>, loan: Loan) {
        self.nonces.push((authority, nonces));
        self.loans.push(loan);
    }

    /// Whether an account that lent does not know of it any more.
    pub(super) fn is_void(&self) -> bool {
        self.loans.iter().any(|loan| loan.over.is_closed())
    }

    /// The payloads on record of the slots that are borrowed: refused, or void.
    pub(super) fn replaced(&self) -> Vec<B256> {
        self.loans.iter().flat_map(|loan| &loan.replaces).copied().collect()
    }

    /// The slots that are borrowed.
    pub(super) fn slots(&self, chain_id: u64) -> impl Iterator<Item = (Account, u64)> + '_ {
        self.nonces
            .iter()
            .flat_map(move |(address, nonces)| nonces.clone().map(move |nonce| (Account { chain_id, address: *address }, nonce)))
    }
}

/// One account's share of [`Borrowed`].
#[derive(Debug)]
pub struct Loan {
    pub(super) over: oneshot::Sender<B256>,
    pub(super) replaces: Vec<B256>,
}

impl Loan {
    /// The payload with this hash is on record.
    pub(super) fn taken(self, hash: B256) {
        let _gone = self.over.send(hash);
    }
}

/// A wish for certain nonces of an account.
#[derive(Debug)]
pub struct LoanRequest {
    /// Which nonces.
    pub nonces: Range<u64>,
    /// When the request arrived that needs them.
    pub arrived: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Loan, TransactionError>>,
}

impl LoanRequest {
    pub(super) fn refuse(self, error: TransactionError) {
        let _gone = self.reply.send(Err(error));
    }
}

/// How a loan ended: the payload that took it, or nothing.
pub(super) type LoanOver = (Ticket, Option<B256>);

/// A slot that waits for another account's payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent {
    pub(super) holder: B256,
    /// The head at which the chain was found to be beyond the nonce.
    pub(super) used_at: Option<u64>,
}

impl Lent {
    pub(super) fn to(holder: B256) -> Self {
        Self { holder, used_at: None }
    }
}

impl Task {
    /// A loan waits in the queue like a request with a given nonce, once the chain's nonce is known.
    pub(super) fn ask_for_loan(&mut self, request: LoanRequest) {
        if let Some(stopped) = self.stopped() {
            return request.refuse(stopped);
        }
        if self.balance.block().is_none() {
            if self.borrowers.len() >= self.chain.environment.account.queue {
                return request.refuse(TransactionError::QueueFull);
            }
            self.borrowers.push(request);
            self.probe_wanted = true;
            return;
        }
        let ticket = self.next_ticket();
        let deadline = request.arrived + self.chain.environment.account.queue_deadline;
        let Range { start, end } = request.nonces;
        self.loans.insert(ticket, request);
        if let Err(denial) = self.nonces.enqueue_loan(ticket, start, end - start, deadline) {
            self.deny(ticket, denial);
        }
    }

    /// The chain's nonce is known: whoever waited for it is in the queue now.
    pub(super) fn admit_borrowers(&mut self) {
        for request in std::mem::take(&mut self.borrowers) {
            self.ask_for_loan(request);
        }
    }

    /// Deadlines of those that are not in the queue yet; and who is gone holds nobody up.
    pub(super) fn expire_borrowers(&mut self, now: Instant) {
        for (ticket, _) in self.loans.extract_if(.., |_, request| request.reply.is_closed()) {
            self.nonces.cancel(ticket);
        }
        let deadline = self.chain.environment.account.queue_deadline;
        for request in self.borrowers.extract_if(.., |request| request.arrived + deadline <= now || request.reply.is_closed()) {
            request.refuse(TransactionError::QueueDeadline(deadline));
        }
    }

    /// The nonces are reserved: they are the borrower's until it commits or lets go.
    pub(super) fn lend(&mut self, ticket: Ticket) {
        let (over, ended) = oneshot::channel();
        self.lending.push(ended.map(move |taken| (ticket, taken.ok())).boxed());
        // A borrower that is gone drops the loan with the answer, which ends it.
        if let Some(request) = self.loans.remove(&ticket) {
            let replaces = self.current.range(request.nonces.clone()).map(|(_, hash)| *hash).collect();
            let _gone = request.reply.send(Ok(Loan { over, replaces }));
        }
    }

    pub(super) fn loan_over(&mut self, (ticket, taken): LoanOver) {
        let Some(holder) = taken else {
            self.nonces.returned(ticket);
            return;
        };
        for nonce in self.nonces.lent(ticket) {
            self.current.insert(nonce, holder);
            self.lent.insert(nonce, Lent::to(holder));
        }
        // The slot that is on record now says where the nonces go on.
        self.floor = None;
        self.probe_wanted = true;
    }

    /// A reorg: whether the chain has used what was lent is to be read anew, before anything above it is sent.
    pub(super) fn doubt_lent(&mut self) {
        for (nonce, lent) in &mut self.lent {
            if lent.used_at.take().is_some() {
                self.nonces.set_slot(*nonce, SlotState::Lent);
            }
        }
        self.probe_wanted = true;
    }

    /// What became of the slots that were lent: used by the chain, open again because the payload can never be mined or its
    /// authorisation was skipped, or still waiting.
    pub(super) fn settle_lent(&mut self, probe: &Probe) {
        let head = probe.head.number;
        let nonces: Vec<u64> = self.lent.keys().copied().collect();
        for nonce in nonces {
            let Some(lent) = self.lent.get_mut(&nonce) else { continue };
            let holder = probe.holders.get(&lent.holder);
            if nonce < probe.latest {
                let used_at = *lent.used_at.get_or_insert(head);
                if self.nonces.slot(nonce) != Some(SlotState::Mined) {
                    // The account has code now, or has not any more.
                    self.nonces.set_delegated(true);
                    self.code_wanted = true;
                    self.probe_wanted = true;
                }
                self.nonces.set_slot(nonce, SlotState::Mined);
                self.outboxes.settled(nonce);
                if used_at.saturating_add(self.chain.environment.depth()) <= head {
                    let mined = holder.is_none_or(|(state, _)| matches!(state, AttemptState::Included | AttemptState::Confirmed));
                    if !mined {
                        self.alarm(
                            "foreign_nonce",
                            &format!("nonce {nonce} was lent, and used by something else than the payload that it was lent to"),
                        );
                    }
                    self.lent.remove(&nonce);
                    self.outbox.push(Record::Used { account: self.account, nonce }, None);
                    // Payloads of its own that were refused before the slot was lent.
                    self.slot_lost(nonce, "the slot was used up by an authorisation");
                }
                continue;
            }
            lent.used_at = None;
            // Final in a block that the nonce was read after: the chain skipped the authorisation.
            let void = holder.is_some_and(|(state, block)| match state {
                AttemptState::Refused | AttemptState::Replaced => true,
                AttemptState::Confirmed => block.is_some_and(|block| block.number <= head),
                _ => false,
            });
            if void {
                tracing::warn!(account = %self.address(), nonce, "a slot that was lent is open again");
                self.lent.remove(&nonce);
                self.nonces.set_slot(nonce, SlotState::Open);
            } else {
                self.nonces.set_slot(nonce, SlotState::Lent);
            }
        }
    }
}
