//! What both listeners serve by. A reload exchanges it whole: a request sees the one before or the one after, never a mix.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonrpsee::Methods;
use jsonrpsee::server::{BatchRequestConfig, IdProvider, PingConfig, Server, ServerConfig, TowerServiceBuilder};
use jsonrpsee::types::SubscriptionId;
use prometheus::IntCounter;
use tower::layer::util::Identity;

use super::access::{Access, Renewal};
use super::admin::AdminContext;
use super::error::ServerError;
use super::io::Rules;
use crate::config::{self, Config, ServiceLimits};
use crate::rpc::middleware::{Current, Limits, ServiceCalls};
use crate::rpc::pass_through::PassThrough;
use crate::rpc::rate::CallRate;
use crate::telemetry::metrics::Metrics;

/// Messages that wait for a client; beyond them calls wait with their answers.
const QUEUE: u32 = 1024;

/// The generation in force.
pub type Live = Arc<ArcSwap<Generation>>;

/// One service.
pub struct Served {
    /// Its path is `/NAME`.
    pub name: String,
    /// Its environment: of another one, it is another service, and connections to the one before see it removed.
    pub environment: String,
    /// What is answered here.
    pub methods: Methods,
    /// The way to the node for the rest.
    pub pass_through: Arc<dyn PassThrough>,
    /// Its limits.
    pub limits: ServiceLimits,
}

/// What one reading of the configuration makes of the listeners.
pub struct Generation {
    pub(super) clients: Access,
    pub(super) operators: Access,
    pub(super) services: HashMap<String, Arc<ServiceEntry>>,
    /// Of every service that was served and has a connection yet, by name and environment: one that a later reload puts back serves
    /// the connections that it left open.
    known: HashMap<(String, String), Weak<Connections>>,
    /// What `/` is.
    pub(super) default: Option<Arc<ServiceEntry>>,
    pub(super) context: AdminContext,
    pub(super) max_connections: u32,
    pub(super) max_request_bytes: u32,
    pub(super) drain: Duration,
    /// What clients may do to their connections.
    pub(super) rules: Rules,
}

/// jsonrpsee's side of one service.
pub(super) struct ServiceEntry {
    pub(super) name: Arc<str>,
    environment: String,
    pub(super) builder: TowerServiceBuilder<Identity, Identity>,
    pub(super) calls: ServiceCalls,
    pub(super) methods: Methods,
    pub(super) max_connections: u32,
    pub(super) connections: Arc<Connections>,
    /// WebSockets that were refused because as many as may were open.
    pub(super) refused: IntCounter,
}

/// WebSocket connections to one service, over all generations of it.
#[derive(Debug, Default)]
pub(super) struct Connections(AtomicU32);

impl Connections {
    pub(super) fn open(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one in; `None` if `max` are open.
    pub(super) fn enter(self: &Arc<Self>, max: u32) -> Option<OpenConnection> {
        let place = |open| (open < max).then_some(open + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).ok().map(|_| OpenConnection(self.clone()))
    }
}

/// One open connection: gone when dropped.
pub(super) struct OpenConnection(Arc<Connections>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Generation {
    /// Reads tokens and certificates and puts the services together. Of the generation `before`, open connections and the use of
    /// a rate that did not change go on counting.
    pub async fn open(
        config: &Config,
        services: Vec<Served>,
        context: AdminContext,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, ServerError> {
        let config::Config { server, admin, .. } = config;
        let clients = Access::open(server.token_file.as_deref(), &server.origins, server.tls.as_ref()).await?;
        let operators = Access::open(admin.token_file.as_deref(), &[], admin.tls.as_ref()).await?;
        let mut known = before.map(|before| before.known.clone()).unwrap_or_default();
        let services: HashMap<String, Arc<ServiceEntry>> = services
            .into_iter()
            .map(|served| {
                let name = (served.name.clone(), served.environment.clone());
                let connections = known.get(&name).and_then(Weak::upgrade).unwrap_or_default();
                known.insert(name, Arc::downgrade(&connections));
                let same = before.and_then(|before| before.services.get(&served.name));
                let rate = same.filter(|same| same.environment == served.environment).and_then(|same| same.calls.rate());
                (served.name.clone(), Arc::new(ServiceEntry::new(server, served, connections, rate, metrics)))
            })
            .collect();
        known.retain(|_, connections| connections.strong_count() > 0);
        if services.is_empty() {
            return Err(ServerError::NoService);
        }
        // Of several, none is taken silently: a payment must not leave from a service that nobody named.
        let default = match (&server.default_service, services.len()) {
            (Some(name), _) => services.get(name).cloned(),
            (None, 1) => services.values().next().cloned(),
            (None, _) => None,
        };
        Ok(Self {
            clients,
            operators,
            services,
            known,
            default,
            context,
            max_connections: server.max_connections,
            max_request_bytes: server.max_request_bytes,
            drain: server.drain,
            rules: rules(server),
        })
    }

    /// Whether the secrets of the clients' listener, and of the operators', are others than those of the generation before.
    pub fn renewals(&self, before: &Self) -> (Renewal, Renewal) {
        (self.clients.renewal(&before.clients), self.operators.renewal(&before.operators))
    }

    /// How long a stop waits for what is in flight, and then again for the connections.
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// WebSocket connections to a service that are open now.
    pub fn connections(&self, service: &str) -> u32 {
        self.services.get(service).map_or(0, |entry| entry.connections.open())
    }

    /// Whether `/` is this service.
    pub fn is_default(&self, service: &str) -> bool {
        self.default.as_ref().is_some_and(|default| &*default.name == service)
    }

    /// The service of a path.
    pub(super) fn service(&self, path: &str) -> Option<&Arc<ServiceEntry>> {
        match path.strip_prefix('/')? {
            "" => self.default.as_ref(),
            name => self.services.get(name.strip_suffix('/').unwrap_or(name)),
        }
    }

    /// Every path but `/`, sorted.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.services.keys().map(|name| format!("/{name}")).collect();
        paths.sort();
        paths
    }
}

impl ServiceEntry {
    /// `before` is the rate that the service had.
    fn new(
        server: &config::Server,
        served: Served,
        connections: Arc<Connections>,
        before: Option<&Arc<CallRate>>,
        metrics: &Metrics,
    ) -> Self {
        let Served { name, environment, methods, pass_through, limits: given } = served;
        let limits = limits(server, &given);
        let rate = given.max_requests_per_second.map(|per_second| rate(per_second, before));
        let calls = ServiceCalls::new(&name, methods.clone(), pass_through, limits, rate, metrics);
        let builder = Server::builder().set_config(jsonrpsee_config(server, &given)).to_service_builder();
        let refused = metrics.clients.connections.refused.clone();
        Self { name: name.into(), environment, builder, calls, methods, max_connections: given.max_connections, connections, refused }
    }
}

/// A rate that did not change goes on where it was, or a reload would give a second's calls for nothing.
fn rate(per_second: NonZeroU32, before: Option<&Arc<CallRate>>) -> Arc<CallRate> {
    before.filter(|before| before.per_second() == per_second).cloned().unwrap_or_else(|| Arc::new(CallRate::new(per_second)))
}

fn limits(server: &config::Server, service: &ServiceLimits) -> Limits {
    let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Limits {
        batch_items: size(service.max_batch_items),
        response_bytes: size(server.max_response_bytes),
        calls_in_flight: size(service.max_calls_in_flight.max(service.max_batch_items)),
        bytes_in_flight: size(server.max_request_bytes).saturating_mul(4),
    }
}

fn rules(server: &config::Server) -> Rules {
    let backlog = usize::try_from(server.max_backlog_bytes).unwrap_or(usize::MAX);
    Rules { stall: server.write_timeout, idle: server.idle_timeout, small_frames: server.max_small_frames_per_second, backlog }
}

fn jsonrpsee_config(server: &config::Server, limits: &ServiceLimits) -> ServerConfig {
    // The middleware tells of a batch that is too large as geth does; this only bounds what is built before it sees the batch.
    let items = limits.max_batch_items.saturating_mul(4);
    ServerConfig::builder()
        // Connections are counted by the accept loop, and sockets and requests are not the same there.
        .max_connections(u32::MAX)
        .max_request_body_size(server.max_request_bytes)
        .max_response_body_size(server.max_response_bytes)
        .max_subscriptions_per_connection(limits.max_subscriptions)
        .set_batch_request_config(BatchRequestConfig::Limit(items))
        .set_message_buffer_capacity(QUEUE)
        .set_id_provider(HexIds)
        // Who is silent is ended by the stream itself.
        .enable_ws_ping(PingConfig::new().ping_interval(server.ping_interval).max_failures(usize::MAX))
        .build()
}

/// How a connection finds its service again, in whatever generation is in force.
pub(super) struct Route {
    live: Live,
    entry: Arc<ServiceEntry>,
    /// Counted as long as the connection is there; HTTP requests are not.
    _open: Option<OpenConnection>,
}

impl Route {
    pub(super) fn new(live: Live, entry: Arc<ServiceEntry>, open: Option<OpenConnection>) -> Self {
        Self { live, entry, _open: open }
    }
}

impl Current for Route {
    fn calls(&self) -> Option<ServiceCalls> {
        let now = self.live.load();
        let entry = now.services.get(&*self.entry.name)?;
        // The same name with another environment is another service: nobody's transactions change the chain on the way.
        Arc::ptr_eq(&entry.connections, &self.entry.connections).then(|| entry.calls.clone())
    }
}

/// Subscription ids as geth's: 128 random bits as a hex quantity.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        SubscriptionId::Str(format!("{:#x}", rand::random::<u128>()).into())
    }
}
