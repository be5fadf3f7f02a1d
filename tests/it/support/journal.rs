//! The journal's file, read past Sluice's own code.

use std::path::Path;

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, OpenFlags};

/// One row of the events, with the nonce of its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) address: Address,
    pub(crate) nonce: u64,
    pub(crate) hash: B256,
    pub(crate) state: String,
    pub(crate) block: Option<(u64, B256)>,
    pub(crate) detail: Option<String>,
    pub(crate) time: u64,
}

/// Every event of the service, in order of commit.
pub(crate) fn events(path: &Path, service: &str) -> Vec<Event> {
    let journal = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT lower(hex(e.transaction_id)), e.address, a.nonce, e.hash, e.state, e.block_number, e.block_hash, e.detail, e.at
               FROM events e JOIN transactions t ON t.id = e.transaction_id
               JOIN attempts a ON a.chain_id = e.chain_id AND a.hash = e.hash
               WHERE t.service = ?1 ORDER BY e.position";
    let mut statement = journal.prepare(sql).unwrap();
    let number = |value: i64| u64::try_from(value).unwrap();
    let rows = statement.query_map([service], |row| {
        let block_hash: Option<Vec<u8>> = row.get(6)?;
        let block_number: Option<i64> = row.get(5)?;
        Ok(Event {
            id: row.get(0)?,
            address: Address::from_slice(&row.get::<_, Vec<u8>>(1)?),
            nonce: number(row.get(2)?),
            hash: B256::from_slice(&row.get::<_, Vec<u8>>(3)?),
            state: row.get(4)?,
            block: block_number.zip(block_hash).map(|(at, hash)| (number(at), B256::from_slice(&hash))),
            detail: row.get(7)?,
            time: number(row.get(8)?),
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Hash and state of every attempt on record, in order of commit.
pub(crate) fn attempts(path: &Path) -> Vec<(B256, String)> {
    let journal = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = journal.prepare("SELECT hash, state FROM attempts ORDER BY position").unwrap();
    let rows = statement.query_map([], |row| Ok((B256::from_slice(&row.get::<_, Vec<u8>>(0)?), row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}
