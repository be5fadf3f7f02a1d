//! Who may write about an account: the tenure on record, compared with that of each batch (I9).
//!
//! One process has the file, so a tenure ends only when the account's task starts again, or by a hand that is not Sluice's.

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{get_u64, integer};
use super::records::{Fault, Row};
use crate::journal::{Account, Epoch, JournalError};

/// Begins the next tenure. An account that is not on record gets a row by it, so that the tenure after it is another one whatever was written
/// in between; no read shows a row that says nothing else.
pub(super) fn begin(connection: &Connection, account: Account) -> Result<Epoch, Fault> {
    let row = Row::new(account)?;
    let epoch = connection
        .prepare_cached(
            "INSERT INTO accounts (chain_id, address, epoch) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
        )?
        .query_row(params![row.chain_id, row.address.as_slice(), integer("epoch", Epoch::FIRST.0)?], |row| get_u64(row, "epoch"))?;
    Ok(Epoch(epoch))
}

/// Refuses the batch of any other tenure than the one on record.
pub(super) fn check(connection: &Connection, account: Account, epoch: Epoch) -> Result<(), Fault> {
    let row = Row::new(account)?;
    let on_record = connection
        .prepare_cached("SELECT epoch FROM accounts WHERE chain_id = ?1 AND address = ?2")?
        .query_row(params![row.chain_id, row.address.as_slice()], |row| get_u64(row, "epoch"))
        .optional()?;
    if on_record.map_or(Epoch::FIRST, Epoch) == epoch {
        Ok(())
    } else {
        Err(Fault::Own(JournalError::NotOwner { address: account.address }))
    }
}
