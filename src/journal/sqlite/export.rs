//! The journal as lines of JSON, row by row.

use std::io::{self, Write};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::file;
use crate::journal::JournalError;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Where it is written to.
    #[error("cannot write the export: {0}")]
    Output(#[from] io::Error),
}

/// One kind of line: its name, and the rows that it is made of. The columns have the names of the members; `{raw}` stands for the
/// signed bytes.
const KINDS: [(&str, &str); 7] = [
    (
        "account",
        "SELECT chain_id AS chainId, address, floor, epoch, paused, filler, reconcile, last_sequence AS lastSequence FROM accounts
         ORDER BY chain_id, address",
    ),
    (
        "transaction",
        "SELECT id, chain_id AS chainId, address, service, principal, kind, request, queued, created_at AS createdAt FROM transactions
         ORDER BY id",
    ),
    (
        "idempotencyKey",
        "SELECT o.service, o.principal, k.key, k.chain_id AS chainId, k.digest, k.transaction_id AS transactionId, k.created_at AS createdAt
         FROM idempotency_keys k JOIN owners o ON o.id = k.owner ORDER BY k.created_at, k.owner, k.key",
    ),
    ("slot", "SELECT chain_id AS chainId, address, nonce, payload, authorisation, done FROM slots ORDER BY chain_id, address, nonce"),
    (
        "attempt",
        "SELECT position, chain_id AS chainId, hash, address, nonce, transaction_id AS transactionId, purpose, state, cost,
            hold_until AS holdUntil, replaces, block_number AS blockNumber, block_hash AS blockHash {raw} FROM attempts ORDER BY position",
    ),
    ("authorisation", "SELECT chain_id AS chainId, hash, ordinal, address, nonce FROM authorisations ORDER BY chain_id, hash, ordinal"),
    (
        "event",
        "SELECT position, chain_id AS chainId, address, sequence, transaction_id AS transactionId, hash, state,
            block_number AS blockNumber, block_hash AS blockHash, detail, receipt, at FROM events ORDER BY position",
    ),
];

/// Writes every account, transaction, idempotency key, slot, attempt, authorisation and event as a JSON object with its kind in `type`,
/// one a line, of one snapshot. Holds one row in memory. Blobs are `0x` hex, ids UUIDs, times milliseconds since 1970, `request` and `receipt` JSON.
///
/// Signed bytes only `with_bytes`: whoever has them can send them.
///
/// Blocks for as long as it takes. Meanwhile the log of a gateway beside it grows.
pub fn export(path: &Path, with_bytes: bool, output: &mut dyn Write) -> Result<(), ExportError> {
    let path = file::resolve(path)?;
    let connection = file::open_reader(&path)?;
    let not_read = |error: rusqlite::Error| match file::is_damage(&error) {
        true => file::unusable(&path, &error),
        false => JournalError::NotRead(error.to_string()),
    };
    let snapshot = connection.unchecked_transaction().map_err(not_read)?;
    for (kind, sql) in KINDS {
        let sql = sql.replace("{raw}", if with_bytes { ", raw" } else { "" });
        lines(&snapshot, kind, &sql, output, &not_read)?;
    }
    output.flush()?;
    Ok(())
}

fn lines(
    connection: &Connection,
    kind: &str,
    sql: &str,
    output: &mut dyn Write,
    not_read: &dyn Fn(rusqlite::Error) -> JournalError,
) -> Result<(), ExportError> {
    let mut statement = connection.prepare(sql).map_err(not_read)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).map_err(not_read)?;
    while let Some(row) = rows.next().map_err(not_read)? {
        let line = line(kind, &names, row).map_err(not_read)?;
        serde_json::to_writer(&mut *output, &line).map_err(io::Error::from)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}

fn line(kind: &str, names: &[String], row: &Row<'_>) -> rusqlite::Result<Map<String, Value>> {
    let mut line = Map::from_iter([("type".to_owned(), Value::from(kind))]);
    for (column, name) in names.iter().enumerate() {
        let value = match row.get_ref(column)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) if matches!(&**name, "queued" | "done" | "authorisation") => Value::from(number != 0),
            ValueRef::Integer(number) => Value::from(number),
            ValueRef::Real(number) => Value::from(number),
            ValueRef::Text(text) => self::text(name, &String::from_utf8_lossy(text)),
            ValueRef::Blob(bytes) => match Uuid::from_slice(bytes) {
                Ok(id) if matches!(&**name, "id" | "transactionId") => Value::from(id.to_string()),
                _ => Value::from(format!("0x{}", alloy_primitives::hex::encode(bytes))),
            },
        };
        line.insert(name.clone(), value);
    }
    Ok(line)
}

fn text(name: &str, text: &str) -> Value {
    let json = if matches!(name, "request" | "receipt") { serde_json::from_str(text).ok() } else { None };
    json.unwrap_or_else(|| Value::from(text))
}
