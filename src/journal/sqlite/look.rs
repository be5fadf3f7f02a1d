//! What people want to see of the file: counts, and the slots of one address.

use std::path::Path;

use alloy_primitives::Address;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::codec::{get_address, get_hash, get_purpose, get_state, get_u64};
use super::file;
use super::pool::ReadFault;
use crate::journal::inspect::{Overview, SlotRow};
use crate::journal::{Account, TransactionId};

/// Counts rows of whole tables: for people, not for hot paths.
pub(super) fn overview(connection: &Connection, path: &Path) -> Result<Overview, ReadFault> {
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| get_u64(row, "n"));
    let version = connection.query_row("SELECT user_version AS n FROM pragma_user_version", [], |row| get_u64(row, "n"))?;
    let (file_bytes, log_bytes) = file::sizes(path);
    Ok(Overview {
        version,
        file_bytes,
        log_bytes,
        transactions: count("SELECT count(*) AS n FROM transactions")?,
        queued: count("SELECT count(*) AS n FROM transactions WHERE queued = 1")?,
        events: count("SELECT count(*) AS n FROM events")?,
        idempotency_keys: count("SELECT count(*) AS n FROM idempotency_keys")?,
    })
}

/// A slot that another slot's attempt took by an authorisation is listed with that attempt.
pub(super) fn slots(connection: &Connection, address: Address, limit: u32) -> Result<Vec<SlotRow>, ReadFault> {
    let rows = connection
        .prepare_cached(
            "SELECT s.chain_id, s.address, s.nonce, s.done, s.payload = a.hash AS current, s.authorisation, a.hash, a.transaction_id,
                a.state, a.purpose
             FROM slots s JOIN attempts a ON a.chain_id = s.chain_id
                AND ((a.address = s.address AND a.nonce = s.nonce) OR a.hash = s.payload)
             WHERE s.address = ?1 ORDER BY s.chain_id, s.nonce DESC, a.position DESC LIMIT ?2",
        )?
        .query_map(params![address.as_slice(), limit], |row| {
            Ok(SlotRow {
                account: Account { chain_id: get_u64(row, "chain_id")?, address: get_address(row, "address")? },
                nonce: get_u64(row, "nonce")?,
                done: row.get("done")?,
                by_authorisation: row.get("authorisation")?,
                current: row.get("current")?,
                hash: get_hash(row, "hash")?,
                transaction: TransactionId(Uuid::from_bytes(row.get("transaction_id")?)),
                state: get_state(row, "state")?,
                purpose: get_purpose(row, "purpose")?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
