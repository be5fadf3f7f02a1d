//! What goes to which endpoint when: an outbox in order of nonces per endpoint of one account. Pure: payloads, answers and times in,
//! what is to be written out. A slow endpoint delays no other: each outbox waits for its own answers alone.
//!
//! - `pipelined`: everything goes to every endpoint at once, whatever is unanswered;
//! - `batched`: what waits goes as one JSON-RPC batch, the next one when that is answered;
//! - `sequential`: a payload goes when the one below it was taken by this endpoint, or is settled on the chain. One that was not taken
//!   stays in front and is tried again; what is above it waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use alloy_primitives::B256;

use super::outcome::Outcome;
use crate::config::Broadcast;

/// Payloads in one batch, at most: an endpoint that takes fewer gets fewer.
pub const BATCH: usize = 100;
/// Bytes of one batch, about; a larger payload goes alone.
pub const BATCH_BYTES: usize = 512 * 1024;
/// Time before a payload that was not taken is tried again at its endpoint; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(500);
/// The longest such time.
const LONGEST: Duration = Duration::from_secs(16);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This payload goes to every endpoint, as a request of its own.
    Everywhere(B256),
    /// These go to one endpoint, in this order; several as one batch.
    To {
        /// Its place in the configuration.
        endpoint: usize,
        /// The payloads.
        hashes: Vec<B256>,
    },
    /// The endpoint does not get this payload for now: one below it was not taken there. It is no part of what the answers mean.
    Withheld {
        /// The endpoint's place in the configuration.
        endpoint: usize,
        /// The payload.
        hash: B256,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    nonce: u64,
    hash: B256,
    bytes: usize,
    tries: u32,
    not_before: Option<Instant>,
}

/// What an outbox has for a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waits(Item),
    /// Its payload was refused for good: another one is to come, and nothing above goes before it.
    Hole,
}

#[derive(Debug)]
struct UnderWay {
    item: Item,
    /// Not to be tried again whatever the answer is: its slot is settled or has another payload.
    over: bool,
}

#[derive(Debug)]
struct Outbox {
    waiting: BTreeMap<u64, Place>,
    under_way: Vec<UnderWay>,
    /// Payloads of the batch under way.
    batch: usize,
    /// Those of them whose answer nobody can read.
    unknown: usize,
    limit: usize,
}

/// The outboxes of one account.
#[derive(Debug)]
pub struct Outboxes {
    mode: Broadcast,
    outboxes: Vec<Outbox>,
    steps: VecDeque<Step>,
}

impl Outbox {
    fn new() -> Self {
        Self { waiting: BTreeMap::new(), under_way: Vec::new(), batch: 0, unknown: 0, limit: BATCH }
    }

    /// Whether what waits in front was tried in vain, or is a hole.
    fn is_stuck(&self) -> bool {
        match self.waiting.first_key_value() {
            Some((_, Place::Waits(item))) => item.tries > 0,
            Some((_, Place::Hole)) => true,
            None => false,
        }
    }

    fn push(&mut self, item: Item) -> Option<B256> {
        let mut superseded = None;
        for other in self.under_way.iter_mut().filter(|other| other.item.nonce == item.nonce) {
            if other.item.hash == item.hash {
                // Its answer is to come.
                return None;
            }
            other.over = true;
        }
        if let Some(Place::Waits(before)) = self.waiting.get(&item.nonce)
            && before.hash != item.hash
        {
            superseded = Some(before.hash);
        }
        self.waiting.insert(item.nonce, Place::Waits(item));
        superseded
    }

    fn batch(&mut self) -> Vec<B256> {
        let mut hashes = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.waiting.first_entry()
            && let Place::Waits(item) = *entry.get()
            && hashes.len() < self.limit
            && (hashes.is_empty() || bytes + item.bytes <= BATCH_BYTES)
        {
            entry.remove();
            bytes += item.bytes;
            hashes.push(item.hash);
            self.under_way.push(UnderWay { item, over: false });
        }
        (self.batch, self.unknown) = (hashes.len(), 0);
        hashes
    }

    fn next(&mut self, now: Instant) -> Option<B256> {
        let entry = self.waiting.first_entry()?;
        let Place::Waits(item) = *entry.get() else { return None };
        if item.not_before.is_some_and(|at| at > now) {
            return None;
        }
        entry.remove();
        self.under_way.push(UnderWay { item, over: false });
        Some(item.hash)
    }

    /// The answers to a batch are complete: an endpoint that can make nothing of it gets a smaller one.
    fn batch_answered(&mut self) {
        if self.batch > 1 && self.unknown == self.batch {
            self.limit = (self.batch / 2).max(1);
        } else if self.unknown == 0 {
            self.limit = (self.limit * 2).min(BATCH);
        }
    }
}

impl Outboxes {
    /// Empty ones, for so many endpoints.
    pub fn new(mode: Broadcast, endpoints: usize) -> Self {
        Self { mode, outboxes: (0..endpoints).map(|_| Outbox::new()).collect(), steps: VecDeque::new() }
    }

    /// The slot's payload is to be sent, or sent again. It takes the place of another payload of the slot that waits.
    pub fn push(&mut self, nonce: u64, hash: B256, bytes: usize) {
        if self.mode == Broadcast::Pipelined {
            self.steps.push_back(Step::Everywhere(hash));
            return;
        }
        for (endpoint, outbox) in self.outboxes.iter_mut().enumerate() {
            let item = Item { nonce, hash, bytes, tries: 0, not_before: None };
            if let Some(hash) = outbox.push(item) {
                self.steps.push_back(Step::Withheld { endpoint, hash });
            }
            let is_first = outbox.waiting.first_key_value().is_some_and(|(first, _)| *first == nonce);
            if !is_first && outbox.is_stuck() {
                self.steps.push_back(Step::Withheld { endpoint, hash });
            }
        }
    }

    /// The endpoint answered; or it is known that there will be no answer.
    pub fn answered(&mut self, endpoint: usize, hash: B256, outcome: &Outcome, now: Instant) {
        let Some(outbox) = self.outboxes.get_mut(endpoint) else { return };
        let Some(at) = outbox.under_way.iter().position(|under_way| under_way.item.hash == hash) else { return };
        let UnderWay { mut item, over } = outbox.under_way.swap_remove(at);
        if self.mode == Broadcast::Batched {
            outbox.unknown += usize::from(matches!(outcome, Outcome::Unknown(_) | Outcome::Unrecognised { .. }));
            if outbox.under_way.is_empty() {
                outbox.batch_answered();
            }
            return;
        }
        // What the endpoint's pool or chain has for the nonce leaves no gap below the next one.
        let leaves_no_gap = outcome.is_taken() || matches!(outcome, Outcome::NonceTooLow | Outcome::Occupied);
        if over || leaves_no_gap || outbox.waiting.contains_key(&item.nonce) {
            return;
        }
        item.not_before = Some(now + (FIRST * 2_u32.saturating_pow(item.tries)).min(LONGEST));
        item.tries = (item.tries + 1).min(16);
        outbox.waiting.insert(item.nonce, Place::Waits(item));
        for place in outbox.waiting.range(item.nonce + 1..).map(|(_, place)| place) {
            if let Place::Waits(above) = place {
                self.steps.push_back(Step::Withheld { endpoint, hash: above.hash });
            }
        }
    }

    /// The slot's payload was refused for good and is never sent again: what is above it waits for another one.
    pub fn refused(&mut self, nonce: u64) {
        self.leave(nonce);
        if self.mode == Broadcast::Sequential {
            for outbox in &mut self.outboxes {
                outbox.waiting.insert(nonce, Place::Hole);
            }
        }
    }

    /// This payload was refused for good and is never sent again; the slot has another one, which is sent or is to be.
    pub fn withdraw(&mut self, nonce: u64, hash: B256) {
        for outbox in &mut self.outboxes {
            if let Some(place) = outbox.waiting.get_mut(&nonce)
                && matches!(place, Place::Waits(item) if item.hash == hash)
            {
                *place = Place::Hole;
                if self.mode != Broadcast::Sequential {
                    outbox.waiting.remove(&nonce);
                }
            }
            for under_way in outbox.under_way.iter_mut().filter(|under_way| under_way.item.hash == hash) {
                under_way.over = true;
            }
        }
    }

    /// The chain has used the nonce: nothing of it goes anywhere any more, and nothing waits for it.
    pub fn settled(&mut self, nonce: u64) {
        self.leave(nonce);
    }

    fn leave(&mut self, nonce: u64) {
        for outbox in &mut self.outboxes {
            outbox.waiting.remove(&nonce);
            for under_way in outbox.under_way.iter_mut().filter(|under_way| under_way.item.nonce == nonce) {
                under_way.over = true;
            }
        }
    }

    /// What to do next; call until it answers `None`, after every event and when time has passed.
    pub fn poll(&mut self, now: Instant) -> Option<Step> {
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        let mode = self.mode;
        self.outboxes.iter_mut().enumerate().filter(|(_, outbox)| outbox.under_way.is_empty()).find_map(|(endpoint, outbox)| {
            let hashes = match mode {
                Broadcast::Pipelined => return None,
                Broadcast::Batched => outbox.batch(),
                Broadcast::Sequential => outbox.next(now).into_iter().collect(),
            };
            (!hashes.is_empty()).then_some(Step::To { endpoint, hashes })
        })
    }
}

#[cfg(test)]
mod tests;
