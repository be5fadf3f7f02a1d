//! One HTTP request of the JSON-RPC listener: who asks, for which service, by POST or as a WebSocket; then jsonrpsee's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{HttpBody, ServerHandle, StopHandle, http as rpc_http, ws};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::accept::Handler;
use super::envelope;
use super::generation::{Generation, Live, Route, ServiceEntry};
use super::io::Rules;
use super::reply::{self, JSON, Reply, refusal};
use crate::policy::Principal;
use crate::rpc::idempotency::KeyHeader;
use crate::subscriptions::connection::{ConnectionHandle, Transport};

/// Under which key the call of a request is paid once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// From a request's headers to the end of its body.
const BODY: Duration = Duration::from_secs(60);

/// Serves every service of the listener.
#[derive(Clone)]
pub(super) struct RpcHandler(pub(super) Arc<Served>);

pub(super) struct Served {
    pub(super) live: Live,
    pub(super) principal: Arc<Principal>,
    pub(super) stopped: StopHandle,
    pub(super) stopping: ServerHandle,
}

impl Handler for RpcHandler {
    async fn handle(&self, request: Request<Incoming>, connection: ConnectionHandle) -> Reply {
        let now = self.0.live.load_full();
        match admit(&now, &request) {
            Ok((service, Transport::WebSocket)) => self.0.upgrade(service, request, connection).await,
            Ok((service, Transport::Http)) => self.0.post(service, request, connection, now.max_request_bytes).await,
            Err(refused) => *refused,
        }
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        self.0.live.load().clients.tls.clone()
    }

    fn max_connections(&self) -> u32 {
        self.0.live.load().max_connections
    }

    fn rules(&self) -> Rules {
        self.0.live.load().rules
    }

    fn drain(&self) -> Duration {
        self.0.live.load().drain
    }

    fn stop(&self) {
        // It fails only if nobody is left to be told.
        let _ = self.0.stopping.stop();
    }
}

/// Origin and token come first, so that nobody else learns which paths there are.
fn admit<'g, B>(now: &'g Generation, request: &Request<B>) -> Result<(&'g Arc<ServiceEntry>, Transport), Box<Reply>> {
    if !now.clients.gate.origin_allowed(request.headers()) {
        return Err(Box::new(reply::foreign_origin()));
    }
    if !now.clients.gate.authorised(request.headers()) {
        return Err(Box::new(reply::unauthorised()));
    }
    let Some(service) = now.service(request.uri().path()) else { return Err(Box::new(reply::no_service(&now.paths()))) };
    match (request.method(), ws::is_upgrade_request(request)) {
        (&Method::POST, false) => Ok((service, Transport::Http)),
        (&Method::GET, true) => Ok((service, Transport::WebSocket)),
        _ => Err(Box::new(reply::not_allowed("POST, GET"))),
    }
}

impl Served {
    async fn upgrade(&self, service: &Arc<ServiceEntry>, request: Request<Incoming>, connection: ConnectionHandle) -> Reply {
        let Some(open) = service.connections.enter(service.max_connections) else {
            service.refused.inc();
            return reply::service_full();
        };
        let route = Route::new(self.live.clone(), service.clone(), Some(open));
        let handle = connection.clone();
        let reply = self.call(service, route, request.map(HttpBody::new), Transport::WebSocket, connection).await;
        if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
            handle.upgraded();
            reply
        } else {
            refusal(StatusCode::BAD_REQUEST, "no WebSocket handshake of version 13")
        }
    }

    async fn post(
        &self,
        service: &Arc<ServiceEntry>,
        request: Request<Incoming>,
        connection: ConnectionHandle,
        max_request_bytes: u32,
    ) -> Reply {
        if !rpc_http::is_json(request.headers().get(CONTENT_TYPE)) {
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json");
        }
        let (mut parts, body) = request.into_parts();
        if let Some(key) = KeyHeader::read(parts.headers.get_all(IDEMPOTENCY_KEY).iter().map(HeaderValue::as_bytes)) {
            parts.extensions.insert(key);
        }
        let body = match read(body, max_request_bytes).await {
            Ok(body) => body,
            Err(refused) => return *refused,
        };
        if let Some(answer) = envelope::refuse(&body) {
            return reply::reply(StatusCode::OK, JSON, answer);
        }
        let request = Request::from_parts(parts, HttpBody::new(Full::new(body)));
        self.call(service, Route::new(self.live.clone(), service.clone(), None), request, Transport::Http, connection).await
    }

    async fn call(
        &self,
        service: &ServiceEntry,
        route: Route,
        mut request: Request<HttpBody>,
        transport: Transport,
        connection: ConnectionHandle,
    ) -> Reply {
        // jsonrpsee writes whole requests into its trace log: what is secret must not reach it.
        for secret in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
            request.headers_mut().remove(secret);
        }
        *request.uri_mut() = Uri::default();
        let extensions = request.extensions_mut();
        extensions.insert(self.principal.clone());
        extensions.insert(connection.clone());
        let layer = RpcServiceBuilder::new().layer(service.calls.layer(Arc::new(route), transport, connection));
        let builder = service.builder.clone().set_rpc_middleware(layer);
        match builder.build(service.methods.clone(), self.stopped.clone()).call(request).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(%error, "jsonrpsee could not answer");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
            }
        }
    }
}

async fn read(body: Incoming, max_request_bytes: u32) -> Result<Bytes, Box<Reply>> {
    let too_large = || Box::new(rpc_http::response::too_large(max_request_bytes));
    if body.size_hint().lower() > u64::from(max_request_bytes) {
        return Err(too_large());
    }
    let limit = usize::try_from(max_request_bytes).unwrap_or(usize::MAX);
    match timeout(BODY, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Box::new(refusal(StatusCode::BAD_REQUEST, "the body could not be read"))),
        Err(_) => Err(Box::new(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))),
    }
}
