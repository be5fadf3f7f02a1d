//! Who is let in by one listener, how its connections are encrypted, and whether that is new.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;

use super::error::ServerError;
use super::gate::Gate;
use super::tls;
use crate::config::{self, Config};

/// The rules of one listener, with what its files held.
pub(super) struct Access {
    pub(super) gate: Gate,
    pub(super) tls: Option<TlsAcceptor>,
    /// What is presented: the certificate and those that vouch for it.
    chain: Option<Vec<CertificateDer<'static>>>,
}

impl Access {
    pub(super) async fn open(token_file: Option<&Path>, origins: &[String], files: Option<&config::Tls>) -> Result<Self, ServerError> {
        let gate = Gate::open(token_file, origins.to_vec()).await?;
        let (tls, chain) = match files {
            Some(files) => tls::acceptor(files).await.map(|(tls, chain)| (Some(tls), Some(chain)))?,
            None => (None, None),
        };
        Ok(Self { gate, tls, chain })
    }

    /// What differs from the reading before.
    pub(super) fn renewal(&self, before: &Self) -> Renewal {
        Renewal {
            token: change(before.gate.has_token() || self.gate.has_token(), self.gate.same_token(&before.gate)),
            certificate: change(before.chain.is_some() || self.chain.is_some(), self.chain == before.chain),
        }
    }
}

fn change(is_there: bool, same: bool) -> Option<&'static str> {
    is_there.then_some(if same { "unchanged" } else { "changed" })
}

/// Whether a reading found other secrets: `changed` or `unchanged`, `None` where there is none. Nothing of a token is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Renewal {
    /// The bearer token.
    pub token: Option<&'static str>,
    /// The certificate with its chain.
    pub certificate: Option<&'static str>,
}

/// Reads the tokens and certificates of both listeners, as a start or a reload would; every error.
pub async fn check_files(config: &Config) -> Vec<ServerError> {
    let (server, admin) = (&config.server, &config.admin);
    let clients = Access::open(server.token_file.as_deref(), &server.origins, server.tls.as_ref()).await;
    let operators = Access::open(admin.token_file.as_deref(), &[], admin.tls.as_ref()).await;
    [clients.err(), operators.err()].into_iter().flatten().collect()
}
