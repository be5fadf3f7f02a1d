//! What each [`Record`] does to the tables. The rules are those of docs/journal.md; one SQL transaction is around all of it.

use std::time::SystemTime;

use alloy_primitives::{Address, B256};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde_json::value::RawValue;

use super::codec::{get_address, get_hash, get_kind, get_state, get_u64, integer, millis, pause_column, slot_nonce};
use super::intents;
use super::ownership;
use super::states::{self, Because};
use crate::journal::history::MAX_RECEIPT;
use crate::journal::{Account, Attempt, AttemptState, JournalError, Record, TransactionId};

/// Why a batch could not be applied.
#[derive(Debug)]
pub(super) enum Fault {
    /// The batch's own: the others of the group go on.
    Own(JournalError),
    /// The store's: nobody's fault, and everybody's.
    Store(rusqlite::Error),
}

impl Fault {
    /// A value that SQLite refuses (a constraint, a size) is a fault of the batch that brought it.
    pub(super) fn owned(self) -> Self {
        match self {
            Self::Store(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig)) => {
                Self::refuse(error.to_string())
            }
            other => other,
        }
    }

    /// The batch can never be applied as it is.
    fn refuse(why: String) -> Self {
        Self::Own(JournalError::NotWritten(why))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        Self::Own(error)
    }
}

/// An account as the tables name it.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) chain_id: i64,
    pub(super) address: Address,
}

impl Row {
    pub(super) fn new(account: Account) -> Result<Self, JournalError> {
        Ok(Self { chain_id: integer("chain id", account.chain_id)?, address: account.address })
    }
}

/// Applies one record; answers the position of its event, if it made one.
pub(super) fn apply(connection: &Connection, record: Record) -> Result<Option<i64>, Fault> {
    match record {
        Record::Tenure { account, epoch } => ownership::check(connection, account, epoch).map(|()| None),
        Record::Floor { account, nonce } => {
            let nonce = integer("nonce", nonce)?;
            let account = Row::new(account)?;
            connection
                .prepare_cached(
                    "INSERT INTO accounts (chain_id, address, floor) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET floor = max(floor, excluded.floor)",
                )?
                .execute(params![account.chain_id, account.address.as_slice(), nonce])?;
            Ok(None)
        }
        Record::Pause { account, by, reason } => {
            let account = Row::new(account)?;
            ensure_account(connection, account)?;
            connection
                .prepare_cached(&format!("UPDATE accounts SET {} = ?3 WHERE chain_id = ?1 AND address = ?2", pause_column(by)))?
                .execute(params![account.chain_id, account.address.as_slice(), reason])?;
            Ok(None)
        }
        Record::Used { account, nonce } => {
            states::used(connection, Row::new(account)?, nonce)?;
            Ok(None)
        }
        Record::Intent(intent) => intents::acknowledge(connection, &intent).map(Some),
        Record::Taken { transaction } => intents::take(connection, transaction).map(|()| None),
        Record::Ended { transaction, detail } => intents::end(connection, transaction, &detail),
        Record::Key { chain_id, service, principal, key, transaction } => {
            intents::put_key(connection, chain_id, (&service, &principal), &key, transaction).map(|()| None)
        }
        Record::Attempt { attempt, state, replaces, takes_over } => {
            insert_attempt(connection, &attempt, state, replaces, takes_over).map(Some)
        }
        Record::State { account, hash, state, block, detail, receipt } => {
            let because = Because { block, detail: detail.as_deref(), receipt: receipt.as_deref() };
            states::change(connection, Row::new(account)?, hash, state, because)
        }
    }
}

fn insert_attempt(
    connection: &Connection,
    attempt: &Attempt,
    state: AttemptState,
    replaces: Option<B256>,
    mut takes_over: Vec<B256>,
) -> Result<i64, Fault> {
    if !matches!(state, AttemptState::Committed | AttemptState::Held) {
        return Err(Fault::refuse(format!("an attempt cannot begin as {}", state.as_str())));
    }
    let account = Row::new(attempt.account)?;
    let nonce = slot_nonce(attempt.nonce)?;
    ensure_account(connection, account)?;
    ensure_transaction(connection, account, attempt)?;
    let again = is_again(connection, account, attempt)?;
    take_slot(connection, account, attempt.nonce, Taker { hash: attempt.hash, replaces: replaces.as_slice(), authorisation: false })?;
    let position = add_event(
        connection,
        account,
        &Event { transaction: attempt.transaction, hash: Some(attempt.hash), state, because: Because::default() },
    )?;
    let transaction_id = attempt.transaction.0.as_bytes();
    let hold_until = attempt.hold_until.map(millis);
    let replaces_column = replaces.as_ref().map(B256::as_slice);
    if again {
        connection
            .prepare_cached(
                "UPDATE attempts SET position = ?3, transaction_id = ?4, hold_until = ?5, replaces = ?6, state = ?7
                 WHERE chain_id = ?1 AND hash = ?2",
            )?
            .execute(params![
                account.chain_id,
                attempt.hash.as_slice(),
                position,
                transaction_id,
                hold_until,
                replaces_column,
                state.as_str()
            ])?;
    } else {
        connection
            .prepare_cached(
                "INSERT INTO attempts
                 (position, chain_id, hash, address, nonce, transaction_id, raw, cost, hold_until, replaces, state, purpose)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                position,
                account.chain_id,
                attempt.hash.as_slice(),
                account.address.as_slice(),
                nonce,
                transaction_id,
                attempt.raw.as_ref(),
                attempt.cost.to_be_bytes::<32>(),
                hold_until,
                replaces_column,
                state.as_str(),
                attempt.purpose.as_str()
            ])?;
    }
    takes_over.extend(replaces);
    authorise(connection, account, attempt, &takes_over, again)?;
    Ok(position)
}

/// Takes the slots of the attempt's authorisations. The same bytes have the same authorisations: they are listed once.
fn authorise(connection: &Connection, account: Row, attempt: &Attempt, replaces: &[B256], listed: bool) -> Result<(), Fault> {
    for (ordinal, (authority, nonce)) in (0_i64..).zip(&attempt.authorisations) {
        let authority = Row::new(*authority)?;
        if authority.chain_id != account.chain_id {
            return Err(Fault::refuse("an authorisation takes no slot of another chain".to_owned()));
        }
        ensure_account(connection, authority)?;
        take_slot(connection, authority, *nonce, Taker { hash: attempt.hash, replaces, authorisation: true })?;
        if !listed {
            connection
                .prepare_cached("INSERT INTO authorisations (chain_id, hash, ordinal, address, nonce) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![account.chain_id, attempt.hash.as_slice(), ordinal, authority.address.as_slice(), slot_nonce(*nonce)?])?;
        }
    }
    Ok(())
}

pub(super) fn ensure_account(connection: &Connection, account: Row) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO accounts (chain_id, address) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![account.chain_id, account.address.as_slice()])?;
    Ok(())
}

pub(super) fn ensure_owner(connection: &Connection, service: &str, principal: &str) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO owners (service, principal) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute([service, principal])?;
    Ok(())
}

/// A transaction is the same for life: another attempt of it brings the same owner.
fn ensure_transaction(connection: &Connection, account: Row, attempt: &Attempt) -> Result<(), Fault> {
    let id = attempt.transaction.0.as_bytes();
    ensure_owner(connection, &attempt.service, &attempt.principal)?;
    let inserted = connection
        .prepare_cached(
            "INSERT INTO transactions (id, chain_id, address, service, principal, kind, request, created_at, owner)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT id FROM owners WHERE service = ?4 AND principal = ?5))
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id,
            account.chain_id,
            account.address.as_slice(),
            &*attempt.service,
            &*attempt.principal,
            attempt.kind.as_str(),
            &*attempt.request,
            millis(SystemTime::now())
        ])?;
    if inserted == 1 {
        return Ok(());
    }
    let same = connection.prepare_cached("SELECT chain_id, address, service, principal, kind FROM transactions WHERE id = ?1")?.query_row(
        [id],
        |row| {
            Ok(row.get::<_, i64>("chain_id")? == account.chain_id
                && get_address(row, "address")? == account.address
                && row.get::<_, String>("service")? == *attempt.service
                && row.get::<_, String>("principal")? == *attempt.principal
                && get_kind(row, "kind")? == attempt.kind)
        },
    )?;
    if same { Ok(()) } else { Err(Fault::refuse(format!("transaction {} is on record as another one", attempt.transaction))) }
}

/// Whether these bytes are on record already. They may come again only to their own slot and only after they were refused:
/// a deterministic signature over the same request, or a held payload that its client sends after all.
fn is_again(connection: &Connection, account: Row, attempt: &Attempt) -> Result<bool, Fault> {
    let known = connection
        .prepare_cached("SELECT address, nonce, state FROM attempts WHERE chain_id = ?1 AND hash = ?2")?
        .query_row(params![account.chain_id, attempt.hash.as_slice()], |row| {
            Ok((get_address(row, "address")?, get_u64(row, "nonce")?, get_state(row, "state")?))
        })
        .optional()?;
    match known {
        None => Ok(false),
        Some((address, nonce, AttemptState::Refused)) if address == account.address && nonce == attempt.nonce => Ok(true),
        Some((_, _, state)) => Err(Fault::refuse(format!("attempt {} is on record already, as {}", attempt.hash, state.as_str()))),
    }
}

struct Taker<'a> {
    hash: B256,
    replaces: &'a [B256],
    authorisation: bool,
}

/// Invariant I1. A slot with a confirmed payload is never taken again, whatever `replaces` says.
fn take_slot(connection: &Connection, account: Row, nonce: u64, taker: Taker<'_>) -> Result<(), Fault> {
    let column = slot_nonce(nonce)?;
    let payload = connection
        .prepare_cached("SELECT payload, done FROM slots WHERE chain_id = ?1 AND address = ?2 AND nonce = ?3")?
        .query_row(params![account.chain_id, account.address.as_slice(), column], |row| {
            Ok((get_hash(row, "payload")?, row.get::<_, bool>("done")?))
        })
        .optional()?;
    match payload {
        // Named twice by one attempt.
        Some((payload, false)) if taker.authorisation && payload == taker.hash => return Ok(()),
        Some((payload, false)) if taker.replaces.contains(&payload) => {}
        Some(_) => return Err(Fault::Own(JournalError::SlotTaken { address: account.address, nonce })),
        None => {}
    }
    connection
        .prepare_cached(
            "INSERT INTO slots (chain_id, address, nonce, payload, authorisation) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET payload = excluded.payload, authorisation = excluded.authorisation",
        )?
        .execute(params![account.chain_id, account.address.as_slice(), column, taker.hash.as_slice(), taker.authorisation])?;
    Ok(())
}

/// One event, before it has a position.
pub(super) struct Event<'a> {
    pub(super) transaction: TransactionId,
    pub(super) hash: Option<B256>,
    pub(super) state: AttemptState,
    pub(super) because: Because<'a>,
}

/// Appends the event with the account's next number; answers its position.
pub(super) fn add_event(connection: &Connection, account: Row, event: &Event<'_>) -> Result<i64, Fault> {
    let sequence: i64 = connection
        .prepare_cached(
            "UPDATE accounts SET last_sequence = last_sequence + 1 WHERE chain_id = ?1 AND address = ?2 RETURNING last_sequence",
        )?
        .query_row(params![account.chain_id, account.address.as_slice()], |row| row.get(0))?;
    let Because { block, detail, receipt } = event.because;
    let number = block.map(|block| integer("block", block.number)).transpose()?;
    let receipt = receipt.map(RawValue::get).filter(|receipt| receipt.len() <= MAX_RECEIPT);
    connection
        .prepare_cached(
            "INSERT INTO events
             (chain_id, address, sequence, transaction_id, hash, state, block_number, block_hash, detail, at, receipt, owner)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, (SELECT owner FROM transactions WHERE id = ?4))",
        )?
        .execute(params![
            account.chain_id,
            account.address.as_slice(),
            sequence,
            event.transaction.0.as_bytes(),
            event.hash.as_ref().map(B256::as_slice),
            event.state.as_str(),
            number,
            block.as_ref().map(|block| block.hash.as_slice()),
            detail,
            millis(SystemTime::now()),
            receipt
        ])?;
    Ok(connection.last_insert_rowid())
}
