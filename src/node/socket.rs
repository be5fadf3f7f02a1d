//! Opening one connection to a node: TCP without Nagle, TLS by rustls, every bound set.

use std::io;
use std::sync::Arc;

use data_encoding::BASE64;
use futures_util::{Sink, Stream, TryFutureExt};
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::TlsError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::InvalidHeaderValue;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error, Message};
use tokio_tungstenite::{Connector, client_async_tls_with_config};
use url::{Host, Url};

use super::ipc;

/// What a connection's bytes travel on, below TLS and WebSocket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Texts in both directions, and pings: a WebSocket, or what behaves like one.
pub(super) trait Frames: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin + Send {}

impl<T: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin + Send> Frames for T {}

/// A connection to a node that can push.
pub(super) type Socket = Box<dyn Frames>;

/// How a wire is had.
#[derive(Clone)]
pub(super) enum Dial {
    Tcp,
    /// In memory; `None` where nobody listens.
    #[cfg(test)]
    Memory(Arc<Wires>),
}

/// Who listens at which URL, in memory.
#[cfg(test)]
pub(super) type Wires = dyn Fn(&Url) -> Option<tokio::io::DuplexStream> + Send + Sync;

impl Dial {
    /// A connection to the URL's host, below TLS.
    pub(super) async fn wire(&self, url: &Url) -> Result<Box<dyn Wire>, Error> {
        match self {
            Self::Tcp => Ok(Box::new(tcp(url).await?)),
            #[cfg(test)]
            Self::Memory(dial) => match dial(url) {
                Some(stream) => Ok(Box::new(stream)),
                None => Err(Error::Io(io::ErrorKind::ConnectionRefused.into())),
            },
        }
    }
}

/// Largest message that a node may send: block receipts and traces are megabytes.
pub(super) const MAX_MESSAGE: usize = 64 << 20;
/// Bytes gathered before they are written without a flush.
const WRITE_BUFFER: usize = 128 << 10;

/// Connects: to a Unix socket, or by WebSocket; for `wss` the certificates of the system decide.
pub(super) async fn connect(url: &Url, tls: Option<Arc<ClientConfig>>, dial: &Dial) -> Result<Socket, Error> {
    if url.scheme() == "ipc" {
        return ipc::connect(url).await;
    }
    let wire = dial.wire(url).await?;
    let connector = tls.map_or(Connector::Plain, Connector::Rustls);
    client_async_tls_with_config(request(url)?, wire, Some(bounds()), Some(connector))
        .map_ok(|(socket, _)| Box::new(socket) as Socket)
        .await
}

async fn tcp(url: &Url) -> Result<TcpStream, Error> {
    let port = url.port_or_known_default().ok_or(Error::Url(tungstenite::error::UrlError::UnsupportedUrlScheme))?;
    let tcp = match url.host() {
        Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
        Some(Host::Ipv4(address)) => TcpStream::connect((address, port)).await,
        Some(Host::Ipv6(address)) => TcpStream::connect((address, port)).await,
        None => return Err(Error::Url(tungstenite::error::UrlError::NoHostName)),
    }?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn bounds() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_MESSAGE + 2 * WRITE_BUFFER)
}

/// The upgrade request.
fn request(url: &Url) -> Result<Request, Error> {
    let (bare, authorization) = credentials(url).map_err(tungstenite::http::Error::from)?;
    let mut request = bare.as_str().into_client_request()?;
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

/// The URL without its credentials, and these as a header of basic authentication. They are nowhere else.
pub(super) fn credentials(url: &Url) -> Result<(Url, Option<HeaderValue>), InvalidHeaderValue> {
    let mut bare = url.clone();
    // Both fail for URLs without a host only, which were refused before.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    if url.username().is_empty() && url.password().is_none() {
        return Ok((bare, None));
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(&pair)))?;
    value.set_sensitive(true);
    Ok((bare, Some(value)))
}

/// The TLS settings for `wss` and `https`, trusting what the system trusts. Reads files: not for the runtime's own threads.
pub(super) fn system_tls() -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::Io(io::Error::new(io::ErrorKind::NotFound, "the system has no root certificates")));
    }
    trusting(roots)
}

/// The TLS settings that trust these roots.
pub(super) fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(TlsError::from(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// An error in words that show no part of the URL.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::Url(_) => "the URL of the node cannot be used".to_owned(),
        Error::Http(response) => format!("the node answered the upgrade with {}", response.status()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_a_header_and_leave_the_url() {
        let url = Url::parse("ws://al%20ice:p%3Ass@node.example:8546/path?key=1").unwrap();
        let request = request(&url).unwrap();
        assert_eq!(request.uri().to_string(), "ws://node.example:8546/path?key=1");
        assert_eq!(request.headers()["host"], "node.example:8546");
        assert_eq!(request.headers()["authorization"], format!("Basic {}", BASE64.encode(b"al ice:p:ss")));
        assert!(!format!("{request:?}").contains("Basic"));
    }

    #[test]
    fn without_credentials_there_is_no_header() {
        let url = Url::parse("wss://node.example/").unwrap();
        assert!(!request(&url).unwrap().headers().contains_key("authorization"));
    }

    #[tokio::test]
    async fn nothing_waits_for_nagle() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
        assert!(tcp(&url).await.unwrap().nodelay().unwrap());
    }

    #[test]
    fn every_size_is_bounded() {
        let bounds = bounds();
        assert_eq!((bounds.max_message_size, bounds.max_frame_size), (Some(64 << 20), Some(64 << 20)));
        assert!(bounds.max_write_buffer_size > bounds.write_buffer_size + MAX_MESSAGE);
        assert!(bounds.max_write_buffer_size < usize::MAX);
    }

    #[test]
    fn tls_needs_no_process_wide_provider() {
        assert!(trusting(RootCertStore::empty()).is_ok());
    }
}
