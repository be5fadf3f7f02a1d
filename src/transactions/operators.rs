//! What operators ask of one environment: its accounts, and to stop one, let it go on, or open it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U64};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::account::Command;
pub use super::account::operate::{AccountState, Resumed, Resynced, UnminedSlot};
use super::chain::Chain;
use super::errors::TransactionError;
use crate::journal::{JournalError, Pauses, StoredAccount};
use crate::node::CallError;

/// How long an account's task may take to say how it is.
const LOOK: Duration = Duration::from_secs(2);
/// How long a pause, or its end, may take to become durable.
const WRITE: Duration = Duration::from_secs(10);
/// How long what is under way may take to end before an account is opened again: longer than a Sign, a send and a loan may take by
/// their own deadlines as they come.
pub const RESYNC: Duration = Duration::from_secs(60);

/// An account of an environment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which one.
    pub address: Address,
    /// What the journal has, if it is on record.
    pub stored: Option<StoredAccount>,
    /// How it is, if its task could say so.
    pub state: Option<AccountState>,
}

/// What one endpoint says of an account's nonces.
#[derive(Debug, Clone)]
pub struct EndpointNonces {
    /// Scheme, host and port.
    pub label: String,
    /// `eth_getTransactionCount` at `latest`.
    pub latest: Result<u64, CallError>,
    /// The same at `pending`.
    pub pending: Result<u64, CallError>,
}

impl Chain {
    /// Every account that is on record or in use, in order of address.
    pub async fn every_account(self: &Arc<Self>) -> Result<Vec<Seen>, JournalError> {
        let on_record = self.journal().accounts(self.environment().chain_id).await?;
        let mut accounts: BTreeMap<Address, Option<StoredAccount>> = self.in_use().into_iter().map(|address| (address, None)).collect();
        accounts.extend(on_record.into_iter().map(|stored| (stored.account.address, Some(stored))));
        let look = |(address, stored)| async move {
            // An account that was never asked is not opened by being looked at.
            let state = if self.is_in_use(address) { self.operate(address, LOOK, Command::State).await.ok() } else { None };
            Seen { address, stored, state }
        };
        Ok(join_all(accounts.into_iter().map(look)).await)
    }

    /// Whether there is such an account: its key is managed, or it is in use or on record.
    pub async fn has_account(&self, address: Address) -> Result<bool, JournalError> {
        if self.is_managed(address) || self.is_in_use(address) {
            return Ok(true);
        }
        let account = crate::journal::Account { chain_id: self.environment().chain_id, address };
        Ok(self.journal().account(account).await?.is_some())
    }

    /// Stops the account: what waits without a nonce, and every new request, is refused with this reason; what has a nonce goes its way.
    /// Answers, once that is durable, who stops it now.
    pub async fn pause(self: &Arc<Self>, address: Address, reason: String) -> Result<Pauses, TransactionError> {
        self.write(address, |reply| Command::Pause { reason, reply }).await
    }

    /// Lets it go on, whoever stopped it.
    pub async fn resume(self: &Arc<Self>, address: Address) -> Result<Resumed, TransactionError> {
        self.write(address, Command::Resume).await
    }

    /// An order that is answered once it is durable. One that is not in time is named as such where the account's task is well: it has
    /// been carried out, and the journal has yet to write it.
    async fn write<T>(
        self: &Arc<Self>,
        address: Address,
        order: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, TransactionError> {
        match self.operate(address, WRITE, order).await {
            Err(TransactionError::Call(CallError::Deadline(_))) if self.operate(address, LOOK, Command::State).await.is_ok() => {
                Err(TransactionError::Journal(JournalError::NotWritten(format!("an order was not durable within {WRITE:?}"))))
            }
            other => other,
        }
    }

    /// Opens it again from the journal and the chain, once what is under way has ended; within [`RESYNC`], or it goes on as it is.
    pub async fn resync(self: &Arc<Self>, address: Address) -> Result<(Resynced, Vec<EndpointNonces>), TransactionError> {
        let resynced = self.operate(address, RESYNC, Command::Resync).await?;
        let count = |block: &'static str| self.pool().call_every::<U64>("eth_getTransactionCount", (address, block));
        let (latest, pending) = tokio::join!(count("latest"), count("pending"));
        let labels = self.pool().readers().into_iter();
        let number = |answer: Result<U64, CallError>| answer.map(|nonce| nonce.to());
        let endpoints = labels
            .zip(latest.into_iter().zip(pending))
            .map(|(label, (latest, pending))| EndpointNonces { label, latest: number(latest), pending: number(pending) })
            .collect();
        Ok((resynced, endpoints))
    }
}
