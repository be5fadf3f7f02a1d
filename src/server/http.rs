//! One HTTP request of the JSON-RPC listener: who asks, for which service, by POST or as a WebSocket; then jsonrpsee's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use jsonrpsee::Methods;
use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{HttpBody, ServerHandle, StopHandle, TowerServiceBuilder, http as rpc_http, ws};
use tokio::time::timeout;
use tower::Service;
use tower::layer::util::Identity;

use super::accept::Handler;
use super::envelope;
use super::gate::Gate;
use super::reply::{self, JSON, Reply, refusal};
use crate::policy::Principal;
use crate::rpc::middleware::ServiceCalls;
use crate::subscriptions::connection::{ConnectionHandle, Transport};

/// From a request's headers to the end of its body.
const BODY: Duration = Duration::from_secs(60);

/// jsonrpsee's side of one service.
pub(super) struct ServiceEntry {
    pub(super) builder: TowerServiceBuilder<Identity, Identity>,
    pub(super) calls: ServiceCalls,
    pub(super) methods: Methods,
}

/// Serves every service of the listener.
#[derive(Clone)]
pub(super) struct RpcHandler(pub(super) Arc<Served>);

pub(super) struct Served {
    pub(super) gate: Gate,
    pub(super) principal: Arc<Principal>,
    /// By path; `/` is there too.
    pub(super) services: HashMap<String, Arc<ServiceEntry>>,
    pub(super) max_request_bytes: u32,
    pub(super) stopped: StopHandle,
    pub(super) stopping: ServerHandle,
}

impl Handler for RpcHandler {
    async fn handle(&self, request: Request<Incoming>, connection: ConnectionHandle) -> Reply {
        match self.0.admit(&request) {
            Ok((service, Transport::WebSocket)) => self.0.upgrade(&service, request, connection).await,
            Ok((service, Transport::Http)) => self.0.post(&service, request, connection).await,
            Err(refused) => *refused,
        }
    }

    fn stop(&self) {
        // It fails only if nobody is left to be told.
        let _ = self.0.stopping.stop();
    }
}

impl Served {
    /// Origin and token come first, so that nobody else learns which paths there are.
    fn admit<B>(&self, request: &Request<B>) -> Result<(Arc<ServiceEntry>, Transport), Box<Reply>> {
        if !self.gate.origin_allowed(request.headers()) {
            return Err(Box::new(reply::foreign_origin()));
        }
        if !self.gate.authorised(request.headers()) {
            return Err(Box::new(reply::unauthorised()));
        }
        let path = request.uri().path();
        let path = path.strip_suffix('/').filter(|path| path.len() > 1).unwrap_or(path);
        let Some(service) = self.services.get(path) else { return Err(Box::new(reply::not_found())) };
        let transport = match (request.method(), ws::is_upgrade_request(request)) {
            (&Method::POST, false) => Transport::Http,
            (&Method::GET, true) => Transport::WebSocket,
            _ => return Err(Box::new(reply::not_allowed("POST, GET"))),
        };
        Ok((service.clone(), transport))
    }

    async fn upgrade(&self, service: &ServiceEntry, request: Request<Incoming>, connection: ConnectionHandle) -> Reply {
        let reply = self.call(service, request.map(HttpBody::new), Transport::WebSocket, connection).await;
        if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
            reply
        } else {
            refusal(StatusCode::BAD_REQUEST, "no WebSocket handshake of version 13")
        }
    }

    async fn post(&self, service: &ServiceEntry, request: Request<Incoming>, connection: ConnectionHandle) -> Reply {
        if !rpc_http::is_json(request.headers().get(CONTENT_TYPE)) {
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json");
        }
        let (parts, body) = request.into_parts();
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return *refused,
        };
        if let Some(answer) = envelope::refuse(&body) {
            return reply::reply(StatusCode::OK, JSON, answer);
        }
        self.call(service, Request::from_parts(parts, HttpBody::new(Full::new(body))), Transport::Http, connection).await
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Box<Reply>> {
        let too_large = || Box::new(rpc_http::response::too_large(self.max_request_bytes));
        if body.size_hint().lower() > u64::from(self.max_request_bytes) {
            return Err(too_large());
        }
        let limit = usize::try_from(self.max_request_bytes).unwrap_or(usize::MAX);
        match timeout(BODY, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Box::new(refusal(StatusCode::BAD_REQUEST, "the body could not be read"))),
            Err(_) => Err(Box::new(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))),
        }
    }

    async fn call(
        &self,
        service: &ServiceEntry,
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
        let layer = RpcServiceBuilder::new().layer(service.calls.layer(transport, connection));
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
