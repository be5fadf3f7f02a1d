//! `POST /keys/refresh`: the keys of every service are found again. The rules are those of an order to an account.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::Overview;
use super::accounts::{PATIENCE, refusal, without_parameters};
use crate::server::gate::Gate;
use crate::server::reply::{self, JSON, Reply, reply};

/// The path.
pub(super) const REFRESH: &str = "/keys/refresh";

/// An answer that does not come in time ends the refresh, and nothing more of it changes.
pub(super) async fn refresh(request: Request<Incoming>, gate: &Gate, overview: &Arc<dyn Overview>) -> Reply {
    if request.method() != Method::POST {
        return reply::not_allowed("POST");
    }
    if !gate.authorised(request.headers()) {
        return reply::unauthorised();
    }
    if let Err((status, why)) = without_parameters("refresh", request).await {
        return refusal(status, &why);
    }
    match tokio::time::timeout(PATIENCE, overview.refresh_keys()).await {
        Ok(told) => reply(StatusCode::OK, JSON, told.to_string()),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the key stores did not answer in time"),
    }
}
