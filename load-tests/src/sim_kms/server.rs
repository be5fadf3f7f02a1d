//! The way to a simulated KMS: HTTP/1.1 over TCP. All clocks are tokio's.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::core::{Kms, Reply, ReplyBody, Settings};
use super::errors::KmsError;
use crate::listener::Listener;
use crate::lock;

/// Largest request, in bytes.
const MAX_BODY: usize = 1 << 20;
/// What the targets of KMS begin with.
const KMS: &str = "TrentService.";
/// What the targets of the simulator's own operations begin with.
const SIMULATOR: &str = "Simulator.";

/// A simulated KMS that can be reached. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimKms {
    kms: Arc<Mutex<Kms>>,
    /// The zero of its clock.
    start: Instant,
}

impl SimKms {
    /// A KMS whose clock begins now. Must be called in a tokio runtime.
    pub fn new(settings: Settings) -> Self {
        Self { kms: Arc::new(Mutex::new(Kms::new(settings))), start: Instant::now() }
    }

    /// Time on its clock.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Looks at it or steers it, at the given time.
    pub fn with<T>(&self, act: impl FnOnce(&mut Kms, Duration) -> T) -> T {
        act(&mut lock(&self.kms), self.start.elapsed())
    }

    /// One call to its end, without HTTP: the delay passes, and then there is the answer; `None` where the connection is cut.
    pub async fn call(&self, operation: &str, body: &Value) -> Option<Result<Value, KmsError>> {
        let Reply { after, body } = self.with(|kms, now| kms.call(now, operation, body));
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        match body {
            ReplyBody::Ok(answer) => Some(Ok(answer)),
            ReplyBody::Error(error) => Some(Err(error)),
            ReplyBody::Cut => None,
        }
    }

    /// Serves one connection to its end.
    pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(&self, stream: S) {
        let service = service_fn(|request| self.answer(request));
        // An error here is a cut connection, ours or the caller's.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    /// Listens; port 0 is a free one.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let kms = self.clone();
        let enter = move |stream| {
            let kms = kms.clone();
            Some(async move { kms.serve_connection(stream).await })
        };
        Listener::start("http", address, enter).await
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, CutConnection> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| CutConnection)?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let answer = match (target.strip_prefix(KMS), target.strip_prefix(SIMULATOR)) {
            (Some(operation), _) => self.call(operation, &body).await.ok_or(CutConnection)?,
            (None, Some(operation)) => self.control(operation, &body),
            (None, None) => Err(KmsError::new("UnknownOperationException", "no X-Amz-Target of KMS")),
        };
        response(answer)
    }

    /// The simulator's own operations, by which another process steers it.
    fn control(&self, operation: &str, body: &Value) -> Result<Value, KmsError> {
        self.with(|kms, _| match operation {
            "SetFaults" => read(body).map(|faults| kms.set_faults(faults)).map(|()| json!({})),
            "SetDelays" => read(body).map(|delays| kms.set_delays(delays)).map(|()| json!({})),
            "SetKeyState" => {
                let name: String = read(&body["KeyId"])?;
                kms.set_key_state(&name, read(&body["KeyState"])?).map(|()| json!({}))
            }
            "Signed" => Ok(json!({ "Signed": kms.signed() })),
            "Calls" => Ok(json!(kms.calls())),
            other => Err(KmsError::new("UnknownOperationException", format!("the simulator has no {other}"))),
        })
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, KmsError> {
    serde_json::from_value(value.clone()).map_err(|error| KmsError::validation(error.to_string()))
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct CutConnection;

fn response(answer: Result<Value, KmsError>) -> Result<Response<Full<Bytes>>, CutConnection> {
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(error) => (error.status, json!({ "__type": error.code, "message": error.message })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| CutConnection)?;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    Ok(response)
}
