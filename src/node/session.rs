//! The state of one connection without its socket: what waits to be written, who waits for which answer, which subscription
//! goes where. Frames and times come in as values, bytes to write go out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::CallError;
use super::command::{Call, Command, Opened, Outcomes, Reply};
use super::frame::{Ids, Incoming, Outcome, Request, batch, parse};
use super::outlet::{Outlet, outlet};

/// Calls taken from the queue and not yet written.
pub(super) const BACKLOG: usize = 256;
/// Calls written and not yet answered; more wait in the queue.
pub(super) const IN_FLIGHT: usize = 16_384;
/// Notifications kept while the answer that tells whose they are is not there yet.
pub(super) const EARLY: usize = 256;

/// What goes out as one frame.
enum Outgoing {
    One(Call),
    /// A JSON-RPC batch, never empty.
    Batch(Vec<Call>),
}

impl Outgoing {
    fn queued(&self) -> Option<Instant> {
        match self {
            Self::One(call) => Some(call.queued),
            Self::Batch(calls) => calls.first().map(|call| call.queued),
        }
    }

    /// Nothing of it was sent, for this reason.
    fn fail(self, error: &CallError, outcomes: &Outcomes) {
        match self {
            Self::One(call) => Command::Call(call),
            Self::Batch(calls) => Command::Batch(calls),
        }
        .refuse(error, outcomes);
    }
}

/// The requests of one frame that was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    One(u64),
    Batch(Vec<u64>),
}

/// Pending calls and live subscriptions of one connection.
pub(super) struct Session {
    deadline: Duration,
    ids: Ids,
    outcomes: Outcomes,
    backlog: VecDeque<Outgoing>,
    pending: HashMap<u64, Reply>,
    /// Pending ids in the order of their deadlines; answered ones are skipped.
    expiry: VecDeque<(Instant, u64)>,
    /// The ids of each batch that is not answered: what its answer leaves out will have none.
    batches: Vec<Vec<u64>>,
    /// By the JSON text of the node's subscription id.
    outlets: BTreeMap<Box<str>, Outlet>,
    /// Subscribe requests that are not answered.
    opening: usize,
    early: VecDeque<(Box<str>, Box<RawValue>)>,
    early_dropped: bool,
}

impl Session {
    pub(super) fn new(deadline: Duration, ids: Ids, outcomes: Outcomes) -> Self {
        Self {
            deadline,
            ids,
            outcomes,
            backlog: VecDeque::new(),
            pending: HashMap::new(),
            expiry: VecDeque::new(),
            batches: Vec::new(),
            outlets: BTreeMap::new(),
            opening: 0,
            early: VecDeque::new(),
            early_dropped: false,
        }
    }

    /// Commands that can be taken now.
    pub(super) fn room(&self) -> usize {
        BACKLOG.saturating_sub(self.backlog.len())
    }

    /// There is something to write.
    pub(super) fn has_output(&self) -> bool {
        !self.backlog.is_empty() && self.pending.len() < IN_FLIGHT
    }

    /// Takes a command.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Call(call) => self.backlog.push_back(Outgoing::One(call)),
            Command::Batch(mut calls) => match (calls.len(), calls.pop()) {
                (1, Some(call)) => self.backlog.push_back(Outgoing::One(call)),
                (_, Some(call)) => {
                    calls.push(call);
                    self.backlog.push_back(Outgoing::Batch(calls));
                }
                (_, None) => {}
            },
            Command::Prune => self.close_outlets(Outlet::is_closed),
            Command::Renew => self.close_outlets(|_| true),
        }
    }

    /// The next frame to write; from here on its requests count as sent.
    pub(super) fn output(&mut self) -> Option<(Written, Utf8Bytes)> {
        if !self.has_output() {
            return None;
        }
        match self.backlog.pop_front()? {
            Outgoing::One(call) => {
                let text = call.request.text.clone();
                Some((Written::One(self.sent(call)), text))
            }
            Outgoing::Batch(calls) => {
                let text = batch(calls.iter().map(|call| &call.request));
                let ids: Vec<u64> = calls.into_iter().map(|call| self.sent(call)).collect();
                self.batches.push(ids.clone());
                Some((Written::Batch(ids), text))
            }
        }
    }

    fn sent(&mut self, Call { request, queued, reply }: Call) -> u64 {
        if matches!(reply, Reply::Stream(_)) {
            self.opening += 1;
        }
        self.pending.insert(request.id, reply);
        self.expiry.push_back((queued + self.deadline, request.id));
        request.id
    }

    /// The socket did not take this frame: nothing of it was sent.
    pub(super) fn not_written(&mut self, written: &Written) {
        match written {
            Written::One(id) => self.fail(*id, &CallError::Full),
            Written::Batch(ids) => {
                ids.iter().for_each(|id| self.fail(*id, &CallError::Full));
                self.batches.retain(|batch| batch != ids);
            }
        }
    }

    fn fail(&mut self, id: u64, error: &CallError) {
        if let Some(reply) = self.take(id) {
            reply.fail(error.clone(), &self.outcomes);
        }
    }

    /// Routes one frame; false if it could not be read or nobody waited for it.
    pub(super) fn frame(&mut self, text: &str) -> bool {
        match parse(text) {
            Some(Incoming::Answer { id, outcome }) => self.answer(id, outcome),
            Some(Incoming::Notification { subscription, item }) => self.notification(subscription, item),
            Some(Incoming::Batch(items)) => self.batch_answered(&items),
            Some(Incoming::Unnamed(error)) => {
                // Whose it is, is known only if there is one batch. Whether a node used a part of it is not.
                let [ids] = self.batches.as_slice() else { return false };
                let ids = ids.clone();
                self.batches.clear();
                let error = CallError::Malformed(format!("to the whole batch: {}: {}", error.code, error.message));
                ids.into_iter().for_each(|id| self.fail(id, &error));
                true
            }
            None => false,
        }
    }

    /// Routes the items of a batch's answer; those that it leaves out have no answer to come.
    fn batch_answered(&mut self, items: &[&RawValue]) -> bool {
        let mut known = true;
        let mut answered = Vec::with_capacity(items.len());
        for item in items {
            match parse(item.get()) {
                Some(Incoming::Answer { id, outcome }) => {
                    known &= self.answer(id, outcome);
                    answered.push(id);
                }
                _ => known = false,
            }
        }
        let whose = self.batches.iter().position(|batch| batch.iter().any(|id| answered.contains(id)));
        if let Some(ids) = whose.map(|at| self.batches.swap_remove(at)) {
            let error = CallError::Malformed("the answer to the batch leaves this request out".to_owned());
            ids.into_iter().for_each(|id| self.fail(id, &error));
        }
        known
    }

    fn answer(&mut self, id: u64, outcome: Outcome<'_>) -> bool {
        let Some(reply) = self.take(id) else { return false };
        match (reply, outcome) {
            (Reply::Value(caller), outcome) => Reply::value(caller, outcome.into_owned(), &self.outcomes),
            (Reply::Stream(caller), Outcome::Result(subscription)) => self.open(caller, subscription.get()),
            (reply @ Reply::Stream(_), outcome) => {
                if let Err(error) = outcome.into_owned() {
                    reply.fail(error, &self.outcomes);
                }
            }
            (Reply::Nobody, _) => {}
        }
        if self.opening == 0 {
            self.early.clear();
            self.early_dropped = false;
        }
        true
    }

    /// A subscription is live: its items may have come before this answer.
    fn open(&mut self, caller: Option<oneshot::Sender<Opened>>, subscription: &str) {
        let Some(caller) = caller else { return self.unsubscribe(subscription) };
        let (mut outlet, stream) = outlet();
        if self.early_dropped {
            outlet.gap();
        }
        self.early.retain(|(of, item)| {
            let ours = **of == *subscription;
            if ours {
                outlet.deliver(item);
            }
            !ours
        });
        if Reply::stream(caller, stream, &self.outcomes) {
            self.outlets.insert(subscription.into(), outlet);
        } else {
            self.unsubscribe(subscription);
        }
    }

    fn notification(&mut self, subscription: &str, item: &RawValue) -> bool {
        if let Some(outlet) = self.outlets.get_mut(subscription) {
            if outlet.is_closed() {
                self.outlets.remove(subscription);
                self.unsubscribe(subscription);
            } else {
                outlet.deliver(item);
            }
            return true;
        }
        if self.opening == 0 {
            return false;
        }
        if self.early.len() < EARLY {
            self.early.push_back((subscription.into(), item.to_owned()));
        } else {
            self.early_dropped = true;
        }
        true
    }

    fn close_outlets(&mut self, closing: impl Fn(&Outlet) -> bool) {
        let closed: Vec<_> = self.outlets.extract_if(.., |_, outlet| closing(outlet)).map(|(subscription, _)| subscription).collect();
        for subscription in closed {
            self.unsubscribe(&subscription);
        }
    }

    fn unsubscribe(&mut self, subscription: &str) {
        let Ok(params) = RawValue::from_string(format!("[{subscription}]")) else { return };
        let request = Request::new(self.ids.next(), "eth_unsubscribe", Some(&params));
        self.backlog.push_back(Outgoing::One(Call { request, queued: Instant::now(), reply: Reply::Nobody }));
    }

    fn take(&mut self, id: u64) -> Option<Reply> {
        let reply = self.pending.remove(&id)?;
        if matches!(reply, Reply::Stream(_)) {
            self.opening -= 1;
        }
        Some(reply)
    }

    /// Ends what has waited too long: written requests by `Deadline`, unwritten ones by `Unavailable`.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.expiry.front() {
            if due > now && self.pending.contains_key(&id) {
                break;
            }
            self.expiry.pop_front();
            match self.pending.get_mut(&id) {
                // A late yes would leave a subscription that nobody ends: remember the request until the connection ends.
                Some(Reply::Stream(caller)) => {
                    Reply::Stream(caller.take()).fail(CallError::Deadline(self.deadline), &self.outcomes);
                }
                Some(_) => {
                    if let Some(reply) = self.take(id) {
                        reply.fail(CallError::Deadline(self.deadline), &self.outcomes);
                    }
                }
                None => {}
            }
        }
        while self.backlog.front().and_then(Outgoing::queued).is_some_and(|queued| queued + self.deadline <= now) {
            if let Some(outgoing) = self.backlog.pop_front() {
                outgoing.fail(&CallError::Unavailable, &self.outcomes);
            }
        }
        let pending = &self.pending;
        self.batches.retain(|batch| batch.iter().any(|id| pending.contains_key(id)));
    }

    /// When [`Self::expire`] is worth calling.
    pub(super) fn due(&self) -> Option<Instant> {
        let written = self.expiry.front().map(|(due, _)| *due);
        let waiting = self.backlog.front().and_then(Outgoing::queued).map(|queued| queued + self.deadline);
        match (written, waiting) {
            (Some(written), Some(waiting)) => Some(written.min(waiting)),
            (written, waiting) => written.or(waiting),
        }
    }

    /// The connection ended: what was written is lost, what was not is unavailable, and every stream ends.
    pub(super) fn end(self) {
        let mut pending: Vec<_> = self.pending.into_iter().collect();
        pending.sort_unstable_by_key(|(id, _)| *id);
        for (_, reply) in pending {
            reply.fail(CallError::Lost, &self.outcomes);
        }
        for outgoing in self.backlog {
            outgoing.fail(&CallError::Unavailable, &self.outcomes);
        }
    }
}

#[cfg(test)]
mod tests;
