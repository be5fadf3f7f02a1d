//! What goes to one node over HTTP, and when: reads at the same time over a bounded number of connections; transactions in their order, one
//! request in flight, and what waits meanwhile goes together in the next.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::answers::Answers;
use crate::node::CallError;
use crate::node::command::{Call, Command, Outcomes, QUEUE, Reply};

/// Reads in flight, and how many of them clients may have asked: their slow questions must not hold up the chain's.
pub(super) const READS: usize = 16;
const OF_CLIENTS: usize = 12;
/// Transactions of one request, and the bytes of it.
const TOGETHER: usize = 100;
const TOGETHER_BYTES: usize = 512 << 10;

/// Calls that are in one request that is under way; dropped without an answer, they are lost.
pub(super) struct Flying {
    pub(super) calls: Vec<Call>,
    outcomes: Outcomes,
}

impl Flying {
    fn new(calls: Vec<Call>, outcomes: &Outcomes) -> Self {
        Self { calls, outcomes: outcomes.clone() }
    }

    /// One of them must not be written twice.
    pub(super) fn once(&self) -> bool {
        self.calls.iter().any(|call| call.request.once)
    }

    /// What waits behind them must arrive behind them.
    pub(super) fn is_in_order(&self) -> bool {
        self.calls.iter().any(|call| call.request.in_order)
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.calls.iter().map(|call| call.request.id).collect()
    }

    /// The newest call's deadline: of several, the oldest waits so much longer.
    pub(super) fn deadline(&self, each: Duration) -> Instant {
        self.calls.iter().map(|call| call.queued).max().unwrap_or_else(Instant::now) + each
    }

    /// All of them have no result, for this reason.
    pub(super) fn fail(mut self, error: &CallError) {
        let outcomes = &self.outcomes;
        self.calls.drain(..).for_each(|call| call.reply.fail(error.clone(), outcomes));
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        let outcomes = &self.outcomes;
        self.calls.drain(..).for_each(|call| call.reply.fail(CallError::Lost, outcomes));
    }
}

/// What waits for a connection.
pub(in crate::node) struct Lanes {
    deadline: Duration,
    outcomes: Outcomes,
    reads: VecDeque<Call>,
    of_clients: VecDeque<Call>,
    /// Of those, in flight.
    asked_by_clients: usize,
    sends: VecDeque<Call>,
    /// Transactions that go together at most: one, once the node has refused several.
    together: usize,
}

impl Lanes {
    pub(in crate::node) fn new(deadline: Duration, outcomes: Outcomes) -> Self {
        let (reads, of_clients, sends) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { deadline, outcomes, reads, of_clients, asked_by_clients: 0, sends, together: TOGETHER }
    }

    /// Takes a command.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Call(call) => self.take(call),
            Command::Batch(calls) => calls.into_iter().for_each(|call| self.take(call)),
            // There are no streams.
            Command::Prune | Command::Renew => {}
        }
    }

    fn take(&mut self, call: Call) {
        if matches!(call.reply, Reply::Stream(_)) {
            return call.reply.fail(CallError::NoStreams, &self.outcomes);
        }
        let lane = match &call.request {
            request if request.in_order => &mut self.sends,
            request if request.of_client => &mut self.of_clients,
            _ => &mut self.reads,
        };
        if lane.len() < QUEUE {
            lane.push_back(call);
        } else {
            call.reply.fail(CallError::Full, &self.outcomes);
        }
    }

    /// The next read: Sluice's own first.
    pub(super) fn read(&mut self) -> Option<Flying> {
        let own = self.reads.pop_front();
        let call = own.or_else(|| if self.asked_by_clients < OF_CLIENTS { self.of_clients.pop_front() } else { None })?;
        self.asked_by_clients += usize::from(call.request.of_client);
        Some(Flying::new(vec![call], &self.outcomes))
    }

    /// It is not under way any more.
    pub(super) fn landed(&mut self, flying: &Flying) {
        let of_clients = flying.calls.iter().filter(|call| call.request.of_client).count();
        self.asked_by_clients = self.asked_by_clients.saturating_sub(of_clients);
    }

    /// The transactions of the next request, in their order.
    pub(super) fn send(&mut self) -> Option<Flying> {
        let mut bytes = 0;
        let mut calls = Vec::new();
        while calls.len() < self.together
            && let Some(call) = self.sends.pop_front_if(|call| calls.is_empty() || bytes + call.request.text.len() <= TOGETHER_BYTES)
        {
            bytes += call.request.text.len();
            calls.push(call);
        }
        if calls.is_empty() { None } else { Some(Flying::new(calls, &self.outcomes)) }
    }

    /// Tells the callers what a response says. Of transactions that a node did not take together it is not known whether it used a part, as
    /// over a WebSocket; from then on they go one by one. Answers why there was no answer, if so.
    pub(super) fn answered(&mut self, mut flying: Flying, answers: Answers) -> Option<String> {
        match answers {
            Answers::Each(answers) => {
                for (call, answer) in flying.calls.drain(..).zip(answers) {
                    match call.reply {
                        Reply::Value(caller) => Reply::value(caller, answer, &self.outcomes),
                        Reply::Stream(_) | Reply::Nobody => {}
                    }
                }
                None
            }
            Answers::NotOfThese(why) => {
                tracing::info!(why, "a node takes no batch: its transactions go one by one");
                self.together = 1;
                flying.fail(&CallError::Malformed(format!("to the whole batch: {why}")));
                None
            }
            Answers::None(why) => {
                drop(flying);
                Some(why)
            }
        }
    }

    /// Ends what has waited too long; nothing of it was sent.
    pub(super) fn expire(&mut self, now: Instant) {
        for lane in [&mut self.reads, &mut self.of_clients, &mut self.sends] {
            while let Some(call) = lane.pop_front_if(|call| call.queued + self.deadline <= now) {
                call.reply.fail(CallError::Unavailable, &self.outcomes);
            }
        }
    }

    /// When [`Self::expire`] is worth calling.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = |lane: &VecDeque<Call>| lane.front().map(|call| call.queued + self.deadline);
        [first(&self.reads), first(&self.of_clients), first(&self.sends)].into_iter().flatten().min()
    }

    /// The endpoint is lost: nothing of what waits was sent.
    pub(in crate::node) fn end(self) {
        for call in self.reads.into_iter().chain(self.of_clients).chain(self.sends) {
            call.reply.fail(CallError::Unavailable, &self.outcomes);
        }
    }
}
