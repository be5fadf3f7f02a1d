//! The way to a simulated KMS: HTTP/1.1 over TCP. All clocks are tokio's.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::core::{Delivery, Kms, Reply, ReplyBody};
use super::delivery::{AnswerBody, CutConnection, response};
use super::errors::KmsError;
use super::settings::{Place, Settings};
use super::sigv4;
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
        let machine = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let settings = Settings { epoch: settings.epoch.or_else(|| Some(machine())), ..settings };
        // Making many keys takes time: the clock begins with the epoch that was just read, not after them.
        let start = Instant::now();
        Self { kms: Arc::new(Mutex::new(Kms::new(settings))), start }
    }

    /// Time on its clock.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Looks at it or steers it, at the given time.
    pub fn with<T>(&self, act: impl FnOnce(&mut Kms, Duration) -> T) -> T {
        act(&mut lock(&self.kms), self.start.elapsed())
    }

    /// One call of the first place to its end, without HTTP: the delay passes, and then there is the answer; `None` where the
    /// connection is cut.
    pub async fn call(&self, operation: &str, body: &Value) -> Option<Result<Value, KmsError>> {
        let Reply { after, body, delivery } = self.with(|kms, now| kms.call(now, operation, body));
        let after = if let Delivery::Slow(time) = delivery { after + time } else { after };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        match body {
            ReplyBody::Ok(_) if delivery == Delivery::Torn => None,
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

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, CutConnection> {
        let (parts, body) = request.into_parts();
        let bytes = Limited::new(body, MAX_BODY).collect().await.map_err(|_| CutConnection)?.to_bytes();
        let body = || match bytes.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_slice(&bytes).map_err(|error| KmsError::new("SerializationException", error.to_string())),
        };
        let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some(operation) = target.strip_prefix(SIMULATOR) {
            return response(body().and_then(|body| self.with(|kms, now| kms.steer(now, operation, &body))), Delivery::Whole);
        }
        let Some(operation) = target.strip_prefix(KMS) else {
            return response(Err(KmsError::new("UnknownOperationException", "no X-Amz-Target of KMS")), Delivery::Whole);
        };
        let reply = self.with(|kms, now| {
            let from = kms.caller(&parts, &bytes, now)?;
            Ok(kms.call_from(&from, now, operation, &body()?))
        });
        let Reply { after, body, delivery } = match reply {
            Ok(reply) => reply,
            Err(refusal) => return response(Err(refusal), Delivery::Whole),
        };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        match body {
            ReplyBody::Ok(answer) => response(Ok(answer), delivery),
            ReplyBody::Error(error) => response(Err(error), delivery),
            ReplyBody::Cut => Err(CutConnection),
        }
    }
}

impl Kms {
    /// The account and the Region that a request speaks for. Where no credentials are known, that is the first account, in the Region
    /// of the credential scope if there is one.
    fn caller(&self, parts: &Parts, body: &[u8], now: Duration) -> Result<Place, KmsError> {
        if self.settings.access_keys.is_empty() {
            let region = sigv4::region(&parts.headers).unwrap_or(&self.home.region);
            return Ok(Place::new(&self.home.account, region));
        }
        sigv4::authenticate(&self.settings.access_keys, parts, body, self.settings.epoch() + now)
    }
}
