//! An HTTP/1.1 reverse proxy before a KMS endpoint: counts calls, Signs in flight per key and digests, holds each Sign back,
//! and answers scripted faults instead. What it does not break it passes on as it came.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::listener::Listener;
use crate::lock;

/// Largest request or answer passed on, in bytes; those of KMS are a few kilobytes.
const MAX_BODY: usize = 1 << 20;
/// Signs that are with the endpoint at the same time; more wait here. A slow endpoint then works on what somebody still waits for:
/// a Sign whose caller gave it up meanwhile is not passed on.
const PASSED_ON: usize = 16;

/// What the proxy has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsStats {
    /// Calls by operation (`Sign`, `GetPublicKey`, …), faults included.
    pub calls: BTreeMap<String, u64>,
    /// Per `KeyId` of Sign, as the caller named it.
    pub keys: BTreeMap<String, KeyStats>,
    /// Distinct `Message` values of Sign, base64 as they came.
    pub digests: BTreeSet<String>,
    /// Distinct `KeyId`s of GetPublicKey, with their counts.
    pub public_keys: BTreeMap<String, u64>,
    /// Faults answered.
    pub faults: u64,
    /// Calls by the access key that has signed them.
    pub access_keys: BTreeMap<String, u64>,
}

impl KmsStats {
    /// Calls of one operation.
    pub fn calls_of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }

    /// The largest number of Signs that any one key had in flight.
    pub fn max_in_flight(&self) -> u64 {
        self.keys.values().map(|key| key.max_in_flight).max().unwrap_or(0)
    }
}

/// The Signs of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyStats {
    /// All of them.
    pub signs: u64,
    /// Arrived and not answered.
    pub in_flight: u64,
    /// The largest `in_flight` so far.
    pub max_in_flight: u64,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KmsAnswer {
    /// This status with `{"__type": code, "message": message}`; nothing is passed on.
    Error {
        /// HTTP status.
        status: u16,
        /// KMS error code, such as `ThrottlingException`.
        code: String,
        /// Words beside it.
        message: String,
    },
    /// The connection is cut without an answer; nothing is passed on.
    Cut,
    /// A Sign is passed on with another digest: the answer is a valid signature of the key, over something else.
    OtherDigest,
}

impl KmsAnswer {
    /// What AWS answers when the quota is used up.
    pub fn throttled() -> Self {
        Self::Error { status: 400, code: "ThrottlingException".into(), message: "Rate exceeded".into() }
    }
}

/// One line of the script: the next `count` calls of `operation` get `answer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsFault {
    /// The operation; `None` for any.
    pub operation: Option<String>,
    /// How many calls; `u64::MAX` for all to come.
    pub count: u64,
    /// What they get.
    pub answer: KmsAnswer,
}

impl KmsFault {
    /// The next `count` Signs get `answer`.
    pub fn signs(count: u64, answer: KmsAnswer) -> Self {
        Self { operation: Some("Sign".into()), count, answer }
    }
}

#[derive(Debug, Default)]
struct Inner {
    stats: KmsStats,
    faults: VecDeque<KmsFault>,
    hold: Duration,
    /// Distinct digests of Sign in the order of their first arrival, from 1.
    places: HashMap<String, u64>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    inner: Mutex<Inner>,
    /// The Signs of how many digests are passed on.
    limit: watch::Sender<u64>,
    passed_on: Semaphore,
}

/// A running proxy; it stops, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct KmsProxy {
    listener: Listener,
    shared: Arc<Shared>,
}

impl KmsProxy {
    /// Listens on a free port of 127.0.0.1, before the KMS endpoint at `upstream` (plain HTTP).
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let (limit, passed_on) = (watch::Sender::new(u64::MAX), Semaphore::new(PASSED_ON));
        let shared = Arc::new(Shared { upstream, client, inner: Mutex::default(), limit, passed_on });
        let serving = Arc::clone(&shared);
        let enter = move |stream| Some(serve(stream, Arc::clone(&serving)));
        Ok(Self { listener: Listener::start("http", (Ipv4Addr::LOCALHOST, 0).into(), enter).await?, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// What it has seen since the start or the last [`KmsProxy::reset`].
    pub fn stats(&self) -> KmsStats {
        lock(&self.shared.inner).stats.clone()
    }

    /// Forgets the counts; what is in flight stays counted.
    pub fn reset(&self) {
        let mut inner = lock(&self.shared.inner);
        let mut keys = std::mem::take(&mut inner.stats).keys;
        keys.retain(|_, key| key.in_flight > 0);
        for key in keys.values_mut() {
            *key = KeyStats { signs: 0, in_flight: key.in_flight, max_in_flight: key.in_flight };
        }
        inner.stats.keys = keys;
        inner.places.clear();
    }

    /// Holds each Sign back this long before it is passed on.
    pub fn set_hold(&self, hold: Duration) {
        lock(&self.shared.inner).hold = hold;
    }

    /// Passes on the Signs of this many digests, the first from the start or the last [`KmsProxy::reset`] on, however often each is
    /// asked; those beyond wait until the limit is raised.
    pub fn set_limit(&self, digests: u64) {
        self.shared.limit.send_replace(digests);
    }

    /// Replaces the script of faults; an empty one heals.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = KmsFault>) {
        lock(&self.shared.inner).faults = faults.into_iter().collect();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    // An error here is a cut connection, ours or the caller's.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct CutConnection;

/// Counts a Sign in flight until dropped, also when the caller goes away.
struct InFlight<'a> {
    shared: &'a Shared,
    key: String,
    /// Of its digest, among those of all Signs.
    place: u64,
}

impl<'a> InFlight<'a> {
    fn enter(shared: &'a Shared, key: String, digest: Option<String>) -> Self {
        let mut inner = lock(&shared.inner);
        let next = inner.places.len() as u64 + 1;
        let place = *inner.places.entry(digest.clone().unwrap_or_default()).or_insert(next);
        if let Some(digest) = digest {
            inner.stats.digests.insert(digest);
        }
        let stats = inner.stats.keys.entry(key.clone()).or_default();
        stats.signs += 1;
        stats.in_flight += 1;
        stats.max_in_flight = stats.max_in_flight.max(stats.in_flight);
        Self { shared, key, place }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(stats) = lock(&self.shared.inner).stats.keys.get_mut(&self.key) {
            stats.in_flight = stats.in_flight.saturating_sub(1);
        }
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, CutConnection> {
    let (parts, body) = request.into_parts();
    let mut body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| CutConnection)?.to_bytes();
    let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let mut json = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    let field = |name: &str| json.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let key = field("KeyId").unwrap_or_default();
    let digest = field("Message");

    let (fault, hold) = count(shared, &operation, &key, access_key(&parts.headers));
    let sign = (operation == "Sign").then(|| InFlight::enter(shared, key, digest.clone()));
    if let Some(sign) = &sign {
        shared.limit.subscribe().wait_for(|limit| sign.place <= *limit).await.map_err(|_| CutConnection)?;
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
    }
    match fault {
        Some(KmsAnswer::Cut) => return Err(CutConnection),
        Some(KmsAnswer::Error { status, code, message }) => return error(status, &code, &message),
        Some(KmsAnswer::OtherDigest) => {
            if let Some(digest) = digest {
                let first = if digest.starts_with('A') { "B" } else { "A" };
                json["Message"] = format!("{first}{}", digest.get(1..).unwrap_or_default()).into();
                body = json.to_string().into();
            }
        }
        None => {}
    }
    let _permit = match &sign {
        Some(_) => Some(shared.passed_on.acquire().await.map_err(|_| CutConnection)?),
        None => None,
    };
    forward(shared, parts, body).await
}

/// Who has signed a request, by its Authorization header.
fn access_key(headers: &::http::HeaderMap) -> Option<String> {
    let (_, credential) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once("Credential=")?;
    credential.split('/').next().map(str::to_owned)
}

/// Counts the call and takes its fault from the script, if there is one.
fn count(shared: &Shared, operation: &str, key: &str, access_key: Option<String>) -> (Option<KmsAnswer>, Duration) {
    let mut inner = lock(&shared.inner);
    *inner.stats.calls.entry(operation.to_owned()).or_default() += 1;
    if let Some(access_key) = access_key {
        *inner.stats.access_keys.entry(access_key).or_default() += 1;
    }
    if operation == "GetPublicKey" {
        *inner.stats.public_keys.entry(key.to_owned()).or_default() += 1;
    }
    let fault =
        inner.faults.iter_mut().find(|fault| fault.count > 0 && fault.operation.as_deref().is_none_or(|wanted| wanted == operation)).map(
            |fault| {
                fault.count = if fault.count == u64::MAX { u64::MAX } else { fault.count - 1 };
                fault.answer.clone()
            },
        );
    inner.faults.retain(|fault| fault.count > 0);
    if fault.is_some() {
        inner.stats.faults += 1;
    }
    (fault, inner.hold)
}

async fn forward(shared: &Shared, mut parts: ::http::request::Parts, body: Bytes) -> Result<Response<Full<Bytes>>, CutConnection> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{}{path}", shared.upstream).parse::<Uri>().map_err(|_| CutConnection)?;
    // The body may have another length now, and hop-by-hop headers are this hop's.
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        parts.headers.remove(name);
    }
    let answer = shared.client.request(Request::from_parts(parts, Full::new(body))).await.map_err(|_| CutConnection)?;
    let (mut parts, body) = answer.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| CutConnection)?.to_bytes();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        parts.headers.remove(name);
    }
    parts.version = ::http::Version::HTTP_11;
    Ok(Response::from_parts(parts, Full::new(body)))
}

fn error(status: u16, code: &str, message: &str) -> Result<Response<Full<Bytes>>, CutConnection> {
    let body = serde_json::json!({ "__type": code, "message": message }).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| CutConnection)?;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    Ok(response)
}
