//! Transactions that are acknowledged before they have an attempt: they are on record, so they are finished, whatever happens to
//! the process. One task per account prepares them, in the order of their ids and with the fees of the moment, and puts them
//! into the account's queue like any other request. Each ends by its first attempt, or by an end that is journaled.

mod ahead;
mod payload;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use dashmap::DashMap;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use self::payload::{check, payload};
use self::verdict::{FIRST_REST, Fault, Tries, Verdict};
use super::account::loans::Borrowed;
use super::chain::{Accepted, Chain, NewRequest, Payload};
use super::errors::TransactionError;
use super::idempotency::Claim;
use super::request::Arguments;
use crate::journal::{Account, AttemptState, Intent, JournalError, Kind, Record, TransactionId};
use crate::telemetry::clock;
use crate::telemetry::crash::Commit;
use crate::telemetry::faults::SeededFault;

/// Transactions of one account that are prepared or queued at a time; the others wait in the journal.
const AT_WORK: usize = 64;
/// Transactions of one account that wait for a fault to pass; with so many, the others wait in the journal.
const AT_REST: usize = 1_024;
/// Time before the work on an account that ended by a fault begins again.
const RESTART: Duration = Duration::from_millis(100);

/// The tasks, by account.
pub(super) type Workers = DashMap<Address, Arc<Notify>>;

/// One transaction at work.
#[derive(Debug)]
struct Job {
    intent: Intent,
    tries: Tries,
}

type Prepared = (Job, Result<Payload, Fault>);
type Answered = (Job, Result<Accepted, TransactionError>);

struct Worker {
    chain: Arc<Chain>,
    account: Account,
    at_work: BTreeSet<TransactionId>,
    preparing: FuturesOrdered<BoxFuture<'static, Prepared>>,
    queued: FuturesUnordered<BoxFuture<'static, Answered>>,
    resting: FuturesUnordered<BoxFuture<'static, Job>>,
    ending: FuturesUnordered<BoxFuture<'static, TransactionId>>,
}

/// Begins again, from the journal, when the work ends by a fault.
async fn keep_running(chain: Arc<Chain>, address: Address, wake: Arc<Notify>) {
    loop {
        let work = AbortOnDropHandle::new(tokio::spawn(run(Arc::clone(&chain), address, Arc::clone(&wake))));
        match work.await {
            Err(error) if error.is_panic() => {
                chain.metrics.alarm("account_restarted");
                tracing::error!(account = %address, "the work on acknowledged transactions ended by a fault; it begins again from the journal");
                tokio::time::sleep(RESTART).await;
            }
            _ => return,
        }
    }
}

async fn run(chain: Arc<Chain>, address: Address, wake: Arc<Notify>) {
    let account = Account { chain_id: chain.environment.chain_id, address };
    let mut worker = Worker {
        chain,
        account,
        at_work: BTreeSet::new(),
        preparing: FuturesOrdered::new(),
        queued: FuturesUnordered::new(),
        resting: FuturesUnordered::new(),
        ending: FuturesUnordered::new(),
    };
    worker.read().await;
    loop {
        tokio::select! {
            biased;
            Some(ended) = worker.ending.next() => {
                worker.at_work.remove(&ended);
                worker.read().await;
            }
            Some((job, answer)) = worker.queued.next() => {
                if worker.answered(job, answer.map(drop).map_err(Fault::Told)) {
                    worker.read().await;
                }
            }
            Some((job, prepared)) = worker.preparing.next() => {
                if worker.prepared(job, prepared) {
                    worker.read().await;
                }
            }
            Some(job) = worker.resting.next() => worker.prepare(job),
            () = wake.notified() => worker.read().await,
        }
    }
}

impl Worker {
    /// Takes what is on record and not at work yet, as far as there is room.
    async fn read(&mut self) {
        let resting = self.resting.len();
        if !self.has_room() {
            return;
        }
        let intents = loop {
            // Those that rest are the oldest on record, mostly: what is behind them is read too.
            let at_work = if SeededFault::Unseen(Commit::Intent).is_on() { 0 } else { AT_WORK + resting };
            match self.chain.journal.queued(self.account, at_work).await {
                Ok(intents) => break intents,
                // The process ends: its next start reads them.
                Err(JournalError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, account = %self.account.address, "what is acknowledged cannot be read yet");
                    tokio::time::sleep(FIRST_REST).await;
                }
            }
        };
        for intent in intents {
            if self.has_room() && self.at_work.insert(intent.transaction) {
                self.prepare(Job { intent, tries: Tries::default() });
            }
        }
    }

    /// What waits for a fault to pass keeps no other transaction from being worked on.
    fn has_room(&self) -> bool {
        self.resting.len() < AT_REST && self.at_work.len() - self.resting.len() < AT_WORK
    }

    /// Preparations run side by side; what comes of them goes into the queue in their order.
    fn prepare(&mut self, job: Job) {
        let chain = Arc::clone(&self.chain);
        let prepared = async move {
            let prepared = payload(&chain, &job.intent).await;
            (job, prepared)
        };
        self.preparing.push_back(prepared.boxed());
    }

    /// Answers whether there is room for another one now.
    fn prepared(&mut self, job: Job, prepared: Result<Payload, Fault>) -> bool {
        let intent = &job.intent;
        let submitted = prepared.and_then(|payload| {
            let new = NewRequest {
                from: intent.account.address,
                kind: Kind::Send,
                service: Arc::clone(&intent.service),
                principal: Arc::clone(&intent.principal),
                request: Arc::clone(&intent.request),
                payload,
                borrowed: Borrowed::default(),
                arrived: clock::now(),
                claim: None,
                acknowledged: Some(intent.transaction),
            };
            Ok(self.chain.submit(new)?)
        });
        match submitted {
            Ok(submitted) => self.queued.push(async move { (job, submitted.answer().await) }.boxed()),
            Err(error) => return self.answered(job, Err(error)),
        }
        false
    }

    /// Answers whether there is room for another one now.
    fn answered(&mut self, mut job: Job, answer: Result<(), Fault>) -> bool {
        let id = job.intent.transaction;
        match job.tries.judge(answer.as_ref().copied(), clock::now()) {
            Verdict::Over => return self.at_work.remove(&id),
            Verdict::Again(rest) => {
                if let Err(fault) = answer {
                    tracing::warn!(%id, %fault, "an acknowledged transaction waits for a fault to pass");
                }
                self.resting.push(
                    async move {
                        tokio::time::sleep(rest).await;
                        job
                    }
                    .boxed(),
                );
                return true;
            }
            Verdict::End(why) => {
                tracing::warn!(%id, why, "an acknowledged transaction is ended: it will not be mined");
                let chain = Arc::clone(&self.chain);
                self.ending.push(
                    async move {
                        chain.end_until_written(id, why).await;
                        id
                    }
                    .boxed(),
                );
            }
        }
        false
    }
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
                if stored.queued >= self.environment.account.acknowledged {
                    return Err(TransactionError::AcknowledgedFull(stored.queued));
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
            if written.is_ok() {
                chain.metrics.state(AttemptState::Queued);
                chain.finish_intents(account.address);
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
        let wake = self.intents.entry(address).or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            let work = keep_running(Arc::clone(self), address, Arc::clone(&wake));
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(work));
            wake
        });
        wake.notify_one();
    }
}
