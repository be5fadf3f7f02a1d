//! What fan-out is compared with: jsonrpsee alone, with its own accept loop, queues and writes, telling every subscriber the bytes of one
//! subscription at a node. It has no back-fill, no bound in bytes and no policy for slow clients: what it cannot queue is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonrpsee::core::SubscriptionError;
use jsonrpsee::server::{PingConfig, ServerConfig, ServerHandle};
use jsonrpsee::{RpcModule, SubscriptionMessage, SubscriptionSink, server::Server};
use serde_json::value::{RawValue, to_raw_value};

use crate::client::Client;
use crate::lock;

/// Subscribers by the parameters of their subscription.
type Subscribers = Mutex<BTreeMap<String, Vec<SubscriptionSink>>>;

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Bare {
    address: SocketAddr,
    _handle: ServerHandle,
}

impl Bare {
    /// Listens here, before the node with this WebSocket URL.
    pub async fn start(listen: SocketAddr, node: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let node = Arc::new(Client::connect(node, &[]).await?);
        let config = ServerConfig::builder()
            .max_connections(1_000_000)
            .max_subscriptions_per_connection(10_000)
            // As Sluice has it by default.
            .enable_ws_ping(
                PingConfig::new().ping_interval(Duration::from_secs(20)).inactive_limit(Duration::from_secs(60)).max_failures(1),
            )
            .build();
        let server = Server::builder().set_config(config).build(listen).await?;
        let address = server.local_addr()?;
        let mut module = RpcModule::new((node, Arc::<Subscribers>::default()));
        module.register_method("eth_chainId", |_, _, _| "0x7a69")?;
        module.register_subscription("eth_subscribe", "eth_subscription", "eth_unsubscribe", |params, pending, context, _| async move {
            let (node, subscribers) = &*context;
            let params = params.as_str().unwrap_or("[]").to_owned();
            let sink = pending.accept().await?;
            let is_first = {
                let mut subscribers = lock(subscribers);
                let is_first = !subscribers.contains_key(&params);
                subscribers.entry(params.clone()).or_default().push(sink.clone());
                is_first
            };
            if is_first {
                let (node, subscribers) = (Arc::clone(node), Arc::clone(subscribers));
                tokio::spawn(async move { relay(&node, &subscribers, &params).await });
            }
            sink.closed().await;
            Ok::<(), SubscriptionError>(())
        })?;
        Ok(Self { address, _handle: server.start(module) })
    }

    /// Its WebSocket URL.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

/// Tells each subscriber what the node does.
async fn relay(node: &Client, subscribers: &Subscribers, params: &str) {
    let Ok(parsed) = serde_json::from_str(params) else { return };
    let Ok(mut upstream) = node.subscribe(parsed).await else { return };
    while let Some(result) = upstream.next().await {
        let Ok(result) = to_raw_value(&result) else { continue };
        if let Some(sinks) = lock(subscribers).get_mut(params) {
            sinks.retain_mut(|sink| tell(sink, &result));
        }
    }
}

fn tell(sink: &mut SubscriptionSink, result: &RawValue) -> bool {
    let message = SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), &result);
    message.is_ok_and(|message| match sink.try_send(message) {
        Ok(()) => true,
        Err(_) => !sink.is_closed(),
    })
}
