//! The whole gateway: put together from its configuration, served, looked at, read anew, and ended.

mod accounts;
mod build;
mod changes;
mod refresh;
mod reload;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

pub use self::accounts::show_stored;
pub use self::build::open_directory;
use self::build::{Foundation, generation};
pub use self::reload::{ReloadError, Reloader};
use crate::config::Config;
use crate::journal::JournalError;
use crate::server::admin::AdminListener;
use crate::server::{Listener, Live, ServerError, Socket};
use crate::signing::{DirectoryError, KeyStoreError};

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A metric cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The journal cannot be used.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// A key store cannot be reached or refuses.
    #[error("configuration \"{name}\": {error}")]
    KeyStore {
        /// Name of the configuration.
        name: String,
        /// What it said.
        error: KeyStoreError,
    },
    /// The keys of a service cannot be told.
    #[error("service \"{name}\": {error}")]
    Keys {
        /// Name of the service.
        name: String,
        /// Why.
        error: Box<DirectoryError>,
    },
    /// A listener cannot be opened.
    #[error("{0}")]
    Server(#[from] ServerError),
    /// A method is registered twice: a fault of ours.
    #[error("{0}")]
    Methods(#[from] jsonrpsee::server::RegisterMethodError),
}

/// How the gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As asked, with everything in flight finished.
    Drained,
    /// As asked, but requests were still open when the time was over.
    Cut,
    /// The journal is unusable: what it had taken is read at the next start.
    Fatal,
}

/// A gateway that is bound and ready to run.
pub struct Gateway {
    foundation: Arc<Foundation>,
    live: Live,
    config: Config,
    listener: Listener,
    admin: AdminListener,
}

impl Gateway {
    /// Opens the journal, the key stores and the listeners. Nodes may be down: they are connected to for ever.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let mut foundation = Foundation::open(config).await?;
        let meter = Some(foundation.metrics.clients.connections.clone());
        let (clients, operators) = (Socket::open(config.server.listen, meter)?, Socket::open(config.admin.listen, None)?);
        foundation.listen = clients.local_addr();
        let foundation = Arc::new(foundation);
        let live: Live = Arc::new(ArcSwap::from_pointee(generation(&foundation, config, None).await?.enter()));
        let (listener, admin) = (Listener::new(clients, live.clone()), AdminListener::new(operators, live.clone()));
        Ok(Self { foundation, live, config: config.clone(), listener, admin })
    }

    /// The address of the JSON-RPC listener.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// The address of the listener for operators.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// What reads the configuration anew while the gateway runs. There is to be one.
    pub fn reloader(&self) -> Reloader {
        Reloader::new(self.foundation.clone(), self.live.clone(), self.config.clone())
    }

    /// Serves until `shutdown`; then takes no new sends, finishes what is in flight, and closes.
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        let Self { foundation, live, listener, admin, .. } = self;
        let (closing, admin_closing) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(listener.run(closing.clone()));
        let administering = tokio::spawn(admin.run(admin_closing.clone()));
        tokio::spawn(refresh::keep_fresh(Arc::clone(&foundation), foundation.stop.child_token()));
        let fatal = foundation.journal.fatal();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = fatal.cancelled() => return Ended::Fatal,
        }
        tracing::info!("draining: no new sends, what is in flight is finished");
        let drain = live.load().drain();
        let drained = tokio::select! {
            drained = join_all(foundation.chains().map(|chain| chain.drain(drain))) => drained.into_iter().all(|all| all),
            () = fatal.cancelled() => return Ended::Fatal,
        };
        closing.cancel();
        let finished = serving.await.unwrap_or_else(|_| {
            tracing::error!("the listener ended by a fault");
            false
        });
        foundation.stop.cancel();
        let turn = foundation.keys.last_turn().await;
        foundation.journal.close().await;
        drop(turn);
        admin_closing.cancel();
        if administering.await.is_err() {
            tracing::error!("the admin listener ended by a fault");
        }
        if drained && finished { Ended::Drained } else { Ended::Cut }
    }
}
