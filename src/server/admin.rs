//! The listener for operators: /metrics, /status, /livez, /readyz and /readyz/NAME; the accounts, to look at and to stop; and the
//! keys, to be found again.

pub mod accounts;
mod keys;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::accounts::{OrderError, Path};
use super::Socket;
use super::accept::{Door, Handler};
use super::generation::{Generation, Live};
use super::reply::{self, JSON, Reply, refusal, reply};
use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::metrics::Metrics;

pub(super) const CONNECTIONS: u32 = 256;
/// From the connection to the end of a request's headers. Probes and scrapers ask at once.
const HEADERS: Duration = Duration::from_secs(5);
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

    /// /accounts.
    fn accounts(&self) -> BoxFuture<'_, Result<serde_json::Value, OrderError>>;

    /// Finds the keys of every service again; what came of it, service by service.
    fn refresh_keys(&self) -> BoxFuture<'_, serde_json::Value>;

    /// Carries out what an operator wants of an account.
    fn order(&self, wanted: accounts::Wanted) -> BoxFuture<'_, Result<serde_json::Value, OrderError>>;
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
        Self { door: socket.0, handler: AdminHandler { live, scrape: Arc::new(Semaphore::new(1)) } }
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
struct AdminHandler {
    live: Live,
    /// One page of metrics at a time.
    scrape: Arc<Semaphore>,
}

impl Handler for AdminHandler {
    fn tls(&self) -> Option<TlsAcceptor> {
        self.live.load().operators.tls.clone()
    }

    fn max_connections(&self) -> u32 {
        CONNECTIONS
    }

    fn patience(&self) -> Duration {
        HEADERS
    }

    /// Who says nothing needs no token: a probe must get through all the same.
    fn makes_room(&self) -> bool {
        true
    }

    fn drain(&self) -> Duration {
        DRAIN
    }

    async fn handle(&self, request: Request<Incoming>, _: ConnectionHandle) -> Reply {
        let now = self.live.load_full();
        let (gate, context) = (&now.operators.gate, &now.context);
        if !gate.origin_allowed(request.headers()) {
            return reply::foreign_origin();
        }
        let path = request.uri().path();
        if let Some(place) = Path::parse(path) {
            return accounts::answer(place, request, gate, &context.overview).await;
        }
        if path == keys::REFRESH {
            return keys::refresh(request, gate, &context.overview).await;
        }
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
            "/metrics" => self.metrics(&context.metrics).await,
            "/status" => match ask(context.overview.status(&now)).await {
                Some(status) => reply(StatusCode::OK, JSON, status.to_string()),
                None => refusal(StatusCode::SERVICE_UNAVAILABLE, "no answer in time"),
            },
            _ => readyz(ask(context.overview.readiness()).await),
        }
    }
}

impl AdminHandler {
    /// Written on a thread that may take its time, one page after the other: scrapers delay no request, however many they are.
    async fn metrics(&self, metrics: &Arc<Metrics>) -> Reply {
        let Ok(Ok(turn)) = tokio::time::timeout(PATIENCE, Arc::clone(&self.scrape).acquire_owned()).await else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "no answer in time");
        };
        let metrics = Arc::clone(metrics);
        let page = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            metrics.render().map_err(|error| error.to_string())
        });
        match page.await.map_err(|error| error.to_string()).flatten() {
            Ok(page) => reply(StatusCode::OK, METRICS, page),
            Err(error) => {
                tracing::error!(error, "the metrics cannot be written");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
            }
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
