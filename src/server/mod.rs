//! The listener: TLS, authentication, `Origin`, limits; HTTP/1.1 and WebSocket on one port, one path per service.

pub mod admin;

mod accept;
mod envelope;
mod error;
mod gate;
mod http;
mod io;
mod reply;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::Methods;
use jsonrpsee::server::{BatchRequestConfig, IdProvider, PingConfig, Server, ServerConfig, stop_channel};
use jsonrpsee::types::SubscriptionId;
use tokio_util::sync::CancellationToken;

use self::accept::Door;
pub use self::error::ServerError;
use self::gate::Gate;
use self::http::{RpcHandler, ServiceEntry};
use crate::config;
use crate::policy::Principal;
use crate::rpc::middleware::{Limits, ServiceCalls};
use crate::rpc::pass_through::PassThrough;
use crate::telemetry::metrics::Metrics;

/// Calls of one connection that are not answered yet.
const CALLS_IN_FLIGHT: usize = 4096;
/// Messages that wait for a client; beyond them calls wait with their answers.
const QUEUE: u32 = 1024;
/// How often a WebSocket client is pinged, and how long it may be silent.
const PING: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);

/// One service.
pub struct Served {
    /// Its path is `/NAME`; the first one has `/` too.
    pub name: String,
    /// What is answered here.
    pub methods: Methods,
    /// The way to the node for the rest.
    pub pass_through: Arc<dyn PassThrough>,
}

/// A bound JSON-RPC listener.
pub struct Listener {
    door: Door,
    handler: RpcHandler,
}

/// Reads token and certificate and opens the socket; nothing is served before [`Listener::run`].
pub async fn bind(config: &config::Server, services: Vec<Served>, metrics: Arc<Metrics>) -> Result<Listener, ServerError> {
    let gate = Gate::open(config.token_file.as_deref(), config.origins.clone()).await?;
    let tls = match &config.tls {
        Some(files) => Some(tls::acceptor(files).await?),
        None => None,
    };
    let limits = limits(config);
    let mut by_path = HashMap::new();
    for service in services {
        let calls = ServiceCalls::new(&service.name, service.methods.clone(), service.pass_through, limits, &metrics);
        let builder = Server::builder().set_config(jsonrpsee_config(config, &limits)).to_service_builder();
        let entry = Arc::new(ServiceEntry { builder, calls, methods: service.methods });
        by_path.entry("/".to_owned()).or_insert_with(|| entry.clone());
        by_path.insert(format!("/{}", service.name), entry);
    }
    if by_path.is_empty() {
        return Err(ServerError::NoService);
    }
    let (stopped, stopping) = stop_channel();
    let door = Door::open(config.listen, tls, config.max_connections, Some(metrics.connections.clone()), config.drain)?;
    let served = http::Served {
        gate,
        principal: Arc::new(Principal::sole()),
        services: by_path,
        max_request_bytes: config.max_request_bytes,
        stopped,
        stopping,
    };
    Ok(Listener { door, handler: RpcHandler(Arc::new(served)) })
}

impl Listener {
    /// The address it listens on, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Serves until `stop`. Then nothing new is accepted or read, what is in flight is finished for `config.drain` at most, and what
    /// is still open is cut (two seconds more at most).
    pub async fn run(self, stop: CancellationToken) {
        self.door.run(self.handler, stop).await;
    }
}

fn limits(config: &config::Server) -> Limits {
    let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Limits {
        batch_items: size(config.max_batch_items),
        response_bytes: size(config.max_response_bytes),
        calls_in_flight: CALLS_IN_FLIGHT.max(size(config.max_batch_items)),
        bytes_in_flight: size(config.max_request_bytes).saturating_mul(4),
    }
}

fn jsonrpsee_config(config: &config::Server, limits: &Limits) -> ServerConfig {
    // The middleware tells of a batch that is too large as geth does; this only bounds what is built before it sees the batch.
    let items = u32::try_from(limits.batch_items.saturating_mul(4)).unwrap_or(u32::MAX);
    ServerConfig::builder()
        // Connections are counted by the accept loop, and sockets and requests are not the same there.
        .max_connections(u32::MAX)
        .max_request_body_size(config.max_request_bytes)
        .max_response_body_size(config.max_response_bytes)
        .max_subscriptions_per_connection(config.max_subscriptions)
        .set_batch_request_config(BatchRequestConfig::Limit(items))
        .set_message_buffer_capacity(QUEUE)
        .set_id_provider(HexIds)
        .enable_ws_ping(PingConfig::new().ping_interval(PING).inactive_limit(IDLE).max_failures(1))
        .build()
}

/// Subscription ids as geth's: 128 random bits as a hex quantity.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        SubscriptionId::Str(format!("{:#x}", rand::random::<u128>()).into())
    }
}
