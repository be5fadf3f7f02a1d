//! An attempt reaches a state: its event, the end of its rivals, and whether its slots are done.

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::codec::{get_address, get_block, get_hash, get_state, get_u64, integer, slot_nonce};
use super::records::{Event, Fault, Row, add_event};
use crate::journal::{AttemptState, BlockRef, JournalError, TransactionId};
use crate::telemetry::faults::SeededFault;

/// What an event says of its state beside the state itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Because<'a> {
    pub(super) block: Option<BlockRef>,
    pub(super) detail: Option<&'a str>,
    pub(super) receipt: Option<&'a RawValue>,
}

struct Known {
    address: Address,
    nonce: u64,
    transaction: TransactionId,
    state: AttemptState,
    block: Option<BlockRef>,
}

/// Records the state; answers the position of the event. Nothing changes a final state, and nothing happens if the attempt
/// has the state (and the block) already. What is refused stays so when something else uses its slot up: that was told.
pub(super) fn change(
    connection: &Connection,
    account: Row,
    hash: B256,
    state: AttemptState,
    because: Because<'_>,
) -> Result<Option<i64>, Fault> {
    if state == AttemptState::Queued {
        return Err(JournalError::NotWritten("an attempt is never queued".to_owned()).into());
    }
    let known = find(connection, account.chain_id, hash)?
        .filter(|known| known.address == account.address)
        .ok_or_else(|| JournalError::NotWritten(format!("attempt {hash} of {} is not on record", account.address)))?;
    let kept = match state {
        AttemptState::Included | AttemptState::Confirmed => because.block.or(known.block),
        _ => None,
    };
    if known.state.is_final() || (known.state == state && known.block == kept) {
        return Ok(None);
    }
    if known.state == AttemptState::Refused {
        if is_done(connection, account, known.nonce)? {
            return Ok(None);
        }
        if state == AttemptState::Replaced {
            if !SeededFault::ReplacedLeftOpen.is_on() {
                settle(connection, account, known.nonce, true)?;
            }
            return Ok(None);
        }
    }
    set(connection, account.chain_id, hash, state, kept)?;
    // An orphaned attempt has no block any more; its event may still say which one it was.
    let because = Because { block: kept.or(because.block), ..because };
    let event = Event { transaction: known.transaction, hash: Some(hash), state, because };
    let position = add_event(connection, account, &event)?;
    if SeededFault::ConfirmedLeftOpen.is_on() && state == AttemptState::Confirmed
        || SeededFault::ReplacedLeftOpen.is_on() && state == AttemptState::Replaced
    {
        return Ok(Some(position));
    }
    if state == AttemptState::Confirmed {
        replace_rivals(connection, account, known.nonce, hash)?;
    }
    if state == AttemptState::Refused {
        give_back(connection, account, known.nonce, hash)?;
    }
    if state == AttemptState::Refused || state.is_final() {
        settle(connection, account, known.nonce, false)?;
    }
    if state == AttemptState::Confirmed {
        // Slots of other accounts are left to their own tasks: the chain may have skipped the authorisation.
        for nonce in own_authorised(connection, account, hash)? {
            settle(connection, account, nonce, false)?;
        }
    }
    Ok(Some(position))
}

fn find(connection: &Connection, chain_id: i64, hash: B256) -> Result<Option<Known>, Fault> {
    let known = connection
        .prepare_cached(
            "SELECT address, nonce, transaction_id, state, block_number, block_hash FROM attempts WHERE chain_id = ?1 AND hash = ?2",
        )?
        .query_row(params![chain_id, hash.as_slice()], |row| {
            Ok(Known {
                address: get_address(row, "address")?,
                nonce: get_u64(row, "nonce")?,
                transaction: TransactionId(Uuid::from_bytes(row.get("transaction_id")?)),
                state: get_state(row, "state")?,
                block: get_block(row)?,
            })
        })
        .optional()?;
    Ok(known)
}

fn set(connection: &Connection, chain_id: i64, hash: B256, state: AttemptState, block: Option<BlockRef>) -> Result<(), Fault> {
    let number = block.map(|block| integer("block", block.number)).transpose()?;
    connection
        .prepare_cached("UPDATE attempts SET state = ?3, block_number = ?4, block_hash = ?5 WHERE chain_id = ?1 AND hash = ?2")?
        .execute(params![chain_id, hash.as_slice(), state.as_str(), number, block.as_ref().map(|block| block.hash.as_slice())])?;
    Ok(())
}

/// A replacement that was refused gives its slot back to what it replaced: the newest attempt that may still be mined, if there is one.
fn give_back(connection: &Connection, account: Row, nonce: u64, refused: B256) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE slots SET payload = a.hash FROM
                 (SELECT hash FROM attempts WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3
                  AND state NOT IN ('refused', 'confirmed', 'replaced') ORDER BY position DESC LIMIT 1) a
             WHERE slots.chain_id = ?1 AND slots.address = ?2 AND slots.nonce = ?3 AND slots.payload = ?4 AND slots.authorisation = 0",
        )?
        .execute(params![account.chain_id, account.address.as_slice(), slot_nonce(nonce)?, refused.as_slice()])?;
    Ok(())
}

/// The other attempts of the slot can never be mined any more: an event each, but for those whose refusal said so before.
fn replace_rivals(connection: &Connection, account: Row, nonce: u64, winner: B256) -> Result<(), Fault> {
    let rivals: Vec<(B256, TransactionId)> = connection
        .prepare_cached(
            "SELECT hash, transaction_id FROM attempts
             WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3 AND hash <> ?4 AND state NOT IN ('refused', 'confirmed', 'replaced')
             ORDER BY position",
        )?
        .query_map(params![account.chain_id, account.address.as_slice(), slot_nonce(nonce)?, winner.as_slice()], |row| {
            Ok((get_hash(row, "hash")?, TransactionId(Uuid::from_bytes(row.get("transaction_id")?))))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let detail = format!("{winner} is confirmed");
    for (hash, transaction) in rivals {
        set(connection, account.chain_id, hash, AttemptState::Replaced, None)?;
        let because = Because { detail: Some(&detail), ..Because::default() };
        let event = Event { transaction, hash: Some(hash), state: AttemptState::Replaced, because };
        add_event(connection, account, &event)?;
    }
    Ok(())
}

fn own_authorised(connection: &Connection, account: Row, hash: B256) -> Result<Vec<u64>, Fault> {
    let slots = connection
        .prepare_cached("SELECT nonce FROM authorisations WHERE chain_id = ?1 AND hash = ?2 AND address = ?3 ORDER BY ordinal")?
        .query_map(params![account.chain_id, hash.as_slice(), account.address.as_slice()], |row| get_u64(row, "nonce"))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(slots)
}

/// The slot is done: the chain used it up by the authorisation that took it. A slot that is held by an attempt of its own is left alone.
pub(super) fn used(connection: &Connection, account: Row, nonce: u64) -> Result<(), Fault> {
    if SeededFault::UsedDropped.is_on() {
        connection
            .prepare_cached("DELETE FROM slots WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3 AND authorisation = 1")?
            .execute(params![account.chain_id, account.address.as_slice(), slot_nonce(nonce)?])?;
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE slots SET done = 1 WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3 AND authorisation = 1")?
        .execute(params![account.chain_id, account.address.as_slice(), slot_nonce(nonce)?])?;
    Ok(())
}

fn is_done(connection: &Connection, slot: Row, nonce: u64) -> Result<bool, Fault> {
    let done = connection
        .prepare_cached("SELECT done FROM slots WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3")?
        .query_row(params![slot.chain_id, slot.address.as_slice(), slot_nonce(nonce)?], |row| row.get(0))
        .optional()?;
    Ok(done.unwrap_or(false))
}

/// Marks the slot as done if nothing is left to happen to it: no attempt of its own can still be mined, and one is confirmed or the nonce
/// went to something else (one is `replaced`, or `is_used`); or it was taken by an authorisation of the account itself whose attempt is
/// confirmed, and no attempt of its own can still be mined.
fn settle(connection: &Connection, slot: Row, nonce: u64, is_used: bool) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE slots SET done = 1
             WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3 AND done = 0 AND (
                 EXISTS (SELECT 1 FROM attempts a WHERE a.chain_id = ?1 AND a.address = ?2 AND a.nonce = ?3 AND a.state = 'confirmed')
                 OR (authorisation = 0
                     AND (?4 OR EXISTS (SELECT 1 FROM attempts a
                         WHERE a.chain_id = ?1 AND a.address = ?2 AND a.nonce = ?3 AND a.state = 'replaced'))
                     AND NOT EXISTS (
                         SELECT 1 FROM attempts a WHERE a.chain_id = ?1 AND a.address = ?2 AND a.nonce = ?3
                         AND a.state NOT IN ('refused', 'confirmed', 'replaced')))
                 OR (authorisation = 1
                     AND EXISTS (SELECT 1 FROM attempts a
                         WHERE a.chain_id = ?1 AND a.address = ?2 AND a.hash = slots.payload AND a.state = 'confirmed')
                     AND NOT EXISTS (
                         SELECT 1 FROM attempts a WHERE a.chain_id = ?1 AND a.address = ?2 AND a.nonce = ?3
                         AND a.state NOT IN ('refused', 'confirmed', 'replaced'))))",
        )?
        .execute(params![slot.chain_id, slot.address.as_slice(), slot_nonce(nonce)?, is_used])?;
    Ok(())
}
