//! Transactions that are acknowledged before they have an attempt: they are on record, so they are finished, whatever happens to
//! the process. One task per account prepares them, in the order of their ids and with the fees of the moment, and puts them
//! into the account's queue like any other request. Each ends by its first attempt, or by an end that is journaled.

mod line;
mod payload;
mod places;
mod verdict;
mod worker;

use std::sync::Arc;

use alloy_primitives::Address;
use dashmap::DashMap;
use tokio::sync::Notify;

use self::payload::check;
use self::places::Places;
use self::verdict::FIRST_REST;
use super::chain::Chain;
use super::errors::TransactionError;
use super::idempotency::Claim;
use super::request::Arguments;
use crate::journal::{Account, AttemptState, Intent, JournalError, Record, TransactionId};

/// The tasks, by account.
pub(super) type Workers = DashMap<Address, Arc<Work>>;

/// What the work on one account is told, and tells.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Something was acknowledged.
    wake: Notify,
    places: Places,
}

impl Chain {
    /// Acknowledges a transaction: once this answers `Ok`, it is on record under this id, and it will be finished. `arguments` are
    /// those of `intent.request`. Asks a node only for an account that has nothing on record. The bound of what waits so is looked at
    /// when this is called: calls of one moment may go beyond it by as many as they are.
    pub async fn acknowledge(self: &Arc<Self>, intent: Intent, arguments: Arguments, claim: Option<Claim>) -> Result<(), TransactionError> {
        check(self, arguments)?;
        if self.draining.is_cancelled() {
            return Err(TransactionError::ShuttingDown);
        }
        let account = intent.account;
        let stored = self.journal.account(account).await.map_err(TransactionError::Journal)?;
        let mut records = Vec::with_capacity(3);
        match stored {
            Some(stored) => {
                if let Some(reason) = stored.pauses.words() {
                    return Err(TransactionError::Paused(reason));
                }
            }
            // The row of an account says where its nonces begin: it must not come to be without. If it came to be meanwhile, what a node
            // counts may be ours already.
            None => {
                let nonce = self.first_nonce(account.address).await?;
                if self.journal.account(account).await.map_err(TransactionError::Journal)?.is_none() {
                    records.push(Record::Floor { account, nonce });
                }
            }
        }
        let work = self.take_place(account).await?;
        let transaction = intent.transaction;
        if let Some(claim) = &claim {
            records.push(Record::Key {
                chain_id: account.chain_id,
                service: Arc::clone(&intent.service),
                principal: Arc::clone(&intent.principal),
                key: claim.key().clone(),
                transaction,
            });
        }
        records.push(Record::Intent(Box::new(intent)));
        let commit = self.journal.commit(records);
        let chain = Arc::clone(self);
        // On its own: a client that goes away keeps neither the key nor the work from what became durable.
        let written = tokio::spawn(async move {
            let _under = claim;
            let written = commit.await;
            match &written {
                Ok(_) => {
                    chain.metrics.state(AttemptState::Queued);
                    work.wake.notify_one();
                }
                Err(_) => work.places.give_back(),
            }
            written
        });
        match written.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(JournalError::KeyTaken { .. })) => Err(TransactionError::KeyTaken),
            // Nobody knows whether it was written: the process ends and reads it at its next start. Nothing may be told before.
            Ok(Err(JournalError::Closed)) => {
                tracing::error!(account = %account.address, "the journal is closed in the middle of a commit");
                std::future::pending().await
            }
            Ok(Err(error)) => Err(TransactionError::Journal(error)),
            Err(_) => Err(TransactionError::Internal),
        }
    }

    /// Takes one of the places of what may wait; counted on record only where all seem to be taken.
    async fn take_place(self: &Arc<Self>, account: Account) -> Result<Arc<Work>, TransactionError> {
        let (work, bound) = (self.work(account.address), self.environment.account.acknowledged);
        if !work.places.take(bound) {
            let on_record = self.journal.queued_count(account).await.map_err(TransactionError::Journal)?;
            if !work.places.take_beside(on_record, bound) {
                return Err(TransactionError::AcknowledgedFull(on_record));
            }
        }
        Ok(work)
    }

    async fn first_nonce(self: &Arc<Self>, address: Address) -> Result<u64, TransactionError> {
        self.ready().await?;
        Ok(super::account::first_nonce(self, address).await?)
    }

    /// Ends an acknowledged transaction that has no attempt yet. `false` if it has one, or an end: then nothing was done.
    pub async fn end_queued(&self, transaction: TransactionId, why: String) -> Result<bool, JournalError> {
        let events = self.journal.commit(vec![Record::Ended { transaction, detail: why }]).await?;
        if !events.is_empty() {
            self.metrics.state(AttemptState::Refused);
        }
        Ok(!events.is_empty())
    }

    async fn end_until_written(&self, transaction: TransactionId, why: String) {
        loop {
            match self.end_queued(transaction, why.clone()).await {
                Ok(_) | Err(JournalError::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, %transaction, "the end of a transaction is not durable yet");
                    tokio::time::sleep(2 * FIRST_REST).await;
                }
            }
        }
    }

    /// Works on what is acknowledged for this account, from now on.
    pub(super) fn finish_intents(self: &Arc<Self>, address: Address) {
        self.work(address);
    }

    /// The work on this account, which begins with the first call.
    fn work(self: &Arc<Self>, address: Address) -> Arc<Work> {
        let begin = || {
            let work = Arc::new(Work::default());
            let running = worker::keep_running(Arc::clone(self), address, Arc::clone(&work));
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(running));
            work
        };
        Arc::clone(&self.intents.entry(address).or_insert_with(begin))
    }
}
