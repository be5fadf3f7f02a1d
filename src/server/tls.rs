//! TLS by rustls: 1.2 and 1.3, HTTP/1.1 inside.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::error::ServerError;
use crate::config;

/// Reads certificate and key; the second is what will be presented.
pub(super) async fn acceptor(files: &config::Tls) -> Result<(TlsAcceptor, Vec<CertificateDer<'static>>), ServerError> {
    let chain = certificates(&files.certificate).await?;
    let key = private_key(&files.key).await?;
    let mismatch = |source| ServerError::Tls { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), chain))
}

async fn read(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ServerError> {
    tokio::fs::read(path).await.map(Zeroizing::new).map_err(|source| ServerError::Read { what, path: path.into(), source })
}

/// The certificate with those that vouch for it, leaf first; one at least.
pub(super) async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let wrong = |problem| ServerError::Content { what: "certificate", path: path.into(), problem };
    let bytes = read("certificate", path).await?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| wrong(format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong("holds no certificate (BEGIN CERTIFICATE)".into()));
    }
    Ok(chain)
}

async fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ServerError> {
    let bytes = read("key", path).await?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => "holds no private key (PKCS#8, PKCS#1 or SEC1 in PEM)",
            // The words of other errors may quote the file.
            _ => "is not PEM",
        };
        ServerError::Content { what: "key", path: path.into(), problem: problem.into() }
    })
}
