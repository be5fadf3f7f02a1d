//! The endpoints of one environment as one node: reads go to the best of those that read, subscriptions where they live. What is sent
//! goes by `senders.rs`.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alloy_primitives::B256;
use futures_util::future::join_all;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Try, Want};
use super::clocks::Backoff;
use super::command::{Answered, Outcomes};
use super::connection::Connection;
use super::endpoint::{Endpoint, EndpointMeters, EndpointState, EndpointStream};
use super::frame::{Ids, Request};
use super::handshake::Chain;
use super::heads::Follower;
use super::judge::Judge;
use super::socket::Dial;
use super::subscription::Subscription;
use super::truth::Lie;
use super::{CallError, Head};
use crate::config::Environment;
use crate::telemetry::chance;
use crate::telemetry::metrics::Metrics;

/// How often all usable endpoints may refuse to subscribe again before a subscription ends.
const REFUSALS: u32 = 8;

/// The nodes of one environment; clones share them. Its tasks end when the token that it was started with is cancelled.
#[derive(Clone)]
pub struct Pool {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) board: Arc<Board>,
    /// Those that take transactions, in the order of the configuration.
    pub(super) senders: Vec<Arc<Endpoint>>,
    chain: Arc<Chain>,
    ids: Ids,
    pub(super) deadline: Duration,
    reconnect_max: Duration,
    stop: CancellationToken,
}

impl Pool {
    /// Starts one task per endpoint on the current runtime and returns at once, also while nodes are down.
    /// Without a pinned genesis the first endpoint's becomes the pin for all.
    pub fn start(environment: &Environment, pinned_genesis: Option<B256>, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self::start_with(environment, pinned_genesis, &metrics, stop, None, Dial::Tcp)
    }

    pub(super) fn start_with(
        environment: &Environment,
        pinned_genesis: Option<B256>,
        metrics: &Metrics,
        stop: CancellationToken,
        tls: Option<Arc<ClientConfig>>,
        dial: Dial,
    ) -> Self {
        let name = environment.name.as_str();
        let (ids, clocks) = (Ids::default(), environment.clocks);
        let genesis = pinned_genesis.map_or_else(OnceLock::new, OnceLock::from);
        let chain = Arc::new(Chain { environment: name.to_owned(), chain_id: environment.chain_id, genesis });
        let nodes = &metrics.nodes;
        let outcomes = Outcomes::new(&nodes.requests, name);
        let labels = labels(environment.nodes.iter().map(|node| node.label()));
        let (endpoints, queues): (Vec<_>, Vec<_>) = labels
            .into_iter()
            .zip(&environment.nodes)
            .map(|(label, node)| {
                let meters = EndpointMeters {
                    up: nodes.up.with_label_values(&[name, &label]),
                    seconds: nodes.request_seconds.with_label_values(&[name, &label]),
                    lies: Lie::KINDS.map(|kind| (kind, nodes.lies.with_label_values(&[name, &label, kind]))).into(),
                };
                let (endpoint, queue) = Endpoint::new(label, node, environment.finalized_fallback, outcomes.clone(), meters);
                (Arc::new(endpoint), queue)
            })
            .unzip();
        let senders = endpoints.iter().filter(|endpoint| endpoint.roles.takes_transactions()).cloned().collect();
        let head_number = nodes.head_number.with_label_values(&[name]);
        let head_timestamp = nodes.head_timestamp.with_label_values(&[name]);
        let board = Arc::new(Board::new(endpoints.clone(), head_number, head_timestamp));
        for ((endpoint, commands), node) in endpoints.into_iter().zip(queues).zip(&environment.nodes) {
            if node.roles.read {
                let follower = Follower {
                    board: board.clone(),
                    endpoint: endpoint.clone(),
                    ids: ids.clone(),
                    clocks,
                    number: nodes.endpoint_head.with_label_values(&[name, &endpoint.label]),
                    stop: stop.clone(),
                };
                tokio::spawn(follower.run());
            } else {
                tokio::spawn(stop.clone().run_until_cancelled_owned(watch(endpoint.clone(), board.clone())));
            }
            let connection = Connection {
                reconnects: nodes.reconnects.with_label_values(&[name, &endpoint.label]),
                endpoint,
                commands,
                url: node.url.clone(),
                tls: tls.clone(),
                dial: dial.clone(),
                chain: chain.clone(),
                ids: ids.clone(),
                clocks,
                deadline: environment.node_deadline,
                stop: stop.clone(),
            };
            tokio::spawn(connection.run());
        }
        let judge = Judge::new(board.clone(), ids.clone(), clocks, environment.finalized_fallback);
        tokio::spawn(judge.run(stop.clone()));
        let (deadline, reconnect_max) = (environment.node_deadline, clocks.reconnect_max);
        Self { inner: Arc::new(Inner { board, senders, chain, ids, deadline, reconnect_max, stop }) }
    }

    /// The genesis hash that every endpoint must have. Waits, without a bound, for the first usable endpoint.
    pub async fn genesis(&self) -> B256 {
        let mut news = self.inner.board.news();
        loop {
            if self.inner.board.endpoints.iter().any(|endpoint| endpoint.session().is_some())
                && let Some(genesis) = self.inner.chain.genesis.get()
            {
                return *genesis;
            }
            news.changed().await.ok();
        }
    }

    /// `None` if at least one endpoint that reads is usable, else why none is.
    pub fn fault(&self) -> Option<CallError> {
        self.inner.board.fault(Want::Answer)
    }

    /// Every endpoint as operators see it, in the order of the configuration.
    pub fn endpoints(&self) -> Vec<EndpointState> {
        self.inner.board.endpoints.iter().map(|endpoint| endpoint.state()).collect()
    }

    /// The labels of the endpoints that read, in the order of the configuration.
    pub fn readers(&self) -> Vec<String> {
        self.inner.board.readers().map(|endpoint| endpoint.label.clone()).collect()
    }

    /// A read, params and result untouched. Where an endpoint cannot be reached or is lost before it answers, the read is repeated
    /// on another one, or on the next that comes back within the deadline. A caller that would rather fail at once asks
    /// [`Self::fault`] first.
    pub async fn call_raw(&self, method: &str, params: Option<&RawValue>) -> Result<Arc<RawValue>, CallError> {
        self.read(self.request(method, params)).await.map(Arc::from)
    }

    /// [`Self::call_raw`] for a client, whose questions never take all connections to a node over HTTP.
    pub async fn pass(&self, method: &str, params: Option<&RawValue>) -> Result<Arc<RawValue>, CallError> {
        self.read(self.request(method, params).of_client()).await.map(Arc::from)
    }

    /// [`Self::call_raw`] with parameters written and the result read.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T, CallError> {
        let params = to_raw_value(&params).map_err(malformed)?;
        let raw = self.read(self.request(method, Some(&params))).await?;
        serde_json::from_str(raw.get()).map_err(malformed)
    }

    /// Asks every endpoint that reads at once, each one time; answers in the order of [`Self::readers`].
    pub async fn call_every<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Vec<Result<T, CallError>> {
        let answers = match to_raw_value(&params) {
            Ok(params) => {
                let request = self.request(method, Some(&params));
                self.inner.board.readers().map(|endpoint| endpoint.call(request.clone())).collect::<Vec<_>>()
            }
            Err(error) => return self.inner.board.readers().map(|_| Err(malformed(&error))).collect(),
        };
        let read = |answer: Answered| serde_json::from_str(answer?.get()).map_err(malformed);
        join_all(answers).await.into_iter().map(read).collect()
    }

    /// `eth_subscribe` with these params on the best endpoint; what the node answers to it, if an error, is the error.
    pub async fn subscribe(&self, params: &RawValue) -> Result<Subscription, CallError> {
        let subscribe = |endpoint: Arc<Endpoint>, request| async move { endpoint.subscribe(request).await };
        let stream = self.repeat(Want::Stream, self.request("eth_subscribe", Some(params)), subscribe).await?;
        Ok(Subscription::new(self.clone(), Arc::from(params.to_owned()), stream))
    }

    /// The newest head announced by the best endpoint. A reorg to a lower or equal number is a change too.
    pub fn heads(&self) -> watch::Receiver<Option<Arc<Head>>> {
        self.inner.board.heads()
    }

    /// Each head that the best endpoint announces from now on, in order, also those that a next one follows at once. More than 256 that
    /// are not read leave some out.
    pub fn each_head(&self) -> mpsc::Receiver<Arc<Head>> {
        self.inner.board.each_head()
    }

    /// The header of a block as `newHeads` of an endpoint told it, if that was lately.
    pub fn announced(&self, hash: B256) -> Option<Arc<RawValue>> {
        self.inner.board.header(hash)
    }

    /// The newest header that `newHeads` of an endpoint told.
    pub fn newest_announced(&self) -> Option<Arc<RawValue>> {
        self.inner.board.newest_header()
    }

    pub(super) fn request(&self, method: &str, params: Option<&RawValue>) -> Request {
        Request::new(self.inner.ids.next(), method, params)
    }

    async fn read(&self, request: Request) -> Answered {
        self.repeat(Want::Answer, request, |endpoint, request| endpoint.call(request)).await
    }

    /// Asks the best endpoint, and the next as long as connections are the problem and the deadline has not passed.
    async fn repeat<T, F>(&self, want: Want, request: Request, ask: impl Fn(Arc<Endpoint>, Request) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let deadline = Instant::now() + self.inner.deadline;
        let board = &self.inner.board;
        let mut news = None;
        let mut tried: Vec<Try> = Vec::new();
        let mut last = CallError::Unavailable;
        loop {
            if let Some((place, endpoint)) = board.best(want, &tried) {
                match timeout_at(deadline, ask(endpoint.clone(), request.clone())).await {
                    Err(_) => return Err(CallError::Deadline(self.inner.deadline)),
                    Ok(Err(error @ (CallError::Lost | CallError::Unavailable | CallError::WrongChain(_) | CallError::Full))) => {
                        tried.push(place);
                        last = error;
                    }
                    Ok(outcome) => return outcome,
                }
                continue;
            }
            if let Some(fault) = board.hopeless(want) {
                return Err(fault);
            }
            // A full queue is not waited for: that is the caller's sign to slow down. Nor are nodes that are all there and have not answered.
            if matches!(last, CallError::Full) || board.is_exhausted(want, &tried) || self.inner.stop.is_cancelled() {
                return Err(last);
            }
            let Some(news) = &mut news else {
                // Looks once more: what changed before it listened is not told.
                news = Some(board.news());
                continue;
            };
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => {}
                waited = timeout_at(deadline, news.changed()) => if waited.is_err() { return Err(last) },
            }
        }
    }

    /// Subscribes again, for as long as it takes; `None` when told to stop or after [`REFUSALS`] refusals by all.
    pub(super) async fn reopen(self, params: Arc<RawValue>) -> Option<EndpointStream> {
        let board = &self.inner.board;
        let mut news = board.news();
        let mut backoff = Backoff::new(self.inner.reconnect_max);
        let mut refused: Vec<Try> = Vec::new();
        let mut refusals = 0;
        while !self.inner.stop.is_cancelled() {
            let mut pause = None;
            if let Some((place, endpoint)) = board.best(Want::Stream, &refused) {
                match endpoint.subscribe(self.request("eth_subscribe", Some(&params))).await {
                    Ok(stream) => return Some(stream),
                    Err(CallError::Node(error)) => {
                        tracing::warn!(endpoint = %endpoint.label, code = error.code, "node refused to subscribe again");
                        refused.push(place);
                    }
                    Err(_) => pause = Some(backoff.pause(chance::share())),
                }
            } else if board.fault(Want::Stream).is_none() {
                refused.clear();
                refusals += 1;
                if refusals == REFUSALS {
                    return None;
                }
                pause = Some(backoff.pause(chance::share()));
            } else {
                tokio::select! {
                    biased;
                    () = self.inner.stop.cancelled() => {}
                    _ = news.changed() => {}
                }
            }
            if let Some(pause) = pause {
                tokio::select! {
                    biased;
                    () = self.inner.stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        None
    }
}

/// The board learns how an endpoint is whose head nobody follows.
async fn watch(endpoint: Arc<Endpoint>, board: Arc<Board>) {
    let mut status = endpoint.status.subscribe();
    loop {
        board.refresh();
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Labels made unique: two URLs on one host differ in what must not be shown.
fn labels(plain: impl Iterator<Item = String>) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for label in plain {
        let again = labels.iter().filter(|known| **known == label || known.starts_with(&format!("{label} ("))).count();
        labels.push(if again == 0 { label } else { format!("{label} ({})", again + 1) });
    }
    labels
}

pub(super) fn malformed(error: impl std::fmt::Display) -> CallError {
    CallError::Malformed(error.to_string())
}
