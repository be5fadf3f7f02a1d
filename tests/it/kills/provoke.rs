//! What makes rare edges be passed: reorgs, refusals by the node, use of a key by somebody else, loans of nonces.

use std::time::Duration;

use alloy_primitives::Address;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sluice_gateway::telemetry::crash::{Commit, Edge, Point, Told};
use sluice_load_tests::node_proxy::RawFault;

use super::ledger::Answer;
use super::load::Asker;
use super::world::World;

/// Gas of a transaction with one authorisation, and room.
const GAS: &str = "0x186a0";

/// Goes on until the gateway is gone or it has done its part.
pub(super) async fn provoke(world: &World, asker: &Asker, edge: Edge, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let Edge(_, point) = edge;
    for _ in 0..8 {
        if asker.client.is_closed() {
            return;
        }
        match point {
            Point::Commit(Commit::Orphaned) => {
                pause(&mut rng, 600..1_200).await;
                world.chain.reorg(rng.random_range(1..=2)).await;
            }
            Point::Commit(Commit::Refused) | Point::Answer(Told::Error) if rng.random() => {
                world.node.set_faults([RawFault::refuses(1, "insufficient funds for gas * price + value")]);
                asker.ask("refused by the node", "eth_sendTransaction", world.loaded(&mut rng), json!({ "gas": "0x5208" })).await;
            }
            Point::Commit(Commit::Refused) | Point::Answer(Told::Error) => {
                asker.ask("too little gas", "eth_sendTransaction", world.loaded(&mut rng), json!({ "gas": "0x4e20" })).await;
            }
            Point::Commit(Commit::Held | Commit::Released) | Point::Answer(Told::Bytes) => {
                asker.held(world.loaded(&mut rng), StdRng::seed_from_u64(rng.random())).await;
            }
            // An operator makes it be passed, too.
            Point::Commit(Commit::Pause) if rng.random() => refuse_fillers(world, asker).await,
            Point::Commit(Commit::Floor) => use_elsewhere(world, asker).await,
            Point::Commit(Commit::Replaced) => use_held_elsewhere(world, asker).await,
            Point::Commit(Commit::Used) => borrow(world, asker).await,
            _ => return,
        }
        pause(&mut rng, 0..100).await;
    }
}

async fn pause(rng: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(milliseconds))).await;
}

/// The node refuses all for a while: a payload, and the filler that is wanted because bytes above it are held.
async fn refuse_fillers(world: &World, asker: &Asker) {
    let account = world.paused;
    world.node.set_faults([RawFault::refuses(u64::MAX, "insufficient funds for gas * price + value")]);
    let refused = asker.ask("refused by the node", "eth_sendTransaction", account, json!({ "gas": "0x5208" })).await;
    if matches!(refused, Answer::Refused { .. })
        && let Some(nonce) = asker.pending(account).await
    {
        let (number, value) = asker.ledger.begin("held above a refusal", account);
        asker.sign(number, account, value, nonce + 1).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        if let Answer::Refused { reason, .. } = asker.ask("while paused", "eth_sendTransaction", account, json!({ "gas": "0x5208" })).await
            && reason == "account_paused"
        {
            expect_pause_on_record(world, asker, account).await;
        }
    }
    world.node.set_faults([]);
}

/// A client was told that the account is paused: soon it is on record as such, or paused no more.
async fn expect_pause_on_record(world: &World, asker: &Asker, account: Address) {
    for _ in 0..20 {
        if asker.client.is_closed() || world.is_paused(account) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match asker.ask("after a pause", "eth_sendTransaction", account, json!({ "gas": "0x5208" })).await {
        Answer::Refused { reason, .. } if reason == "account_paused" && !world.is_paused(account) => {
            asker.ledger.complain(format!("{account} is told to be paused, and not on record as such"));
        }
        _ => {}
    }
}

/// Somebody else uses the key of an account that idles here, and then a client of ours does.
async fn use_elsewhere(world: &World, asker: &Asker) {
    let wallet = &world.foreign;
    if world.is_busy(wallet.address) {
        asker.ask("before foreign use", "eth_sendTransaction", wallet.address, json!({})).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        return;
    }
    world.send_elsewhere(wallet, world.chain.nonce(wallet.address).await).await;
    asker.ask("after foreign use", "eth_sendTransaction", wallet.address, json!({})).await;
}

/// Bytes are held by a client, and somebody else mines another payload with their nonce.
async fn use_held_elsewhere(world: &World, asker: &Asker) {
    let wallet = &world.foreign;
    if world.is_busy(wallet.address) {
        asker.ask("before foreign use", "eth_sendTransaction", wallet.address, json!({})).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        return;
    }
    let nonce = world.chain.nonce(wallet.address).await;
    let (number, value) = asker.ledger.begin("held and used elsewhere", wallet.address);
    if asker.sign(number, wallet.address, value, nonce).await.is_some() {
        world.send_elsewhere(wallet, nonce).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// A transaction with an authorisation of another managed account, which lends its next nonce for it.
async fn borrow(world: &World, asker: &Asker) {
    let lender = &world.lender;
    let nonce = world.chain.nonce(lender.address).await;
    let list = json!([lender.authorisation(world.chain.id, nonce)]);
    let from = asker.accounts[0];
    asker.ask("with an authorisation", "eth_sendTransaction", from, json!({ "gas": GAS, "authorizationList": list })).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
}
