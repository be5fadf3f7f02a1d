//! Events as clients read them: those of one owner, in order of commit.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::codec::{get_address, get_block, get_purpose, get_state, get_u64, time, unreadable};
use super::pool::ReadFault;
use crate::journal::history::{Bounds, Scope, StoredEvent};
use crate::journal::{Account, Purpose, TransactionId};

type Answer<T> = Result<T, ReadFault>;

/// The columns of an event `e`, with the nonce of its attempt `a`; `{receipt}` stands for where its receipt comes from.
const EVENT: &str = "SELECT e.position, e.chain_id, e.address, e.sequence, e.transaction_id, e.hash, e.state, e.block_number,
    e.block_hash, e.detail, e.at, {receipt} AS receipt, a.nonce, a.purpose";

fn columns(receipt: &str) -> String {
    EVENT.replace("{receipt}", receipt)
}

/// Chain and owner as the tables name them; `None` if nothing on record can be theirs.
pub(super) fn owner(connection: &Connection, scope: &Scope) -> Answer<Option<(i64, i64)>> {
    let Ok(chain_id) = i64::try_from(scope.chain_id) else { return Ok(None) };
    let owner = connection
        .prepare_cached("SELECT id FROM owners WHERE service = ?1 AND principal = ?2")?
        .query_row(params![&*scope.service, &*scope.principal], |row| row.get(0))
        .optional()?;
    Ok(owner.map(|owner| (chain_id, owner)))
}

/// Along the owner's events, each with its attempt, if it is of one.
pub(super) fn page_sql() -> String {
    format!(
        "{} FROM events e INDEXED BY events_by_owner
         LEFT JOIN attempts a ON a.chain_id = e.chain_id AND a.hash = e.hash
         WHERE e.chain_id = ?1 AND e.owner = ?2 AND e.position > ?3
         ORDER BY e.position LIMIT ?4",
        columns("e.receipt")
    )
}

/// The owner's events behind the position.
pub(super) fn page(connection: &Connection, scope: &Scope, position: i64, bounds: Bounds) -> Answer<Vec<StoredEvent>> {
    let Some((chain_id, owner)) = owner(connection, scope)? else { return Ok(Vec::new()) };
    let items = i64::try_from(bounds.items).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&page_sql())?;
    let rows = statement.query_map(params![chain_id, owner, position, items], stored_event)?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    for event in rows {
        let event = event?;
        bytes += event.weight();
        events.push(event);
        if bytes >= bounds.bytes {
            break;
        }
    }
    Ok(events)
}

pub(super) fn numbered_sql() -> String {
    format!(
        "{} FROM events e
         LEFT JOIN attempts a ON a.chain_id = e.chain_id AND a.hash = e.hash
         WHERE e.chain_id = ?1 AND e.address = ?3 AND e.sequence = ?4 AND e.owner = ?2",
        columns("NULL")
    )
}

/// The owner's event with this number of the account, without its receipt.
pub(super) fn numbered(connection: &Connection, scope: &Scope, address: Address, sequence: u64) -> Answer<Option<StoredEvent>> {
    let (Some((chain_id, owner)), Ok(sequence)) = (owner(connection, scope)?, i64::try_from(sequence)) else { return Ok(None) };
    let mut statement = connection.prepare_cached(&numbered_sql())?;
    Ok(statement.query_row(params![chain_id, owner, address.as_slice(), sequence], stored_event).optional()?)
}

pub(super) fn last_sql() -> String {
    format!(
        "{} FROM events e INDEXED BY events_by_owner
         LEFT JOIN attempts a ON a.chain_id = e.chain_id AND a.hash = e.hash
         WHERE e.chain_id = ?1 AND e.owner = ?2
         ORDER BY e.position DESC LIMIT 1",
        columns("NULL")
    )
}

/// The owner's newest event, without its receipt.
pub(super) fn last(connection: &Connection, scope: &Scope) -> Answer<Option<StoredEvent>> {
    let Some((chain_id, owner)) = owner(connection, scope)? else { return Ok(None) };
    Ok(connection.prepare_cached(&last_sql())?.query_row([chain_id, owner], stored_event).optional()?)
}

pub(super) fn of_transaction_sql() -> String {
    format!(
        "{} FROM events e INDEXED BY events_by_transaction
         LEFT JOIN attempts a ON a.chain_id = e.chain_id AND a.hash = e.hash
         WHERE e.transaction_id = ?1
         ORDER BY e.position DESC LIMIT ?2",
        columns("NULL")
    )
}

/// The newest events of a transaction, oldest first, without their receipts.
pub(super) fn of_transaction(connection: &Connection, id: TransactionId, limit: usize) -> Answer<Vec<StoredEvent>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut events = connection
        .prepare_cached(&of_transaction_sql())?
        .query_map(params![id.0.as_bytes(), limit], stored_event)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    events.reverse();
    Ok(events)
}

fn stored_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        position: row.get("position")?,
        account: Account { chain_id: get_u64(row, "chain_id")?, address: get_address(row, "address")? },
        sequence: get_u64(row, "sequence")?,
        transaction: TransactionId(Uuid::from_bytes(row.get("transaction_id")?)),
        hash: row.get::<_, Option<[u8; 32]>>("hash")?.map(B256::from),
        purpose: row.get::<_, Option<String>>("purpose")?.map_or(Ok(Purpose::Request), |_| get_purpose(row, "purpose"))?,
        nonce: row.get::<_, Option<i64>>("nonce")?.map(|_| get_u64(row, "nonce")).transpose()?,
        state: get_state(row, "state")?,
        block: get_block(row)?,
        detail: row.get("detail")?,
        receipt: get_receipt(row)?,
        at: time(row.get("at")?),
    })
}

pub(super) fn get_receipt(row: &Row<'_>) -> rusqlite::Result<Option<Arc<RawValue>>> {
    let Some(text) = row.get::<_, Option<String>>("receipt")? else { return Ok(None) };
    RawValue::from_string(text).map(|receipt| Some(Arc::from(receipt))).map_err(|error| unreadable("receipt", error.to_string()))
}
