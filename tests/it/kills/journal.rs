//! The journal's file, read past Sluice's own code.

use std::path::Path;

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OpenFlags, Row};

pub(super) type Block = (u64, B256);

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) address: Address,
    pub(super) floor: u64,
    /// Why it is stopped, whoever did it.
    pub(super) paused: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) address: Address,
    pub(super) nonce: u64,
    pub(super) authorisation: bool,
    pub(super) done: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) position: u64,
    pub(super) hash: B256,
    pub(super) address: Address,
    pub(super) nonce: u64,
    pub(super) transaction: String,
    /// The payload in whose place it was put.
    pub(super) replaces: Option<B256>,
    /// Whether it is there so that the transaction is not mined.
    pub(super) cancels: bool,
    pub(super) state: String,
    pub(super) block: Option<Block>,
    /// What it pays, by which the test names requests.
    pub(super) value: u128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) position: u64,
    pub(super) address: Address,
    pub(super) sequence: u64,
    pub(super) transaction: String,
    /// None of a transaction that has no attempt.
    pub(super) hash: Option<B256>,
    pub(super) state: String,
    pub(super) block: Option<Block>,
    /// Why, for people.
    pub(super) detail: Option<String>,
    pub(super) service: String,
}

/// Everything that a checker looks at.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    pub(super) genesis: Option<B256>,
    pub(super) keys: Vec<Address>,
    pub(super) accounts: Vec<Account>,
    pub(super) slots: Vec<Slot>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) events: Vec<Event>,
    /// Transactions that are acknowledged and have neither an attempt nor an end.
    pub(super) queued: Vec<String>,
}

impl Journal {
    /// As it is now, in one snapshot; `None` while there is none, or none of the right version.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let snapshot = file.transaction().ok()?;
        Self::of(&snapshot).ok()
    }

    fn of(file: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            genesis: rows(file, "SELECT genesis FROM chains", |row| hash(row, "genesis"))?.pop(),
            keys: rows(file, "SELECT address FROM keys", |row| address(row, "address"))?,
            accounts: rows(file, "SELECT address, floor, coalesce(paused, filler, reconcile) AS paused FROM accounts", |row| {
                Ok(Account { address: address(row, "address")?, floor: number(row, "floor")?, paused: row.get("paused")? })
            })?,
            slots: rows(file, "SELECT address, nonce, authorisation, done FROM slots ORDER BY address, nonce", |row| {
                Ok(Slot {
                    address: address(row, "address")?,
                    nonce: number(row, "nonce")?,
                    authorisation: row.get("authorisation")?,
                    done: row.get("done")?,
                })
            })?,
            attempts: rows(
                file,
                "SELECT a.*, lower(hex(a.transaction_id)) AS id FROM attempts a
                 ORDER BY a.position",
                attempt,
            )?,
            queued: rows(file, "SELECT lower(hex(id)) AS id FROM transactions WHERE queued = 1", |row| row.get("id"))?,
            events: rows(
                file,
                "SELECT e.*, lower(hex(e.transaction_id)) AS id, t.service FROM events e JOIN transactions t ON t.id = e.transaction_id
                 ORDER BY e.position",
                event,
            )?,
        })
    }
}

/// The accounts that an operator has paused, as it is on record now; `None` while there is no journal of the right version.
pub(super) fn ordered(path: &Path) -> Option<Vec<Address>> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    rows(&file, "SELECT address FROM accounts WHERE paused IS NOT NULL", |row| address(row, "address")).ok()
}

fn rows<T>(file: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    file.prepare(sql)?.query_map([], read)?.collect()
}

fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap())
}

fn address(row: &Row<'_>, column: &str) -> rusqlite::Result<Address> {
    Ok(Address::from_slice(&row.get::<_, Vec<u8>>(column)?))
}

fn hash(row: &Row<'_>, column: &str) -> rusqlite::Result<B256> {
    Ok(B256::from_slice(&row.get::<_, Vec<u8>>(column)?))
}

fn block(row: &Row<'_>) -> rusqlite::Result<Option<Block>> {
    let number: Option<i64> = row.get("block_number")?;
    let hash: Option<Vec<u8>> = row.get("block_hash")?;
    Ok(number.zip(hash).map(|(number, hash)| (u64::try_from(number).unwrap(), B256::from_slice(&hash))))
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let raw: Vec<u8> = row.get("raw")?;
    let envelope = TxEnvelope::decode_2718(&mut raw.as_slice()).expect("what is on record is a transaction");
    Ok(Attempt {
        position: number(row, "position")?,
        hash: hash(row, "hash")?,
        address: address(row, "address")?,
        nonce: number(row, "nonce")?,
        transaction: row.get("id")?,
        replaces: row.get::<_, Option<Vec<u8>>>("replaces")?.map(|hash| B256::from_slice(&hash)),
        cancels: row.get::<_, String>("purpose")? == "cancel",
        state: row.get("state")?,
        block: block(row)?,
        value: envelope.value().try_into().unwrap(),
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        position: number(row, "position")?,
        address: address(row, "address")?,
        sequence: number(row, "sequence")?,
        transaction: row.get("id")?,
        hash: row.get::<_, Option<Vec<u8>>>("hash")?.map(|hash| B256::from_slice(&hash)),
        state: row.get("state")?,
        block: block(row)?,
        detail: row.get("detail")?,
        service: row.get("service")?,
    })
}
