//! Why a listener cannot be opened.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Each names what has to be mended; none shows what a secret file holds.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read the {what} file {}: {source}", .path.display())]
    Read {
        /// `token`, `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("the {what} file {} {problem}", .path.display())]
    Content {
        /// `token`, `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not make a TLS server.
    #[error("the certificate {} and the key {} do not work together: {source}", .certificate.display(), .key.display())]
    Tls {
        /// Certificate chain.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
        /// rustls's words.
        source: rustls::Error,
    },
    /// Nothing to serve.
    #[error("no service is configured")]
    NoService,
}
