//! JSON-RPC: one frame in, answers out at their times, and what goes wrong by plan.

use std::time::Duration;

use serde_json::{Value, json};

use super::faults::Fault;
use super::node::{Node, Outgoing};
use super::send::{SEND, Verdict};
use super::words::RpcError;

/// A call that is being overtaken.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    connection: u64,
    request: Value,
    /// Its place in the record of arrivals.
    arrival: Option<usize>,
}

/// What comes of one call.
struct Outcome {
    /// `None`: nobody answers.
    answer: Option<Value>,
    /// Beyond now.
    after: Duration,
    cut: bool,
}

impl Outcome {
    const NOTHING: Self = Self { answer: None, after: Duration::ZERO, cut: false };
    const CUT: Self = Self { answer: None, after: Duration::ZERO, cut: true };
}

impl Node {
    /// A message arrives on a connection. What comes of it is in [`Node::take_deliveries`].
    pub fn receive(&mut self, now: Duration, connection: u64, text: &str) {
        let overtaken = self.waiting.iter().filter(|waiting| waiting.connection == connection).count();
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(requests)) => self.receive_batch(now, connection, &requests),
            Ok(request) => {
                let outcome = self.perform(now, connection, &request, true);
                self.conclude(now, connection, outcome);
            }
            Err(_) => {
                let answer = answer(&Value::Null, &Err(RpcError::new(-32700, "parse error")));
                self.deliver(connection, now, Outgoing::Text(answer.to_string()));
            }
        }
        if overtaken > 0 {
            self.perform_waiting(now, Some((connection, overtaken)));
        }
    }

    /// One call that comes on no connection, without faults and delays. Subscriptions need a connection.
    pub fn call(&mut self, now: Duration, method: &str, params: &Value) -> Result<Value, RpcError> {
        let arrival = (method == SEND).then(|| self.arrived(now, 0, params, None));
        let result = self.run(now, 0, method, params, 0);
        self.record(arrival, Some(&result), Some(&result));
        result
    }

    /// In the order of the array. A lost answer, a late one or a cut is the whole batch's.
    fn receive_batch(&mut self, now: Duration, connection: u64, requests: &[Value]) {
        let mut all = Outcome::NOTHING;
        let (mut answers, mut is_lost) = (Vec::new(), false);
        for request in requests {
            let outcome = self.perform(now, connection, request, false);
            all.after = all.after.max(outcome.after);
            all.cut |= outcome.cut;
            is_lost |= outcome.answer.is_none() && request.get("id").is_some();
            answers.extend(outcome.answer);
        }
        if !is_lost && !answers.is_empty() {
            all.answer = Some(Value::Array(answers));
        }
        self.conclude(now, connection, all);
    }

    fn conclude(&mut self, now: Duration, connection: u64, outcome: Outcome) {
        if let Some(answer) = outcome.answer {
            self.deliver(connection, now + outcome.after, Outgoing::Text(answer.to_string()));
        }
        if outcome.cut {
            self.deliver(connection, now, Outgoing::Cut);
        }
    }

    /// Draws the call's fault and does what is left to do.
    fn perform(&mut self, now: Duration, connection: u64, request: &Value, may_wait: bool) -> Outcome {
        let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
        let fault = if method.starts_with("sim_") { None } else { self.faults.next(method, &mut self.luck) };
        let params = request.get("params").unwrap_or(&Value::Null);
        let arrival = (method == SEND).then(|| self.arrived(now, connection, params, fault.clone()));
        match fault {
            Some(Fault::DropRequest) => Outcome::NOTHING,
            Some(Fault::CutBefore) => Outcome::CUT,
            Some(Fault::Overtaken) if may_wait => {
                self.waiting.push(Waiting { connection, request: request.clone(), arrival });
                Outcome::NOTHING
            }
            other => self.complete(now, connection, request, other, arrival),
        }
    }

    /// Runs the calls that wait: all of them, or the first so many of one connection.
    pub(super) fn perform_waiting(&mut self, now: Duration, only: Option<(u64, usize)>) {
        let (mut due, mut rest) = (Vec::new(), Vec::new());
        for waiting in std::mem::take(&mut self.waiting) {
            let is_due = only.is_none_or(|(connection, count)| waiting.connection == connection && due.len() < count);
            if is_due { due.push(waiting) } else { rest.push(waiting) }
        }
        self.waiting = rest;
        for Waiting { connection, request, arrival } in due {
            let outcome = self.complete(now, connection, &request, None, arrival);
            self.conclude(now, connection, outcome);
        }
    }

    fn complete(&mut self, now: Duration, connection: u64, request: &Value, fault: Option<Fault>, arrival: Option<usize>) -> Outcome {
        let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
        let params = request.get("params").unwrap_or(&Value::Null);
        let blocks_ago = if let Some(Fault::Stale { blocks }) = fault { blocks } else { 0 };
        let mut after = if method.starts_with("sim_") { Duration::ZERO } else { self.settings.delays.draw(&mut self.pace) };
        if method == "eth_subscribe"
            && let Some(connection) = self.connections.get_mut(&connection)
        {
            connection.quiet_until = connection.quiet_until.max(now + after);
        }
        let (mut result, was_run) = match &fault {
            Some(Fault::Refuse { code, message }) => (Err(RpcError::new(*code, message)), false),
            _ => (self.run(now, connection, method, params, blocks_ago), true),
        };
        self.record(arrival, was_run.then_some(&result), None);
        match fault {
            Some(Fault::DropAnswer) => return Outcome::NOTHING,
            Some(Fault::CutAfter) => return Outcome::CUT,
            Some(Fault::Late { milliseconds }) => after += Duration::from_millis(milliseconds),
            Some(Fault::Lie { code, message }) => result = Err(RpcError::new(code, message)),
            Some(Fault::OtherHash) => result = Ok(json!(self.luck.hash())),
            Some(Fault::ForgetPool) => self.forget_pool(),
            _ => {}
        }
        self.record(arrival, None, Some(&result));
        let answer = request.get("id").map(|id| answer(id, &result));
        Outcome { answer, after, cut: false }
    }

    fn record(&mut self, arrival: Option<usize>, verdict: Option<&Result<Value, RpcError>>, told: Option<&Result<Value, RpcError>>) {
        if let Some(arrival) = arrival.and_then(|place| self.arrivals.get_mut(place)) {
            arrival.verdict = verdict.map(Verdict::of).or(arrival.verdict.take());
            arrival.told = told.map(Verdict::of).or(arrival.told.take());
        }
    }
}

fn answer(id: &Value, result: &Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
    }
}
