//! The journal's file, read past Sluice's own code.

use std::path::Path;

use alloy_primitives::B256;
use rusqlite::{Connection, OpenFlags};

/// Hash and state of every attempt on record, in order of commit.
pub(crate) fn attempts(path: &Path) -> Vec<(B256, String)> {
    let journal = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = journal.prepare("SELECT hash, state FROM attempts ORDER BY position").unwrap();
    let rows = statement.query_map([], |row| Ok((B256::from_slice(&row.get::<_, Vec<u8>>(0)?), row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}
