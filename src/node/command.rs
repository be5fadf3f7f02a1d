//! What the task of an endpoint is asked to do, who waits for it, and how what comes of it is counted.

use prometheus::{Histogram, IntCounter, IntCounterVec};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::frame::Request;
use super::{CallError, StreamItem};

/// Commands that wait for the task.
pub(super) const QUEUE: usize = 4096;

/// What one call comes to; the text is copied once, out of the frame.
pub(super) type Answered = Result<Box<RawValue>, CallError>;
/// What an upstream subscription comes to.
pub(super) type Opened = Result<mpsc::Receiver<StreamItem>, CallError>;

/// Counters of requests by outcome, resolved once per environment.
#[derive(Debug, Clone)]
pub(super) struct Outcomes {
    ok: IntCounter,
    error: IntCounter,
    unavailable: IntCounter,
    wrong_chain: IntCounter,
    full: IntCounter,
    deadline: IntCounter,
    lost: IntCounter,
    malformed: IntCounter,
}

impl Outcomes {
    pub(super) fn new(requests: &IntCounterVec, environment: &str) -> Self {
        let counter = |outcome| requests.with_label_values(&[environment, outcome]);
        Self {
            ok: counter("ok"),
            error: counter("error"),
            unavailable: counter("unavailable"),
            wrong_chain: counter("wrong_chain"),
            full: counter("full"),
            deadline: counter("deadline"),
            lost: counter("lost"),
            malformed: counter("malformed"),
        }
    }

    fn count<T>(&self, outcome: &Result<T, CallError>) {
        match outcome {
            Ok(_) => &self.ok,
            Err(CallError::Node(_)) => &self.error,
            Err(CallError::Unavailable | CallError::NoStreams) => &self.unavailable,
            Err(CallError::WrongChain(_)) => &self.wrong_chain,
            Err(CallError::Full) => &self.full,
            Err(CallError::Deadline(_)) => &self.deadline,
            Err(CallError::Lost) => &self.lost,
            Err(CallError::Malformed(_)) => &self.malformed,
        }
        .inc();
    }
}

/// A caller that waits.
#[derive(Debug)]
pub(super) struct Caller {
    answer: oneshot::Sender<Answered>,
    queued: Instant,
    seconds: Histogram,
}

impl Caller {
    /// Its request was queued at `queued`; `seconds` gets the time to a node's answer.
    pub(super) fn new(answer: oneshot::Sender<Answered>, queued: Instant, seconds: Histogram) -> Self {
        Self { answer, queued, seconds }
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Reply {
    /// To a caller.
    Value(Caller),
    /// To a subscriber, as a stream; `None` once its deadline has passed: a late yes is then undone.
    Stream(Option<oneshot::Sender<Opened>>),
    /// To nobody.
    Nobody,
}

impl Reply {
    /// Tells why there is no answer.
    pub(super) fn fail(self, error: CallError, outcomes: &Outcomes) {
        match self {
            Self::Value(caller) => Self::value(caller, Err(error), outcomes),
            Self::Stream(Some(caller)) => {
                let outcome = Err(error);
                outcomes.count(&outcome);
                let _gone = caller.send(outcome);
            }
            Self::Stream(None) | Self::Nobody => {}
        }
    }

    /// Tells a caller its answer.
    pub(super) fn value(caller: Caller, outcome: Answered, outcomes: &Outcomes) {
        outcomes.count(&outcome);
        if matches!(outcome, Ok(_) | Err(CallError::Node(_))) {
            caller.seconds.observe(caller.queued.elapsed().as_secs_f64());
        }
        let _gone = caller.answer.send(outcome);
    }

    /// Gives a subscriber its stream; false if it has gone away.
    pub(super) fn stream(caller: oneshot::Sender<Opened>, stream: mpsc::Receiver<StreamItem>, outcomes: &Outcomes) -> bool {
        let outcome = Ok(stream);
        outcomes.count(&outcome);
        caller.send(outcome).is_ok()
    }
}

/// One request on its way to the socket.
pub(super) struct Call {
    pub(super) request: Request,
    /// Its deadline runs from here.
    pub(super) queued: Instant,
    pub(super) reply: Reply,
}

/// What the task is asked to do.
pub(super) enum Command {
    Call(Call),
    /// These as one JSON-RPC batch.
    Batch(Vec<Call>),
    /// A stream was dropped: unsubscribe those that nobody reads.
    Prune,
    /// End every stream, so that its reader subscribes again.
    Renew,
}

impl Command {
    /// Nothing of it was sent, for this reason.
    pub(super) fn refuse(self, error: &CallError, outcomes: &Outcomes) {
        match self {
            Self::Call(call) => call.reply.fail(error.clone(), outcomes),
            Self::Batch(calls) => calls.into_iter().for_each(|call| call.reply.fail(error.clone(), outcomes)),
            Self::Prune | Self::Renew => {}
        }
    }
}
