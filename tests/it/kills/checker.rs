//! Chain, journal and what clients were told, compared: what was promised and is not so. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use alloy_primitives::{Address, B256};

use super::chain::Mined;
use super::journal::{Attempt, Event, Journal};
use super::ledger::{Answer, Change, Changed, Name, Outcome, Record};

/// What there is after a run, when everything has come to rest.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) journal: Journal,
    /// Every transaction of the canonical chain, in order.
    pub(super) mined: Vec<Mined>,
    pub(super) genesis: B256,
    /// The next nonce of each managed account, by the chain.
    pub(super) nonces: BTreeMap<Address, u64>,
    /// Every key that the gateway was given.
    pub(super) keys: Vec<Address>,
    pub(super) record: Record,
    /// Hash of all signed bytes that left the gateway, in order.
    pub(super) sent: Vec<B256>,
    /// The stream of lifecycle events that one client read across all lives, by cursor.
    pub(super) stream: Vec<Told>,
    /// What `sluice_getTransaction` says of each hash that was told: the state, and the hash of the attempt that speaks for it.
    pub(super) looked_up: HashMap<B256, (String, B256)>,
    /// Transactions that were sent when nobody killed anything any more, with time for a node to answer before their block.
    pub(super) witnesses: Vec<B256>,
    /// What did not come to rest, and why.
    pub(super) unrest: Vec<String>,
}

/// One event as a client got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) transaction: String,
    pub(super) hash: Option<B256>,
    pub(super) state: String,
    pub(super) block: Option<(u64, B256)>,
}

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// What was accepted is neither mined nor refused on record.
    Lost,
    /// One request is mined twice.
    Doubled,
    /// A slot is not used up, or a nonce was left out.
    Gap,
    /// A client was told what is not so.
    WrongReport,
    /// Signed bytes left, or were mined, that are not on record (I2).
    NotOnRecord,
    /// A slot got another payload without a refusal before it (I1).
    TwoPayloads,
    /// The journal says otherwise than the chain, or than itself.
    WrongRecord,
    /// Lifecycle events are missing, doubled or out of order (I7a).
    Stream,
    /// An operator's order that was answered did not hold.
    Disobeyed,
    /// It does not come to rest.
    Stuck,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// What the record says of bytes that a client was given and did not hand in.
const HOLD_OVER: &str = "the hold of eth_signTransaction is over";

/// Every broken promise.
pub(super) fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut checker = Checker::new(evidence);
    checker.rest();
    checker.requests();
    checker.changes();
    checker.chain();
    checker.slots();
    checker.lives();
    checker.registry();
    checker.streams();
    checker.reports();
    checker.violations
}

struct Checker<'a> {
    evidence: &'a Evidence,
    mined: HashMap<B256, &'a Mined>,
    attempts: HashMap<B256, &'a Attempt>,
    /// Positions of the refusals of an attempt.
    refused: HashMap<B256, Vec<u64>>,
    /// Attempts of which a refusal says more than that nobody handed them in.
    refused_as_sent: HashSet<B256>,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let mut refused: HashMap<B256, Vec<u64>> = HashMap::new();
        let mut refused_as_sent = HashSet::new();
        for event in evidence.journal.events.iter().filter(|event| event.state == "refused") {
            refused.entry(event.hash.unwrap_or_default()).or_default().push(event.position);
            if event.detail.as_deref() != Some(HOLD_OVER) {
                refused_as_sent.extend(event.hash);
            }
        }
        Self {
            evidence,
            mined: evidence.mined.iter().map(|mined| (mined.hash, mined)).collect(),
            attempts: evidence.journal.attempts.iter().map(|attempt| (attempt.hash, attempt)).collect(),
            refused,
            refused_as_sent,
            violations: Vec::new(),
        }
    }

    fn tell(&mut self, rule: Rule, detail: String) {
        self.violations.push(Violation { rule, detail });
    }

    fn rest(&mut self) {
        for unrest in &self.evidence.unrest {
            self.tell(Rule::Stuck, unrest.clone());
        }
        for complaint in &self.evidence.record.complaints {
            self.tell(Rule::WrongReport, complaint.clone());
        }
        for complaint in &self.evidence.record.disobeyed {
            self.tell(Rule::Disobeyed, complaint.clone());
        }
    }

    /// All attempts of a transaction, oldest first.
    fn attempts_of<'b>(&'b self, transaction: &'b str) -> impl Iterator<Item = &'a Attempt> + 'b {
        let attempts: &'a [Attempt] = &self.evidence.journal.attempts;
        attempts.iter().filter(move |attempt| attempt.transaction == transaction)
    }

    /// A cancel of the transaction is mined.
    fn is_cancelled(&self, transaction: &str) -> bool {
        self.attempts_of(transaction).any(|attempt| attempt.cancels && self.mined.contains_key(&attempt.hash))
    }

    /// The chain used the attempt's nonce for a payload of somebody else.
    fn is_used_elsewhere(&self, attempt: &Attempt) -> bool {
        let foreign = &self.evidence.record.foreign;
        let mut mined = self.evidence.mined.iter().filter(|mined| (mined.from, mined.nonce) == (attempt.address, attempt.nonce));
        mined.any(|mined| foreign.contains(&mined.hash))
    }

    /// Nothing of the transaction can be mined any more: all of it was refused. The end of a hold is no refusal of what was promised to be
    /// sent.
    fn is_refused(&self, transaction: &str) -> bool {
        self.attempts_of(transaction).all(|attempt| self.refused_as_sent.contains(&attempt.hash))
    }

    /// Accepted: exactly one attempt is mined, or none and a refusal is on record. Refused: none. No answer: one or none.
    fn requests(&mut self) {
        let evidence = self.evidence;
        let mut by_value: HashMap<u128, Vec<&Mined>> = HashMap::new();
        for mined in &evidence.mined {
            by_value.entry(mined.value).or_default().push(mined);
        }
        for request in &evidence.record.requests {
            let name = format!("{} of {} ({} wei)", request.operation, request.account, request.value);
            let mined = by_value.get(&u128::from(request.value)).map_or(&[][..], Vec::as_slice);
            if mined.len() > 1 {
                self.tell(Rule::Doubled, format!("{name} is mined {} times", mined.len()));
            }
            match &request.answer {
                Answer::Nothing | Answer::Known => {}
                Answer::Queued(id) => {
                    let ended = evidence.journal.events.iter().any(|event| event.transaction == *id && event.state == "refused");
                    if mined.is_empty() && !ended && !self.is_cancelled(id) {
                        self.tell(Rule::Lost, format!("{name} was acknowledged as {id}, and is neither mined nor ended"));
                    }
                }
                Answer::Hash(hash) | Answer::Bytes(hash) => {
                    let Some(attempt) = self.attempts.get(hash).copied() else {
                        self.tell(Rule::Lost, format!("{name} was told {hash}, which is not on record"));
                        continue;
                    };
                    if attempt.value != u128::from(request.value) {
                        self.tell(Rule::WrongReport, format!("{name} was told {hash}, which pays {} wei", attempt.value));
                    }
                    if matches!(request.answer, Answer::Bytes(_)) && !request.handed_in && !mined.is_empty() {
                        self.tell(Rule::WrongReport, format!("{name} was given bytes to send, and they are mined without that"));
                    }
                    let settled = mined.len() == 1
                        || self.is_refused(&attempt.transaction)
                        || self.is_cancelled(&attempt.transaction)
                        // Somebody else who has the key was first, and the record says so.
                        || attempt.state == "replaced" && self.is_used_elsewhere(attempt)
                        // Bytes that a client holds and does not send are nobody's promise.
                        || matches!(request.answer, Answer::Bytes(_));
                    if !settled {
                        self.tell(Rule::Lost, format!("{name} was told {hash}, which is {} and not mined", attempt.state));
                    }
                }
                Answer::Refused { hash, words, .. } => {
                    if let Some(mined) = mined.first() {
                        self.tell(Rule::WrongReport, format!("{name} was refused ({words}), and {} is mined", mined.hash));
                    }
                    let on_record = evidence.journal.attempts.iter().filter(|attempt| attempt.value == u128::from(request.value));
                    let unrefused: Vec<B256> = on_record
                        .filter(|attempt| !self.is_cancelled(&attempt.transaction))
                        .map(|attempt| attempt.hash)
                        .chain(hash.filter(|hash| !self.attempts.contains_key(hash)))
                        .filter(|hash| !self.refused.contains_key(hash))
                        .collect();
                    for hash in unrefused {
                        self.tell(Rule::WrongReport, format!("{name} was refused ({words}), and no refusal of {hash} is on record"));
                    }
                }
            }
        }
    }

    /// What was told of a speed-up or a cancel is so, and nothing is cancelled that nobody asked for.
    fn changes(&mut self) {
        let evidence = self.evidence;
        let mut cancels: HashSet<&str> = HashSet::new();
        for changed in &evidence.record.changes {
            let transaction = match &changed.name {
                Name::Id(id) => id.as_str(),
                Name::Hash(hash) => self.attempts.get(hash).map_or("", |attempt| attempt.transaction.as_str()),
            };
            let fails = matches!(&changed.outcome, Outcome::Refused { reason } if reason != "refused");
            if changed.change == Change::Cancel && !fails {
                cancels.insert(transaction);
            }
            if let Some((rule, why)) = self.untrue(changed, transaction) {
                self.tell(rule, format!("{:?} of {:?} ({} wei): {why}", changed.change, changed.name, changed.value));
            }
        }
        for attempt in evidence.journal.attempts.iter().filter(|attempt| attempt.cancels) {
            // One that came too late was never sent.
            if self.mined.contains_key(&attempt.hash) && !cancels.contains(attempt.transaction.as_str()) {
                self.tell(Rule::WrongRecord, format!("{} cancels {}, and nobody was told so", attempt.hash, attempt.transaction));
            }
        }
    }

    /// What is wrong with the answer to a change.
    fn untrue(&self, changed: &Changed, transaction: &str) -> Option<(Rule, String)> {
        match &changed.outcome {
            Outcome::Nothing | Outcome::Refused { .. } => None,
            Outcome::Ended => {
                let ended = self
                    .evidence
                    .journal
                    .events
                    .iter()
                    .any(|event| event.transaction == transaction && event.state == "refused" && event.hash.is_none());
                let signed = self.attempts_of(transaction).next().is_some();
                (signed || !ended).then(|| (Rule::WrongReport, format!("told to be ended; signed: {signed}, ended on record: {ended}")))
            }
            Outcome::Replaced { hash, before } => {
                let Some(attempt) = self.attempts.get(hash) else {
                    return Some((Rule::Lost, format!("{hash} was told, which is not on record")));
                };
                // A cancel that is sped up is still a cancel.
                let cancels = changed.change == Change::Cancel || self.attempts.get(before).is_some_and(|before| before.cancels);
                let value = if cancels { 0 } else { u128::from(changed.value) };
                let is_so = attempt.transaction == transaction
                    && attempt.replaces == Some(*before)
                    && attempt.value == value
                    && attempt.cancels == cancels;
                (!is_so).then(|| (Rule::WrongReport, format!("{hash} in the place of {before} was told, and on record is {attempt:?}")))
            }
        }
    }

    /// Nothing of the managed accounts is mined, or was sent, that is not on record or somebody else's.
    fn chain(&mut self) {
        let evidence = self.evidence;
        for mined in &evidence.mined {
            let ours = evidence.nonces.contains_key(&mined.from) && !evidence.record.foreign.contains(&mined.hash);
            if ours && !self.attempts.contains_key(&mined.hash) {
                self.tell(Rule::NotOnRecord, format!("{} is mined and not on record", mined.hash));
            }
        }
        for sent in evidence.sent.iter().collect::<BTreeSet<_>>() {
            if !self.attempts.contains_key(sent) {
                self.tell(Rule::NotOnRecord, format!("{sent} was sent and is not on record"));
            }
        }
        for attempt in &evidence.journal.attempts {
            let mined = self.mined.get(&attempt.hash).copied();
            let agrees = match (mined, attempt.state.as_str()) {
                (Some(mined), "confirmed") => attempt.block == Some(mined.block),
                (None, "refused" | "replaced") => true,
                _ => false,
            };
            if !agrees {
                let at = mined.map(|mined| mined.block);
                self.tell(
                    Rule::WrongRecord,
                    format!(
                        "{} (nonce {}) is {} in {:?} on record, and in {at:?} on the chain",
                        attempt.hash, attempt.nonce, attempt.state, attempt.block
                    ),
                );
            }
        }
    }

    /// Every slot is used up, none is left out, and a second payload came only after a refusal of those before, or as a replacement.
    fn slots(&mut self) {
        let evidence = self.evidence;
        let foreign: HashSet<(Address, u64)> = evidence
            .mined
            .iter()
            .filter(|mined| evidence.record.foreign.contains(&mined.hash))
            .map(|mined| (mined.from, mined.nonce))
            .collect();
        for account in &evidence.journal.accounts {
            let slots: Vec<_> = evidence.journal.slots.iter().filter(|slot| slot.address == account.address).collect();
            for slot in slots.iter().filter(|slot| !slot.done) {
                self.tell(Rule::Gap, format!("nonce {} of {} is not used up", slot.nonce, slot.address));
            }
            let next = evidence.nonces.get(&account.address).copied().unwrap_or_default();
            let mut expected = 0;
            let mut start = None;
            for slot in &slots {
                if slot.nonce != expected {
                    if !(expected..slot.nonce).all(|nonce| foreign.contains(&(account.address, nonce))) {
                        self.tell(Rule::Gap, format!("{} has no slot between {expected} and {}", account.address, slot.nonce));
                    }
                    start = (!slot.authorisation).then_some(slot.nonce);
                }
                expected = slot.nonce + 1;
            }
            if !slots.is_empty() && next < expected {
                self.tell(Rule::Gap, format!("the chain's next nonce of {} is {next}, that on record {expected}", account.address));
            }
            if start.is_some_and(|start| account.floor != start) {
                self.tell(
                    Rule::WrongRecord,
                    format!("the floor of {} is {}, and its nonces go on at {start:?}", account.address, account.floor),
                );
            }
            if let Some(why) = &account.paused {
                self.tell(Rule::WrongRecord, format!("{} is still paused: {why}", account.address));
            }
        }
        let mut payloads: BTreeMap<(Address, u64), Vec<&Attempt>> = BTreeMap::new();
        for attempt in &evidence.journal.attempts {
            let before = payloads.entry((attempt.address, attempt.nonce)).or_default();
            for other in before.iter() {
                let refused = self.refused.get(&other.hash).is_some_and(|at| at.iter().any(|at| *at < attempt.position));
                let replaced = attempt.replaces.is_some() && other.transaction == attempt.transaction;
                if !refused && !replaced {
                    let detail = format!("{} took the slot of {}, which was neither refused nor replaced", attempt.hash, other.hash);
                    self.violations.push(Violation { rule: Rule::TwoPayloads, detail });
                }
            }
            before.push(attempt);
        }
    }

    /// Each attempt's events make a life that makes sense.
    fn lives(&mut self) {
        let mut lives: BTreeMap<B256, Vec<&Event>> = BTreeMap::new();
        let mut sequences: BTreeMap<Address, u64> = BTreeMap::new();
        for event in &self.evidence.journal.events {
            if let Some(hash) = event.hash {
                lives.entry(hash).or_default().push(event);
            }
            let before = sequences.insert(event.address, event.sequence).unwrap_or_default();
            if before + 1 != event.sequence {
                self.tell(Rule::Stream, format!("event {} of {} comes after {before}", event.sequence, event.address));
            }
        }
        for (hash, life) in lives {
            let states: Vec<&str> = life.iter().map(|event| event.state.as_str()).collect();
            if !matches!(states.first(), Some(&("committed" | "held"))) {
                self.tell(Rule::WrongRecord, format!("the life of {hash} begins with {:?}", states.first()));
            }
            for pair in life.windows(2) {
                if !follows(pair[0], pair[1]) {
                    self.tell(Rule::WrongRecord, format!("{} of {hash} follows {}: {states:?}", pair[1].state, pair[0].state));
                }
            }
        }
        let told: Vec<B256> = self.evidence.witnesses.clone();
        let broadcast: HashSet<B256> =
            self.evidence.journal.events.iter().filter(|event| event.state == "broadcast").filter_map(|event| event.hash).collect();
        if !told.is_empty() && !told.iter().any(|hash| broadcast.contains(hash)) {
            self.tell(Rule::WrongRecord, "no node's answer to any of the last transactions is on record".into());
        }
    }

    fn registry(&mut self) {
        let evidence = self.evidence;
        if evidence.journal.genesis != Some(evidence.genesis) {
            self.tell(Rule::WrongRecord, format!("the chain on record is {:?}", evidence.journal.genesis));
        }
        for key in evidence.keys.iter().filter(|key| !evidence.journal.keys.contains(key)) {
            self.tell(Rule::WrongRecord, format!("the key of {key} is not on record"));
        }
    }

    /// The client that came back by its cursor got every event once, in order.
    fn streams(&mut self) {
        let events: Vec<Told> = self.evidence.journal.events.iter().filter(|event| !event.service.is_empty()).map(told).collect();
        if self.evidence.stream != events {
            let at = self.evidence.stream.iter().zip(&events).position(|(got, wanted)| got != wanted);
            let at = at.unwrap_or(self.evidence.stream.len().min(events.len()));
            self.tell(
                Rule::Stream,
                format!(
                    "{} events were told and {} are on record; they differ at {at}: {:?}, {:?}",
                    self.evidence.stream.len(),
                    events.len(),
                    self.evidence.stream.get(at),
                    events.get(at)
                ),
            );
        }
    }

    /// Receipts and look-ups say what the chain says.
    fn reports(&mut self) {
        let evidence = self.evidence;
        for receipt in &evidence.record.receipts {
            let hash: B256 = receipt["transactionHash"].as_str().and_then(|hash| hash.parse().ok()).unwrap_or_default();
            if !self.attempts.contains_key(&hash) {
                self.tell(Rule::WrongReport, format!("a receipt of {hash} was told, which is not on record"));
            }
        }
        for (hash, (state, speaker)) in &evidence.looked_up {
            let cancels = self.attempts.get(speaker).is_some_and(|attempt| attempt.cancels);
            let agrees = match self.mined.get(speaker) {
                Some(_) => state == if cancels { "cancelled" } else { "confirmed" },
                None => matches!(state.as_str(), "refused" | "replaced"),
            };
            if !agrees {
                self.tell(Rule::WrongReport, format!("{hash} is told to be {state} as {speaker}"));
            }
        }
    }
}

fn told(event: &Event) -> Told {
    Told { transaction: event.transaction.clone(), hash: event.hash, state: event.state.clone(), block: event.block }
}

/// Whether one state may come after the other.
fn follows(before: &Event, after: &Event) -> bool {
    match (before.state.as_str(), after.state.as_str()) {
        // Final.
        ("confirmed" | "replaced", _) => false,
        // Held bytes are sent by their client through the gateway, here.
        ("held", after) => matches!(after, "committed" | "refused" | "replaced"),
        ("committed" | "broadcast" | "orphaned", "included" | "broadcast" | "refused" | "replaced") => before.state != after.state,
        // The same bytes may come again once they were refused; else that was the last word.
        ("refused", after) => matches!(after, "committed" | "held"),
        ("included", "orphaned") => true,
        ("included", "confirmed") => before.block == after.block,
        _ => false,
    }
}
