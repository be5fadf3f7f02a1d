//! A client that has everything told to it and never reads.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::super::Failure;
use super::super::figures::Report;
use super::super::observe::steer_node;
use super::super::world::World;
use super::observers::socket;
use super::servers::Server;

/// Its subscriptions.
const SUBSCRIPTIONS: u64 = 1_000;
/// Time between two heads.
const PACE: Duration = Duration::from_millis(50);
/// How long it may stay.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it cost.
#[derive(Debug)]
pub(super) struct Cost {
    /// MiB at most.
    pub(super) memory: f64,
    /// Until its connection was ended.
    pub(super) ended: Duration,
}

/// Lets heads come until it is ended.
pub(super) async fn cost(server: &Server<'_>, world: &World, report: &mut Report) -> Result<Cost, Failure> {
    let before = server.resident().unwrap_or(0);
    let mut deaf = socket(&server.url()).await?;
    for number in 0..SUBSCRIPTIONS {
        let subscribe = json!({ "jsonrpc": "2.0", "id": number, "method": "eth_subscribe", "params": ["newHeads"] });
        deaf.send(Message::text(subscribe.to_string())).await?;
    }
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
    Ok(Cost { memory: (most - before) as f64 / f64::from(1 << 20), ended: begun.elapsed() })
}
