//! What is on record beside the accounts: chains and public keys; and the write that only proves that one is possible.

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{get_address, get_hash, integer};
use super::records::Fault;
use crate::journal::{ChainPin, JournalError, StoredKey};

/// Pins the chain, or checks the pin.
pub(super) fn pin_chain(connection: &Connection, pin: &ChainPin) -> Result<(), Fault> {
    let chain_id = integer("chain id", pin.chain_id)?;
    let known = connection
        .prepare_cached("SELECT genesis FROM chains WHERE chain_id = ?1")?
        .query_row([chain_id], |row| get_hash(row, "genesis"))
        .optional()?;
    match known {
        Some(genesis) if genesis == pin.genesis => Ok(()),
        Some(genesis) => Err(Fault::Own(JournalError::Unusable(format!(
            "chain {} is on record with genesis {genesis}, not {}",
            pin.chain_id, pin.genesis
        )))),
        None => {
            connection
                .prepare_cached("INSERT INTO chains (chain_id, genesis) VALUES (?1, ?2)")?
                .execute(params![chain_id, pin.genesis.as_slice()])?;
            Ok(())
        }
    }
}

/// Writes the version that the file has already. SQLite writes the page all the same, so the commit behind it needs the disk as
/// any other does.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)
}

/// Puts the key on record, or checks that it is the one on record.
pub(super) fn put_key(connection: &Connection, key: &StoredKey) -> Result<(), Fault> {
    let known = connection
        .prepare_cached("SELECT spki, address FROM keys WHERE arn = ?1")?
        .query_row([&key.arn], |row| Ok((row.get::<_, Vec<u8>>("spki")?, get_address(row, "address")?)))
        .optional()?;
    match known {
        Some((spki, address)) if spki == key.spki && address == key.address => Ok(()),
        Some((_, address)) => Err(Fault::Own(JournalError::Unusable(format!(
            "key {} is on record with another public key, that of {address}, not of {}",
            key.arn, key.address
        )))),
        None => {
            connection.prepare_cached("INSERT INTO keys (arn, spki, address) VALUES (?1, ?2, ?3)")?.execute(params![
                key.arn,
                key.spki,
                key.address.as_slice()
            ])?;
            Ok(())
        }
    }
}

/// Removes everything of the chain; answers how many attempts went. Children go before what they refer to.
pub(super) fn forget_chain(connection: &Connection, chain_id: u64) -> Result<u64, Fault> {
    let chain_id = integer("chain id", chain_id)?;
    connection.execute("DELETE FROM events WHERE chain_id = ?1", [chain_id])?;
    connection.execute("DELETE FROM authorisations WHERE chain_id = ?1", [chain_id])?;
    connection.execute("DELETE FROM slots WHERE chain_id = ?1", [chain_id])?;
    let attempts = connection.execute("DELETE FROM attempts WHERE chain_id = ?1", [chain_id])?;
    connection.execute("DELETE FROM idempotency_keys WHERE chain_id = ?1", [chain_id])?;
    connection.execute("DELETE FROM transactions WHERE chain_id = ?1", [chain_id])?;
    connection.execute("DELETE FROM accounts WHERE chain_id = ?1", [chain_id])?;
    connection.execute("DELETE FROM chains WHERE chain_id = ?1", [chain_id])?;
    Ok(u64::try_from(attempts).unwrap_or(u64::MAX))
}
