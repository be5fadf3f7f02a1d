//! Transactions that are acknowledged before they have an attempt, and idempotency keys.

use std::sync::Arc;
use std::time::SystemTime;

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::codec::{get_address, get_hash, get_u64, integer, millis};
use super::pool::ReadFault;
use super::records::{Event, Fault, Row, add_event, ensure_account, ensure_owner};
use super::states::Because;
use crate::journal::{Account, AttemptState, IdempotencyKey, Intent, JournalError, Kind, StoredIdempotencyKey, TransactionId};

/// Puts the transaction on record; answers the position of its event. An id that is on record already is the batch's fault.
pub(super) fn acknowledge(connection: &Connection, intent: &Intent) -> Result<i64, Fault> {
    let account = Row::new(intent.account)?;
    ensure_account(connection, account)?;
    ensure_owner(connection, &intent.service, &intent.principal)?;
    connection
        .prepare_cached(
            "INSERT INTO transactions (id, chain_id, address, service, principal, kind, request, created_at, owner, queued)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT id FROM owners WHERE service = ?4 AND principal = ?5), 1)",
        )?
        .execute(params![
            intent.transaction.0.as_bytes(),
            account.chain_id,
            account.address.as_slice(),
            &*intent.service,
            &*intent.principal,
            Kind::Send.as_str(),
            &*intent.request,
            millis(SystemTime::now())
        ])?;
    add_event(connection, account, &event(intent.transaction, AttemptState::Queued, None))
}

fn event(transaction: TransactionId, state: AttemptState, detail: Option<&str>) -> Event<'_> {
    Event { transaction, hash: None, state, because: Because { detail, ..Because::default() } }
}

/// Whose transaction it was, if it was queued; it is not any more.
fn leave_queue(connection: &Connection, transaction: TransactionId) -> Result<Option<Row>, Fault> {
    let left: Option<(i64, Address)> = connection
        .prepare_cached("UPDATE transactions SET queued = 0 WHERE id = ?1 AND queued = 1 RETURNING chain_id, address")?
        .query_row([transaction.0.as_bytes()], |row| Ok((row.get("chain_id")?, get_address(row, "address")?)))
        .optional()?;
    Ok(left.map(|(chain_id, address)| Row { chain_id, address }))
}

pub(super) fn take(connection: &Connection, transaction: TransactionId) -> Result<(), Fault> {
    match leave_queue(connection, transaction)? {
        Some(_) => Ok(()),
        None => Err(JournalError::NotQueued { transaction }.into()),
    }
}

pub(super) fn end(connection: &Connection, transaction: TransactionId, detail: &str) -> Result<Option<i64>, Fault> {
    let Some(account) = leave_queue(connection, transaction)? else { return Ok(None) };
    add_event(connection, account, &event(transaction, AttemptState::Refused, Some(detail))).map(Some)
}

/// UNIQUE(service, principal, key): the last line against a second payment.
pub(super) fn put_key(
    connection: &Connection,
    chain_id: u64,
    (service, principal): (&str, &str),
    key: &IdempotencyKey,
    transaction: TransactionId,
) -> Result<(), Fault> {
    let chain_id = integer("chain id", chain_id)?;
    ensure_owner(connection, service, principal)?;
    let inserted = connection
        .prepare_cached(
            "INSERT INTO idempotency_keys (owner, key, chain_id, digest, transaction_id, created_at)
             VALUES ((SELECT id FROM owners WHERE service = ?1 AND principal = ?2), ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            service,
            principal,
            &*key.key,
            chain_id,
            key.digest.as_slice(),
            transaction.0.as_bytes(),
            millis(SystemTime::now())
        ])?;
    if inserted == 1 { Ok(()) } else { Err(JournalError::KeyTaken { transaction }.into()) }
}

pub(super) fn queued_ids_sql() -> &'static str {
    "SELECT id FROM transactions INDEXED BY transactions_queued WHERE chain_id = ?1 AND address = ?2 AND queued = 1 ORDER BY id LIMIT ?3"
}

pub(super) fn queued_ids(connection: &Connection, account: Account, limit: usize) -> Result<Vec<TransactionId>, ReadFault> {
    let Ok(chain_id) = i64::try_from(account.chain_id) else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ids = connection
        .prepare_cached(queued_ids_sql())?
        .query_map(params![chain_id, account.address.as_slice(), limit], |row| Ok(TransactionId(Uuid::from_bytes(row.get("id")?))))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

pub(super) fn queued_count_sql() -> &'static str {
    "SELECT count(*) AS queued FROM transactions INDEXED BY transactions_queued WHERE chain_id = ?1 AND address = ?2 AND queued = 1"
}

pub(super) fn queued_count(connection: &Connection, account: Account) -> Result<u64, ReadFault> {
    let Ok(chain_id) = i64::try_from(account.chain_id) else { return Ok(0) };
    Ok(connection
        .prepare_cached(queued_count_sql())?
        .query_row(params![chain_id, account.address.as_slice()], |row| get_u64(row, "queued"))?)
}

pub(super) fn intent_sql() -> &'static str {
    "SELECT chain_id, address, service, principal, request FROM transactions WHERE id = ?1 AND queued = 1"
}

pub(super) fn intent(connection: &Connection, transaction: TransactionId) -> Result<Option<Intent>, ReadFault> {
    let intent = connection
        .prepare_cached(intent_sql())?
        .query_row([transaction.0.as_bytes()], |row| {
            let text = |column: &str| row.get::<_, String>(column).map(Arc::<str>::from);
            Ok(Intent {
                account: Account { chain_id: get_u64(row, "chain_id")?, address: get_address(row, "address")? },
                transaction,
                service: text("service")?,
                principal: text("principal")?,
                request: text("request")?,
            })
        })
        .optional()?;
    Ok(intent)
}

/// Of the slots that are not done: their own attempts, and those that took them by an authorisation.
pub(super) fn waits_ahead_sql() -> String {
    let waits = "a.state IN ('committed', 'held', 'broadcast', 'orphaned') AND a.transaction_id < ?3
         AND NOT EXISTS (SELECT 1 FROM attempts m WHERE m.chain_id = a.chain_id AND m.address = a.address AND m.nonce = a.nonce
             AND m.state IN ('included', 'confirmed'))";
    format!(
        "SELECT EXISTS (SELECT 1 FROM transactions INDEXED BY transactions_queued
             WHERE chain_id = ?1 AND address = ?2 AND queued = 1 AND id < ?3)
         OR EXISTS (SELECT 1 FROM slots s INDEXED BY slots_open
             CROSS JOIN attempts a ON a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce
             WHERE s.chain_id = ?1 AND s.address = ?2 AND s.done = 0 AND {waits})
         OR EXISTS (SELECT 1 FROM slots s INDEXED BY slots_open
             CROSS JOIN authorisations u ON u.chain_id = s.chain_id AND u.address = s.address AND u.nonce = s.nonce
             CROSS JOIN attempts a ON a.chain_id = u.chain_id AND a.hash = u.hash
             WHERE s.chain_id = ?1 AND s.address = ?2 AND s.done = 0 AND {waits}) AS ahead"
    )
}

pub(super) fn waits_ahead(connection: &Connection, account: Account, transaction: TransactionId) -> Result<bool, ReadFault> {
    let Ok(chain_id) = i64::try_from(account.chain_id) else { return Ok(false) };
    let parameters = params![chain_id, account.address.as_slice(), transaction.0.as_bytes()];
    Ok(connection.prepare_cached(&waits_ahead_sql())?.query_row(parameters, |row| row.get("ahead"))?)
}

pub(super) fn idempotency_key_sql() -> &'static str {
    "SELECT k.digest, k.transaction_id,
         (SELECT a.hash FROM attempts a WHERE a.transaction_id = k.transaction_id ORDER BY a.position LIMIT 1) AS first
     FROM owners o JOIN idempotency_keys k ON k.owner = o.id
     WHERE o.service = ?1 AND o.principal = ?2 AND k.key = ?3"
}

pub(super) fn idempotency_key(
    connection: &Connection,
    service: &str,
    principal: &str,
    key: &str,
) -> Result<Option<StoredIdempotencyKey>, ReadFault> {
    let found = connection
        .prepare_cached(idempotency_key_sql())?
        .query_row([service, principal, key], |row| {
            Ok(StoredIdempotencyKey {
                digest: get_hash(row, "digest")?,
                transaction: TransactionId(Uuid::from_bytes(row.get("transaction_id")?)),
                first: row.get::<_, Option<[u8; 32]>>("first")?.map(B256::from),
            })
        })
        .optional()?;
    Ok(found)
}
