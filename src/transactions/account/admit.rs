//! Before the queue: requests pass as far as the balance covers them, which is read once per head with what the nodes know of the account's nonces.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{B256, Bytes, U64, U256};

use super::handed_in::Standing;
use super::reconcile::counts;
use super::{Owed, Pending, Task};
use crate::journal::{Account, AttemptState, BlockRef};
use crate::node::{CallError, Head};
use crate::telemetry::clock;
use crate::transactions::account::submission::{Payload, Submission};
use crate::transactions::errors::TransactionError;
use crate::transactions::reconcile::Counts;

/// What the nodes say about an account at one head.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) head: Arc<Head>,
    pub(super) balance: U256,
    /// The account's nonce at that head.
    pub(super) latest: u64,
    pub(super) pending: u64,
    pub(super) settled: bool,
    /// What each endpoint says, if that was asked.
    pub(super) counts: Option<Vec<Option<Counts>>>,
    /// The lowest nonce from `latest` up that has a slot on record, if that was asked and the journal could say it.
    pub(super) next_slot: Option<Option<u64>>,
    /// Whether the account's code is a delegation, if that was asked.
    pub(super) is_delegated: Option<bool>,
    /// What the journal has of the payloads that slots of the account are lent to.
    pub(super) holders: HashMap<B256, (AttemptState, Option<BlockRef>)>,
}

/// What a probe asks beside balance and nonces.
#[derive(Debug, Clone, Copy)]
struct Wants {
    code: bool,
    counts: bool,
    next_slot: bool,
}

/// Time before a probe that failed, or that has to be confirmed, is made again.
const RETRY: Duration = Duration::from_millis(250);

/// The code of an account that has authorised some begins with this (EIP-7702).
const DELEGATION: [u8; 3] = [0xef, 0x01, 0x00];

async fn probe(chain: Arc<super::Chain>, account: Account, head: Arc<Head>, holders: Vec<B256>, wants: Wants) -> Result<Probe, CallError> {
    let Account { chain_id, address } = account;
    let block = U64::from(head.number);
    let pool = &chain.pool;
    let (balance, latest, pending) = tokio::join!(
        pool.call::<U256>("eth_getBalance", (address, block)),
        pool.call::<U64>("eth_getTransactionCount", (address, block)),
        pool.call_every::<U64>("eth_getTransactionCount", (address, "pending")),
    );
    let latest: u64 = latest?.to();
    // Without a single answer nobody can say whose the next nonce is.
    let answers: Vec<u64> = some_of(pending)?.into_iter().map(|nonce| nonce.to()).collect();
    let pending = answers.iter().copied().fold(latest, u64::max);
    let mut is_delegated = None;
    if wants.code {
        is_delegated = Some(pool.call::<Bytes>("eth_getCode", (address, block)).await?.starts_with(&DELEGATION));
    }
    let mut known = HashMap::new();
    for hash in holders {
        // What cannot be read now is read with the next head.
        if let Ok(Some(stored)) = chain.journal.attempt(chain_id, hash).await {
            known.insert(hash, (stored.state, stored.block));
        }
    }
    let counts = if wants.counts { Some(counts(pool, address).await) } else { None };
    let next_slot = if wants.next_slot { chain.journal.next_slot(account, latest).await.ok() } else { None };
    let settled = answers.iter().all(|nonce| *nonce == latest);
    Ok(Probe { head, balance: balance?, latest, pending, settled, counts, next_slot, is_delegated, holders: known })
}

/// The answers that there are; an error if there is none.
fn some_of<T>(answers: Vec<Result<T, CallError>>) -> Result<Vec<T>, CallError> {
    let (mut some, mut last) = (Vec::with_capacity(answers.len()), None);
    for answer in answers {
        match answer {
            Ok(answer) => some.push(answer),
            Err(error) => last = Some(error),
        }
    }
    last.filter(|_| some.is_empty()).map_or(Ok(some), Err)
}

impl Task {
    pub(super) fn submit(&mut self, submission: Submission) {
        let ticket = self.next_ticket();
        if let Payload::Unsigned { key, .. } = &submission.payload {
            self.key = Some(Arc::clone(key));
        }
        let refusal = self.stopped().or_else(|| self.no_room(&submission, clock::now()));
        let standing = self.standing(&submission);
        let pending = Pending::new(submission);
        match (refusal, standing) {
            (None, Standing::Undecided(hash)) => self.handed_in.wait(hash, pending.submission),
            (None, Standing::Held(attempt)) => self.hand_over(&attempt, pending),
            (None, Standing::New) => {
                self.tickets.insert(ticket, pending);
                self.intake.push_back(ticket);
            }
            (Some(error), _) | (None, Standing::Known(error)) => pending.submission.refuse(error),
        }
    }

    /// Why no more may wait, if so. What has its own nonce does not wait for its turn, and what is acknowledged has no deadline.
    fn no_room(&mut self, submission: &Submission, now: Instant) -> Option<TransactionError> {
        let bounds = self.chain.environment.account;
        if self.queued() >= bounds.queue {
            return Some(TransactionError::QueueFull);
        }
        let takes_turns = submission.nonce().is_none() && !submission.acknowledged;
        let is_crowded = takes_turns && self.room.size(now).is_some_and(|room| self.waiting() >= room);
        is_crowded.then_some(TransactionError::Crowded(bounds.queue_deadline))
    }

    /// Requests that wait for their turn: those that bring a nonce wait for that.
    pub(super) fn waiting(&self) -> usize {
        self.intake.len() + self.nonces.waiting()
    }

    /// Requests that wait without a nonce, wherever they do.
    pub(super) fn queued(&self) -> usize {
        self.intake.len() + self.nonces.queued() + self.handed_in.len()
    }

    /// Lets requests into the queue, in order of arrival, as far as the balance is known to cover them.
    pub(super) fn admit(&mut self, now: Instant) {
        while let Some(&ticket) = self.intake.front() {
            let Some(pending) = self.tickets.get(&ticket) else {
                self.intake.pop_front();
                continue;
            };
            let (cost, deadline) = (pending.submission.cost(), self.deadline(&pending.submission));
            if pending.submission.is_abandoned() {
                self.intake.pop_front();
                self.fail(ticket, TransactionError::Internal);
                continue;
            }
            if deadline <= now {
                self.intake.pop_front();
                self.fail(ticket, TransactionError::QueueDeadline(self.chain.environment.account.queue_deadline));
                continue;
            }
            match self.balance.check(cost) {
                None => {
                    self.probe_wanted = true;
                    return;
                }
                Some(Err(_)) if self.is_stale(ticket) => {
                    self.probe_wanted = true;
                    return;
                }
                Some(Err(short)) => {
                    self.intake.pop_front();
                    let total = cost.saturating_add(short.queued);
                    let overshot = total.saturating_sub(short.balance);
                    let error = TransactionError::InsufficientFunds { balance: short.balance, cost, overshot, queued: short.queued };
                    self.fail(ticket, error);
                }
                Some(Ok(())) => {
                    self.intake.pop_front();
                    self.enqueue(ticket, cost, deadline);
                }
            }
        }
    }

    pub(super) fn enqueue(&mut self, ticket: u64, cost: U256, deadline: Instant) {
        let Some(pending) = self.tickets.get(&ticket) else { return };
        let (wish, span) = (Self::wish(&pending.submission), pending.submission.span());
        self.balance.reserve(Owed::Request(ticket), cost);
        if let Err(denial) = self.nonces.enqueue(ticket, wish, span, deadline) {
            self.deny(ticket, denial);
        }
    }

    /// Whether the balance is older than the head at which it was first too small for this request.
    fn is_stale(&mut self, ticket: u64) -> bool {
        let newest = self.chain.tracker.newest().map(|head| head.number);
        let Some(pending) = self.tickets.get_mut(&ticket) else { return false };
        pending.short_at = pending.short_at.or(newest);
        pending.short_at > self.balance.block()
    }

    pub(super) fn start_probe(&mut self, now: Instant) {
        if !self.probe_wanted || self.probe.is_some() || self.probe_after.is_some_and(|at| at > now) {
            return;
        }
        let Some(head) = self.chain.tracker.newest() else { return };
        self.probe_wanted = false;
        let mut holders: Vec<B256> = self.lent.values().map(|lent| lent.holder).collect();
        holders.dedup();
        let wants = Wants { code: self.code_wanted, counts: self.is_reconciling() || self.suspects_gap(), next_slot: self.suspects_gap() };
        self.probe = Some(Box::pin(probe(Arc::clone(&self.chain), self.account, head, holders, wants)));
        self.code_wanted = false;
    }

    pub(super) fn probe_finished(&mut self, result: Result<Probe, CallError>) {
        match result {
            Ok(probe) => {
                self.probe_after = None;
                self.balance.read(probe.head.number, probe.balance);
                if let Some(is_delegated) = probe.is_delegated {
                    self.nonces.set_delegated(is_delegated);
                }
                self.compare(&probe);
                self.consider_bump(probe.latest, probe.head.number);
                self.admit_borrowers();
                for asker in std::mem::take(&mut self.askers) {
                    let _gone = asker.send(self.next_nonce());
                }
            }
            Err(error) => {
                tracing::debug!(%error, account = %self.address(), "balance and nonces could not be read");
                self.probe_wanted = true;
                self.code_wanted = true;
                self.probe_after = Some(clock::now() + RETRY);
            }
        }
    }

    /// Whose nonces are they? What the chain counts beyond ours was signed elsewhere.
    fn compare(&mut self, probe: &Probe) {
        self.chain_nonce = Some(probe.pending.max(probe.latest));
        if self.is_reconciling() {
            self.reconcile(probe);
        } else if probe.pending.max(probe.latest) > self.nonces.ceiling() {
            if !self.nonces.is_on_hold() {
                self.nonces.set_on_hold(true);
                self.alarm("foreign_nonce", "the key is used outside of Sluice; new nonces wait until the chain has settled");
            }
            // Seen twice: whoever uses the key may be in the middle of a row of transactions.
            let seen = std::mem::replace(&mut self.settled_at, probe.settled.then_some(probe.latest));
            if seen == Some(probe.latest) && probe.settled && self.nonces.resync(probe.latest) {
                self.settled_at = None;
                self.floor = Some(probe.latest);
                self.code_wanted = true;
                self.nonces.set_on_hold(false);
                tracing::warn!(account = %self.address(), next = probe.latest, "nonces go on where the chain is");
            } else {
                self.probe_wanted = true;
                self.probe_after = Some(clock::now() + RETRY);
            }
        } else if self.nonces.is_on_hold() {
            self.nonces.set_on_hold(false);
        }
        self.settle_lent(probe);
        self.find_foreign(probe.latest, probe.head.number);
        self.settle_foreign(probe.latest, probe.head.number);
        self.settle_gap(probe);
    }

    /// None of the slot's own payloads can be mined any more.
    pub(super) fn slot_lost(&mut self, nonce: u64, why: &str) {
        for attempt in self.take_slot(nonce) {
            self.note(&attempt, AttemptState::Replaced, None, Some(why.into()), None);
            self.chain.tracker.forget(attempt.hash);
        }
    }
}
