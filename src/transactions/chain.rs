//! One environment at work: its accounts, its tracker, its fees, and the way in for requests.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::account::loans::{Borrowed, LoanRequest};
use super::account::replace::{ReplaceRequest, Replacement};
use super::account::{self, Command, submission};
use super::errors::TransactionError;
use super::fees::Feed;
use super::idempotency::{Claim, Claims};
use super::intents::Workers;
use super::meters::{Meters, Stage};
use super::nonces::figures::Figures;
use super::outcome::unrecognised::Unrecognised;
use super::request::Fees;
use super::tracking::{Audience, Receipt, Sighting, Tracker};
use crate::config::{Environment, FeeCeilings};
use crate::journal::{ChainPin, Journal, Kind, Purpose, TransactionId};
use crate::node::CallError;
use crate::node::Pool;
use crate::signing::Key;
use crate::signing::Scheduler;
use crate::telemetry::clock;
use crate::telemetry::crash::Commit;
use crate::telemetry::faults::SeededFault;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::waited::Waited;

pub use submission::{Accepted, Payload, SignedBytes};

/// Finds the managed key of an address, whichever service may use it.
pub type KeyOf = Arc<dyn Fn(Address) -> Option<Arc<Key>> + Send + Sync>;

/// What a chain works with.
pub struct Parts {
    /// The environment's configuration.
    pub environment: Environment,
    /// What the transactions of each service may pay.
    pub ceilings: HashMap<Arc<str>, FeeCeilings>,
    /// Its nodes.
    pub pool: Pool,
    /// The durable store.
    pub journal: Arc<dyn Journal>,
    /// The schedule of Signs.
    pub scheduler: Scheduler,
    /// The managed keys.
    pub key_of: KeyOf,
    /// Where receipts of watched transactions go.
    pub receipts: mpsc::UnboundedSender<Vec<Receipt>>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Ends every task of the chain.
    pub stop: CancellationToken,
}

/// One environment at work.
pub struct Chain {
    pub(super) environment: Environment,
    pub(super) pool: Pool,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) scheduler: Scheduler,
    pub(super) fees: Feed,
    pub(super) tracker: Tracker,
    pub(super) metrics: Meters,
    pub(super) key_of: KeyOf,
    pub(super) stop: CancellationToken,
    pub(super) unrecognised: Unrecognised,
    /// What the transactions of each service may pay.
    ceilings: RwLock<HashMap<Arc<str>, FeeCeilings>>,
    accounts: Arc<DashMap<Address, Handle>>,
    pub(super) claims: Claims,
    pub(super) intents: Workers,
    requests: TaskTracker,
    pub(super) draining: CancellationToken,
    opened: watch::Receiver<bool>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("environment", &self.environment.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    sightings: mpsc::UnboundedSender<Sighting>,
}

struct Crowd {
    accounts: Arc<DashMap<Address, Handle>>,
    receipts: mpsc::UnboundedSender<Vec<Receipt>>,
}

impl Audience for Crowd {
    fn sighting(&self, address: Address, sighting: Sighting) {
        if let Some(handle) = self.accounts.get(&address) {
            // A task that died loses its sightings; the next one asks for all of its attempts again.
            let _gone = handle.sightings.send(sighting);
        }
    }

    fn receipts(&self, receipts: Vec<Receipt>) {
        let _gone = self.receipts.send(receipts);
    }
}

/// A request on its way into an account's queue.
#[derive(Debug)]
pub struct NewRequest {
    /// The sender.
    pub from: Address,
    /// What it came from.
    pub kind: Kind,
    /// The service that took it.
    pub service: Arc<str>,
    /// The principal that made it.
    pub principal: Arc<str>,
    /// The request as JSON.
    pub request: Arc<str>,
    /// What is to be committed.
    pub payload: Payload,
    /// Nonces of other accounts that it authorises with: see [`Chain::borrow`].
    pub borrowed: Borrowed,
    /// The idempotency key under which it is paid once.
    pub claim: Option<Claim>,
    /// Its id, if it was acknowledged already.
    pub acknowledged: Option<TransactionId>,
    /// When it arrived.
    pub arrived: Instant,
}

/// A client's wish to replace what its transaction has on record.
#[derive(Debug)]
pub struct ReplaceWish {
    /// Which transaction.
    pub id: TransactionId,
    /// `SpeedUp` or `Cancel`.
    pub what: Replacement,
    /// What it wants to pay.
    pub fees: Fees,
    /// The key of the account.
    pub key: Arc<Key>,
    /// When it arrived.
    pub arrived: Instant,
}

/// A request in an account's queue. Dropping it before its Sign is issued takes it back.
#[derive(Debug)]
pub struct Submitted {
    answer: oneshot::Receiver<Result<Accepted, TransactionError>>,
    committed: watch::Receiver<Option<Accepted>>,
    waited: Waited,
}

impl Submitted {
    /// The time for which it waits for KMS, journal and node from here on.
    pub fn waited(&self) -> Waited {
        self.waited.clone()
    }

    /// Waits for what the client is told.
    pub async fn answer(mut self) -> Result<Accepted, TransactionError> {
        match self.answer.await {
            Ok(answer) => answer,
            // The account's task died. What it has committed, or was committing, is on its way; what it did not will never be.
            Err(_) => {
                let committed = self.committed.wait_for(Option::is_some).await;
                committed.ok().and_then(|accepted| accepted.clone()).ok_or(TransactionError::Internal)
            }
        }
    }
}

/// Time before an account whose task ended by a fault is opened again.
const RESTART: Duration = Duration::from_millis(100);

impl Chain {
    /// Starts the environment: pins the chain, then opens every account that has unfinished slots. Nothing is sent before the
    /// chain is known to be the pinned one.
    pub fn start(parts: Parts) -> Arc<Self> {
        let Parts { ceilings, environment, pool, journal, scheduler, key_of, receipts, metrics, stop } = parts;
        let accounts = Arc::new(DashMap::new());
        let crowd = Arc::new(Crowd { accounts: Arc::clone(&accounts), receipts });
        let tracker = {
            let Environment { confirmations, finalized_fallback, .. } = environment;
            Tracker::start(pool.clone(), confirmations, finalized_fallback, crowd, stop.clone())
        };
        let (open, opened) = watch::channel(false);
        let chain = Arc::new(Self {
            fees: Feed::start(pool.clone(), stop.clone()),
            metrics: Meters::new(&metrics, &environment.name),
            environment,
            pool,
            journal,
            scheduler,
            tracker,
            key_of,
            stop: stop.clone(),
            unrecognised: Unrecognised::default(),
            ceilings: RwLock::new(ceilings),
            accounts,
            claims: Claims::default(),
            intents: Workers::default(),
            requests: TaskTracker::new(),
            draining: CancellationToken::new(),
            opened,
        });
        tokio::spawn(stop.run_until_cancelled_owned(recover(Arc::clone(&chain), open)));
        chain
    }

    /// The environment's configuration.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The environment's nodes.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The newest fees.
    pub fn fees(&self) -> &Feed {
        &self.fees
    }

    /// The tracker.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The durable store.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// The schedule of Signs.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Whether the address has a managed key, of whichever service.
    pub fn is_managed(&self, address: Address) -> bool {
        (self.key_of)(address).is_some()
    }

    /// Why no send can be accepted now, if so.
    pub fn fault(&self) -> Option<TransactionError> {
        if self.draining.is_cancelled() {
            return Some(TransactionError::ShuttingDown);
        }
        self.pool.fault().or_else(|| self.pool.send_fault()).map(TransactionError::Call)
    }

    /// Whether the chain is pinned and its accounts are open.
    pub fn is_open(&self) -> bool {
        *self.opened.borrow()
    }

    /// Waits until the chain is pinned and its accounts are open; an error when the nodes do not let it.
    pub async fn ready(&self) -> Result<(), TransactionError> {
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        let mut opened = self.opened.clone();
        let patience = self.environment.node_deadline;
        match tokio::time::timeout(patience, opened.wait_for(|open| *open)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(TransactionError::Call(CallError::Deadline(patience))),
        }
    }

    /// What goes before [`Chain::submit`]: ends with the drain, since nothing is taken after it began.
    pub async fn unless_draining<T>(&self, work: impl Future<Output = Result<T, TransactionError>>) -> Result<T, TransactionError> {
        self.draining.run_until_cancelled(work).await.unwrap_or(Err(TransactionError::ShuttingDown))
    }

    /// Puts a request into its account's queue, at once and in the order of the calls.
    pub fn submit(self: &Arc<Self>, new: NewRequest) -> Result<Submitted, TransactionError> {
        if self.draining.is_cancelled() {
            return Err(TransactionError::ShuttingDown);
        }
        let (sender, answer) = oneshot::channel();
        let (committing, committed) = watch::channel(None);
        let queued = clock::now();
        let waited = Waited::new(queued);
        let key = new.claim.as_ref().map(|claim| claim.key().clone());
        let reply = submission::Reply {
            sender,
            committed: committing,
            waited: waited.clone(),
            token: new.acknowledged.is_none().then(|| self.requests.token()),
            claim: new.claim,
        };
        let submission = submission::Submission {
            id: new.acknowledged.unwrap_or_default(),
            kind: new.kind,
            purpose: Purpose::Request,
            service: new.service,
            principal: new.principal,
            request: new.request,
            payload: new.payload,
            arrived: new.arrived,
            queued,
            reply: Some(reply),
            borrowed: new.borrowed,
            key,
            acknowledged: new.acknowledged.is_some(),
        };
        match self.account(new.from).commands.try_send(Command::Submit(Box::new(submission))) {
            Ok(()) => {
                self.metrics.stage(Stage::Prepare, queued.saturating_duration_since(new.arrived));
                Ok(Submitted { answer, committed, waited })
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(TransactionError::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(TransactionError::Internal),
        }
    }

    /// Puts a wish to replace what a transaction of this account has on record into the account's queue. The answer's first part is set to
    /// the hash that is replaced.
    pub fn replace(self: &Arc<Self>, from: Address, wish: ReplaceWish) -> Result<(Arc<OnceLock<B256>>, Submitted), TransactionError> {
        if self.draining.is_cancelled() {
            return Err(TransactionError::ShuttingDown);
        }
        let ReplaceWish { id, what, fees, key, arrived } = wish;
        let (sender, answer) = oneshot::channel();
        let (committing, committed) = watch::channel(None);
        let waited = Waited::new(clock::now());
        let reply =
            submission::Reply { sender, committed: committing, waited: waited.clone(), token: Some(self.requests.token()), claim: None };
        let replaced = Arc::new(OnceLock::new());
        let request = ReplaceRequest { id, what, fees, key, arrived, replaced: Arc::clone(&replaced), reply };
        match self.account(from).commands.try_send(Command::Replace(Box::new(request))) {
            Ok(()) => Ok((replaced, Submitted { answer, committed, waited })),
            Err(mpsc::error::TrySendError::Full(_)) => Err(TransactionError::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(TransactionError::Internal),
        }
    }

    /// What the transactions of this service may pay from now on.
    pub fn set_ceilings(&self, service: &Arc<str>, ceilings: FeeCeilings) {
        self.ceilings.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(service), ceilings);
    }

    /// What the transactions of this service may pay, if it was ever configured; fillers, which no service asked for, have no ceiling.
    pub(super) fn ceilings(&self, service: &str) -> Option<FeeCeilings> {
        if service.is_empty() {
            return Some(FeeCeilings::default());
        }
        self.ceilings.read().unwrap_or_else(PoisonError::into_inner).get(service).copied()
    }

    /// Reserves nonces of other managed accounts for the authorisations of one payload (EIP-7702). Waits, until the queue deadline
    /// after `arrived` at most, for them to be the next ones with everything below mined.
    pub async fn borrow(self: &Arc<Self>, wanted: BTreeMap<Address, Range<u64>>, arrived: Instant) -> Result<Borrowed, TransactionError> {
        let mut borrowed = Borrowed::default();
        for (authority, nonces) in wanted {
            let (reply, answer) = oneshot::channel();
            let request = LoanRequest { nonces: nonces.clone(), arrived, reply };
            let answered = match self.account(authority).commands.try_send(Command::Lend(request)) {
                Ok(()) => answer.await.unwrap_or(Err(TransactionError::Internal)),
                Err(mpsc::error::TrySendError::Full(_)) => Err(TransactionError::QueueFull),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(TransactionError::Internal),
            };
            let loan = answered.map_err(|error| TransactionError::Authorisation { authority, error: Box::new(error) })?;
            borrowed.add(authority, nonces, loan);
        }
        Ok(borrowed)
    }

    /// The nonce that the account would hand out next, reservations in memory included.
    pub async fn next_nonce(self: &Arc<Self>, address: Address) -> Result<u64, TransactionError> {
        self.ready().await?;
        self.ask(address, Command::NextNonce).await
    }

    /// What the account has in hand; an error if the chain is not open yet, or the account's task cannot say so within
    /// `node_deadline`. Asks no node.
    pub async fn figures(self: &Arc<Self>, address: Address) -> Result<Figures, TransactionError> {
        if !self.is_open() {
            return Err(TransactionError::Call(CallError::Unavailable));
        }
        self.ask(address, Command::Figures).await
    }

    /// Asks the account's task; it answers within `node_deadline` or not at all.
    async fn ask<T>(
        self: &Arc<Self>,
        address: Address,
        question: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, TransactionError> {
        self.operate(address, self.environment.node_deadline, question).await
    }

    /// The same with another patience.
    pub(super) async fn operate<T>(
        self: &Arc<Self>,
        address: Address,
        patience: Duration,
        question: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, TransactionError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.account(address).commands.send(question(reply)).await.map_err(|_| TransactionError::Internal)?;
            answer.await.map_err(|_| TransactionError::Internal)
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(Err(TransactionError::Call(CallError::Deadline(patience))))
    }

    /// Addresses of the accounts that have a task.
    pub(super) fn in_use(&self) -> Vec<Address> {
        self.accounts.iter().map(|entry| *entry.key()).collect()
    }

    /// Whether the account has a task.
    pub(super) fn is_in_use(&self, address: Address) -> bool {
        self.accounts.contains_key(&address)
    }

    /// No new sends; waits until every request has its answer, no longer than `patience`. Answers whether all had.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.draining.cancel();
        self.requests.close();
        tokio::time::timeout(patience, self.requests.wait()).await.is_ok()
    }

    fn account(self: &Arc<Self>, address: Address) -> Handle {
        self.accounts.entry(address).or_insert_with(|| self.open_account(address)).clone()
    }

    fn open_account(self: &Arc<Self>, address: Address) -> Handle {
        let (commands, inbox) = mpsc::channel(self.environment.account.queue);
        let (sightings, seen) = mpsc::unbounded_channel();
        let task = tokio::spawn(account::run(Arc::clone(self), address, inbox, seen));
        let chain = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                chain.metrics.alarm("account_restarted");
                tracing::error!(account = %address, "the account's task ended by a fault; it starts again from the journal");
                // A fault that comes again at once must not become a busy loop.
                tokio::time::sleep(RESTART).await;
                let again = chain.open_account(address);
                chain.accounts.insert(address, again);
            }
        });
        Handle { commands, sightings }
    }
}

/// Time before a start that did not work is tried again.
const RETRY: Duration = Duration::from_millis(500);

async fn recover(chain: Arc<Chain>, open: watch::Sender<bool>) {
    let genesis = chain.pool.genesis().await;
    let chain_id = chain.environment.chain_id;
    loop {
        let done = async {
            chain.journal.pin_chain(ChainPin { chain_id, genesis }).await?;
            chain.journal.accounts(chain_id).await
        };
        match done.await {
            Ok(accounts) => {
                for stored in accounts.into_iter().filter(|_| !SeededFault::Unseen(Commit::Chain).is_on()) {
                    chain.account(stored.account.address);
                    chain.finish_intents(stored.account.address);
                }
                open.send_replace(true);
                tracing::info!(environment = %chain.environment.name, chain_id, %genesis, "the chain is pinned and its accounts are open");
                // Keeps the channel until the chain stops.
                chain.stop.cancelled().await;
                return;
            }
            Err(error) => {
                tracing::error!(%error, environment = %chain.environment.name, "the chain cannot be opened");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
