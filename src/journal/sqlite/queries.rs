//! The reads. A chain id that the journal cannot hold is not on record: such reads are empty.

use std::collections::HashSet;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use uuid::Uuid;

use super::codec::{get_address, get_amount, get_block, get_hash, get_kind, get_pauses, get_purpose, get_state, get_u64, time};
use super::pool::ReadFault;
use crate::journal::{Account, AccountSummary, Attempt, AttemptState, ChainPin, StoredAccount, StoredAttempt, StoredKey, TransactionId};

pub(super) type Answer<T> = Result<T, ReadFault>;

/// The columns of an account, with the nonce after every slot on record.
const ACCOUNT: &str = "SELECT c.chain_id, c.address, c.paused, c.filler, c.reconcile, max(c.floor, coalesce(
    (SELECT max(s.nonce) + 1 FROM slots s WHERE s.chain_id = c.chain_id AND s.address = c.address), 0)) AS next_nonce
    FROM accounts c";

/// Of an account `c`: something of it is on record, beside whose it is.
pub(super) const ON_RECORD: &str = "(c.floor > 0 OR c.last_sequence > 0
    OR c.paused IS NOT NULL OR c.filler IS NOT NULL OR c.reconcile IS NOT NULL
    OR EXISTS (SELECT 1 FROM slots o WHERE o.chain_id = c.chain_id AND o.address = c.address))";

/// The columns of an attempt `a` and its transaction `t`.
const ATTEMPT: &str = "a.position, a.chain_id, a.hash, a.address, a.nonce, a.transaction_id, a.raw, a.cost, a.hold_until, a.state,
    a.purpose, a.block_number, a.block_hash, t.service, t.principal, t.kind, t.request";

fn chain(chain_id: u64) -> Option<i64> {
    i64::try_from(chain_id).ok()
}

fn stored_account(row: &Row<'_>) -> rusqlite::Result<StoredAccount> {
    Ok(StoredAccount {
        account: Account { chain_id: get_u64(row, "chain_id")?, address: get_address(row, "address")? },
        next_nonce: get_u64(row, "next_nonce")?,
        pauses: get_pauses(row)?,
    })
}

pub(super) fn accounts(connection: &Connection, chain_id: u64) -> Answer<Vec<StoredAccount>> {
    let Some(chain_id) = chain(chain_id) else { return Ok(Vec::new()) };
    let accounts = connection
        .prepare_cached(&format!("{ACCOUNT} WHERE c.chain_id = ?1 AND {ON_RECORD} ORDER BY c.address"))?
        .query_map([chain_id], stored_account)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(accounts)
}

pub(super) fn account_sql() -> String {
    format!("{ACCOUNT} WHERE c.chain_id = ?1 AND c.address = ?2 AND {ON_RECORD}")
}

pub(super) fn account(connection: &Connection, account: Account) -> Answer<Option<StoredAccount>> {
    let Some(chain_id) = chain(account.chain_id) else { return Ok(None) };
    let account =
        connection.prepare_cached(&account_sql())?.query_row(params![chain_id, account.address.as_slice()], stored_account).optional()?;
    Ok(account)
}

pub(super) fn unfinished_sql() -> String {
    format!(
        "SELECT s.nonce AS slot, s.payload = a.hash AS current, {ATTEMPT}
         FROM slots s INDEXED BY slots_open
         JOIN attempts a ON a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce
         JOIN transactions t ON t.id = a.transaction_id
         WHERE s.chain_id = ?1 AND s.address = ?2 AND s.done = 0
         UNION ALL
         SELECT s.nonce, s.payload = a.hash, {ATTEMPT}
         FROM slots s INDEXED BY slots_open
         JOIN authorisations u ON u.chain_id = s.chain_id AND u.address = s.address AND u.nonce = s.nonce
         JOIN attempts a ON a.chain_id = u.chain_id AND a.hash = u.hash
         JOIN transactions t ON t.id = a.transaction_id
         WHERE s.chain_id = ?1 AND s.address = ?2 AND s.done = 0
         ORDER BY slot, position"
    )
}

/// Attempts of the account's open slots, and those of other slots that took one by an authorisation; each attempt once.
pub(super) fn unfinished(connection: &Connection, account: Account) -> Answer<Vec<StoredAttempt>> {
    let Some(chain_id) = chain(account.chain_id) else { return Ok(Vec::new()) };
    let mut attempts = list(connection, &unfinished_sql(), params![chain_id, account.address.as_slice()])?;
    let mut seen = HashSet::new();
    attempts.retain(|stored| seen.insert(stored.attempt.hash));
    Ok(attempts)
}

pub(super) fn next_slot(connection: &Connection, account: Account, from: u64) -> Answer<Option<u64>> {
    let (Some(chain_id), Ok(from)) = (chain(account.chain_id), i64::try_from(from)) else { return Ok(None) };
    let nonce: Option<i64> = connection
        .prepare_cached("SELECT min(nonce) FROM slots WHERE chain_id = ?1 AND address = ?2 AND nonce >= ?3")?
        .query_row(params![chain_id, account.address.as_slice(), from], |row| row.get(0))?;
    Ok(nonce.and_then(|nonce| u64::try_from(nonce).ok()))
}

pub(super) fn attempt_sql() -> String {
    format!(
        "SELECT coalesce(s.payload = a.hash, 0) AS current, {ATTEMPT}
         FROM attempts a
         JOIN transactions t ON t.id = a.transaction_id
         LEFT JOIN slots s ON s.chain_id = a.chain_id AND s.address = a.address AND s.nonce = a.nonce
         WHERE a.chain_id = ?1 AND a.hash = ?2"
    )
}

pub(super) fn attempt(connection: &Connection, chain_id: u64, hash: B256) -> Answer<Option<StoredAttempt>> {
    let Some(chain_id) = chain(chain_id) else { return Ok(None) };
    Ok(list(connection, &attempt_sql(), params![chain_id, hash.as_slice()])?.pop())
}

/// CROSS JOIN and INDEXED BY fix the way: the open slots are few, the slots and transactions of a chain are not.
pub(super) fn unconfirmed_sql() -> String {
    format!(
        "SELECT 1 AS current, {ATTEMPT}
         FROM slots s INDEXED BY slots_open
         CROSS JOIN attempts a ON a.chain_id = s.chain_id AND a.hash = s.payload
         CROSS JOIN transactions t ON t.id = a.transaction_id
         WHERE s.chain_id = ?1 AND s.done = 0 AND s.authorisation = 0 AND a.state NOT IN ('confirmed', 'replaced')
           AND t.service = ?2 AND t.principal = ?3 AND t.kind <> 'filler'
         ORDER BY a.position"
    )
}

pub(super) fn unconfirmed(connection: &Connection, chain_id: u64, service: &str, principal: &str) -> Answer<Vec<StoredAttempt>> {
    let Some(chain_id) = chain(chain_id) else { return Ok(Vec::new()) };
    list(connection, &unconfirmed_sql(), params![chain_id, service, principal])
}

fn list(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> Answer<Vec<StoredAttempt>> {
    let mut attempts =
        connection.prepare_cached(sql)?.query_map(params, stored_attempt)?.collect::<rusqlite::Result<Vec<StoredAttempt>>>()?;
    let mut authorised =
        connection.prepare_cached("SELECT address, nonce FROM authorisations WHERE chain_id = ?1 AND hash = ?2 ORDER BY ordinal")?;
    for stored in &mut attempts {
        let attempt = &mut stored.attempt;
        let chain_id = attempt.account.chain_id;
        attempt.authorisations = authorised
            .query_map(params![chain(chain_id), attempt.hash.as_slice()], |row| {
                Ok((Account { chain_id, address: get_address(row, "address")? }, get_u64(row, "nonce")?))
            })?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(attempts)
}

fn stored_attempt(row: &Row<'_>) -> rusqlite::Result<StoredAttempt> {
    let text = |column: &str| row.get::<_, String>(column).map(Arc::<str>::from);
    Ok(StoredAttempt {
        attempt: Attempt {
            account: Account { chain_id: get_u64(row, "chain_id")?, address: get_address(row, "address")? },
            nonce: get_u64(row, "nonce")?,
            transaction: TransactionId(Uuid::from_bytes(row.get("transaction_id")?)),
            kind: get_kind(row, "kind")?,
            service: text("service")?,
            principal: text("principal")?,
            request: text("request")?,
            purpose: get_purpose(row, "purpose")?,
            hash: get_hash(row, "hash")?,
            raw: row.get::<_, Vec<u8>>("raw")?.into(),
            cost: get_amount(row, "cost")?,
            hold_until: row.get::<_, Option<i64>>("hold_until")?.map(time),
            authorisations: Vec::new(),
        },
        state: get_state(row, "state")?,
        block: get_block(row)?,
        current: row.get("current")?,
    })
}

pub(super) fn pin(connection: &Connection, chain_id: u64) -> Answer<Option<ChainPin>> {
    Ok(chains(connection)?.into_iter().find(|pin| pin.chain_id == chain_id))
}

/// Position of the newest event; 0 if there is none.
pub(super) fn newest_position(connection: &Connection) -> Answer<i64> {
    Ok(connection.prepare_cached("SELECT coalesce(max(position), 0) FROM events")?.query_row([], |row| row.get(0))?)
}

pub(super) fn chains(connection: &Connection) -> Answer<Vec<ChainPin>> {
    let chains = connection
        .prepare_cached("SELECT chain_id, genesis FROM chains ORDER BY chain_id")?
        .query_map([], |row| Ok(ChainPin { chain_id: get_u64(row, "chain_id")?, genesis: get_hash(row, "genesis")? }))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(chains)
}

pub(super) fn keys(connection: &Connection) -> Answer<Vec<StoredKey>> {
    let keys = connection
        .prepare_cached("SELECT arn, spki, address FROM keys ORDER BY arn")?
        .query_map([], |row| Ok(StoredKey { arn: row.get("arn")?, spki: row.get("spki")?, address: get_address(row, "address")? }))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(keys)
}

/// Reads every attempt's row: for people, not for hot paths.
pub(super) fn summary(connection: &Connection) -> Answer<Vec<AccountSummary>> {
    let mut summaries: Vec<AccountSummary> = connection
        .prepare_cached(&format!("{ACCOUNT} WHERE {ON_RECORD} ORDER BY c.chain_id, c.address"))?
        .query_map([], |row| Ok(AccountSummary { account: stored_account(row)?, attempts: Vec::new() }))?
        .collect::<rusqlite::Result<_>>()?;
    let counts: Vec<(u64, Address, AttemptState, u64)> = connection
        .prepare_cached("SELECT chain_id, address, state, count(*) AS attempts FROM attempts GROUP BY chain_id, address, state")?
        .query_map([], |row| {
            Ok((get_u64(row, "chain_id")?, get_address(row, "address")?, get_state(row, "state")?, get_u64(row, "attempts")?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (chain_id, address, state, count) in counts {
        let account = Account { chain_id, address };
        if let Ok(index) = summaries.binary_search_by(|summary| summary.account.account.cmp(&account)) {
            summaries[index].attempts.push((state, count));
        }
    }
    for summary in &mut summaries {
        // The enum is declared in the order of a life.
        summary.attempts.sort_unstable();
    }
    Ok(summaries)
}
