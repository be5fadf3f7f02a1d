//! The state of one connection without its socket: what waits to be written, who waits for which answer, which subscription
//! goes where. Frames and times come in as values, bytes to write go out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::CallError;
use super::endpoint::{Call, Command, Opened, Outcomes, Reply};
use super::frame::{Ids, Incoming, Outcome, Request, parse};
use super::outlet::{Outlet, outlet};

/// Calls taken from the queue and not yet written.
pub(super) const BACKLOG: usize = 256;
/// Calls written and not yet answered; more wait in the queue.
pub(super) const IN_FLIGHT: usize = 16_384;
/// Notifications kept while the answer that tells whose they are is not there yet.
pub(super) const EARLY: usize = 256;

/// Pending calls and live subscriptions of one connection.
pub(super) struct Session {
    deadline: Duration,
    ids: Ids,
    outcomes: Outcomes,
    backlog: VecDeque<Call>,
    pending: HashMap<u64, Reply>,
    /// Pending ids in the order of their deadlines; answered ones are skipped.
    expiry: VecDeque<(Instant, u64)>,
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
            Command::Call(call) => self.backlog.push_back(call),
            Command::Prune => self.close_outlets(Outlet::is_closed),
            Command::Renew => self.close_outlets(|_| true),
        }
    }

    /// The next request to write; from here on it counts as sent.
    pub(super) fn output(&mut self) -> Option<(u64, Utf8Bytes)> {
        if !self.has_output() {
            return None;
        }
        let Call { request, queued, reply } = self.backlog.pop_front()?;
        if matches!(reply, Reply::Stream(_)) {
            self.opening += 1;
        }
        self.pending.insert(request.id, reply);
        self.expiry.push_back((queued + self.deadline, request.id));
        Some((request.id, request.text))
    }

    /// The socket did not take this request: nothing of it was sent.
    pub(super) fn not_written(&mut self, id: u64) {
        if let Some(reply) = self.take(id) {
            reply.fail(CallError::Full, &self.outcomes);
        }
    }

    /// Routes one frame; false if it could not be read or nobody waited for it.
    pub(super) fn frame(&mut self, text: &str) -> bool {
        match parse(text) {
            Some(Incoming::Answer { id, outcome }) => self.answer(id, outcome),
            Some(Incoming::Notification { subscription, item }) => self.notification(subscription, item),
            None => false,
        }
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
        self.backlog.push_back(Call { request, queued: Instant::now(), reply: Reply::Nobody });
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
        while self.backlog.front().is_some_and(|call| call.queued + self.deadline <= now) {
            if let Some(call) = self.backlog.pop_front() {
                call.reply.fail(CallError::Unavailable, &self.outcomes);
            }
        }
    }

    /// When [`Self::expire`] is worth calling.
    pub(super) fn due(&self) -> Option<Instant> {
        let written = self.expiry.front().map(|(due, _)| *due);
        let waiting = self.backlog.front().map(|call| call.queued + self.deadline);
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
        for call in self.backlog {
            call.reply.fail(CallError::Unavailable, &self.outcomes);
        }
    }
}

#[cfg(test)]
mod tests;
