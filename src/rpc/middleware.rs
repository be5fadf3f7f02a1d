//! What happens around every call, alone or in a batch: bounds, pass-through, panics, metrics.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jsonrpsee::core::middleware::{Batch, Notification, Request, RpcServiceT};
use jsonrpsee::types::error::{OVERSIZED_RESPONSE_CODE, TOO_MANY_SUBSCRIPTIONS_CODE};
use jsonrpsee::{MethodCallback, MethodResponse, Methods, ResponsePayload};
use prometheus::{Histogram, IntCounter};
use tower::Layer;

use super::batch;
use super::errors::{LIMIT_EXCEEDED, METHOD_NOT_FOUND, Reason, RpcError};
use super::pass_through::{self, PassThrough};
use crate::subscriptions::connection::{ConnectionHandle, Transport};
use crate::telemetry::metrics::Metrics;

/// Subscriptions are answered here or not at all: a node's notifications could not be told apart.
const SUBSCRIPTION_METHODS: [&str; 2] = ["eth_subscribe", "eth_unsubscribe"];

/// Methods of nodes that get a label of their own in the metrics; all others that are not answered here are `other`.
const NODE_METHODS: [&str; 32] = [
    "eth_accounts",
    "eth_blobBaseFee",
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_createAccessList",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getCode",
    "eth_getFilterChanges",
    "eth_getLogs",
    "eth_getProof",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_newBlockFilter",
    "eth_newFilter",
    "eth_sendRawTransaction",
    "eth_syncing",
    "net_version",
    "web3_clientVersion",
];

/// Bounds of one service's calls.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Items in one batch.
    pub batch_items: usize,
    /// Bytes of one answer, or of all answers of one batch.
    pub response_bytes: usize,
    /// Calls of one connection that are not answered yet, items of batches counted.
    pub calls_in_flight: usize,
    /// Bytes of those calls' parameters.
    pub bytes_in_flight: usize,
}

/// What all connections of one service share.
#[derive(Clone)]
pub struct ServiceCalls(Arc<Shared>);

/// Wraps jsonrpsee's service of one connection (WebSocket) or one request (HTTP).
#[derive(Clone)]
pub struct RpcLayer {
    shared: Arc<Shared>,
    transport: Transport,
    handle: ConnectionHandle,
}

struct Shared {
    methods: Methods,
    pass_through: Arc<dyn PassThrough>,
    limits: Limits,
    meters: Meters,
}

impl ServiceCalls {
    /// For the service called `service`, which answers `methods` here.
    pub fn new(service: &str, methods: Methods, pass_through: Arc<dyn PassThrough>, limits: Limits, metrics: &Metrics) -> Self {
        let meters = Meters::new(service, &methods, metrics);
        Self(Arc::new(Shared { methods, pass_through, limits, meters }))
    }

    /// For calls that come by this connection.
    pub fn layer(&self, transport: Transport, handle: ConnectionHandle) -> RpcLayer {
        RpcLayer { shared: self.0.clone(), transport, handle }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcMiddleware<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { shared, transport, handle } = self.clone();
        RpcMiddleware(Arc::new(Connection { inner, shared, transport, handle, in_flight: InFlight::default() }))
    }
}

/// See [`RpcLayer`].
pub struct RpcMiddleware<S>(Arc<Connection<S>>);

struct Connection<S> {
    inner: S,
    shared: Arc<Shared>,
    transport: Transport,
    handle: ConnectionHandle,
    in_flight: InFlight,
}

impl<S> RpcServiceT for RpcMiddleware<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Send + Sync + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let connection = self.0.clone();
        async move {
            let response = connection.answer(request, false).await;
            connection.owe(&response);
            response
        }
    }

    fn batch<'a>(&self, requests: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let connection = self.0.clone();
        async move {
            let Limits { batch_items, response_bytes, .. } = connection.shared.limits;
            let response = batch::answer(requests, batch_items, response_bytes, |request| {
                let connection = connection.clone();
                async move { connection.answer(request, true).await }
            })
            .await;
            connection.owe(&response);
            response
        }
    }

    /// A request without an id is not carried out: nobody could be told what became of it.
    fn notification<'a>(&self, _: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        std::future::ready(MethodResponse::notification())
    }
}

impl<S> Connection<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Send + Sync + 'static,
{
    /// A notification has no answer, and that of a subscription is in the queue already, or even written.
    fn owe(&self, response: &MethodResponse) {
        if !response.is_notification() && !response.is_subscription() {
            self.handle.owe(response.as_json().get().len());
        }
    }

    /// Nothing is awaited before the method itself is polled: the order of a batch's turns rests on it.
    async fn answer(&self, request: Request<'_>, in_batch: bool) -> MethodResponse {
        let started = Instant::now();
        let meter = self.shared.meters.of(&request.method);
        let id = request.id.clone().into_owned();
        let bytes = request.params.as_ref().map_or(0, |params| params.get().len());
        let response = match self.in_flight.enter(bytes, &self.shared.limits) {
            Some(_place) => match AssertUnwindSafe(self.dispatch(request, in_batch)).catch_unwind().await {
                Ok(response) => response,
                Err(_) => {
                    tracing::error!(method = meter.method, "a request panicked");
                    MethodResponse::error(id, RpcError::internal())
                }
            },
            None => MethodResponse::error(id, too_many_calls()),
        };
        meter.count(started, response.is_error());
        response
    }

    async fn dispatch(&self, request: Request<'_>, in_batch: bool) -> MethodResponse {
        match self.shared.methods.method(&request.method) {
            Some(MethodCallback::Subscription(_) | MethodCallback::Unsubscription(_)) => {
                if in_batch || self.transport == Transport::Http {
                    MethodResponse::error(request.id, no_notifications())
                } else {
                    self.registered(request).await
                }
            }
            Some(_) => self.registered(request).await,
            None if SUBSCRIPTION_METHODS.contains(&request.method.as_ref()) => MethodResponse::error(request.id, no_notifications()),
            None if self.shared.pass_through.allows(&request.method) => self.pass(request).await,
            None => MethodResponse::error(request.id, not_found(&request.method)),
        }
    }

    /// jsonrpsee's own errors are told with geth's codes and our reasons.
    async fn registered(&self, request: Request<'_>) -> MethodResponse {
        let id = request.id.clone().into_owned();
        let response = self.inner.call(request).await;
        if !response.is_method_call() {
            return response;
        }
        let error = match response.as_error_code() {
            Some(OVERSIZED_RESPONSE_CODE) => batch::response_too_large(),
            Some(TOO_MANY_SUBSCRIPTIONS_CODE) => {
                RpcError::new(LIMIT_EXCEEDED, Reason::LimitExceeded, "too many subscriptions on this connection")
            }
            _ => return response,
        };
        MethodResponse::error(id, error)
    }

    async fn pass(&self, request: Request<'_>) -> MethodResponse {
        let limit = self.shared.limits.response_bytes;
        let outcome = self.shared.pass_through.call(&request.method, request.params.as_deref()).await;
        let response = match outcome {
            // What frames a result is shorter than this, ids apart.
            Ok(result) if result.get().len().saturating_add(64) > limit => None,
            Ok(result) => Some(MethodResponse::response(request.id.clone(), ResponsePayload::success(result), usize::MAX)),
            Err(error) => {
                if let crate::node::CallError::Malformed(what) = &error {
                    tracing::warn!(method = self.shared.meters.of(&request.method).method, what, "the node's answer could not be read");
                }
                Some(MethodResponse::error(request.id.clone(), pass_through::call_error(&error)))
            }
        };
        response
            .filter(|response| response.as_json().get().len() <= limit)
            .unwrap_or_else(|| MethodResponse::error(request.id, batch::response_too_large()))
    }
}

fn not_found(method: &str) -> RpcError {
    // The name is the client's: told back, but not at any length.
    const SHOWN: usize = 128;
    let shown: String = method.chars().take(SHOWN).collect();
    RpcError::new(METHOD_NOT_FOUND, Reason::MethodNotFound, format!("the method {shown} does not exist/is not available"))
}

/// geth's error where it has no connection to notify on.
fn no_notifications() -> RpcError {
    RpcError::new(METHOD_NOT_FOUND, Reason::Unsupported, "notifications not supported")
}

fn too_many_calls() -> RpcError {
    RpcError::new(LIMIT_EXCEEDED, Reason::LimitExceeded, "too many calls in flight on this connection")
        .retry_after(Duration::from_millis(100))
}

/// Counts what is not answered yet.
#[derive(Debug, Default)]
struct InFlight {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

struct Place<'a> {
    counts: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    fn enter(&self, bytes: usize, limits: &Limits) -> Option<Place<'_>> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let others = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { counts: self, bytes };
        // A single call always fits: its size is bounded by that of a request.
        (calls < limits.calls_in_flight && (others == 0 || others.saturating_add(bytes) <= limits.bytes_in_flight)).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.counts.calls.fetch_sub(1, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The resolved metrics of one service's methods.
struct Meters {
    known: HashMap<&'static str, Meter>,
    other: Meter,
}

struct Meter {
    method: &'static str,
    ok: IntCounter,
    error: IntCounter,
    seconds: Histogram,
}

impl Meters {
    fn new(service: &str, methods: &Methods, metrics: &Metrics) -> Self {
        let meter = |method: &'static str| Meter {
            method,
            ok: metrics.requests.with_label_values(&[service, method, "ok"]),
            error: metrics.requests.with_label_values(&[service, method, "error"]),
            seconds: metrics.request_seconds.with_label_values(&[method]),
        };
        let known = methods.method_names().chain(NODE_METHODS).map(|method| (method, meter(method))).collect();
        Self { known, other: meter("other") }
    }

    fn of(&self, method: &str) -> &Meter {
        self.known.get(method).unwrap_or(&self.other)
    }
}

impl Meter {
    fn count(&self, started: Instant, failed: bool) {
        if failed { &self.error } else { &self.ok }.inc();
        self.seconds.observe(started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_bytes_in_flight_are_bounded() {
        let limits = Limits { batch_items: 1, response_bytes: 1, calls_in_flight: 2, bytes_in_flight: 100 };
        let counts = InFlight::default();
        let first = counts.enter(500, &limits);
        assert!(first.is_some(), "one call fits whatever its size");
        assert!(counts.enter(1, &limits).is_none());
        drop(first);
        let second = counts.enter(60, &limits).unwrap();
        assert!(counts.enter(41, &limits).is_none());
        let third = counts.enter(40, &limits).unwrap();
        assert!(counts.enter(0, &limits).is_none(), "two calls are in flight");
        drop((second, third));
        assert_eq!((counts.calls.into_inner(), counts.bytes.into_inner()), (0, 0));
    }
}
