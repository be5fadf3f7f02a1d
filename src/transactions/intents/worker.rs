//! The work on one account: prepares what is acknowledged, puts it into the account's queue, and judges what comes of it.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::Work;
use super::line::{Job, Line};
use super::payload::payload;
use super::verdict::{FIRST_REST, Fault, Verdict};
use crate::journal::{Account, Intent, JournalError, Kind, TransactionId};
use crate::telemetry::clock;
use crate::telemetry::crash::Commit;
use crate::telemetry::faults::SeededFault;
use crate::transactions::account::loans::Borrowed;
use crate::transactions::chain::{Accepted, Chain, NewRequest, Payload};
use crate::transactions::errors::TransactionError;

/// Ids that are read at a time, beside those that are known already.
const PAGE: usize = 1_024;
/// Time before the work on an account that ended by a fault begins again.
const RESTART: Duration = Duration::from_millis(100);

type Prepared = (Job, Result<(Intent, Payload), Fault>);
type Answered = (Job, Result<Accepted, TransactionError>);

struct Worker {
    chain: Arc<Chain>,
    account: Account,
    work: Arc<Work>,
    line: Line,
    /// Something may be on record that is not in the line.
    unread: bool,
    preparing: FuturesOrdered<BoxFuture<'static, Prepared>>,
    queued: FuturesUnordered<BoxFuture<'static, Answered>>,
    ending: FuturesUnordered<BoxFuture<'static, TransactionId>>,
}

/// Begins again, from the journal, when the work ends by a fault.
pub(super) async fn keep_running(chain: Arc<Chain>, address: Address, work: Arc<Work>) {
    loop {
        let running = AbortOnDropHandle::new(tokio::spawn(run(Arc::clone(&chain), address, Arc::clone(&work))));
        match running.await {
            Err(error) if error.is_panic() => {
                chain.metrics.alarm("account_restarted");
                tracing::error!(account = %address, "the work on acknowledged transactions ended by a fault; it begins again from the journal");
                tokio::time::sleep(RESTART).await;
            }
            _ => return,
        }
    }
}

async fn run(chain: Arc<Chain>, address: Address, work: Arc<Work>) {
    let account = Account { chain_id: chain.environment.chain_id, address };
    let mut worker = Worker {
        chain,
        account,
        work,
        line: Line::default(),
        unread: true,
        preparing: FuturesOrdered::new(),
        queued: FuturesUnordered::new(),
        ending: FuturesUnordered::new(),
    };
    loop {
        worker.take_up().await;
        let rest = worker.line.next_due().map(|due| tokio::time::sleep(due.saturating_duration_since(clock::now())));
        tokio::select! {
            biased;
            Some(ended) = worker.ending.next() => worker.over(ended),
            Some((job, answer)) = worker.queued.next() => worker.answered(job, answer.map(drop).map_err(Fault::Told)),
            Some((job, prepared)) = worker.preparing.next() => worker.prepared(job, prepared),
            Some(()) = OptionFuture::from(rest) => {}
            () = worker.work.wake.notified() => worker.unread = true,
        }
    }
}

impl Worker {
    /// Begins with whatever there is room for.
    async fn take_up(&mut self) {
        loop {
            while let Some(job) = self.line.next(clock::now()) {
                self.prepare(job);
            }
            if !self.unread || !self.line.has_room() {
                return;
            }
            self.read().await;
        }
    }

    /// Finds what is on record and not known yet.
    async fn read(&mut self) {
        let limit = if SeededFault::Unseen(Commit::Intent).is_on() { 0 } else { self.line.known() + PAGE };
        match self.chain.journal.queued_ids(self.account, limit).await {
            Ok(ids) => {
                self.unread = limit > 0 && ids.len() >= limit;
                self.line.found(ids);
            }
            // The process ends: its next start reads them.
            Err(JournalError::Closed) => self.unread = false,
            Err(error) => {
                tracing::warn!(%error, account = %self.account.address, "what is acknowledged cannot be read yet");
                tokio::time::sleep(FIRST_REST).await;
            }
        }
    }

    /// Preparations run side by side; what comes of them goes into the queue in their order.
    fn prepare(&mut self, job: Job) {
        let chain = Arc::clone(&self.chain);
        let prepared = async move {
            let prepared = prepared(&chain, job.transaction).await;
            (job, prepared)
        };
        self.preparing.push_back(prepared.boxed());
    }

    fn prepared(&mut self, job: Job, prepared: Result<(Intent, Payload), Fault>) {
        let submitted = prepared.and_then(|(intent, payload)| {
            let new = NewRequest {
                from: intent.account.address,
                kind: Kind::Send,
                service: intent.service,
                principal: intent.principal,
                request: intent.request,
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
            Err(error) => self.answered(job, Err(error)),
        }
    }

    fn answered(&mut self, mut job: Job, answer: Result<(), Fault>) {
        let (id, now) = (job.transaction, clock::now());
        match job.tries.judge(answer.as_ref().copied(), now) {
            Verdict::Over => self.over(id),
            Verdict::Again(rest) => {
                if let Err(fault) = answer {
                    tracing::warn!(%id, %fault, "an acknowledged transaction waits for a fault to pass");
                }
                self.line.rest(job, now + rest);
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
    }

    /// It has an attempt or an end on record.
    fn over(&mut self, id: TransactionId) {
        self.line.over(id);
        self.work.places.give_back();
    }
}

/// The request as it is on record, if it still waits there, and its payload of the moment.
async fn prepared(chain: &Arc<Chain>, transaction: TransactionId) -> Result<(Intent, Payload), Fault> {
    let intent = chain.journal.intent(transaction).await.map_err(TransactionError::Journal)?.ok_or(TransactionError::NotQueued)?;
    let payload = payload(chain, &intent).await?;
    Ok((intent, payload))
}
