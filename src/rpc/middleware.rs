//! What happens around every call, alone or in a batch: bounds, pass-through, panics, metrics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jsonrpsee::core::middleware::{Batch, Notification, Request, RpcServiceT};
use jsonrpsee::server::ConnectionId;
use jsonrpsee::types::error::{OVERSIZED_RESPONSE_CODE, TOO_MANY_SUBSCRIPTIONS_CODE};
use jsonrpsee::types::{Id, Params, SubscriptionId};
use jsonrpsee::{MethodCallback, MethodResponse, Methods, ResponsePayload};
use serde_json::value::RawValue;
use tower::Layer;

use super::batch;
use super::errors::{LIMIT_EXCEEDED, METHOD_NOT_FOUND, RESOURCE_UNAVAILABLE, Reason, RpcError};
use super::idempotency;
use super::limits::InFlight;
pub use super::limits::Limits;
use super::meters::Meters;
use super::pass_through::{self, PassThrough};
use super::rate::CallRate;
use crate::subscriptions::connection::{ConnectionHandle, Transport};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::waited::Waited;

/// Subscriptions are answered here or not at all: a node's notifications could not be told apart.
const SUBSCRIPTION_METHODS: [&str; 2] = ["eth_subscribe", "eth_unsubscribe"];

/// What all connections of one service share, as one reading of the configuration has it.
#[derive(Clone)]
pub struct ServiceCalls(Arc<Shared>);

/// The service of a connection as it is now: a reload may have changed or removed it since the connection was made.
pub trait Current: Send + Sync + 'static {
    /// By what the next call is answered; `None` once the service is no longer served.
    fn calls(&self) -> Option<ServiceCalls>;
}

/// Wraps jsonrpsee's service of one connection (WebSocket) or one request (HTTP).
#[derive(Clone)]
pub struct RpcLayer {
    /// What was served when it was made: whatever is gone since is measured and unsubscribed by it.
    first: Arc<Shared>,
    current: Arc<dyn Current>,
    transport: Transport,
    handle: ConnectionHandle,
}

struct Shared {
    methods: Methods,
    pass_through: Arc<dyn PassThrough>,
    limits: Limits,
    rate: Option<Arc<CallRate>>,
    meters: Meters,
}

impl ServiceCalls {
    /// For the service called `service`, which answers `methods` here.
    pub fn new(
        service: &str,
        methods: Methods,
        pass_through: Arc<dyn PassThrough>,
        limits: Limits,
        rate: Option<Arc<CallRate>>,
        metrics: &Metrics,
    ) -> Self {
        let meters = Meters::new(service, &methods, metrics);
        Self(Arc::new(Shared { methods, pass_through, limits, rate, meters }))
    }

    /// The rate that its calls are counted against.
    pub fn rate(&self) -> Option<&Arc<CallRate>> {
        self.0.rate.as_ref()
    }

    /// For calls that come by this connection; `current` finds the service for each of them.
    pub fn layer(&self, current: Arc<dyn Current>, transport: Transport, handle: ConnectionHandle) -> RpcLayer {
        RpcLayer { first: self.0.clone(), current, transport, handle }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcMiddleware<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { first, current, transport, handle } = self.clone();
        RpcMiddleware(Arc::new(Connection { inner, first, current, transport, handle, in_flight: InFlight::default() }))
    }
}

/// See [`RpcLayer`].
pub struct RpcMiddleware<S>(Arc<Connection<S>>);

struct Connection<S> {
    inner: S,
    first: Arc<Shared>,
    current: Arc<dyn Current>,
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
        connection.handle.known(1);
        async move {
            let response = connection.answer(request, false).await;
            connection.owe(&response);
            response
        }
    }

    fn batch<'a>(&self, requests: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let connection = self.0.clone();
        connection.handle.known(1);
        async move {
            let Limits { batch_items, response_bytes, .. } = connection.now().limits;
            let response = batch::answer(requests, batch_items, response_bytes, |request| {
                let connection = connection.clone();
                async move { connection.answer(request, true).await }
            })
            .await;
            connection.owe(&response);
            response
        }
    }

    /// A request without an id is not carried out: nobody could be told what became of it. Nor does it count as a call.
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

    /// What the service is now, or was at last.
    fn now(&self) -> Arc<Shared> {
        self.current.calls().map_or_else(|| self.first.clone(), |calls| calls.0)
    }

    /// Nothing is awaited before the method itself is polled: the order of a batch's turns rests on it.
    async fn answer(&self, mut request: Request<'_>, in_batch: bool) -> MethodResponse {
        let waited = Waited::new(Instant::now());
        request.extensions_mut().insert(waited.clone());
        // One reading of the configuration for the whole call.
        let current = self.current.calls();
        let served = current.is_some();
        let shared = current.map_or_else(|| self.first.clone(), |calls| calls.0);
        let meter = shared.meters.of(&request.method);
        let id = request.id.clone().into_owned();
        let bytes = request.params.as_ref().map_or(0, |params| params.get().len());
        let refused = if served { shared.rate.as_ref().and_then(|rate| rate.take().err()).map(too_fast) } else { self.gone(&request) };
        let refused = refused.or_else(|| idempotency::misplaced(&request.extensions, &request.method, in_batch));
        let response = match (refused, self.in_flight.enter(bytes, &shared.limits)) {
            (Some(refused), _) => MethodResponse::error(id, refused),
            (None, None) => MethodResponse::error(id, too_many_calls()),
            (None, Some(_place)) => match AssertUnwindSafe(self.dispatch(&shared, request, in_batch, &waited)).catch_unwind().await {
                Ok(response) => response,
                Err(_) => {
                    tracing::error!(method = meter.method, "a request panicked");
                    MethodResponse::error(id, RpcError::internal())
                }
            },
        };
        shared.meters.count(meter, &waited, &response);
        response
    }

    /// A service that is gone takes no call; its streams go on until the client ends them.
    fn gone(&self, request: &Request<'_>) -> Option<RpcError> {
        let ends_a_stream = matches!(self.first.methods.method(&request.method), Some(MethodCallback::Unsubscription(_)));
        (!ends_a_stream).then(|| RpcError::new(RESOURCE_UNAVAILABLE, Reason::ServiceRemoved, "the service is no longer served"))
    }

    async fn dispatch(&self, shared: &Shared, mut request: Request<'_>, in_batch: bool, waited: &Waited) -> MethodResponse {
        match shared.methods.method(&request.method) {
            Some(MethodCallback::Subscription(_) | MethodCallback::Unsubscription(_)) if in_batch || self.transport == Transport::Http => {
                MethodResponse::error(request.id, no_notifications())
            }
            // Streams belong to the connection, so they are jsonrpsee's own.
            Some(MethodCallback::Subscription(_)) => {
                if let Err(refused) = Arc::clone(&shared.pass_through).admit(request.extensions_mut()) {
                    return MethodResponse::error(request.id, refused);
                }
                Self::told(request.id.clone().into_owned(), self.inner.call(request).await)
            }
            Some(MethodCallback::Unsubscription(_)) if !names_a_subscription(&request) => {
                MethodResponse::response(request.id, ResponsePayload::success(false), shared.limits.response_bytes)
            }
            Some(MethodCallback::Unsubscription(_)) => {
                self.handle.ids_known().await;
                Self::told(request.id.clone().into_owned(), self.inner.call(request).await)
            }
            Some(MethodCallback::Sync(method)) => {
                let id = request.id.clone().into_owned();
                let params = Params::new(request.params.as_deref().map(RawValue::get));
                Self::told(id, method(request.id, params, shared.limits.response_bytes, request.extensions))
            }
            Some(MethodCallback::Async(method)) => {
                let id = request.id.into_owned();
                let params = Params::new(request.params.as_deref().map(RawValue::get)).into_owned();
                let connection = request.extensions.get::<ConnectionId>().copied().unwrap_or(ConnectionId(0));
                let answer = method(id.clone(), params, connection, shared.limits.response_bytes, request.extensions);
                Self::told(id, answer.await)
            }
            None if SUBSCRIPTION_METHODS.contains(&request.method.as_ref()) => MethodResponse::error(request.id, no_notifications()),
            None if shared.pass_through.allows(&request.method) => Self::pass(shared, request, waited).await,
            None => MethodResponse::error(request.id, not_found(&request.method)),
        }
    }

    /// jsonrpsee's own errors are told with geth's codes and our reasons.
    fn told(id: Id<'static>, response: MethodResponse) -> MethodResponse {
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

    /// Between a request's decoding and the node's queue lies no more than a look-up: the wait is counted from there.
    async fn pass(shared: &Shared, request: Request<'_>, waited: &Waited) -> MethodResponse {
        let limit = shared.limits.response_bytes;
        let outcome = shared.pass_through.call(&request.method, request.params.as_deref()).await;
        waited.since(waited.started());
        let response = match outcome {
            // What frames a result is shorter than this, ids apart.
            Ok(result) if result.get().len().saturating_add(64) > limit => None,
            Ok(result) => Some(MethodResponse::response(request.id.clone(), ResponsePayload::success(result), usize::MAX)),
            Err(error) => {
                if let crate::node::CallError::Malformed(what) = &error {
                    tracing::warn!(method = shared.meters.of(&request.method).method, what, "the node's answer could not be read");
                }
                Some(MethodResponse::error(request.id.clone(), pass_through::call_error(&error)))
            }
        };
        response
            .filter(|response| response.as_json().get().len() <= limit)
            .unwrap_or_else(|| MethodResponse::error(request.id, batch::response_too_large()))
    }
}

/// Whether the parameters are one subscription id. jsonrpsee answers `false` to anything else as well, and logs the whole of it.
fn names_a_subscription(request: &Request<'_>) -> bool {
    /// Bytes of parameters that are looked at: an id has 34 characters at most, the rest is for white space.
    const LENGTH: usize = 256;
    let params = request.params.as_deref().map(RawValue::get).filter(|params| params.len() <= LENGTH);
    params.is_some_and(|params| Params::new(Some(params)).one::<SubscriptionId<'_>>().is_ok())
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

fn too_fast(wait: Duration) -> RpcError {
    // A hint of 0 would be none.
    let wait = wait.max(Duration::from_millis(1));
    RpcError::new(LIMIT_EXCEEDED, Reason::RateLimited, "too many requests per second to this service").retry_after(wait)
}
