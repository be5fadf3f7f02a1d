//! Who signs next: many Signs in flight per key, ordered by nonce, fair between keys, below the ceilings of key and quota
//! group and at the pace that the quota allows, by whichever holder of the key can. One task decides; callers hold a ticket and never
//! wait at a ceiling themselves.

mod attempt;
mod breaker;
mod call;
mod ceilings;
mod flights;
mod hedging;
mod made;
mod meters;
mod pace;
mod queues;
mod routes;
mod task;
mod watch;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use alloy_primitives::{B256, Signature};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::call::{Command, Request};
use self::made::Made;
pub use self::queues::MESSAGE;
use self::task::Task;
use super::key::Key;
use super::{KeyStoreError, QuotaGroup, SignClass};
use crate::config::{Configuration, Provider};
use crate::telemetry::metrics::Metrics;

/// Tickets at the same time; above that a Sign is refused at once.
const TICKETS: usize = 65_536;
/// Of these, those of one key, more than the largest windows: nobody's flood takes the room of all.
const TICKETS_OF_KEY: usize = TICKETS / 4;
/// Signs in flight of one quota group, for key stores that state no window.
const WINDOW: usize = 512;
/// The same for one key.
const WINDOW_PER_KEY: usize = 256;
/// For key stores that state no deadline.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a configuration allows its Signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignLimits {
    /// Signs per second of one quota group; none is no ceiling.
    pub rate: Option<NonZeroU32>,
    /// Signs per second of one key in one quota group; none is no ceiling.
    pub rate_per_key: Option<NonZeroU32>,
    /// Signs in flight of one quota group.
    pub window: usize,
    /// Signs in flight of one key.
    pub window_per_key: usize,
    /// Whether a Sign that takes long may be asked a second time.
    pub hedge: bool,
    /// Time for one signature from its request on, waiting and retries included.
    pub deadline: Duration,
}

impl SignLimits {
    /// The limits that a configuration states; local keys have no quota.
    pub fn of(configuration: &Configuration) -> Self {
        match &configuration.provider {
            Provider::AwsKms(kms) => Self {
                rate: Some(kms.sign_rate),
                rate_per_key: Some(kms.sign_rate_per_key),
                window: kms.sign_window,
                window_per_key: kms.sign_window_per_key,
                hedge: kms.sign_hedge,
                deadline: kms.sign_deadline,
            },
            Provider::Local(_) | Provider::Development { .. } => Self::default(),
        }
    }
}

impl Default for SignLimits {
    fn default() -> Self {
        Self { rate: None, rate_per_key: None, window: WINDOW, window_per_key: WINDOW_PER_KEY, hedge: false, deadline: DEADLINE }
    }
}

/// A handle on the scheduler's task, which ends with its last handle once everything that was asked is answered.
#[derive(Debug, Clone)]
pub struct Scheduler {
    commands: mpsc::UnboundedSender<Command>,
    /// Bounds the commands: each ticket sends two at most.
    permits: Arc<Semaphore>,
    tickets: Arc<AtomicU64>,
}

impl Scheduler {
    /// Starts the task on the current runtime. `limits` by the name of the configuration; one without gets the default.
    pub fn start(limits: HashMap<String, SignLimits>, metrics: Arc<Metrics>) -> Self {
        Self::with_tickets(limits, metrics, TICKETS, TICKETS_OF_KEY)
    }

    fn with_tickets(limits: HashMap<String, SignLimits>, metrics: Arc<Metrics>, tickets: usize, of_key: usize) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        tokio::spawn(Task::new(limits, metrics, of_key).run(inbox));
        Self { commands, permits: Arc::new(Semaphore::new(tickets)), tickets: Arc::new(AtomicU64::new(0)) }
    }

    /// Asks for a signature of this digest. Within a key, messages ([`MESSAGE`]) take turns with transactions, of which the lowest
    /// `order` (the nonce) goes first, then the first that
    /// arrived. The same digest of the same key, asked again before it is answered, shares one Sign. The ticket gives the
    /// verified signature, or an error: by the configuration's deadline, at once if the key cannot sign. Never waits.
    pub fn sign(&self, key: &Arc<Key>, digest: B256, order: u64) -> SignTicket {
        self.sign_again(key, digest, order, Duration::ZERO)
    }

    /// The same for a wish of which so much of the configuration's deadline is spent already, by signatures for other nonces.
    pub fn sign_again(&self, key: &Arc<Key>, digest: B256, order: u64, spent: Duration) -> SignTicket {
        let id = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return SignTicket::refused(answer, reply, SignClass::Throttled, "too many signatures are asked for at once");
        };
        let permit = Arc::new(permit);
        let progress = Progress::default();
        let request = Request {
            ticket: id,
            key: Arc::clone(key),
            digest,
            order,
            spent,
            reply,
            permit: Arc::clone(&permit),
            progress: progress.clone(),
        };
        // If the task is gone the request goes with its reply, which the ticket sees.
        let _ = self.commands.send(Command::Sign(request));
        SignTicket { answer, progress, cancel: Some(Cancel { id, permit, commands: self.commands.downgrade() }) }
    }
}

/// A signature to come. Dropped before it is answered, its Sign is not issued any more; one that was issued runs on.
#[derive(Debug)]
pub struct SignTicket {
    answer: oneshot::Receiver<Result<Made, KeyStoreError>>,
    progress: Progress,
    cancel: Option<Cancel>,
}

/// How far a ticket has come, for who does not hold it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<OnceLock<Instant>>);

impl Progress {
    /// When it had its turn: a Sign was issued for it. Until then it waits for the quota or a window.
    pub fn issued(&self) -> Option<Instant> {
        self.0.get().copied()
    }

    pub(crate) fn issue(&self, at: Instant) {
        let _first = self.0.set(at);
    }
}

#[derive(Debug)]
struct Cancel {
    id: u64,
    permit: Arc<OwnedSemaphorePermit>,
    /// Weak: a ticket does not keep the scheduler.
    commands: mpsc::WeakUnboundedSender<Command>,
}

impl SignTicket {
    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn refused(
        answer: oneshot::Receiver<Result<Made, KeyStoreError>>,
        reply: oneshot::Sender<Result<Made, KeyStoreError>>,
        class: SignClass,
        detail: &str,
    ) -> Self {
        let _ = reply.send(Err(KeyStoreError { class, detail: detail.to_owned() }));
        Self { answer, progress: Progress::default(), cancel: None }
    }
}

impl Future for SignTicket {
    type Output = Result<Signature, KeyStoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            self.cancel = None;
            let answer = answer.unwrap_or_else(|_| {
                Err(KeyStoreError { class: SignClass::Transient, detail: "the scheduler of Signs has ended".to_owned() })
            });
            answer.map(|made| made.claim())
        })
    }
}

impl Drop for SignTicket {
    fn drop(&mut self) {
        if let Some(Cancel { id, permit, commands }) = self.cancel.take()
            && let Some(commands) = commands.upgrade()
        {
            let _ = commands.send(Command::Cancel { ticket: id, _permit: permit });
        }
    }
}

#[cfg(test)]
mod tests;
