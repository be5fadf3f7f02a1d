//! The handle of one endpoint: what the pool asks of the task that owns the socket, and what it knows about it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::command::{Answered, Call, Caller, Command, Outcomes, QUEUE, Reply};
use super::frame::Request;
use super::truth::{Lie, Record};
use super::{CallError, Head, StreamItem};
use crate::config::{Node, Roles, Transport};

/// How an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    /// Not connected, for this reason; tried again for ever.
    Down(Arc<str>),
    /// Connected to another chain than the pinned one; tried again for ever.
    WrongChain(Arc<str>),
    /// Usable. The number counts its connections.
    Up(u64),
}

impl Status {
    /// The connection's number, if usable.
    pub(super) fn session(&self) -> Option<u64> {
        match self {
            Self::Up(session) => Some(*session),
            Self::Down(_) | Self::WrongChain(_) => None,
        }
    }

    /// Why nothing can be sent.
    pub(super) fn fault(&self) -> CallError {
        match self {
            Self::WrongChain(why) => CallError::WrongChain(why.clone()),
            Self::Down(_) | Self::Up(_) => CallError::Unavailable,
        }
    }
}

/// One endpoint as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    /// Scheme, host and port; never credentials.
    pub label: String,
    /// What it is asked.
    pub roles: Roles,
    /// How it is talked to.
    pub transport: Transport,
    /// Connected, on the pinned chain, and not found to tell what is not true.
    pub up: bool,
    /// `up`, `down`, `wrong_chain`, or `untrusted`: then it takes transactions, if that is its role, and is asked nothing.
    pub state: &'static str,
    /// Why it is not up.
    pub detail: Option<String>,
    /// Number of the newest block that it announced.
    pub head: Option<u64>,
    /// That block's time stamp, in seconds since the epoch.
    pub head_timestamp: Option<u64>,
    /// The newest reason why it was not up, and when; stays when it is up again.
    pub last_error: Option<(SystemTime, Arc<str>)>,
    /// Times that its connection was made again.
    pub reconnects: u64,
    /// Frames that could not be read, or that nobody waited for.
    pub stray_frames: u64,
}

/// The handle. The task holds it too, for what it tells about itself.
pub(super) struct Endpoint {
    pub(super) label: String,
    pub(super) roles: Roles,
    pub(super) transport: Transport,
    commands: mpsc::Sender<Command>,
    pub(super) status: watch::Sender<Status>,
    pub(super) head: watch::Sender<Option<Arc<Head>>>,
    pub(super) reconnects: AtomicU64,
    pub(super) stray_frames: AtomicU64,
    pub(super) outcomes: Outcomes,
    last_error: Mutex<Option<(SystemTime, Arc<str>)>>,
    /// What it has told of the chain.
    record: Mutex<Record>,
    /// Why it is not asked, although it is connected.
    distrust: Mutex<Option<Arc<str>>>,
    meters: EndpointMeters,
}

/// The series of one endpoint.
pub(super) struct EndpointMeters {
    /// 1 while it is up.
    pub(super) up: IntGauge,
    /// Time to a node's answers.
    pub(super) seconds: Histogram,
    /// By kind of lie.
    pub(super) lies: HashMap<&'static str, IntCounter>,
}

impl Endpoint {
    /// A handle, and the queue that its task reads.
    pub(super) fn new(
        label: String,
        node: &Node,
        depth: u64,
        outcomes: Outcomes,
        meters: EndpointMeters,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let endpoint = Self {
            label,
            roles: node.roles,
            transport: node.transport(),
            commands,
            status: watch::Sender::new(Status::Down("not connected yet".into())),
            head: watch::Sender::new(None),
            reconnects: AtomicU64::new(0),
            stray_frames: AtomicU64::new(0),
            outcomes,
            last_error: Mutex::default(),
            record: Mutex::new(Record::new(depth)),
            distrust: Mutex::default(),
            meters,
        };
        (endpoint, queue)
    }

    /// Number of the connection, if usable.
    pub(super) fn session(&self) -> Option<u64> {
        self.status.borrow().session()
    }

    /// Number of the connection, if reads may go to it.
    pub(super) fn reading(&self) -> Option<u64> {
        if self.roles.read && self.distrust().is_none() { self.session() } else { None }
    }

    /// Why it is not asked, although it is connected.
    pub(super) fn distrust(&self) -> Option<Arc<str>> {
        self.distrust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It told what is not true, or is trusted again. Answers whether that is news.
    pub(super) fn set_distrust(&self, lie: Option<&Lie>) -> bool {
        let mut distrust = self.distrust.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = distrust.is_some() != lie.is_some();
        if let (Some(lie), true) = (lie, is_news)
            && let Some(counter) = self.meters.lies.get(lie.kind())
        {
            counter.inc();
        }
        *distrust = lie.map(|lie| lie.to_string().into());
        drop(distrust);
        if let (Some(why), true) = (self.distrust(), is_news) {
            self.failed(&why);
        }
        self.show();
        is_news
    }

    /// What it has told of the chain.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows operators whether it is up.
    pub(super) fn show(&self) {
        self.meters.up.set(i64::from(self.session().is_some() && self.distrust().is_none()));
    }

    /// Puts a call into the queue at once: the order of calls is the order on the socket.
    pub(super) fn call(&self, request: Request) -> Answer {
        let (caller, answer) = oneshot::channel();
        let queued = Instant::now();
        self.enqueue(request, queued, Reply::Value(Caller::new(caller, queued, self.meters.seconds.clone())));
        Answer(answer)
    }

    /// Puts the requests into the queue as one JSON-RPC batch, at once; a single one goes as a plain call.
    pub(super) fn call_batch(&self, requests: Vec<Request>) -> Vec<Answer> {
        let queued = Instant::now();
        let (calls, answers): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .map(|request| {
                let (caller, answer) = oneshot::channel();
                let reply = Reply::Value(Caller::new(caller, queued, self.meters.seconds.clone()));
                (Call { request, queued, reply }, Answer(answer))
            })
            .unzip();
        self.give(Command::Batch(calls));
        answers
    }

    /// Subscribes on this connection, if it can push; the stream ends with it.
    pub(super) async fn subscribe(self: &Arc<Self>, request: Request) -> Result<EndpointStream, CallError> {
        if !self.transport.pushes() {
            return Err(CallError::NoStreams);
        }
        let (caller, answer) = oneshot::channel();
        self.enqueue(request, Instant::now(), Reply::Stream(Some(caller)));
        let items = answer.await.unwrap_or(Err(CallError::Lost))?;
        Ok(EndpointStream { items, _prune: Prune(self.clone()) })
    }

    /// Ends all streams of this connection: their readers subscribe again, with a gap.
    pub(super) fn renew(&self) {
        let _full = self.commands.try_send(Command::Renew);
    }

    fn enqueue(&self, request: Request, queued: Instant, reply: Reply) {
        self.give(Command::Call(Call { request, queued, reply }));
    }

    fn give(&self, command: Command) {
        let (command, error) = match self.commands.try_send(command) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(command)) => (command, CallError::Full),
            Err(mpsc::error::TrySendError::Closed(command)) => (command, CallError::Unavailable),
        };
        command.refuse(&error, &self.outcomes);
    }

    /// Notes why it is not up, for operators.
    pub(super) fn failed(&self, why: &Arc<str>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some((SystemTime::now(), Arc::clone(why)));
    }

    /// What operators see.
    pub(super) fn state(&self) -> EndpointState {
        let status = self.status.borrow().clone();
        let (state, detail) = match (&status, self.distrust()) {
            (Status::Up(_), None) => ("up", None),
            (Status::Up(_), Some(why)) => ("untrusted", Some(why.to_string())),
            (Status::Down(why), _) => ("down", Some(why.to_string())),
            (Status::WrongChain(why), _) => ("wrong_chain", Some(why.to_string())),
        };
        EndpointState {
            label: self.label.clone(),
            roles: self.roles,
            transport: self.transport,
            up: state == "up",
            state,
            detail,
            head: self.head.borrow().as_ref().map(|head| head.number),
            head_timestamp: self.head.borrow().as_ref().map(|head| head.timestamp),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            stray_frames: self.stray_frames.load(Ordering::Relaxed),
        }
    }
}

/// The answer to one call on one endpoint.
#[derive(Debug)]
pub(super) struct Answer(oneshot::Receiver<Answered>);

impl Future for Answer {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        // A task that ended without an answer may have sent the bytes.
        Pin::new(&mut self.0).poll(context).map(|answered| answered.unwrap_or(Err(CallError::Lost)))
    }
}

/// The items of one subscription on one connection; ends with the connection. Dropping it unsubscribes.
pub(super) struct EndpointStream {
    // Before `_prune`: the task must find it closed.
    items: mpsc::Receiver<StreamItem>,
    _prune: Prune,
}

impl EndpointStream {
    /// The next item; `None` once the subscription is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<StreamItem> {
        self.items.recv().await
    }

    /// What is queued already.
    pub(super) fn queued(&mut self) -> Option<StreamItem> {
        self.items.try_recv().ok()
    }
}

struct Prune(Arc<Endpoint>);

impl Drop for Prune {
    fn drop(&mut self) {
        // With a full queue the task finds out at the next item.
        let _full = self.0.commands.try_send(Command::Prune);
    }
}
