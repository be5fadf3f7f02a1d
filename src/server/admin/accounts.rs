//! `GET /accounts`, and `POST /accounts/ENVIRONMENT/ADDRESS/ORDER`: what an operator wants of an account.
//!
//! An order changes something, so no browser may be made to give one: a request with an `Origin` is refused before it gets here, and
//! the content type has to be `application/json`, which no form can send.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use jsonrpsee::server::http as rpc_http;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Overview;
use crate::server::gate::Gate;
use crate::server::reply::{self, JSON, Reply, reply};

/// Largest body of an order, in bytes.
const BODY: usize = 4096;
/// From a request's headers to the end of its body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take: longer than any order itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(75);
/// Longest reason, in characters.
pub const MAX_REASON: usize = 500;

/// What is wanted of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Take nothing new.
    Pause {
        /// Why; clients whose requests are refused are told.
        reason: String,
    },
    /// Go on, whoever stopped it.
    Resume,
    /// Be opened again from the journal and the chain.
    Resync,
}

/// An order and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the environment, or its chain id.
    pub environment: String,
    /// The account's address.
    pub address: Address,
    /// What is wanted.
    pub order: Order,
}

/// Why an order was not carried out, or the accounts cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such environment or account.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done now, or it is not known whether it was.
    #[error("{0}")]
    Unavailable(String),
}

impl OrderError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A path below /accounts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path {
    All,
    Order { environment: String, address: String, order: String },
}

impl Path {
    /// `None` for every other path.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("/accounts")?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(""), None, ..) => Some(Self::All),
            (Some(""), Some(environment), Some(address), Some(order @ ("pause" | "resume" | "resync")), None) => {
                Some(Self::Order { environment: environment.to_owned(), address: address.to_owned(), order: order.to_owned() })
            }
            _ => None,
        }
    }
}

/// The body of a pause.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    reason: String,
}

/// The body of the other orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

pub(super) async fn answer(path: Path, request: Request<Incoming>, gate: &Gate, overview: &Arc<dyn Overview>) -> Reply {
    let method = if path == Path::All { Method::GET } else { Method::POST };
    if request.method() != method {
        return reply::not_allowed(if path == Path::All { "GET" } else { "POST" });
    }
    if !gate.authorised(request.headers()) {
        return reply::unauthorised();
    }
    let answer = match path {
        Path::All => overview.accounts(),
        Path::Order { environment, address, order } => match wanted(environment, &address, &order, request).await {
            Ok(wanted) => overview.order(wanted),
            Err((status, why)) => return refusal(status, &why),
        },
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(value)) => reply(StatusCode::OK, JSON, value.to_string()),
        Ok(Err(error)) => refusal(error.status(), &error.to_string()),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "no answer in time"),
    }
}

async fn wanted(environment: String, address: &str, order: &str, request: Request<Incoming>) -> Result<Wanted, (StatusCode, String)> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    is_json(&request)?;
    let address = address.parse::<Address>().map_err(|_| bad(format!("{address:?} is no address")))?;
    let body = read(request).await?;
    let order = match order {
        "pause" => Order::Pause { reason: reason(&body).map_err(bad)? },
        other => {
            is_empty(other, &body)?;
            if other == "resume" { Order::Resume } else { Order::Resync }
        }
    };
    Ok(Wanted { environment, address, order })
}

/// An order without parameters.
pub(super) async fn without_parameters(order: &str, request: Request<Incoming>) -> Result<(), (StatusCode, String)> {
    is_json(&request)?;
    is_empty(order, &read(request).await?)
}

fn is_json(request: &Request<Incoming>) -> Result<(), (StatusCode, String)> {
    if rpc_http::is_json(request.headers().get(CONTENT_TYPE)) {
        return Ok(());
    }
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json".to_owned()))
}

async fn read(request: Request<Incoming>) -> Result<Bytes, (StatusCode, String)> {
    let body = tokio::time::timeout(BODY_TIME, Limited::new(request.into_body(), BODY).collect()).await;
    let body = body.map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()))?;
    let unreadable = |_| (StatusCode::BAD_REQUEST, format!("the body could not be read, or is larger than {BODY} bytes"));
    Ok(body.map_err(unreadable)?.to_bytes())
}

fn is_empty(order: &str, body: &[u8]) -> Result<(), (StatusCode, String)> {
    if body.is_empty() || serde_json::from_slice::<EmptyBody>(body).is_ok() {
        return Ok(());
    }
    Err((StatusCode::BAD_REQUEST, format!("{order} has no parameters: the body must be {{}}")))
}

fn reason(body: &[u8]) -> Result<String, String> {
    let PauseBody { reason } = serde_json::from_slice(body).map_err(|error| format!("the body must be {{\"reason\": TEXT}}: {error}"))?;
    check_reason(&reason)?;
    Ok(reason)
}

/// A reason goes into errors and logs: one line of so many characters at most.
pub fn check_reason(reason: &str) -> Result<(), String> {
    let length = reason.chars().count();
    if reason.trim().is_empty() || length > MAX_REASON || reason.chars().any(char::is_control) {
        return Err(format!("the reason must be one line of 1 to {MAX_REASON} characters"));
    }
    Ok(())
}

pub(super) fn refusal(status: StatusCode, why: &str) -> Reply {
    let body: Value = json!({ "error": why });
    reply(status, JSON, body.to_string())
}
