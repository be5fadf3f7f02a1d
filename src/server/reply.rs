//! Small responses that the gateway gives before JSON-RPC begins, or instead of it.

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use jsonrpsee::server::HttpBody;

pub(super) type Reply = Response<HttpBody>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<HttpBody>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// `{"error": …}`; `text` must need no escapes.
pub(super) fn refusal(status: StatusCode, text: &'static str) -> Reply {
    reply(status, JSON, format!("{{\"error\":\"{text}\"}}"))
}

pub(super) fn with(mut reply: Reply, name: HeaderName, value: &'static str) -> Reply {
    reply.headers_mut().insert(name, HeaderValue::from_static(value));
    reply
}

pub(super) fn unauthorised() -> Reply {
    with(refusal(StatusCode::UNAUTHORIZED, "a bearer token is needed"), http::header::WWW_AUTHENTICATE, "Bearer realm=\"sluice\"")
}

pub(super) fn foreign_origin() -> Reply {
    refusal(StatusCode::FORBIDDEN, "this origin is not allowed")
}

/// No service has this path; says which paths there are. `/` is none where nobody said which of several it is.
pub(super) fn no_service(paths: &[String]) -> Reply {
    let body = serde_json::json!({ "error": "no service is served at this path", "paths": paths });
    reply(StatusCode::NOT_FOUND, JSON, body.to_string())
}

/// As many connections to the service are open as may.
pub(super) fn service_full() -> Reply {
    with(refusal(StatusCode::SERVICE_UNAVAILABLE, "too many connections to this service"), http::header::RETRY_AFTER, "1")
}

pub(super) fn not_found() -> Reply {
    refusal(StatusCode::NOT_FOUND, "nothing is served at this path")
}

pub(super) fn not_allowed(methods: &'static str) -> Reply {
    with(refusal(StatusCode::METHOD_NOT_ALLOWED, "this method is not served here"), http::header::ALLOW, methods)
}
