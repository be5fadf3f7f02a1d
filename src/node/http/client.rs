//! Requests to one node over HTTP/1.1: connections are kept open, and one that the node has closed meanwhile is no fault.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use url::Url;

use super::answers::{Answers, read};
use crate::node::command::Answered;
use crate::node::frame::{Ids, Request as Question};
use crate::node::handshake::{Chain, Fault, down};
use crate::node::socket::{Dial, MAX_MESSAGE, Wire, credentials, words};

/// Connections that are kept for later, and for how long: what is on the way may forget them without a word.
const IDLE: usize = 32;
const KEPT: Duration = Duration::from_secs(15);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION")));

/// Why there is no response.
#[derive(Debug, Clone)]
pub(in crate::node) enum Trouble {
    /// Nothing was sent.
    NotSent(Arc<str>),
    /// Sent, and the connection ended before the response. `stale`: it was one from before, which the node may have closed by then.
    Lost { why: Arc<str>, stale: bool },
}

type Sender = SendRequest<Full<Bytes>>;

/// The way to one node.
pub(in crate::node) struct Client {
    /// Without credentials.
    url: Url,
    uri: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
    dial: Dial,
    /// Since when each has been there.
    idle: Mutex<Vec<(Instant, Sender)>>,
}

impl Client {
    /// Connects to nothing yet. `tls` is for `https`.
    pub(in crate::node) fn new(url: &Url, tls: Option<Arc<ClientConfig>>, dial: Dial) -> Result<Self, Fault> {
        let unusable = || down("the URL of the node cannot be used");
        let (bare, authorization) = credentials(url).map_err(|_| unusable())?;
        let host = match (bare.host_str(), bare.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(unusable()),
        };
        let target = bare.query().map_or_else(|| bare.path().to_owned(), |query| format!("{}?{query}", bare.path()));
        let uri = Uri::try_from(target).map_err(|_| unusable())?;
        let host = HeaderValue::try_from(host).map_err(|_| unusable())?;
        Ok(Self { url: bare, uri, host, authorization, tls, dial, idle: Mutex::default() })
    }

    /// Proves the chain.
    pub(in crate::node) async fn prove(&self, chain: &Chain, ids: &Ids) -> Result<(), Fault> {
        let [chain_id, genesis] = Chain::questions(ids)?;
        let (chain_id, genesis) = tokio::join!(self.ask(&chain_id), self.ask(&genesis));
        chain.verdict([&chain_id?, &genesis?])
    }

    async fn ask(&self, question: &Question) -> Result<Answered, Fault> {
        self.ping(question).await?.ok_or_else(|| down(&format!("HTTP {}", StatusCode::TOO_MANY_REQUESTS)))
    }

    /// One question whose answer says how the endpoint is; `None` where it has been asked too much.
    pub(in crate::node) async fn ping(&self, question: &Question) -> Result<Option<Answered>, Fault> {
        let (status, body) = self.read(&question.text.clone().into()).await.map_err(|trouble| match trouble {
            Trouble::NotSent(why) | Trouble::Lost { why, .. } => Fault::Down(why),
        })?;
        match read(&[question.id], status, &body) {
            Answers::Each(mut answers) => Ok(answers.pop()),
            Answers::None(_) if status == StatusCode::TOO_MANY_REQUESTS => Ok(None),
            Answers::NotOfThese(why) | Answers::None(why) => Err(Fault::Down(why.into())),
        }
    }

    /// A request that may be repeated: it is, once and on a new connection, where one ended before the response.
    pub(in crate::node) async fn read(&self, text: &Bytes) -> Result<(StatusCode, Bytes), Trouble> {
        match self.post(text.clone(), true).await {
            Err(Trouble::Lost { .. }) => self.post(text.clone(), false).await,
            answered => answered,
        }
    }

    /// A request that is made once: on another connection only if nothing of it was written.
    pub(in crate::node) async fn post_once(&self, text: Bytes) -> Result<(StatusCode, Bytes), Trouble> {
        self.post(text, true).await
    }

    async fn post(&self, text: Bytes, from_before: bool) -> Result<(StatusCode, Bytes), Trouble> {
        let mut request = self.request(text);
        let mut kept = if from_before { self.kept() } else { None };
        loop {
            let stale = kept.is_some();
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => self.connect().await.map_err(|why| Trouble::NotSent(why.into()))?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let status = response.status();
                    let body = Limited::new(response.into_body(), MAX_MESSAGE).collect().await;
                    let body = body.map_err(|error| Trouble::Lost { why: error.to_string().into(), stale: false })?;
                    self.keep(sender);
                    return Ok((status, body.to_bytes()));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if stale => {
                        request = unsent;
                        kept = self.kept();
                    }
                    Some(_) => return Err(Trouble::NotSent(error.error().to_string().into())),
                    None => return Err(Trouble::Lost { why: error.error().to_string().into(), stale }),
                },
            }
        }
    }

    fn request(&self, text: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(text));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, JSON);
        headers.insert(USER_AGENT, AGENT);
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        request
    }

    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = |(since, sender): &(Instant, Sender)| since.elapsed() < KEPT && !sender.is_closed() && sender.is_ready();
        std::iter::from_fn(|| idle.pop()).find(usable).map(|(_, sender)| sender)
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push((Instant::now(), sender));
        }
    }

    async fn connect(&self) -> Result<Sender, String> {
        let wire = self.dial.wire(&self.url).await.map_err(|error| words(&error))?;
        let wire: Box<dyn Wire> = match &self.tls {
            Some(config) if self.url.scheme() == "https" => {
                let name = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name, wire).await.map_err(|error| format!("TLS error: {error}"))?)
            }
            _ => wire,
        };
        let (sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(|error| error.to_string())?;
        // Ends with its sender, or when the node closes it; what went wrong is told to whoever waits for a response.
        tokio::spawn(async move {
            let _told = connection.await;
        });
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_a_header_and_the_rest_of_the_url_goes_where_it_belongs() {
        let url = Url::parse("https://al%20ice:p%3Ass@node.example:8545/v1/path?key=1").unwrap();
        let client = Client::new(&url, None, Dial::Tcp).unwrap();
        let request = client.request(Bytes::from_static(b"{}"));
        assert_eq!(request.uri().to_string(), "/v1/path?key=1");
        assert_eq!(request.headers()["host"], "node.example:8545");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert!(request.headers()["authorization"].to_str().unwrap().starts_with("Basic "));
        assert!(!format!("{request:?}").contains("Basic"));
        assert!(!client.url.as_str().contains("p%3Ass"));
    }
}
