//! The client: transfers from all accounts over one WebSocket.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::Failure;
use super::check::Told;
use crate::client::{Client, ClientError};

/// How long answers may take after the last request.
const PATIENCE: Duration = Duration::from_secs(150);
/// How often an open loop sends what is due.
const STEP: Duration = Duration::from_millis(5);

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// The next one when one is answered, so many outstanding.
    Closed(usize),
    /// So many a second, whatever is answered.
    Open(f64),
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(outstanding) => write!(f, "closed loop over one WebSocket, {outstanding} requests outstanding"),
            Self::Open(rate) => write!(f, "open loop over one WebSocket, {rate} requests a second"),
        }
    }
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The number of its account.
    pub(super) account: usize,
    /// When it was sent.
    pub(super) sent: Instant,
    /// When it was answered.
    pub(super) answered: Instant,
    pub(super) told: Told,
}

type Answer = Pin<Box<dyn Future<Output = (usize, Instant, Result<Value, ClientError>)> + Send>>;

/// Sends until then, and waits for the answers.
pub(super) async fn drive(client: &Client, accounts: &[String], shape: Shape, until: Instant) -> Vec<Request> {
    let mut load = Load { client, accounts, sent: 0, flying: FuturesUnordered::new(), requests: Vec::new() };
    match shape {
        Shape::Closed(outstanding) => {
            while Instant::now() < until {
                while load.flying.len() < outstanding {
                    load.send();
                }
                let rest = until.saturating_duration_since(Instant::now());
                // The rest of the time is over, or there is an answer.
                let _ = tokio::time::timeout(rest, load.take()).await;
            }
        }
        Shape::Open(rate) => {
            let begun = Instant::now();
            let mut step = tokio::time::interval(STEP);
            while Instant::now() < until {
                tokio::select! {
                    _ = step.tick() => {
                        let due = (begun.elapsed().as_secs_f64() * rate) as usize;
                        while load.sent < due {
                            load.send();
                        }
                    }
                    () = load.take(), if !load.flying.is_empty() => {}
                }
            }
        }
    }
    let late = Instant::now() + PATIENCE;
    while !load.flying.is_empty() && Instant::now() < late && !client.is_closed() {
        let _ = tokio::time::timeout(late.saturating_duration_since(Instant::now()), load.take()).await;
    }
    load.end()
}

struct Load<'a> {
    client: &'a Client,
    accounts: &'a [String],
    sent: usize,
    flying: FuturesUnordered<Answer>,
    requests: Vec<Request>,
}

impl Load<'_> {
    /// The accounts take turns; each value is another one, so that no two payloads are alike.
    fn send(&mut self) {
        let account = self.sent % self.accounts.len();
        let from = &self.accounts[account];
        let transfer = json!([{ "from": from, "to": from, "value": format!("{:#x}", self.sent), "gas": "0x5208" }]);
        let (sent, answer) = (Instant::now(), self.client.start("eth_sendTransaction", transfer));
        self.flying.push(Box::pin(async move { (account, sent, answer.await) }));
        self.sent += 1;
    }

    async fn take(&mut self) {
        if let Some((account, sent, answer)) = self.flying.next().await {
            self.requests.push(Request { account, sent, answered: Instant::now(), told: told(answer) });
        }
    }

    /// What is still in flight was told nothing.
    fn end(mut self) -> Vec<Request> {
        let (missing, now) = (self.flying.len(), Instant::now());
        let nothing = Request { account: 0, sent: now, answered: now, told: Told::Nothing };
        self.requests.extend(std::iter::repeat_n(nothing, missing));
        self.requests
    }
}

pub(super) fn told(answer: Result<Value, ClientError>) -> Told {
    match answer {
        Ok(hash) => match hash.as_str().and_then(|hash| hash.parse().ok()) {
            Some(hash) => Told::Hash(hash),
            None => Told::Error(0, format!("{hash} is no hash")),
        },
        Err(ClientError::Connection(_)) => Told::Nothing,
        Err(error) => Told::Error(error.code().unwrap_or(0), error.reason().map_or_else(|| error.to_string(), str::to_owned)),
    }
}

/// The addresses that the service has.
pub(super) async fn accounts(client: &Client) -> Result<Vec<String>, Failure> {
    let listed = client.request("eth_accounts", json!([])).await?;
    Ok(serde_json::from_value(listed)?)
}
