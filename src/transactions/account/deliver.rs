//! From a committed attempt to the nodes, and what their answers mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::outbox::After;
use super::{Answered, Live, RESEND, Task};
use crate::journal::{AttemptState, Kind, PauseBy};
use crate::telemetry::clock;
use crate::transactions::broadcast::Verdict;
use crate::transactions::errors::TransactionError;
use crate::transactions::meters::Stage;
use crate::transactions::nonces::SlotState;
use crate::transactions::outcome::classify;

/// Time before an account that is paused by a refused filler tries another one: somebody may have added funds.
const FILL_PAUSED: Duration = Duration::from_secs(30);

impl Task {
    pub(super) fn send(&mut self, nonce: u64, now: Instant) {
        let Some(hash) = self.current.get(&nonce).copied() else { return };
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        let tickets = self.chain.pool.send_raw(Arc::clone(&live.params));
        live.delivery.begin(tickets.len());
        live.sent_at = Some(now);
        live.absent = false;
        if live.waiting_since.is_none() {
            let head = self.chain.tracker.processed().borrow().as_ref().map(|head| head.number);
            live.waiting_since = head.map(|head| (now, head));
        }
        if let (None, Some(laps)) = (live.first_sent, &mut live.laps) {
            laps.end(Stage::Window, now, &self.chain.metrics);
            live.first_sent = Some(now);
        }
        for (endpoint, ticket) in tickets.into_iter().enumerate() {
            self.sends.push(ticket.map(move |answer| (hash, endpoint, answer)).boxed());
        }
    }

    pub(super) fn answered(&mut self, (hash, endpoint, answer): Answered) {
        let outcome = classify(&answer, hash);
        self.chain.metrics.submission(&outcome);
        let Some(live) = self.attempts.get_mut(&hash) else { return };
        let (attempt, state) = (Arc::clone(&live.attempt), live.state);
        let verdict = live.delivery.record(endpoint, outcome);
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
                self.filled(&attempt);
            }
            Verdict::NotSent => self.nonces.send_later(attempt.nonce, clock::now() + RESEND),
            Verdict::Refused { code, message } if waits => self.refused(&attempt, code, message),
            Verdict::Refused { message, .. } => tracing::debug!(%hash, message, "a refusal of bytes that are not waited for"),
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
        }
        if attempt.kind == Kind::Filler && self.fallback(attempt.nonce, hash).is_none() && !self.nonces.commits_replacement(attempt.nonce) {
            let reason = format!("a filler for nonce {} was refused: {message}", attempt.nonce);
            self.alarm("filler_refused", &reason);
            self.pause(PauseBy::Filler, Some(reason));
            self.fill_later(FILL_PAUSED);
        }
        let error = TransactionError::Refused { code, message: message.clone(), hash };
        self.note(attempt, AttemptState::Refused, None, Some(message), Some(After::Refused { hash, error }));
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

    fn look_up_slot(&self, nonce: u64) {
        for (hash, live) in &self.attempts {
            if live.attempt.nonce == nonce {
                self.chain.tracker.look_up(*hash);
            }
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
        for (&nonce, hash) in &self.current {
            let Some(live) = self.attempts.get_mut(hash) else { continue };
            match self.nonces.slot(nonce) {
                Some(SlotState::Sent) if live.sent_at.is_some_and(|at| now.duration_since(at) >= rebroadcast) => {
                    live.sent_at = Some(now);
                    live.resend_if_absent = true;
                    self.chain.tracker.look_up(*hash);
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
            self.note(&attempt, AttemptState::Refused, None, detail, Some(After::HoldOver { hash }));
        }
    }

    /// Sends the same bytes again, if the slot still waits for them.
    pub(super) fn resend(&mut self, hash: alloy_primitives::B256) {
        if let Some(live) = self.attempts.get_mut(&hash) {
            let nonce = live.attempt.nonce;
            live.resend_if_absent = false;
            if self.current.get(&nonce) == Some(&hash) && self.nonces.slot(nonce) == Some(SlotState::Sent) {
                self.nonces.set_slot(nonce, SlotState::Unsent);
            }
        }
    }
}
