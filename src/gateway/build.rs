//! From a configuration to its parts: those that live as long as the process, and those that a reload exchanges.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::refresh::{KeyBook, ManagedKeys};
use super::reload::Reports;
use super::status::{View, WriteProbe, urls};
use crate::config::{self, Config};
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Engine, Journal, JournalError};
use crate::node::Pool;
use crate::rpc;
use crate::rpc::service::{Service, Streams};
use crate::server::admin::AdminContext;
use crate::server::{Generation, Served};
use crate::signing::{Directory, DirectoryError, Draft, Finding, Scheduler, ServiceKeys, SignLimits, build_store};
use crate::subscriptions::hub::Hub;
use crate::subscriptions::lifecycle::Lifecycle;
use crate::subscriptions::places::Places;
use crate::subscriptions::receipts::Receipts;
use crate::telemetry::metrics::Metrics;
use crate::transactions::chain::{Chain, Parts};

/// What lives as long as the process: a reload leaves it alone.
pub(super) struct Foundation {
    pub(super) metrics: Arc<Metrics>,
    pub(super) journal: Arc<dyn Engine>,
    pub(super) directory: Arc<Directory>,
    pub(super) keys: KeyBook,
    /// By name.
    pub(super) environments: HashMap<String, Streams>,
    /// Where clients are listened to.
    pub(super) listen: SocketAddr,
    pub(super) started: Instant,
    pub(super) reports: Arc<Reports>,
    pub(super) probe: WriteProbe,
    pub(super) stop: CancellationToken,
}

impl Foundation {
    /// Opens the journal and the key stores, and starts the environments.
    pub(super) async fn open(config: &Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        metrics.process.start_time.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let journal = open_journal(config, &metrics).await?;
        let directory = open_directory(config, journal.clone(), &metrics).await?;
        let scheduler = Scheduler::start(sign_limits(config), Arc::clone(&metrics));
        let stop = CancellationToken::new();
        let lifecycle = Lifecycle::new(journal.clone());
        let mut environments = HashMap::new();
        for environment in &config.environments {
            let of = config.services.iter().filter(|service| service.environment == environment.name);
            let parts = ChainParts {
                ceilings: of.map(|service| (Arc::from(service.name.as_str()), service.ceilings)).collect(),
                journal: journal.clone(),
                directory: &directory,
                scheduler: &scheduler,
                metrics: &metrics,
                stop: &stop,
            };
            environments.insert(environment.name.clone(), open_chain(environment, parts, &lifecycle).await?);
        }
        Ok(Self {
            metrics,
            journal,
            directory,
            keys: KeyBook::new(config),
            environments,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            started: Instant::now(),
            reports: Arc::default(),
            probe: WriteProbe::default(),
            stop,
        })
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.environments.values().map(|streams| &streams.chain)
    }
}

/// What one reading of the configuration made. Nothing of it holds yet.
pub(super) struct Reading {
    foundation: Arc<Foundation>,
    generation: Generation,
    services: Vec<Arc<Service>>,
    managed: Vec<Arc<ManagedKeys>>,
    keys: Draft,
    /// Nobody else reads keys meanwhile.
    turn: Option<OwnedSemaphorePermit>,
}

impl Reading {
    /// Lets the keys hold, and answers the generation that is to follow at once.
    pub(super) fn enter(self) -> Generation {
        // Before the keys: what is acknowledged waits for its key, and must not be priced without its service's ceilings.
        for service in &self.services {
            service.chain.set_ceilings(&service.name, service.ceilings);
        }
        let findings = self.keys.apply();
        for holder in self.services.iter().flat_map(|service| service.keys.all()).flat_map(|key| key.holders()) {
            holder.store.keep_ready(&holder.arn);
        }
        for service in self.services.iter().filter(|service| service.keys.addresses().is_empty()) {
            tracing::warn!(service = %service.name, "the service has no key that can sign");
        }
        self.foundation.keys.exchange(self.managed, &self.foundation.metrics);
        tokio::spawn(remember(self.foundation, findings, self.turn));
        self.generation
    }
}

/// Puts on record which keys were found, for the next start.
async fn remember(foundation: Arc<Foundation>, findings: Vec<Finding>, _turn: Option<OwnedSemaphorePermit>) {
    let names = foundation.keys.discoveries(&foundation);
    let kept = async {
        foundation.directory.remember(findings).await?;
        foundation.directory.forget_others(names).await
    };
    if let Err(error) = kept.await {
        tracing::warn!(%error, "the keys that were found are not on record: the next start may discover first");
    }
}

/// Finds the keys of every service, anew each time, and makes what the listeners serve by, to be exchanged for the generation
/// `before`. The first one takes keys that are on record from there: they are checked behind it.
pub(super) async fn generation(foundation: &Arc<Foundation>, config: &Config, before: Option<&Generation>) -> Result<Reading, StartError> {
    let metrics = &foundation.metrics;
    let turn = foundation.keys.turn().await;
    let mut draft = foundation.directory.draft();
    let (mut services, mut managed, mut served) = (Vec::new(), Vec::new(), Vec::new());
    for service in &config.services {
        let Some(streams) = foundation.environments.get(&service.environment) else { continue };
        let (keys, is_checked) = find(&mut draft, service, before.is_none())
            .await
            .map_err(|error| StartError::Keys { name: service.name.clone(), error: Box::new(error) })?;
        managed.push(foundation.keys.managed(service, keys.clone(), is_checked));
        let made = Arc::new(Service::new(service, urls(&config.server, foundation.listen, &service.name), keys, streams.clone(), metrics));
        served.push(Served {
            name: service.name.clone(),
            environment: service.environment.clone(),
            methods: rpc::module(Arc::clone(&made))?.into(),
            pass_through: Arc::clone(&made) as _,
            limits: service.limits,
        });
        services.push(made);
    }
    let view = View::new(Arc::clone(foundation), config.clone(), services.clone(), managed.clone());
    let context = AdminContext { metrics: Arc::clone(metrics), overview: Arc::new(view) };
    let generation = Generation::open(config, served, context, before, metrics).await?;
    Ok(Reading { foundation: Arc::clone(foundation), generation, services, managed, keys: draft, turn })
}

/// The keys of a service, and whether its key stores were asked which they are.
async fn find(draft: &mut Draft, service: &config::Service, by_record: bool) -> Result<(ServiceKeys, bool), DirectoryError> {
    if by_record && let Some(keys) = draft.recall(&service.configurations, &service.keys).await? {
        tracing::info!(service = service.name, keys = keys.len(), "the keys are those that were found last; they are checked now");
        return Ok((keys, false));
    }
    Ok((draft.select(&service.configurations, &service.keys).await?, true))
}

/// The one place that names an engine.
async fn open_journal(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<dyn Engine>, StartError> {
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
    ceilings: HashMap<Arc<str>, config::FeeCeilings>,
    journal: Arc<dyn Journal>,
    directory: &'a Arc<Directory>,
    scheduler: &'a Scheduler,
    metrics: &'a Arc<Metrics>,
    stop: &'a CancellationToken,
}

async fn open_chain(environment: &config::Environment, parts: ChainParts<'_>, lifecycle: &Arc<Lifecycle>) -> Result<Streams, StartError> {
    let ChainParts { ceilings, journal, directory, scheduler, metrics, stop } = parts;
    let pinned = journal.chain(environment.chain_id).await?.map(|pin| pin.genesis);
    let pool = Pool::start(environment, pinned, Arc::clone(metrics), stop.child_token());
    let (receipts, seen) = mpsc::unbounded_channel();
    let keys = Arc::clone(directory);
    let chain = Chain::start(Parts {
        ceilings,
        environment: environment.clone(),
        pool: pool.clone(),
        journal,
        scheduler: scheduler.clone(),
        key_of: Arc::new(move |address| keys.get(&address)),
        receipts,
        metrics: Arc::clone(metrics),
        stop: stop.child_token(),
    });
    let hub = Hub::new(pool, environment, metrics, stop.child_token());
    Ok(Streams { chain, hub, receipts: Receipts::start(seen), lifecycle: Arc::clone(lifecycle), places: Places::default() })
}
