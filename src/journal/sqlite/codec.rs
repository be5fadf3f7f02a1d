//! How the journal's values look in SQLite's columns.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, U256};
use rusqlite::types::Type;

use crate::journal::{AttemptState, BlockRef, JournalError, Kind, PauseBy, Pauses, Purpose};

/// SQLite's integers are signed: chain ids, nonces and block numbers beyond 2^63 - 1 are refused, never wrapped.
pub(super) fn integer(what: &str, value: u64) -> Result<i64, JournalError> {
    i64::try_from(value).map_err(|_| JournalError::NotWritten(format!("{what} {value} is beyond what the journal can hold")))
}

/// A slot's nonce: the one after it has to fit too.
pub(super) fn slot_nonce(value: u64) -> Result<i64, JournalError> {
    integer("nonce", value.saturating_add(1)).map(|next| next - 1)
}

/// Milliseconds since 1970, rounded up, so that a hold never becomes shorter.
pub(super) fn millis(time: SystemTime) -> i64 {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    i64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

pub(super) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A row that no version of Sluice writes.
pub(super) fn unreadable(column: &str, text: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, format!("column {column}: {text}").into())
}

pub(super) fn get_u64(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| unreadable(column, format!("{value} is negative")))
}

pub(super) fn get_address(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Address> {
    row.get::<_, [u8; 20]>(column).map(Address::from)
}

pub(super) fn get_hash(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<B256> {
    row.get::<_, [u8; 32]>(column).map(B256::from)
}

pub(super) fn get_amount(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<U256> {
    row.get::<_, [u8; 32]>(column).map(U256::from_be_bytes)
}

pub(super) fn get_state(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<AttemptState> {
    let word: String = row.get(column)?;
    AttemptState::parse(&word).ok_or_else(|| unreadable(column, word))
}

pub(super) fn get_kind(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Kind> {
    let word: String = row.get(column)?;
    [Kind::Send, Kind::SignOnly, Kind::Raw, Kind::Filler]
        .into_iter()
        .find(|kind| kind.as_str() == word)
        .ok_or_else(|| unreadable(column, word))
}

pub(super) fn get_purpose(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Purpose> {
    let word: String = row.get(column)?;
    Purpose::parse(&word).ok_or_else(|| unreadable(column, word))
}

/// The column of an account that holds the reason.
pub(super) fn pause_column(by: PauseBy) -> &'static str {
    match by {
        PauseBy::Operator => "paused",
        PauseBy::Filler => "filler",
        PauseBy::Reconcile => "reconcile",
    }
}

/// The columns `paused`, `filler` and `reconcile`.
pub(super) fn get_pauses(row: &rusqlite::Row<'_>) -> rusqlite::Result<Pauses> {
    let mut pauses = Pauses::default();
    for by in PauseBy::ALL {
        pauses.set(by, row.get(pause_column(by))?);
    }
    Ok(pauses)
}

/// The columns `block_number` and `block_hash`.
pub(super) fn get_block(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<BlockRef>> {
    if row.get::<_, Option<i64>>("block_number")?.is_none() {
        return Ok(None);
    }
    Ok(Some(BlockRef { number: get_u64(row, "block_number")?, hash: get_hash(row, "block_hash")? }))
}
