//! What must be true in the end, when nothing has gone wrong for a while: what clients were told, the journal and the chain agree.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use sluice_load_tests::sim_node::Payload;

use super::ledger::{Durable, Ledger, Told};
use super::world::{World, lock};
use crate::journal::{AttemptState, Kind};

/// The chain and the journal as they are in the end.
struct Truth {
    /// Canonical payloads by slot.
    mined: BTreeMap<(Address, u64), Payload>,
    /// Everything that was ever in a block.
    ever: Vec<B256>,
    /// State and block of each attempt on record.
    states: BTreeMap<B256, (AttemptState, Option<B256>)>,
}

/// Attempts that are not final, and transactions that are acknowledged and have neither an attempt nor an end.
pub(super) fn open(world: &World) -> u64 {
    const OPEN: &str = "SELECT (SELECT count(*) FROM attempts WHERE state NOT IN ('confirmed', 'replaced', 'refused'))
                             + (SELECT count(*) FROM transactions WHERE queued = 1)";
    world.database.look(|connection| connection.query_row(OPEN, [], |row| row.get::<_, i64>(0).map(i64::unsigned_abs)))
}

fn states(world: &World) -> BTreeMap<B256, (AttemptState, Option<B256>)> {
    world.database.look(|connection| {
        let mut statement = connection.prepare("SELECT hash, state, block_hash FROM attempts")?;
        let rows = statement.query_map([], |row| {
            let state = AttemptState::parse(&row.get::<_, String>(1)?).unwrap();
            Ok((B256::from(row.get::<_, [u8; 32]>(0)?), (state, row.get::<_, Option<[u8; 32]>>(2)?.map(B256::from))))
        })?;
        rows.collect()
    })
}

/// Adds what is not true to the ledger's violations.
pub(super) fn check(world: &World) {
    let (mined, ever) = world.node.with(|node, _| (node.mined(), node.payloads()));
    let truth = Truth { mined, ever: ever.iter().map(|payload| payload.hash).collect(), states: states(world) };
    let ledger = &mut *lock(&world.ledger);
    let mut violations = Vec::new();
    for (hash, durable) in &ledger.durable {
        violations.extend(attempt(*hash, durable, &truth));
    }
    for hash in truth.states.keys().filter(|hash| !ledger.durable.contains_key(*hash)) {
        violations.push(format!("{hash} is on record and nobody wrote it"));
    }
    violations.extend(chain(world, ledger, &truth));
    for (number, told) in &ledger.told {
        violations.extend(promise(*number, told, ledger, &truth));
    }
    violations.extend(events(world));
    ledger.violations.extend(violations);
}

/// The journal says of an attempt what the chain did with it.
fn attempt(hash: B256, durable: &Durable, truth: &Truth) -> Option<String> {
    let mined = truth.mined.get(&(durable.address, durable.nonce)).filter(|payload| payload.hash == hash);
    let Some((state, block)) = truth.states.get(&hash) else { return Some(format!("{hash} was on record and is not any more")) };
    let words =
        |what: &str| Some(format!("nonce {} of {}: {hash} is {} on record, {what}", durable.nonce, durable.address, state.as_str()));
    match (state, mined) {
        (AttemptState::Confirmed, Some(payload)) if *block == Some(payload.block_hash) => None,
        (AttemptState::Confirmed, _) => words("and its block is not canonical"),
        (AttemptState::Replaced, None) if durable.state == AttemptState::Refused => words("and was refused before"),
        (AttemptState::Replaced | AttemptState::Refused, None) => None,
        (AttemptState::Replaced | AttemptState::Refused, Some(_)) => words("and it was mined"),
        _ => words("and never got any further"),
    }
}

/// Nothing is on the chain that is not on record, and nothing twice.
fn chain(world: &World, ledger: &Ledger, truth: &Truth) -> Vec<String> {
    let mut violations = Vec::new();
    let mut payments: BTreeMap<u64, B256> = BTreeMap::new();
    for ((address, nonce), payload) in truth.mined.iter().filter(|((address, _), _)| world.addresses.contains(address)) {
        match ledger.durable.get(&payload.hash) {
            Some(durable) => {
                if let Some(before) = durable.number.and_then(|number| payments.insert(number, payload.hash)) {
                    violations.push(format!("request {:?} was paid twice: {before} and {}", durable.number, payload.hash));
                }
            }
            None if ledger.foreign.contains(&payload.hash) => {}
            None => violations.push(format!("nonce {nonce} of {address} was mined by {} which is not on record", payload.hash)),
        }
    }
    violations
}

/// A hash that was told is mined exactly once, or was given up on record before anything else took its slot; so is one of the attempts of
/// what was acknowledged, or it was ended on record. An error that was told is the promise that nothing of the request is ever mined.
fn promise(number: u64, told: &Told, ledger: &Ledger, truth: &Truth) -> Option<String> {
    match told {
        Told::Hash(hash) => is_lost(*hash, ledger, truth)?.then(|| format!("request {number} was told {hash}, which is lost")),
        Told::Queued(id) => {
            let is_ended = ledger.intents.get(id).is_some_and(|intent| intent.is_ended);
            let mut attempts = ledger.durable.iter().filter(|(_, durable)| durable.transaction == *id);
            let is_kept = is_ended || attempts.any(|(hash, _)| is_lost(*hash, ledger, truth) == Some(false));
            (!is_kept).then(|| format!("request {number} was acknowledged, and is lost"))
        }
        Told::Error(words) => {
            let mined = ledger
                .durable
                .iter()
                .find(|(hash, one)| one.number == Some(number) && one.kind != Kind::SignOnly && truth.ever.contains(hash));
            mined.map(|(hash, _)| format!("request {number} was told \"{words}\", and {hash} was mined"))
        }
        Told::Known => None,
    }
}

/// Whether the attempt came to nothing although nothing on record says so.
fn is_lost(hash: B256, ledger: &Ledger, truth: &Truth) -> Option<bool> {
    let durable = ledger.durable.get(&hash)?;
    let (state, _) = truth.states.get(&hash)?;
    Some(match state {
        // Whether something else took the slot of what was refused before was checked when it did.
        AttemptState::Confirmed | AttemptState::Refused => false,
        AttemptState::Replaced => {
            let other = truth.mined.get(&(durable.address, durable.nonce)).map(|payload| payload.hash);
            !other.is_some_and(|other| ledger.foreign.contains(&other) || ledger.durable.contains_key(&other))
        }
        _ => true,
    })
}

/// The events of each account are numbered without a gap.
fn events(world: &World) -> Vec<String> {
    world.database.look(|connection| {
        let mut statement = connection.prepare("SELECT address, count(*), min(sequence), max(sequence) FROM events GROUP BY address")?;
        let rows = statement.query_map([], |row| {
            let (address, count, first, last): ([u8; 20], i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let is_dense = first == 1 && last == count;
            Ok((!is_dense).then(|| format!("I7a: {} has {count} events from {first} to {last}", Address::from(address))))
        })?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
    })
}
