//! Asks a running gateway's listener for operators, on this machine: what the commands of `sluice account` do.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::ServerError;
use super::probe::{connector, local};
use super::{gate, tls};
use crate::config;

/// Longer than the listener takes for an order.
const PATIENCE: Duration = Duration::from_secs(90);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// `admin.listen` has port 0: nobody else knows which one it became.
    #[error("admin.listen has port 0, so the gateway cannot be asked")]
    NoPort,
    /// Nobody listens there.
    #[error("{0}: nobody listens there")]
    Nobody(SocketAddr),
    /// The connection could not be made, or was lost: the order may have been carried out.
    #[error("{0}: {1}")]
    Connection(SocketAddr, String),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The token or the certificate cannot be read.
    #[error("{0}")]
    File(#[from] ServerError),
    /// What answers is no listener for operators.
    #[error("{0}: the answer is not of a gateway's listener for operators")]
    Stranger(SocketAddr),
    /// It says no, and why.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// No answer: the order may have been carried out.
    #[error("{0}: no answer within {PATIENCE:?}")]
    Silent(SocketAddr),
}

/// One request to the listener that `config` describes, with its token; answers the JSON of a 200. Under TLS, whoever answers must
/// present the certificate of the configuration's file: the token goes to nobody else.
pub async fn ask(config: &config::Admin, method: Method, path: &str, body: Option<&Value>) -> Result<Value, AskError> {
    let address = local(config.listen);
    if address.port() == 0 {
        return Err(AskError::NoPort);
    }
    let mut request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    if let Some(path) = &config.token_file {
        let token = gate::read_token(path).await?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal())).map_err(|_| AskError::Stranger(address))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| AskError::Connection(address, error.to_string()))?;
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => AskError::Nobody(address),
            _ => AskError::Connection(address, error.to_string()),
        })?;
        let Some(files) = &config.tls else { return exchange(address, stream, request).await };
        let expected = tls::certificates(&files.certificate).await?.into_iter().next();
        let name = ServerName::IpAddress(address.ip().into());
        let stream = connector(expected)?.connect(name, stream).await;
        exchange(address, stream.map_err(|error| AskError::Connection(address, error.to_string()))?, request).await
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(AskError::Silent(address)))
}

async fn exchange(
    address: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Value, AskError> {
    let lost = |error: hyper::Error| AskError::Connection(address, error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // Ends with the connection; what it comes to is told by the request.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(lost)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| AskError::Connection(address, error.to_string()))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|_| AskError::Stranger(address))?;
    if status == StatusCode::OK {
        return Ok(value);
    }
    let message = value["error"].as_str().map(str::to_owned).ok_or(AskError::Stranger(address))?;
    Err(AskError::Refused { status, message })
}
