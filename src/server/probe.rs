//! Asks a running gateway's listener for operators whether the process lives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config;

/// Less than the five seconds that container engines are told to wait for the command.
const PATIENCE: Duration = Duration::from_secs(4);

/// Why a gateway is not known to live.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `admin.listen` has port 0: nobody else knows which one it became.
    #[error("admin.listen has port 0, so it cannot be asked")]
    NoPort,
    /// No connection, or it ended early.
    #[error("{0}: {1}")]
    Connection(SocketAddr, std::io::Error),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// Something answers, and not with 200.
    #[error("{0}: it answers, and not with 200")]
    Status(SocketAddr),
    /// Nothing answers.
    #[error("{0}: no answer within {PATIENCE:?}")]
    Silent(SocketAddr),
}

/// Asks `/livez` of the listener that `config` describes, on this machine. Four seconds at most.
pub async fn livez(config: &config::Admin) -> Result<(), ProbeError> {
    let address = local(config.listen);
    if address.port() == 0 {
        return Err(ProbeError::NoPort);
    }
    let asked = tokio::time::timeout(PATIENCE, async {
        let lost = |error| ProbeError::Connection(address, error);
        let stream = TcpStream::connect(address).await.map_err(lost)?;
        if config.tls.is_none() {
            return status(stream).await.map_err(lost);
        }
        let stream = connector(None)?.connect(ServerName::IpAddress(address.ip().into()), stream).await.map_err(lost)?;
        status(stream).await.map_err(lost)
    });
    match asked.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(ProbeError::Status(address)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ProbeError::Silent(address)),
    }
}

/// Where a listener can be reached from its own machine.
pub(super) fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether the answer is 200.
async fn status(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<bool> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut start = [0; OK.len()];
    stream.read_exact(&mut start).await?;
    Ok(start == OK)
}

/// TLS to whoever listens there, or to nobody but who presents the expected certificate. It is made for other names than a local
/// address. A probe expects none: it may have been renewed on disk since, nothing secret is sent, and all that is believed is that
/// something answers.
pub(super) fn connector(expected: Option<CertificateDer<'static>>) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Presented { expected, algorithms: provider.signature_verification_algorithms });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct Presented {
    expected: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Presented {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.expected.as_ref().is_none_or(|expected| expected == presented) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("another certificate is presented than the configuration's: was it renewed without SIGHUP?".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_asked_by_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9545", "127.0.0.1:9545"),
            ("[::]:9545", "[::1]:9545"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.1.2.3:9545", "10.1.2.3:9545"),
        ] {
            assert_eq!(local(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
