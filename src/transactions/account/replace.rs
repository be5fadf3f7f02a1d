//! Payloads in the place of others: what a client asks to be sped up or cancelled, and what pays more because it is stuck.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use alloy_consensus::{Transaction as _, TxEnvelope, TypedTransaction};
use alloy_eips::Decodable2718 as _;
use alloy_primitives::{B256, U256};

use super::fill::{nothing_to, price_of};
use super::submission::{Payload, Reply, Submission, with_nonce};
use super::{Live, Owed, Pending, Task};
use crate::journal::{Attempt, AttemptState, Kind, PauseBy, Purpose, TransactionId};
use crate::signing::Key;
use crate::telemetry::clock;
use crate::transactions::account::loans::Borrowed;
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::{SlotState, Ticket};
use crate::transactions::prepare::{Prepared, TRANSFER_GAS};
use crate::transactions::replacement::{Bid, Decision, Market, Stop, Stuck, decide, has_one_price, patience, with_bid};
use crate::transactions::request::Fees;

/// Who wants a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// The account's task: the slot is stuck.
    Bump,
    /// A client.
    SpeedUp,
    /// A client: the transaction is not to be mined.
    Cancel,
}

impl Replacement {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bump, Self::SpeedUp, Self::Cancel];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bump => "bump",
            Self::SpeedUp => "speed_up",
            Self::Cancel => "cancel",
        }
    }
}

/// A client's wish to replace what its transaction has on record.
#[derive(Debug)]
pub struct ReplaceRequest {
    /// Which transaction.
    pub id: TransactionId,
    /// `SpeedUp` or `Cancel`.
    pub what: Replacement,
    /// What it wants to pay.
    pub fees: Fees,
    /// The key of the account.
    pub key: Arc<Key>,
    /// When it arrived.
    pub arrived: Instant,
    /// Set to the hash of the payload that is replaced.
    pub replaced: Arc<OnceLock<B256>>,
    /// Where the answer goes.
    pub reply: Reply,
}

const UNDER_WAY: &str = "a replacement of this transaction is under way";

/// A slot that is reserved for another payload.
pub(super) struct Offer {
    ticket: Ticket,
    prepared: Box<Prepared>,
}

/// The payload of signed bytes.
fn payload(attempt: &Attempt) -> Option<TypedTransaction> {
    TxEnvelope::decode_2718_exact(&attempt.raw).ok().map(TypedTransaction::from)
}

impl Task {
    /// Why nothing is replaced now, if so. A refused filler is no reason: a replacement may be what helps.
    fn irreplaceable(&self) -> Option<TransactionError> {
        if !self.resyncs.is_empty() {
            return Some(TransactionError::Paused("it is being opened again".into()));
        }
        let stopped = self.slot_taken || [PauseBy::Operator, PauseBy::Reconcile].into_iter().any(|by| self.pauses.by(by).is_some());
        self.stopped().filter(|_| stopped)
    }

    /// The attempts of a slot that may still be mined, oldest first.
    fn alive(&self, nonce: u64) -> Vec<&Live> {
        let mut alive: Vec<&Live> = self.attempts.of(nonce).filter(|live| live.may_be_mined()).collect();
        alive.sort_unstable_by_key(|live| live.order);
        alive
    }

    /// The newest attempt of the slot, beside this one, that may still be mined: its payload, if this one never is.
    pub(super) fn fallback(&self, nonce: u64, beside: B256) -> Option<&Live> {
        self.alive(nonce).into_iter().rfind(|live| live.attempt.hash != beside)
    }

    /// What the slot's attempts that may be mined cost at most, in wei.
    pub(super) fn owed_for(&self, nonce: u64) -> U256 {
        self.alive(nonce).into_iter().map(|live| live.attempt.cost).max().unwrap_or_default()
    }

    pub(super) fn replace_asked(&mut self, request: ReplaceRequest) {
        let ReplaceRequest { id, what, fees, key, arrived, replaced, reply } = request;
        match self.to_replace(id, what).and_then(|current| Ok((self.offer(&current, what, fees)?, current))) {
            Ok((offer, current)) => {
                let _first = replaced.set(current.hash);
                self.take_up(&current, what, offer, key, arrived, Some(reply));
            }
            Err(error) => {
                let _gone = reply.sender.send(Err(error));
            }
        }
    }

    /// The payload on record of a transaction that may be replaced.
    fn to_replace(&self, id: TransactionId, what: Replacement) -> Result<Arc<Attempt>, TransactionError> {
        let not = |words: &str| Err(TransactionError::NotReplaceable(words.into()));
        if let Some(stopped) = self.irreplaceable() {
            return Err(stopped);
        }
        let of: Vec<&Live> = self.attempts.values().filter(|live| live.attempt.transaction == id).collect();
        let Some(live) = of.iter().copied().filter(|live| live.state != AttemptState::Refused).max_by_key(|live| live.order) else {
            return if of.is_empty() { Err(TransactionError::AlreadyMined { hash: None }) } else { not("the transaction was refused") };
        };
        let nonce = live.attempt.nonce;
        let mined = self.attempts.of(nonce).find(|live| live.state == AttemptState::Included);
        match self.nonces.slot(nonce) {
            Some(SlotState::Unsent | SlotState::Sent | SlotState::Held) => {}
            Some(SlotState::Mined | SlotState::Foreign) | None => {
                return Err(TransactionError::AlreadyMined { hash: mined.map(|live| live.attempt.hash) });
            }
            Some(_) => return not("a change of this transaction is being written: try again"),
        }
        if self.nonces.is_replacing(nonce) {
            return not(UNDER_WAY);
        }
        if self.current.get(&nonce) != Some(&live.attempt.hash) {
            return not("another transaction has the nonce");
        }
        if self.alive(nonce).into_iter().any(|live| !live.attempt.authorisations.is_empty()) {
            return not("it carries EIP-7702 authorisations by accounts of this gateway");
        }
        if what == Replacement::SpeedUp && live.state == AttemptState::Held {
            return not("its bytes are its client's to send: it can be cancelled");
        }
        Ok(Arc::clone(&live.attempt))
    }

    /// Reserves the slot of `current` for another payload, if the account can pay it.
    pub(super) fn offer(&mut self, current: &Attempt, what: Replacement, fees: Fees) -> Result<Offer, TransactionError> {
        let (transaction, cost) = self.replacement(current, what, fees)?;
        let more = cost.saturating_sub(self.balance.owed(Owed::Slot(current.nonce)));
        // What costs no more than what it replaces can always be paid: a cancel may be what helps an account that is short.
        if !more.is_zero()
            && let Some(Err(short)) = self.balance.check(more)
        {
            let overshot = more.saturating_add(short.queued).saturating_sub(short.balance);
            return Err(TransactionError::InsufficientFunds { balance: short.balance, cost: more, overshot, queued: short.queued });
        }
        let ticket = self.next_ticket();
        if !self.nonces.replace(ticket, current.nonce) {
            return Err(TransactionError::NotReplaceable(UNDER_WAY.into()));
        }
        let prepared = Prepared { from: current.account.address, transaction, nonce: Some(current.nonce), cost, span: 1 };
        Ok(Offer { ticket, prepared: Box::new(prepared) })
    }

    /// The payload waits for its Sign.
    fn take_up(&mut self, current: &Attempt, what: Replacement, offer: Offer, key: Arc<Key>, arrived: Instant, reply: Option<Reply>) {
        let submission = Submission {
            id: current.transaction,
            kind: current.kind,
            purpose: if what == Replacement::Cancel { Purpose::Cancel } else { current.purpose },
            service: Arc::clone(&current.service),
            principal: Arc::clone(&current.principal),
            request: Arc::clone(&current.request),
            payload: Payload::Unsigned { prepared: offer.prepared, key },
            arrived,
            queued: clock::now(),
            reply,
            borrowed: Borrowed::default(),
            key: None,
            acknowledged: false,
        };
        let (nonce, what_word) = (current.nonce, what.as_str());
        tracing::info!(account = %self.address(), nonce, replaces = %current.hash, what = what_word, "a payload is replaced");
        let pending = Pending { replaces: true, replacement: Some(what), nonce, ..Pending::new(submission) };
        self.tickets.insert(offer.ticket, pending);
    }

    /// The payload and what it may cost.
    fn replacement(&self, current: &Attempt, what: Replacement, fees: Fees) -> Result<(TypedTransaction, U256), TransactionError> {
        let old = payload(current).ok_or(TransactionError::Internal)?;
        let market = self.market(current, &old, what)?;
        let bid = market.price(fees)?;
        let transaction = if what == Replacement::Cancel {
            nothing_to(current.account.address, current.account.chain_id, price_of(bid, market.one_price))
        } else {
            with_bid(old, bid)
        };
        let transaction = with_nonce(&transaction, current.nonce);
        // Another signature of the same payload is no other payload, and the same bytes where signatures are deterministic.
        if self.alive(current.nonce).into_iter().filter_map(|live| payload(&live.attempt)).any(|other| other == transaction) {
            let words = "it would be the same payload again: nothing is raised where gas is free, so give a price";
            return Err(TransactionError::NotReplaceable(words.into()));
        }
        let fee = U256::from(bid.cap).saturating_mul(U256::from(market.gas));
        let cost = fee.saturating_add(transaction.value());
        Ok((transaction, cost))
    }

    fn market(&self, current: &Attempt, old: &TypedTransaction, what: Replacement) -> Result<Market, TransactionError> {
        let bids = self.alive(current.nonce).into_iter().filter_map(|live| payload(&live.attempt)).map(|payload| Bid::of(&payload));
        let gone = || TransactionError::NotReplaceable("its service is not configured any more, nor what it may pay".into());
        let ceilings = self.chain.ceilings(&current.service).ok_or_else(gone)?;
        Ok(Market {
            highest: bids.fold(Bid::default(), Bid::max),
            one_price: has_one_price(old),
            gas: if what == Replacement::Cancel { TRANSFER_GAS } else { old.gas_limit() },
            fees: self.chain.environment.fees,
            now: self.chain.fees.now(),
            ceilings,
        })
    }

    /// At each head: whether the account's lowest slot is stuck, and pays more.
    pub(super) fn consider_bump(&mut self, latest: u64, head: u64) {
        let Some(nonce) = self.nonces.lowest_unmined() else { return };
        let Some(hash) = self.current.get(&nonce) else { return };
        if nonce != latest || self.nonces.slot(nonce) != Some(SlotState::Sent) || self.nonces.is_replacing(nonce) {
            return;
        }
        let Some(live) = self.attempts.get(hash) else { return };
        let current = Arc::clone(&live.attempt);
        let waiting = live.waiting_since;
        let bump = self.chain.environment.bump;
        let patience = patience(bump.after, self.address());
        let waited = waiting.map(|(since, _)| clock::now().saturating_duration_since(since));
        // Most heads end here: nothing is decoded for them.
        if bump.times == 0 || self.irreplaceable().is_some() || !(live.occupied || waited.is_some_and(|waited| waited >= patience)) {
            return;
        }
        let alive = self.alive(nonce);
        if alive.iter().any(|live| !live.attempt.authorisations.is_empty()) {
            return;
        }
        let attempts = self.attempts.of(nonce).filter(|live| live.attempt.transaction == current.transaction).count();
        let (taken, occupied) = (alive.iter().any(|live| live.delivery.is_taken()), live.occupied);
        let Some(market) = payload(&current).and_then(|old| self.market(&current, &old, Replacement::Bump).ok()) else { return };
        let stuck = Stuck {
            market,
            replacements: u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX),
            executable: nonce == latest,
            taken,
            occupied,
            waited,
            heads: waiting.map_or(0, |(_, sent)| head.saturating_sub(sent)),
        };
        match decide(&stuck, bump, patience) {
            Decision::Wait => {}
            Decision::Stop(why) => self.bumps_end(nonce, why),
            Decision::Replace(_) => self.bump(&current),
        }
    }

    fn bump(&mut self, current: &Attempt) {
        let Some(key) = self.key.clone().or_else(|| (self.chain.key_of)(self.address())) else { return };
        match self.offer(current, Replacement::Bump, Fees::Dynamic { cap: None, tip: None }) {
            Ok(offer) => self.take_up(current, Replacement::Bump, offer, key, clock::now(), None),
            Err(TransactionError::InsufficientFunds { .. }) => self.bumps_end(current.nonce, Stop::Balance),
            Err(error) => {
                tracing::warn!(%error, account = %self.address(), nonce = current.nonce, "a stuck payload cannot be replaced now")
            }
        }
    }

    /// Told once for each slot, and again after a restart.
    fn bumps_end(&mut self, nonce: u64, why: Stop) {
        if self.bumps_ended != Some(nonce) {
            self.bumps_ended = Some(nonce);
            self.alarm("bump_stopped", &format!("nonce {nonce} is not mined, and its price is not raised any more: {}", why.as_str()));
        }
    }

    /// The first replacement of a slot that is Sluice's own to make, or one that paid too little for the node: it is raised at the next look.
    pub(super) fn occupied(&mut self, attempt: &Attempt) {
        let (hash, nonce) = (attempt.hash, attempt.nonce);
        if self.fallback(nonce, hash).is_none() {
            self.alarm("slot_occupied", &format!("another payload holds nonce {nonce} in the node's pool"));
        } else if self.current.get(&nonce) == Some(&hash) {
            tracing::warn!(account = %self.address(), nonce, %hash, "the node wants more for a replacement");
            if let Some(live) = self.attempts.get_mut(&hash) {
                live.occupied = true;
            }
            self.probe_wanted = true;
        }
    }

    /// What was to be replaced by something that was not committed is its older payload's after all, or open, if it was refused meanwhile.
    pub(super) fn put_back_refused(&mut self, nonce: u64) {
        let refused =
            self.current.get(&nonce).and_then(|hash| self.attempts.get(hash)).is_some_and(|live| live.state == AttemptState::Refused);
        if refused && self.nonces.slot(nonce) == Some(SlotState::Reopened) && !self.nonces.commits_replacement(nonce) {
            self.put_back(nonce);
        }
    }

    /// The slot is what its attempts make of it: its payload is the newest that may still be mined; without one the next request takes it.
    pub(super) fn put_back(&mut self, nonce: u64) {
        if self.current.get(&nonce).and_then(|hash| self.attempts.get(hash)).is_some_and(|live| live.refusing) {
            // What is in its place comes once that is on record.
            self.nonces.set_slot(nonce, SlotState::Reopened);
            return;
        }
        let Some(live) = self.alive(nonce).pop() else {
            self.balance.release(Owed::Slot(nonce));
            self.nonces.set_slot(nonce, SlotState::Open);
            return;
        };
        let slot = match live.state {
            AttemptState::Held => SlotState::Held,
            AttemptState::Orphaned => SlotState::Unsent,
            // It was replaced before it was sent, or an earlier process sent it: no clock brings it back.
            _ if live.sent_at.is_none() => SlotState::Unsent,
            // Where it was sent before, nothing above waits for it; elsewhere it goes again by the clock.
            _ => SlotState::Sent,
        };
        self.current.insert(nonce, live.attempt.hash);
        self.outboxes.settled(nonce);
        self.balance.reserve(Owed::Slot(nonce), self.owed_for(nonce));
        self.nonces.set_slot(nonce, slot);
    }
}

/// Whether the attempt is given to its client instead of the nodes. What is put in the place of bytes that a client was given is sent from
/// here: they are cancelled, or they were sent from here themselves.
pub(super) fn first_state(kind: Kind, replacement: Option<Replacement>) -> AttemptState {
    if kind == Kind::SignOnly && replacement.is_none() { AttemptState::Held } else { AttemptState::Committed }
}
