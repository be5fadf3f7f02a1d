//! One HTTP request at a time, plain or not kept: for tests and set-up.

use std::time::Duration;

use ::http::{Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

/// Largest answer read, in bytes.
const MAX_BODY: usize = 64 << 20;
/// How long one request may take: a bound against hanging, not an expectation.
const DEADLINE: Duration = Duration::from_secs(120);

/// The status and the body of an answer; the error is for people.
pub async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<(u16, Bytes), String> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))
}

/// GET.
pub async fn get(url: &str) -> Result<(u16, Bytes), String> {
    send(Method::GET, url, &[], Bytes::new()).await
}

/// POST of JSON.
pub async fn post_json(url: &str, json: &serde_json::Value) -> Result<(u16, Bytes), String> {
    send(Method::POST, url, &[("content-type", "application/json")], json.to_string()).await
}
