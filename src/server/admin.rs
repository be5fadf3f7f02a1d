//! The listener for operators: /metrics, /status, /livez, /readyz.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::accept::{Door, Handler};
use super::error::ServerError;
use super::gate::Gate;
use super::reply::{self, JSON, Reply, refusal, reply};
use super::tls;
use crate::config;
use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::metrics::Metrics;

const CONNECTIONS: u32 = 64;
const DRAIN: Duration = Duration::from_secs(2);
/// How long a callback may take before the answer is 503: a probe must learn of a process that hangs.
const CALLBACK: Duration = Duration::from_secs(5);
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Asked anew for each request; `T` is the answer.
pub type Callback<T> = Arc<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>;

/// Whether requests can be served; the body of /readyz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// 200 if so, else 503.
    pub ready: bool,
    /// What is missing, for people. Anybody may read it: no secrets, no addresses.
    pub reasons: Vec<String>,
}

/// What the admin listener shows.
#[derive(Clone)]
pub struct AdminContext {
    /// /metrics.
    pub metrics: Arc<Metrics>,
    /// /status.
    pub status: Callback<serde_json::Value>,
    /// /readyz.
    pub readiness: Callback<Readiness>,
}

/// A bound admin listener.
pub struct AdminListener {
    door: Door,
    handler: AdminHandler,
}

/// Reads token and certificate and opens the socket; nothing is served before [`AdminListener::run`].
pub async fn bind(config: &config::Admin, context: AdminContext) -> Result<AdminListener, ServerError> {
    let gate = Gate::open(config.token_file.as_deref(), Vec::new()).await?;
    let tls = match &config.tls {
        Some(files) => Some(tls::acceptor(files).await?),
        None => None,
    };
    let door = Door::open(config.listen, tls, CONNECTIONS, None, DRAIN)?;
    Ok(AdminListener { door, handler: AdminHandler(Arc::new(Admin { gate, context })) })
}

impl AdminListener {
    /// The address it listens on, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Serves until `stop`, then at most four seconds more for what is in flight.
    pub async fn run(self, stop: CancellationToken) {
        self.door.run(self.handler, stop).await;
    }
}

#[derive(Clone)]
struct AdminHandler(Arc<Admin>);

struct Admin {
    gate: Gate,
    context: AdminContext,
}

impl Handler for AdminHandler {
    async fn handle(&self, request: Request<Incoming>, _: ConnectionHandle) -> Reply {
        let Admin { gate, context } = self.0.as_ref();
        if !gate.origin_allowed(request.headers()) {
            return reply::foreign_origin();
        }
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/status" | "/livez" | "/readyz") {
            return reply::not_found();
        }
        if request.method() != Method::GET {
            return reply::not_allowed("GET");
        }
        if matches!(path, "/metrics" | "/status") && !gate.authorised(request.headers()) {
            return reply::unauthorised();
        }
        match path {
            "/livez" => reply(StatusCode::OK, TEXT, "ok"),
            "/metrics" => match context.metrics.render() {
                Ok(text) => reply(StatusCode::OK, METRICS, text),
                Err(error) => {
                    tracing::error!(%error, "the metrics cannot be written");
                    refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
                }
            },
            "/status" => match ask(&context.status).await {
                Some(status) => reply(StatusCode::OK, JSON, status.to_string()),
                None => refusal(StatusCode::SERVICE_UNAVAILABLE, "no answer in time"),
            },
            _ => readyz(ask(&context.readiness).await),
        }
    }
}

async fn ask<T>(callback: &Callback<T>) -> Option<T> {
    tokio::time::timeout(CALLBACK, callback()).await.ok()
}

fn readyz(readiness: Option<Readiness>) -> Reply {
    let readiness = readiness.unwrap_or_else(|| Readiness { ready: false, reasons: vec!["no answer in time".into()] });
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&readiness) {
        Ok(body) => reply(status, JSON, body),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}
