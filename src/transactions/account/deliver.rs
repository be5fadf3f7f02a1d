//! From a committed attempt to the nodes, and what their answers mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use futures_util::FutureExt as _;
use serde_json::value::RawValue;

use super::outbox::After;
use super::{Answered, Live, RESEND, Task};
use crate::journal::{AttemptState, Kind, PauseBy};
use crate::telemetry::clock;
use crate::telemetry::faults::SeededFault;
use crate::transactions::broadcast::Verdict;
use crate::transactions::errors::TransactionError;
use crate::transactions::meters::Stage;
use crate::transactions::nonces::SlotState;
use crate::transactions::outboxes::Step;
use crate::transactions::outcome::{Outcome, classify, is_too_cheap};

/// Time before an account that is paused by a refused filler tries another one: somebody may have added funds.
const FILL_PAUSED: Duration = Duration::from_secs(30);

impl Task {
    pub(super) fn send(&mut self, nonce: u64, now: Instant) {
        let Some(hash) = self.current.get(&nonce).copied() else { return };
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        if !live.may_be_mined() {
            self.alarm("refused_payload", &format!("nonce {nonce} has refused bytes for its payload: they are not sent"));
            return self.put_back(nonce);
        }
        live.delivery.begin(self.chain.pool.senders());
        live.sent_at = Some(now);
        live.absent = false;
        if live.waiting_since.is_none() {
            let head = self.chain.tracker.newest().map(|head| head.number);
            live.waiting_since = head.map(|head| (now, head));
        }
        self.outboxes.push(nonce, hash, live.params.get().len());
    }

    /// Does what the outboxes say.
    pub(super) fn step(&mut self, step: Step, now: Instant) {
        match step {
            Step::Everywhere(hash) => {
                let Some(params) = self.given(hash, None, now) else { return };
                for (endpoint, ticket) in self.chain.pool.send_raw(params).into_iter().enumerate() {
                    self.sends.push(ticket.map(move |answer| (hash, endpoint, answer)).boxed());
                }
            }
            Step::To { endpoint, hashes } => {
                let mut payloads = Vec::with_capacity(hashes.len());
                let mut given = Vec::with_capacity(hashes.len());
                for hash in hashes {
                    match self.given(hash, Some(endpoint), now) {
                        Some(params) => {
                            payloads.push(params);
                            given.push(hash);
                        }
                        // Its slot is final: no answer will come.
                        None => self.outboxes.answered(endpoint, hash, &Outcome::NotSent, now),
                    }
                }
                for (hash, ticket) in given.into_iter().zip(self.chain.pool.send_raw_to(endpoint, &payloads)) {
                    self.sends.push(ticket.map(move |answer| (hash, endpoint, answer)).boxed());
                }
            }
            Step::Withheld { endpoint, hash } => {
                if let Some(live) = self.attempts.get_mut(&hash) {
                    let verdict = live.delivery.withhold(endpoint);
                    self.judge(hash, verdict);
                }
            }
        }
    }

    /// The bytes go to one endpoint, or to all, now. Answers the parameters of the request.
    fn given(&mut self, hash: B256, endpoint: Option<usize>, now: Instant) -> Option<Arc<RawValue>> {
        let live = self.attempts.get_mut(&hash)?;
        match endpoint {
            Some(endpoint) => live.delivery.give(endpoint),
            None => (0..self.chain.pool.senders()).for_each(|endpoint| live.delivery.give(endpoint)),
        }
        live.sent_at = Some(now);
        if let (None, Some(laps)) = (live.first_sent, &mut live.laps) {
            laps.end(Stage::Window, now, &self.chain.metrics);
            live.first_sent = Some(now);
        }
        Some(Arc::clone(&live.params))
    }

    pub(super) fn answered(&mut self, (hash, endpoint, answer): Answered, now: Instant) {
        let outcome = classify(&answer, hash);
        self.chain.metrics.submission(&outcome);
        if let Outcome::Unrecognised { code, message } = &outcome
            && let Some(text) = self.chain.unrecognised.first(message)
        {
            let environment = &self.chain.environment.name;
            tracing::warn!(%environment, endpoint, code, text, "a node's answer to a send is not in the table: the slot is held");
        }
        self.outboxes.answered(endpoint, hash, &outcome, now);
        if let Some(live) = self.attempts.get_mut(&hash) {
            let misread = outcome.is_taken() && SeededFault::TakenIsRefused.is_on();
            let verdict = live.delivery.record(endpoint, outcome);
            let no = Verdict::Refused { code: -32000, message: "a yes, read as a no".into() };
            self.judge(hash, if misread { no } else { verdict });
        }
    }

    fn judge(&mut self, hash: B256, verdict: Verdict) {
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        let (attempt, state) = (Arc::clone(&live.attempt), live.state);
        let waits = self.nonces.slot(attempt.nonce) == Some(SlotState::Sent);
        match verdict {
            Verdict::Wait => {}
            Verdict::Taken => {
                if matches!(state, AttemptState::Committed | AttemptState::Orphaned) {
                    live.state = AttemptState::Broadcast;
                    live.taken(&self.chain);
                    self.note(&attempt, AttemptState::Broadcast, None, None, None);
                }
                self.accept(hash);
                if SeededFault::TakenForgotten.is_on() {
                    self.chain.tracker.forget(hash);
                }
                self.filled(&attempt);
            }
            Verdict::NotSent => self.nonces.send_later(attempt.nonce, clock::now() + RESEND),
            Verdict::Refused { code, message } if waits => self.refused(&attempt, code, message),
            Verdict::Refused { message, .. } => tracing::debug!(%hash, message, "a refusal of bytes that are not waited for"),
            Verdict::NonceTooLow if SeededFault::TooLowIsRefused.is_on() => self.refused(&attempt, -32000, "nonce too low".into()),
            Verdict::Held(why) if SeededFault::UnknownIsRefused.is_on() => self.refused(&attempt, -32000, why),
            Verdict::NonceTooLow => {
                self.accept(hash);
                self.look_up_slot(attempt.nonce);
            }
            Verdict::Occupied => {
                self.occupied(&attempt);
                self.accept(hash);
            }
            Verdict::PoolFull => {
                self.nonces.pool_full(attempt.nonce);
                self.retries.push((clock::now() + 2 * RESEND, hash));
                self.accept(hash);
            }
            Verdict::RefusedInDoubt(why) => {
                let nonce = attempt.nonce;
                // More money helps whichever it was: the same transaction, in the same slot.
                if is_too_cheap(&why) && self.current.get(&nonce) == Some(&hash) {
                    live.occupied = true;
                    self.probe_wanted = true;
                }
                self.alarm(
                    "refused_in_doubt",
                    &format!("nonce {nonce} is refused ({why}), but an earlier send of these bytes ended in doubt: held"),
                );
                self.accept(hash);
            }
            Verdict::Held(why) => {
                tracing::warn!(%hash, account = %self.address(), nonce = attempt.nonce, why, "nobody knows whether a node has these bytes: held");
                self.accept(hash);
            }
        }
    }

    /// Every endpoint refused the bytes for good. That is journaled before anybody is told, and they are never sent again. What they
    /// replaced is the slot's payload then, if that may still be mined.
    fn refused(&mut self, attempt: &Arc<crate::journal::Attempt>, code: i64, message: String) {
        let hash = attempt.hash;
        tracing::warn!(%hash, account = %self.address(), nonce = attempt.nonce, message, "refused by every endpoint");
        if self.current.get(&attempt.nonce) == Some(&hash) {
            self.nonces.set_slot(attempt.nonce, SlotState::Reopened);
            self.outboxes.refused(attempt.nonce);
        } else {
            self.outboxes.withdraw(attempt.nonce, hash);
        }
        if attempt.kind == Kind::Filler && self.fallback(attempt.nonce, hash).is_none() && !self.nonces.commits_replacement(attempt.nonce) {
            let reason = format!("a filler for nonce {} was refused: {message}", attempt.nonce);
            self.alarm("filler_refused", &reason);
            self.pause(PauseBy::Filler, Some(reason));
            self.fill_later(FILL_PAUSED);
        }
        let error = TransactionError::Refused { code, message: message.clone(), hash, transaction: attempt.transaction };
        if SeededFault::RefusalToldBeforeDurable.is_on() {
            let reply = self.attempts.get_mut(&hash).and_then(|live| live.reply.take());
            let _gone = reply.map(|reply| reply.sender.send(Err(error.clone())));
        }
        self.note_refusal(attempt, Some(message), After::Refused { hash, error });
    }

    /// A node took a filler: what stopped the account is over.
    fn filled(&mut self, attempt: &crate::journal::Attempt) {
        if attempt.kind == Kind::Filler && self.pauses.by(PauseBy::Filler).is_some() {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        tracing::warn!(account = %self.address(), "no refused filler stops the account any more");
        self.pause(PauseBy::Filler, None);
    }

    /// A refused filler stops the account until one is taken, or none is wanted any more.
    pub(super) fn lift_pause(&mut self) {
        if self.pauses.by(PauseBy::Filler).is_none() || self.fill_after.is_some() {
            return;
        }
        let waits =
            |live: &Live| live.attempt.kind == Kind::Filler && matches!(live.state, AttemptState::Committed | AttemptState::Orphaned);
        if self.nonces.is_idle() && !self.nonces.wants_filler() && !self.attempts.values().any(waits) {
            self.go_on();
        }
    }

    pub(super) fn look_up_slot(&self, nonce: u64) {
        for hash in self.attempts.hashes_of(nonce) {
            self.chain.tracker.look_up(hash);
        }
    }

    /// Bytes that reached nobody, or found no room, go out again; what is long unmined is looked up by hash first; holds end.
    pub(super) fn resend_due(&mut self, now: Instant) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retries).into_iter().partition(|(at, _)| *at <= now);
        self.retries = later;
        for (_, hash) in due {
            self.resend(hash);
        }
        let rebroadcast = self.chain.environment.rebroadcast;
        let wall = clock::wall();
        let reconciling = self.is_reconciling();
        let mut over = Vec::new();
        for nonce in self.nonces.in_state(SlotState::Sent).chain(self.nonces.in_state(SlotState::Held)).collect::<Vec<_>>() {
            let Some(hash) = self.current.get(&nonce) else { continue };
            let Some(live) = self.attempts.get_mut(hash) else { continue };
            match self.nonces.slot(nonce) {
                Some(SlotState::Sent) if live.sent_at.is_some_and(|at| now.duration_since(at) >= rebroadcast) => {
                    live.sent_at = Some(now);
                    live.resend_if_absent = true;
                    self.chain.tracker.look_up(*hash);
                }
                Some(SlotState::Held) if SeededFault::HeldHandedOn.is_on() => {
                    self.nonces.set_slot(nonce, SlotState::Open);
                }
                // Whether its client has sent it since is not known while the account reconciles.
                Some(SlotState::Held) if !reconciling && live.attempt.hold_until.is_some_and(|until| until <= wall) => over.push(*hash),
                _ => {}
            }
        }
        for hash in over {
            let Some(attempt) = self.attempts.get(&hash).map(|live| Arc::clone(&live.attempt)) else { continue };
            self.nonces.set_slot(attempt.nonce, SlotState::Reopened);
            let detail = Some("the hold of eth_signTransaction is over".into());
            self.note_refusal(&attempt, detail, After::HoldOver { hash });
        }
    }

    /// Sends the same bytes again, if the slot still waits for them.
    pub(super) fn resend(&mut self, hash: B256) {
        if let Some(live) = self.attempts.get_mut(&hash) {
            let nonce = live.attempt.nonce;
            live.resend_if_absent = false;
            if self.current.get(&nonce) == Some(&hash) && self.nonces.slot(nonce) == Some(SlotState::Sent) {
                self.nonces.set_slot(nonce, SlotState::Unsent);
            }
        }
    }
}
