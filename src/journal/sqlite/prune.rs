//! Removes what is over for long: transactions that can change no more, and idempotency keys past their time.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::codec::millis;
use super::file;
use super::lock::ProcessLock;
use crate::journal::JournalError;

/// Transactions of one commit.
const BATCH: i64 = 1000;

/// What may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruning {
    /// Transactions whose last event is older than this.
    pub transactions_before: SystemTime,
    /// The newest ones of each account stay, however old they are.
    pub keep: u32,
    /// Idempotency keys that are older than this and whose transaction is not on record; none without it.
    pub keys_before: Option<SystemTime>,
    /// Give the space back to the file system: writes the whole file anew. Without it the space is used by what comes.
    pub vacuum: bool,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Transactions.
    pub transactions: u64,
    /// Their attempts.
    pub attempts: u64,
    /// Their events, with the receipts.
    pub events: u64,
    /// Idempotency keys.
    pub keys: u64,
}

/// `t` is neither acknowledged and waiting, nor is a slot of one of its attempts, authorisations included, not done.
const FINAL: &str = "t.queued = 0
    AND NOT EXISTS (SELECT 1 FROM attempts a
        JOIN slots s ON s.chain_id = a.chain_id AND s.address = a.address AND s.nonce = a.nonce
        WHERE a.transaction_id = t.id AND s.done = 0)
    AND NOT EXISTS (SELECT 1 FROM attempts a
        JOIN authorisations u ON u.chain_id = a.chain_id AND u.hash = a.hash
        JOIN slots s ON s.chain_id = u.chain_id AND s.address = u.address AND s.nonce = u.nonce
        WHERE a.transaction_id = t.id AND s.done = 0)";

/// Prunes the journal at `path`, which no other process may use meanwhile. A thousand transactions go in one commit, so that an end
/// in between leaves whole transactions. What an account hands out next stays on record as its floor, in the same commit.
pub fn prune(path: &Path, what: Pruning) -> Result<Pruned, JournalError> {
    let path = file::resolve(path)?;
    let mut lock = ProcessLock::take(&path)?;
    if file::is_empty(&path) {
        return Err(JournalError::Unusable(format!("there is no journal at {}", path.display())));
    }
    let begun = lock.has_begun();
    let mut connection = file::open_writer(&path, begun, &mut lock)?;
    (|| {
        let mut pruned = Pruned::default();
        for account in accounts(&connection)? {
            prune_account(&mut connection, &account, what, &mut pruned)?;
        }
        if let Some(before) = what.keys_before {
            pruned.keys = prune_keys(&connection, before)?;
        }
        if what.vacuum {
            connection.execute("VACUUM", [])?;
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(pruned)
    })()
    .map_err(|error: rusqlite::Error| match file::is_damage(&error) {
        true => file::unusable(&path, &error),
        false => JournalError::NotWritten(error.to_string()),
    })
}

/// An account's key.
type Row = (i64, [u8; 20]);

fn accounts(connection: &Connection) -> rusqlite::Result<Vec<Row>> {
    connection.prepare("SELECT chain_id, address FROM accounts")?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn prune_account(connection: &mut Connection, account: &Row, what: Pruning, pruned: &mut Pruned) -> rusqlite::Result<()> {
    let Some(end) = oldest_kept(connection, account, what.keep)? else { return Ok(()) };
    let mut behind = [0; 16];
    loop {
        let transaction = connection.transaction()?;
        let ids = candidates(&transaction, account, (behind, end), what.transactions_before)?;
        for id in &ids {
            remove(&transaction, id, pruned)?;
        }
        transaction.commit()?;
        match ids.last() {
            Some(last) => behind = *last,
            None => return Ok(()),
        }
    }
}

/// The oldest of the final transactions that stay because they are among the newest; `None` if there are no more than those. With
/// nothing to keep it is behind every id.
fn oldest_kept(connection: &Connection, account: &Row, keep: u32) -> rusqlite::Result<Option<[u8; 16]>> {
    let Some(skip) = keep.checked_sub(1) else { return Ok(Some([0xff; 16])) };
    connection
        .prepare_cached(&format!(
            "SELECT t.id FROM transactions t WHERE t.chain_id = ?1 AND t.address = ?2 AND {FINAL} ORDER BY t.id DESC LIMIT 1 OFFSET ?3"
        ))?
        .query_row(params![account.0, account.1, skip], |row| row.get(0))
        .optional()
}

fn candidates(
    transaction: &Transaction<'_>,
    account: &Row,
    (behind, end): ([u8; 16], [u8; 16]),
    before: SystemTime,
) -> rusqlite::Result<Vec<[u8; 16]>> {
    transaction
        .prepare_cached(&format!(
            "SELECT t.id FROM transactions t
             WHERE t.chain_id = ?1 AND t.address = ?2 AND t.id > ?3 AND t.id < ?4 AND {FINAL}
               AND coalesce((SELECT max(e.at) FROM events e WHERE e.transaction_id = t.id), t.created_at) < ?5
             ORDER BY t.id LIMIT ?6"
        ))?
        .query_map(params![account.0, account.1, behind, end, millis(before), BATCH], |row| row.get(0))?
        .collect()
}

/// Children go before what they refer to.
fn remove(transaction: &Transaction<'_>, id: &[u8; 16], pruned: &mut Pruned) -> rusqlite::Result<()> {
    let slots: Vec<(i64, [u8; 20], i64)> = transaction
        .prepare_cached(
            "SELECT chain_id, address, nonce FROM attempts WHERE transaction_id = ?1
             UNION SELECT u.chain_id, u.address, u.nonce FROM attempts a
                JOIN authorisations u ON u.chain_id = a.chain_id AND u.hash = a.hash WHERE a.transaction_id = ?1",
        )?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let delete = |sql: &str| transaction.prepare_cached(sql)?.execute([id]).map(|rows| rows as u64);
    pruned.events += delete("DELETE FROM events WHERE transaction_id = ?1")?;
    delete("DELETE FROM authorisations WHERE (chain_id, hash) IN (SELECT chain_id, hash FROM attempts WHERE transaction_id = ?1)")?;
    pruned.attempts += delete("DELETE FROM attempts WHERE transaction_id = ?1")?;
    pruned.transactions += delete("DELETE FROM transactions WHERE id = ?1")?;
    for slot in slots {
        remove_slot(transaction, slot)?;
    }
    Ok(())
}

/// The slot goes with the last attempt that names it; its nonce stays used, by the account's floor.
fn remove_slot(transaction: &Transaction<'_>, (chain_id, address, nonce): (i64, [u8; 20], i64)) -> rusqlite::Result<()> {
    let removed = transaction
        .prepare_cached(
            "DELETE FROM slots WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3 AND done = 1
             AND NOT EXISTS (SELECT 1 FROM attempts WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3)
             AND NOT EXISTS (SELECT 1 FROM authorisations WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3)",
        )?
        .execute(params![chain_id, address, nonce])?;
    if removed > 0 {
        transaction
            .prepare_cached("UPDATE accounts SET floor = max(floor, ?3 + 1) WHERE chain_id = ?1 AND address = ?2")?
            .execute(params![chain_id, address, nonce])?;
    }
    Ok(())
}

/// A key outlives its transaction: as long as that is on record, the key answers with it.
fn prune_keys(connection: &Connection, before: SystemTime) -> rusqlite::Result<u64> {
    let mut removed = 0;
    loop {
        let batch = connection
            .prepare_cached(
                "DELETE FROM idempotency_keys WHERE (owner, key) IN (
                    SELECT k.owner, k.key FROM idempotency_keys k WHERE k.created_at < ?1
                    AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.id = k.transaction_id) LIMIT ?2)",
            )?
            .execute(params![millis(before), BATCH])?;
        removed += batch as u64;
        if batch == 0 {
            return Ok(removed);
        }
    }
}
