//! The whole gateway, put together from its configuration: journal, keys, chains, services, listeners.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Journal, JournalError};
use crate::node::Pool;
use crate::rpc;
use crate::rpc::service::{Service, Streams};
use crate::server::admin::{self, AdminContext, AdminListener, Readiness};
use crate::server::{self, Listener, Served, ServerError};
use crate::signing::{Directory, DirectoryError, KeyStoreError, Scheduler, SignLimits, build_store};
use crate::subscriptions::hub::Hub;
use crate::subscriptions::lifecycle::Lifecycle;
use crate::subscriptions::receipts::Receipts;
use crate::telemetry::metrics::Metrics;
use crate::transactions::chain::{Chain, Parts};

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
    /// The journal's writer is gone: what it had taken is read at the next start.
    Fatal,
}

/// A gateway that is bound and ready to run.
pub struct Gateway {
    journal: Arc<SqliteJournal>,
    chains: Vec<Arc<Chain>>,
    listener: Listener,
    admin: AdminListener,
    drain: Duration,
    stop: CancellationToken,
}

impl Gateway {
    /// Opens the journal, the key stores and the listeners. Nodes may be down: they are connected to for ever.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        metrics.start_time.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let journal = open_journal(config, &metrics).await?;
        let directory = open_directory(config, journal.clone(), &metrics).await?;
        let scheduler = Scheduler::start(sign_limits(config), Arc::clone(&metrics));
        let stop = CancellationToken::new();

        let lifecycle = Lifecycle::new(journal.clone());
        let mut chains = HashMap::new();
        for environment in &config.environments {
            let parts =
                ChainParts { journal: journal.clone(), directory: &directory, scheduler: &scheduler, metrics: &metrics, stop: &stop };
            chains.insert(environment.name.clone(), open_chain(environment, parts, &lifecycle).await?);
        }
        let mut services = Vec::new();
        let mut served = Vec::new();
        for config in &config.services {
            let Some(streams) = chains.get(&config.environment) else { continue };
            let keys = directory.select(&config.configurations, &config.keys).await;
            let keys = keys.map_err(|error| StartError::Keys { name: config.name.clone(), error: Box::new(error) })?;
            if keys.addresses().is_empty() {
                tracing::warn!(service = %config.name, "the service has no key that can sign");
            }
            let service = Arc::new(Service::new(config, keys, streams.clone(), &metrics));
            served.push(Served {
                name: config.name.clone(),
                methods: rpc::module(Arc::clone(&service))?.into(),
                pass_through: Arc::clone(&service) as _,
            });
            services.push(service);
        }
        let listener = server::bind(&config.server, served, Arc::clone(&metrics)).await?;
        let chains: Vec<Arc<Chain>> = chains.into_values().map(|streams: Streams| streams.chain).collect();
        let view = Arc::new(View {
            listen: listener.local_addr(),
            tls: config.server.tls.is_some(),
            journal_path: config.journal.path.display().to_string(),
            fatal: journal.fatal(),
            services,
            chains: chains.clone(),
        });
        let admin = admin::bind(&config.admin, view.context(metrics)).await?;
        Ok(Self { journal, chains, listener, admin, drain: config.server.drain, stop })
    }

    /// The address of the JSON-RPC listener.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// The address of the listener for operators.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Serves until `shutdown`; then takes no new sends, finishes what is in flight, and closes.
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        let Self { journal, chains, listener, admin, drain, stop } = self;
        let (closing, admin_closing) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(listener.run(closing.clone()));
        let administering = tokio::spawn(admin.run(admin_closing.clone()));
        let fatal = journal.fatal();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = fatal.cancelled() => return Ended::Fatal,
        }
        tracing::info!("draining: no new sends, what is in flight is finished");
        let drained = tokio::select! {
            drained = join_all(chains.iter().map(|chain| chain.drain(drain))) => drained.into_iter().all(|all| all),
            () = fatal.cancelled() => return Ended::Fatal,
        };
        closing.cancel();
        if serving.await.is_err() {
            tracing::error!("the listener ended by a fault");
        }
        stop.cancel();
        journal.close().await;
        admin_closing.cancel();
        if administering.await.is_err() {
            tracing::error!("the admin listener ended by a fault");
        }
        if drained { Ended::Drained } else { Ended::Cut }
    }
}

async fn open_journal(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<SqliteJournal>, StartError> {
    let (path, metrics) = (config.journal.path.clone(), Arc::clone(metrics));
    let opened = tokio::task::spawn_blocking(move || SqliteJournal::open(&path, metrics)).await;
    Ok(opened.map_err(|error| JournalError::Unusable(error.to_string()))??)
}

/// Opens every key store and the directory over them.
pub async fn open_directory(config: &Config, journal: Arc<dyn Journal>, metrics: &Arc<Metrics>) -> Result<Arc<Directory>, StartError> {
    let mut stores = Vec::new();
    for configuration in &config.configurations {
        let name = configuration.name.clone();
        match build_store(configuration, Arc::clone(metrics)).await {
            Ok(store) => stores.push((name, store)),
            Err(error) => return Err(StartError::KeyStore { name, error }),
        }
    }
    Directory::open(journal, stores).await.map_err(|error| StartError::Keys { name: "*".into(), error: Box::new(error) })
}

fn sign_limits(config: &Config) -> HashMap<String, SignLimits> {
    config.configurations.iter().map(|configuration| (configuration.name.clone(), SignLimits::of(configuration))).collect()
}

struct ChainParts<'a> {
    journal: Arc<dyn Journal>,
    directory: &'a Arc<Directory>,
    scheduler: &'a Scheduler,
    metrics: &'a Arc<Metrics>,
    stop: &'a CancellationToken,
}

async fn open_chain(environment: &config::Environment, parts: ChainParts<'_>, lifecycle: &Arc<Lifecycle>) -> Result<Streams, StartError> {
    let ChainParts { journal, directory, scheduler, metrics, stop } = parts;
    let pinned = journal.chain(environment.chain_id).await?.map(|pin| pin.genesis);
    let pool = Pool::start(environment, pinned, Arc::clone(metrics), stop.child_token());
    let (receipts, seen) = mpsc::unbounded_channel();
    let keys = Arc::clone(directory);
    let chain = Chain::start(Parts {
        environment: environment.clone(),
        pool: pool.clone(),
        journal,
        scheduler: scheduler.clone(),
        key_of: Arc::new(move |address| keys.get(&address)),
        receipts,
        metrics: Arc::clone(metrics),
        stop: stop.child_token(),
    });
    let hub = Hub::new(pool, environment.node_deadline, stop.child_token());
    Ok(Streams { chain, hub, receipts: Receipts::start(seen), lifecycle: Arc::clone(lifecycle) })
}

/// What /status and /readyz show.
struct View {
    listen: SocketAddr,
    tls: bool,
    journal_path: String,
    fatal: CancellationToken,
    services: Vec<Arc<Service>>,
    chains: Vec<Arc<Chain>>,
}

impl View {
    fn context(self: &Arc<Self>, metrics: Arc<Metrics>) -> AdminContext {
        let (status, readiness) = (Arc::clone(self), Arc::clone(self));
        AdminContext {
            metrics,
            status: Arc::new(move || std::future::ready(status.status()).boxed()),
            readiness: Arc::new(move || std::future::ready(readiness.readiness()).boxed()),
        }
    }

    fn status(&self) -> serde_json::Value {
        let (http, ws) = if self.tls { ("https", "wss") } else { ("http", "ws") };
        let services: Vec<_> = self
            .services
            .iter()
            .map(|service| {
                let path = format!("{}/{}", self.listen, service.name);
                json!({
                    "name": &*service.name,
                    "environment": service.chain.environment().name,
                    "rpc": format!("{http}://{path}"),
                    "wss": format!("{ws}://{path}"),
                    "keys": { "enabled": service.keys.addresses().len(), "all": service.keys.len() },
                })
            })
            .collect();
        let environments: Vec<_> = self
            .chains
            .iter()
            .map(|chain| {
                let environment = chain.environment();
                let head = chain.pool().heads().borrow().as_ref().map(|head| json!({ "number": head.number, "hash": head.hash }));
                json!({
                    "name": environment.name,
                    "chainId": environment.chain_id,
                    "head": head,
                    "endpoints": chain.pool().endpoints(),
                    "ready": chain.is_open() && chain.fault().is_none(),
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "services": services,
            "environments": environments,
            "journal": { "engine": "sqlite", "path": self.journal_path, "writable": !self.fatal.is_cancelled() },
        })
    }

    fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.fatal.is_cancelled() {
            reasons.push("the journal cannot be written".to_owned());
        }
        let mut accepts = false;
        for service in &self.services {
            if let Some(fault) = service.chain.fault() {
                reasons.push(format!("service {}: {fault}", service.name));
            } else if !service.chain.is_open() {
                reasons.push(format!("service {}: its chain is not open yet", service.name));
            } else if service.keys.addresses().is_empty() {
                reasons.push(format!("service {}: no key can sign", service.name));
            } else {
                accepts = true;
            }
        }
        Readiness { ready: accepts && !self.fatal.is_cancelled(), reasons }
    }
}
