//! A node over a Unix socket, with geth's framing. It behaves like a WebSocket to whoever works it; a ping is a cheap request, and its answer
//! the pong.

#[cfg(unix)]
mod framer;
#[cfg(unix)]
mod stream;

use tokio_tungstenite::tungstenite::Error;
use url::Url;

use super::socket::Socket;

/// Connects to the socket at the URL's path.
#[cfg(unix)]
pub(super) async fn connect(url: &Url) -> Result<Socket, Error> {
    use std::os::unix::ffi::OsStringExt as _;
    let path: Vec<u8> = percent_encoding::percent_decode_str(url.path()).collect();
    let socket = tokio::net::UnixStream::connect(std::ffi::OsString::from_vec(path)).await?;
    Ok(Box::new(stream::Values::new(socket)))
}

/// There are none: the configuration was refused before.
#[cfg(not(unix))]
pub(super) async fn connect(_url: &Url) -> Result<Socket, Error> {
    Err(Error::Io(std::io::ErrorKind::Unsupported.into()))
}
