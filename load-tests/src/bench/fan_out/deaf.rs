//! A client that has everything told to it and never reads.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::super::Failure;
use super::super::figures::Report;
use super::super::observe::steer_node;
use super::super::world::World;
use super::observers::{Observers, socket};
use super::servers::Server;

/// Its subscriptions.
const SUBSCRIPTIONS: u64 = 1_000;
/// Time between two heads.
const PACE: Duration = Duration::from_millis(50);
/// Until what was begun is over: clients are gone, subscriptions answered.
const SETTLED: Duration = Duration::from_secs(1);
/// How long it may stay.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it cost.
#[derive(Debug)]
pub(super) struct Cost {
    /// MiB at most.
    pub(super) memory: f64,
    /// MiB of these, of its subscriptions alone.
    pub(super) subscriptions: f64,
    /// Until its connection was ended.
    pub(super) ended: Duration,
}

/// Lets heads come until it is ended.
pub(super) async fn cost(server: &Server<'_>, world: &World, report: &mut Report) -> Result<Cost, Failure> {
    // What the first clients bring with them is not its own.
    let (mut first, _) = Observers::connect(&server.url(), 100, "[\"newHeads\"]").await?;
    for _ in 0..3 {
        let from = Instant::now();
        steer_node(world.node(), "sim_mine", json!([1])).await?;
        first.told(1, from).await?;
    }
    drop(first);
    tokio::time::sleep(SETTLED).await;
    let before = server.resident().unwrap_or(0);
    let mut deaf = socket(&server.url()).await?;
    for number in 0..SUBSCRIPTIONS {
        let subscribe = json!({ "jsonrpc": "2.0", "id": number, "method": "eth_subscribe", "params": ["newHeads"] });
        deaf.send(Message::text(subscribe.to_string())).await?;
    }
    tokio::time::sleep(SETTLED).await;
    let subscribed = server.resident().unwrap_or(0);
    let (begun, mut most) = (Instant::now(), before);
    loop {
        steer_node(world.node(), "sim_mine", json!([1])).await?;
        tokio::time::sleep(PACE).await;
        most = most.max(server.resident().unwrap_or(0));
        // It is told of its end by what it writes: it does not read.
        if deaf.send(Message::Ping(Bytes::new())).await.is_err() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            report.wrong.push(format!("{}: a client that never reads is still there after {PATIENCE:?}", server.name()));
            break;
        }
    }
    let since = |bytes: u64| bytes.saturating_sub(before) as f64 / f64::from(1 << 20);
    Ok(Cost { memory: since(most), subscriptions: since(subscribed), ended: begun.elapsed() })
}
