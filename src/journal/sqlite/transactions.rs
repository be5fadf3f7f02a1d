//! Transactions and accounts as clients read them: those of one owner.

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::codec::{get_address, get_block, get_hash, get_kind, get_pauses, get_purpose, get_state, get_u64, time};
use super::events::{self, get_receipt, owner};
use super::pool::ReadFault;
use super::queries::ON_RECORD;
use crate::journal::history::{AccountRecord, Life, ListPage, ListQuery, Name, OpenSlot, Scope, StoredTransaction, StoredTry};
use crate::journal::{Account, AttemptState, Purpose, TransactionId};

type Answer<T> = Result<T, ReadFault>;

/// Transactions that one read of a list looks at.
const LOOKED_AT: usize = 4096;
/// Events of a transaction that are told with it.
const EVENTS: usize = 100;
/// Attempts of a transaction that are told with it.
const ATTEMPTS: usize = 100;
/// Open slots of an account that are told one by one.
const OPEN_SLOTS: usize = 256;

/// The columns of a transaction `t` with the attempt `a` that speaks for it.
const TRANSACTION: &str = "t.id, t.chain_id, t.address, t.kind, t.created_at, t.queued, a.hash, a.nonce, a.state, a.purpose,
    a.block_number, a.block_hash";

/// Joins the attempt that speaks for the transaction: what is mined, else the newest that was not refused. A refused replacement ends
/// nothing: what it was to replace still waits.
const SPEAKER: &str = "LEFT JOIN attempts a ON a.position = (
    SELECT b.position FROM attempts b WHERE b.transaction_id = t.id
    ORDER BY b.state = 'confirmed' DESC, b.state = 'included' DESC, b.state = 'refused', b.position DESC LIMIT 1)";

pub(super) fn list_sql(by_account: bool, ascending: bool) -> String {
    let (index, account) =
        if by_account { ("transactions_by_account", "AND t.address = ?5") } else { ("transactions_by_owner", "AND t.owner = ?2") };
    let (beyond, order) = if ascending { (">", "ASC") } else { ("<", "DESC") };
    format!(
        "SELECT t.owner = ?2 AS own, {TRANSACTION} FROM transactions t INDEXED BY {index} {SPEAKER}
         WHERE t.chain_id = ?1 {account} AND t.id {beyond} ?3
         ORDER BY t.id {order} LIMIT ?4"
    )
}

pub(super) fn list(connection: &Connection, scope: &Scope, query: &ListQuery) -> Answer<ListPage> {
    let Some((chain_id, owner)) = owner(connection, scope)? else { return Ok(ListPage::default()) };
    let start = if query.ascending { Uuid::nil() } else { Uuid::max() };
    let after = query.after.map_or(start, |id| id.0);
    let mut page = ListPage::default();
    let mut statement = connection.prepare_cached(&list_sql(query.from.is_some(), query.ascending))?;
    let looked_at = i64::try_from(LOOKED_AT).unwrap_or(i64::MAX);
    let mut rows = match query.from {
        Some(address) => statement.query(params![chain_id, owner, after.as_bytes(), looked_at, address.as_slice()])?,
        None => statement.query(params![chain_id, owner, after.as_bytes(), looked_at])?,
    };
    let (mut count, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        let transaction = stored_transaction(row)?;
        count += 1;
        last = Some(transaction.id);
        if row.get("own")? && query.state.is_none_or(|state| state == transaction.shown()) {
            page.transactions.push(transaction);
            if page.transactions.len() >= query.limit {
                let more = count == LOOKED_AT || rows.next()?.is_some();
                page.next = last.filter(|_| more);
                return Ok(page);
            }
        }
    }
    page.next = last.filter(|_| count == LOOKED_AT);
    Ok(page)
}

pub(super) fn life_sql() -> String {
    format!("SELECT t.request, {TRANSACTION} FROM transactions t {SPEAKER} WHERE t.id = ?3 AND t.chain_id = ?1 AND t.owner = ?2")
}

pub(super) fn life(connection: &Connection, scope: &Scope, name: Name) -> Answer<Option<Life>> {
    let Some((chain_id, owner)) = owner(connection, scope)? else { return Ok(None) };
    let id = match name {
        Name::Id(id) => Some(id),
        Name::Hash(hash) => connection
            .prepare_cached("SELECT transaction_id FROM attempts WHERE chain_id = ?1 AND hash = ?2")?
            .query_row(params![chain_id, hash.as_slice()], |row| row.get(0))
            .optional()?
            .map(|id| TransactionId(Uuid::from_bytes(id))),
    };
    let Some(id) = id else { return Ok(None) };
    let found = connection
        .prepare_cached(&life_sql())?
        .query_row(params![chain_id, owner, id.0.as_bytes()], |row| Ok((stored_transaction(row)?, row.get("request")?)))
        .optional()?;
    let Some((transaction, request)) = found else { return Ok(None) };
    let receipt = match (transaction.attempt, transaction.block) {
        (Some((hash, _)), Some(block)) => connection
            .prepare_cached(
                "SELECT receipt FROM events INDEXED BY events_by_transaction
                 WHERE transaction_id = ?1 AND hash = ?2 AND block_hash = ?3 AND state = 'included'
                 ORDER BY position DESC LIMIT 1",
            )?
            .query_row(params![id.0.as_bytes(), hash.as_slice(), block.hash.as_slice()], get_receipt)
            .optional()?
            .flatten(),
        _ => None,
    };
    let (attempts, events) = (attempts(connection, id)?, events::of_transaction(connection, id, EVENTS)?);
    Ok(Some(Life { attempts, events, transaction, request, receipt }))
}

pub(super) fn attempts_sql() -> &'static str {
    "SELECT hash, purpose, state, block_number, block_hash, replaces FROM attempts INDEXED BY attempts_by_transaction
     WHERE transaction_id = ?1 ORDER BY position DESC LIMIT ?2"
}

/// The newest attempts of a transaction, oldest first.
fn attempts(connection: &Connection, id: TransactionId) -> Answer<Vec<StoredTry>> {
    let limit = i64::try_from(ATTEMPTS).unwrap_or(i64::MAX);
    let mut attempts = connection
        .prepare_cached(attempts_sql())?
        .query_map(params![id.0.as_bytes(), limit], |row| {
            Ok(StoredTry {
                hash: get_hash(row, "hash")?,
                purpose: get_purpose(row, "purpose")?,
                state: get_state(row, "state")?,
                block: get_block(row)?,
                replaces: row.get::<_, Option<[u8; 32]>>("replaces")?.map(B256::from),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    attempts.reverse();
    Ok(attempts)
}

pub(super) fn mined_instead_sql() -> &'static str {
    "SELECT b.hash FROM attempts a CROSS JOIN attempts b INDEXED BY attempts_by_transaction
     WHERE a.chain_id = ?1 AND a.hash = ?2 AND a.purpose = 'request'
       AND b.transaction_id = a.transaction_id AND b.hash <> a.hash AND b.purpose = 'request' AND b.state IN ('included', 'confirmed')
     LIMIT 1"
}

pub(super) fn mined_instead(connection: &Connection, chain_id: u64, hash: B256) -> Answer<Option<B256>> {
    let Ok(chain_id) = i64::try_from(chain_id) else { return Ok(None) };
    let mut statement = connection.prepare_cached(mined_instead_sql())?;
    Ok(statement.query_row(params![chain_id, hash.as_slice()], |row| get_hash(row, "hash")).optional()?)
}

/// The position before the first event of all these; the first id that is not the owner's otherwise.
pub(super) fn begin_of(connection: &Connection, scope: &Scope, ids: &[TransactionId]) -> Answer<Result<i64, TransactionId>> {
    let owner = owner(connection, scope)?;
    let mut begin = i64::MAX;
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT min(e.position) FROM events e WHERE e.transaction_id = t.id) FROM transactions t
         WHERE t.id = ?3 AND t.chain_id = ?1 AND t.owner = ?2",
    )?;
    for id in ids {
        let Some((chain_id, owner)) = owner else { return Ok(Err(*id)) };
        let first = statement.query_row(params![chain_id, owner, id.0.as_bytes()], |row| row.get::<_, Option<i64>>(0)).optional()?;
        let Some(first) = first else { return Ok(Err(*id)) };
        begin = begin.min(first.unwrap_or(0).saturating_sub(1));
    }
    Ok(Ok(begin.max(0)))
}

pub(super) fn open_slots_sql() -> &'static str {
    "SELECT s.nonce, a.state, a.hash, t.id, t.owner = ?2 AS own
     FROM slots s INDEXED BY slots_open
     CROSS JOIN attempts a ON a.chain_id = s.chain_id AND a.hash = s.payload
     CROSS JOIN transactions t ON t.id = a.transaction_id
     WHERE s.chain_id = ?1 AND s.address = ?3 AND s.done = 0
     ORDER BY s.nonce"
}

pub(super) fn account(connection: &Connection, scope: &Scope, address: Address) -> Answer<Option<AccountRecord>> {
    let Ok(chain_id) = i64::try_from(scope.chain_id) else { return Ok(None) };
    // A scope without anything on record sees an account that has rows of others; no owner has this id.
    let owner = owner(connection, scope)?.map_or(0, |(_, owner)| owner);
    let found = connection
        .prepare_cached(&format!(
            "SELECT c.floor, c.paused, c.filler, c.reconcile, max(c.floor, coalesce(
                 (SELECT max(s.nonce) + 1 FROM slots s WHERE s.chain_id = c.chain_id AND s.address = c.address), 0)) AS next_nonce
             FROM accounts c WHERE c.chain_id = ?1 AND c.address = ?2 AND {ON_RECORD}"
        ))?
        .query_row(params![chain_id, address.as_slice()], |row| {
            Ok(AccountRecord {
                floor: get_u64(row, "floor")?,
                next_nonce: get_u64(row, "next_nonce")?,
                pauses: get_pauses(row)?,
                ..AccountRecord::default()
            })
        })
        .optional()?;
    let Some(mut account) = found else { return Ok(None) };
    let mut counts = [0; AttemptState::ALL.len()];
    let mut statement = connection.prepare_cached(open_slots_sql())?;
    let mut rows = statement.query(params![chain_id, owner, address.as_slice()])?;
    while let Some(row) = rows.next()? {
        let slot = open_slot(row)?;
        if let Some(count) = AttemptState::ALL.iter().position(|state| *state == slot.state).and_then(|index| counts.get_mut(index)) {
            *count += 1;
        }
        if account.open.len() < OPEN_SLOTS {
            account.open.push(slot);
        }
    }
    account.counts = AttemptState::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect();
    Ok(Some(account))
}

fn open_slot(row: &Row<'_>) -> rusqlite::Result<OpenSlot> {
    let own = if row.get("own")? { Some((TransactionId(Uuid::from_bytes(row.get("id")?)), get_hash(row, "hash")?)) } else { None };
    Ok(OpenSlot { nonce: get_u64(row, "nonce")?, state: get_state(row, "state")?, own })
}

fn stored_transaction(row: &Row<'_>) -> rusqlite::Result<StoredTransaction> {
    let hash: Option<B256> = row.get::<_, Option<[u8; 32]>>("hash")?.map(B256::from);
    let attempt = hash.map(|hash| Ok::<_, rusqlite::Error>((hash, get_u64(row, "nonce")?))).transpose()?;
    Ok(StoredTransaction {
        id: TransactionId(Uuid::from_bytes(row.get("id")?)),
        kind: get_kind(row, "kind")?,
        account: Account { chain_id: get_u64(row, "chain_id")?, address: get_address(row, "address")? },
        created_at: time(row.get("created_at")?),
        attempt,
        purpose: if attempt.is_some() { get_purpose(row, "purpose")? } else { Purpose::Request },
        state: match attempt {
            Some(_) => get_state(row, "state")?,
            None if row.get("queued")? => AttemptState::Queued,
            // Ended without an attempt; or its bytes went to another transaction, which they do only while they are refused.
            None => AttemptState::Refused,
        },
        block: get_block(row)?,
    })
}
