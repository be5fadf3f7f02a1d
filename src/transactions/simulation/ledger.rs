//! What became durable, left the process and was told, checked at the moment at which it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_consensus::{SignableTransaction as _, Transaction as _, TxEnvelope};
use alloy_eips::Decodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, U256};

use crate::journal::{Attempt, AttemptState, Kind, Record, TransactionId};
use crate::transactions::chain::Accepted;
use crate::transactions::errors::TransactionError;

/// By its value a request's bytes are known, whatever is signed for it: its number is what it pays beyond this.
pub(super) const BASE: u64 = 1_000_000;

/// The number of the request that pays this much.
pub(super) fn number_of(value: U256) -> Option<u64> {
    u64::try_from(value).ok()?.checked_sub(BASE)
}

/// An attempt on record.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    pub(super) address: Address,
    pub(super) nonce: u64,
    pub(super) transaction: TransactionId,
    pub(super) kind: Kind,
    pub(super) digest: B256,
    pub(super) number: Option<u64>,
    pub(super) state: AttemptState,
    /// Another payload took its slot on record.
    is_superseded: bool,
}

impl Durable {
    /// Its slot may have another payload.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_superseded || matches!(self.state, AttemptState::Refused | AttemptState::Replaced)
    }
}

/// An acknowledged transaction on record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Acknowledged {
    /// It has its first attempt.
    is_taken: bool,
    /// It was ended without one.
    pub(super) is_ended: bool,
}

/// What a client was told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Hash(B256),
    /// Acknowledged, and without an attempt.
    Queued(TransactionId),
    /// The promise that nothing of this request is mined; in words.
    Error(String),
    /// An error that says nothing about the bytes: they are on record already.
    Known,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) durable: BTreeMap<B256, Durable>,
    /// The next new nonce on record.
    pub(super) next: BTreeMap<Address, u64>,
    /// By number of the request.
    pub(super) told: Vec<(u64, Told)>,
    /// Payloads of a slot that left the process.
    left: BTreeMap<(Address, u64), BTreeSet<B256>>,
    /// Payloads of somebody else who has the key.
    pub(super) foreign: BTreeSet<B256>,
    /// The nonce that the chain was at, the pool included, once such a payload was there; it may be lost since.
    beside: BTreeMap<Address, u64>,
    /// Nonces that were left to such payloads: if those are lost, they are filled.
    skipped: BTreeSet<(Address, u64)>,
    pub(super) intents: BTreeMap<TransactionId, Acknowledged>,
    /// What idempotency keys stand for on record, and the hash that was told first under each.
    keys: BTreeMap<Arc<str>, TransactionId>,
    told_first: BTreeMap<u64, B256>,
    pub(super) violations: Vec<String>,
}

fn envelope(raw: &Bytes) -> Option<TxEnvelope> {
    TxEnvelope::decode_2718_exact(raw).ok()
}

fn digest(envelope: &TxEnvelope) -> B256 {
    match envelope {
        TxEnvelope::Legacy(signed) => signed.tx().signature_hash(),
        TxEnvelope::Eip2930(signed) => signed.tx().signature_hash(),
        TxEnvelope::Eip1559(signed) => signed.tx().signature_hash(),
        TxEnvelope::Eip4844(signed) => signed.tx().signature_hash(),
        TxEnvelope::Eip7702(signed) => signed.tx().signature_hash(),
    }
}

impl Ledger {
    pub(super) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Somebody else used the key, and the chain is at this nonce now, the pool included.
    pub(super) fn used_beside(&mut self, address: Address, hash: B256, nonce: u64) {
        self.foreign.insert(hash);
        let beside = self.beside.entry(address).or_default();
        *beside = nonce.max(*beside);
    }

    /// The records of one group are durable now. `used`: the nonce that the chain is at, the pool included.
    pub(super) fn durable(&mut self, records: &[Record], used: impl Fn(Address) -> u64) {
        for record in records {
            match record {
                Record::Floor { account, nonce } => {
                    let address = account.address;
                    let before = self.next.get(&address).copied();
                    let chain = used(address).max(self.beside.get(&address).copied().unwrap_or(0));
                    if before.is_some_and(|before| *nonce > before) && *nonce > chain {
                        self.violation(format!("I3: the floor of {address} goes to {nonce}, beyond the chain"));
                    }
                    let next = before.unwrap_or(0);
                    self.skipped.extend((next..*nonce).map(|nonce| (address, nonce)));
                    self.next.insert(address, next.max(*nonce));
                }
                Record::Attempt { attempt, state, replaces, .. } => self.attempt(attempt, *state, *replaces),
                Record::State { hash, state, .. } => self.state(*hash, *state),
                Record::Intent(intent) => drop(self.intents.insert(intent.transaction, Acknowledged::default())),
                Record::Taken { transaction } => self.taken(*transaction),
                Record::Ended { transaction, .. } => {
                    let intent = self.intents.entry(*transaction).or_default();
                    intent.is_ended |= !intent.is_taken;
                }
                Record::Key { key, transaction, .. } => {
                    let first = *self.keys.entry(Arc::clone(&key.key)).or_insert(*transaction);
                    if first != *transaction {
                        self.violation(format!("the idempotency key {} stands for {first} and for {transaction}", key.key));
                    }
                }
                Record::Tenure { .. } | Record::Used { .. } | Record::Pause { .. } => {}
            }
        }
    }

    fn taken(&mut self, transaction: TransactionId) {
        match self.intents.get_mut(&transaction) {
            Some(intent) if !intent.is_taken && !intent.is_ended => intent.is_taken = true,
            known => {
                let known = known.copied();
                self.violation(format!("{transaction} gets its first attempt, and is {known:?}"));
            }
        }
    }

    fn attempt(&mut self, attempt: &Attempt, state: AttemptState, replaces: Option<B256>) {
        let Attempt { account, nonce, hash, .. } = attempt;
        let address = account.address;
        let Some(envelope) = envelope(&attempt.raw) else {
            return self.violation(format!("the bytes of nonce {nonce} cannot be read"));
        };
        let from = envelope.recover_signer().ok();
        if from != Some(address) {
            self.violation(format!("I5: {hash} on record for {address} is signed by {from:?}"));
        }
        if (envelope.nonce(), envelope.tx_hash()) != (*nonce, hash) {
            self.violation(format!("slot {nonce} of {address} has a payload for nonce {} ({})", envelope.nonce(), envelope.tx_hash()));
        }
        let next = self.next.get(&address).copied().unwrap_or(0);
        match replaces.map(|old| (old, self.durable.get(&old))) {
            None if self.skipped.remove(&(address, *nonce)) => {}
            None if *nonce != next => self.violation(format!("the prefix of {address} is broken: {nonce} is on record after {next}")),
            None => drop(self.next.insert(address, nonce + 1)),
            Some((_, Some(old))) if (old.address, old.nonce) != (address, *nonce) => {
                self.violation(format!("I1: {hash} replaces a payload of another slot"));
            }
            Some((_, Some(old))) if old.is_given_up() || old.transaction == attempt.transaction => {}
            Some((old, _)) => self.violation(format!("I1: {hash} replaces {old} at nonce {nonce}, which was not given up on record")),
        }
        let durable = Durable {
            address,
            nonce: *nonce,
            transaction: attempt.transaction,
            kind: attempt.kind,
            digest: digest(&envelope),
            number: number_of(envelope.value()),
            state,
            is_superseded: false,
        };
        if let Some(old) = replaces.and_then(|old| self.durable.get_mut(&old)) {
            old.is_superseded = true;
        }
        self.durable.insert(*hash, durable);
    }

    fn state(&mut self, hash: B256, state: AttemptState) {
        let Some(durable) = self.durable.get_mut(&hash) else { return };
        // As in the journal: nothing changes what is final. A replacement that was on its way to the record while its slot was mined is refused
        // after it has become replaced by that.
        if durable.state.is_final() {
            return;
        }
        if durable.state == AttemptState::Refused && state == AttemptState::Replaced {
            return;
        }
        durable.state = state;
        if state == AttemptState::Confirmed {
            let (address, nonce) = (durable.address, durable.nonce);
            let rivals = self.durable.iter_mut().filter(|(other, rival)| {
                **other != hash && (rival.address, rival.nonce) == (address, nonce) && rival.state != AttemptState::Refused
            });
            rivals.for_each(|(_, rival)| rival.state = AttemptState::Replaced);
        }
    }

    /// Signed bytes reached a node.
    pub(super) fn sent(&mut self, address: Address, nonce: u64, hash: B256) {
        match self.durable.get(&hash) {
            None => self.violation(format!("I2: {hash} (nonce {nonce} of {address}) was sent and is not on record")),
            Some(durable) if durable.state == AttemptState::Refused => {
                self.violation(format!("I3: {hash} (nonce {nonce}) was sent again after its refusal was on record"));
            }
            Some(_) => self.leave(address, nonce, hash),
        }
    }

    fn leave(&mut self, address: Address, nonce: u64, hash: B256) {
        let mine = self.durable.get(&hash).map(|durable| durable.transaction);
        let others = self.left.entry((address, nonce)).or_default();
        let is_open =
            |other: &B256| *other != hash && self.durable.get(other).is_some_and(|one| !one.is_given_up() && Some(one.transaction) != mine);
        let open: Vec<B256> = others.iter().filter(|other| is_open(other)).copied().collect();
        others.insert(hash);
        for other in open {
            self.violation(format!("I1: {hash} left for nonce {nonce} of {address}, and {other} was not given up on record"));
        }
    }

    /// KMS made a signature.
    pub(super) fn signed(&mut self, address: Address, digest: B256) {
        let known = self.durable.values().find(|one| one.address == address && one.digest == digest && !one.is_given_up());
        if let Some(known) = known.cloned() {
            self.violation(format!("I4: nonce {} of {address} is signed again although its signature is on record", known.nonce));
        }
    }

    /// A client has the hash that its idempotency key stands for.
    pub(super) fn told_by_key(&mut self, number: u64, hash: B256) {
        let first = *self.told_first.entry(number).or_insert(hash);
        if first != hash {
            self.violation(format!("request {number} was told {first}, and under the same key {hash}"));
        }
    }

    /// A client was told that its transaction is acknowledged.
    pub(super) fn told_queued(&mut self, number: u64, transaction: TransactionId) {
        if !self.intents.contains_key(&transaction) {
            self.violation(format!("request {number} was told that it is acknowledged, which is not on record"));
        }
        self.told.push((number, Told::Queued(transaction)));
    }

    /// A client was told that its transaction will never be mined.
    pub(super) fn told_ended(&mut self, number: u64) {
        self.told.push((number, Told::Error("cancelled".to_owned())));
    }

    /// A client has its answer. `again`: the request brought bytes that were there before.
    pub(super) fn told(&mut self, number: u64, again: bool, answer: &Result<Accepted, TransactionError>) {
        let told = match answer {
            Ok(accepted) => {
                match self.durable.get(&accepted.hash).cloned() {
                    None => self.violation(format!("I2: request {number} was told {} which is not on record", accepted.hash)),
                    Some(durable) => {
                        if !again && durable.number != Some(number) {
                            self.violation(format!("request {number} was told the hash of {:?}", durable.number));
                        }
                        if durable.kind == Kind::SignOnly {
                            self.leave(durable.address, durable.nonce, accepted.hash);
                        }
                    }
                }
                Told::Hash(accepted.hash)
            }
            Err(TransactionError::AlreadyKnown { .. }) => Told::Known,
            Err(error) => {
                if let TransactionError::Refused { hash, .. } = error
                    && self.durable.get(hash).is_none_or(|durable| !durable.is_given_up())
                {
                    self.violation(format!("request {number} was told that {hash} is refused before that was on record"));
                }
                let open = self.durable.values().find(|one| one.number == Some(number) && !one.is_given_up());
                if let Some(open) = open.filter(|_| !again).cloned() {
                    self.violation(format!("request {number} was told \"{error}\" while nonce {} holds it: {open:?}", open.nonce));
                }
                if again { Told::Known } else { Told::Error(error.to_string()) }
            }
        };
        self.told.push((number, told));
    }
}
