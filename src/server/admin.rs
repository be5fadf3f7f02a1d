//! The listener for operators: /metrics, /status, /livez, /readyz and /readyz/NAME.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Socket;
use super::accept::{Door, Handler};
use super::generation::{Generation, Live};
use super::reply::{self, JSON, Reply, refusal, reply};
use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::metrics::Metrics;

const CONNECTIONS: u32 = 64;
const DRAIN: Duration = Duration::from_secs(2);
/// How long an answer may take before the answer is 503: a probe must learn of a process that hangs.
const PATIENCE: Duration = Duration::from_secs(5);
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Whether requests can be served; the body of /readyz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// 200 if so, else 503.
    pub ready: bool,
    /// What is missing, for people. Anybody may read it: no secrets, no addresses.
    pub reasons: Vec<String>,
}

/// What the listener shows of the gateway, looked up anew for each request.
pub trait Overview: Send + Sync + 'static {
    /// /status, of what is in force.
    fn status<'a>(&'a self, now: &'a Generation) -> BoxFuture<'a, serde_json::Value>;

    /// /readyz.
    fn readiness(&self) -> BoxFuture<'_, Readiness>;

    /// /readyz/NAME; `None` if no service has this name.
    fn service_readiness<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Readiness>>;
}

/// What the admin listener shows.
#[derive(Clone)]
pub struct AdminContext {
    /// /metrics.
    pub metrics: Arc<Metrics>,
    /// The rest.
    pub overview: Arc<dyn Overview>,
}

/// The admin listener.
pub struct AdminListener {
    door: Door,
    handler: AdminHandler,
}

impl AdminListener {
    /// Shows on this socket what is in force, once it runs.
    pub fn new(socket: Socket, live: Live) -> Self {
        Self { door: socket.0, handler: AdminHandler(live) }
    }

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
struct AdminHandler(Live);

impl Handler for AdminHandler {
    fn tls(&self) -> Option<TlsAcceptor> {
        self.0.load().operators.tls.clone()
    }

    fn max_connections(&self) -> u32 {
        CONNECTIONS
    }

    fn drain(&self) -> Duration {
        DRAIN
    }

    async fn handle(&self, request: Request<Incoming>, _: ConnectionHandle) -> Reply {
        let now = self.0.load_full();
        let (gate, context) = (&now.operators.gate, &now.context);
        if !gate.origin_allowed(request.headers()) {
            return reply::foreign_origin();
        }
        let path = request.uri().path();
        let service = path.strip_prefix("/readyz/");
        if service.is_none() && !matches!(path, "/metrics" | "/status" | "/livez" | "/readyz") {
            return reply::not_found();
        }
        if request.method() != Method::GET {
            return reply::not_allowed("GET");
        }
        if matches!(path, "/metrics" | "/status") && !gate.authorised(request.headers()) {
            return reply::unauthorised();
        }
        if let Some(name) = service {
            return match ask(context.overview.service_readiness(name)).await {
                Some(None) => reply::not_found(),
                Some(known) => readyz(known),
                None => readyz(None),
            };
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
            "/status" => match ask(context.overview.status(&now)).await {
                Some(status) => reply(StatusCode::OK, JSON, status.to_string()),
                None => refusal(StatusCode::SERVICE_UNAVAILABLE, "no answer in time"),
            },
            _ => readyz(ask(context.overview.readiness()).await),
        }
    }
}

async fn ask<T>(answer: BoxFuture<'_, T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, answer).await.ok()
}

fn readyz(readiness: Option<Readiness>) -> Reply {
    let readiness = readiness.unwrap_or_else(|| Readiness { ready: false, reasons: vec!["no answer in time".into()] });
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&readiness) {
        Ok(body) => reply(status, JSON, body),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}
