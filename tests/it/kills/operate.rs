//! An operator who pauses accounts under load and lets them go on, and who is told so by the admin port.

use std::time::Duration;

use alloy_primitives::Address;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sluice_load_tests::http;

use super::journal;
use super::ledger::Answer;
use super::load::Asker;
use super::world::World;
use crate::support::soon;

/// Pauses accounts one after the other, each for a moment, until the gateway is gone.
pub(super) async fn operate(world: &World, admin: &str, asker: &Asker, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x0909);
    let left = world.accounts().into_iter().filter(|account| world.ledger.ordered(*account) == Some(true));
    for account in left {
        holds(world, asker, account).await;
        order(world, admin, account, false).await;
    }
    while !asker.client.is_closed() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..900))).await;
        let account = world.loaded(&mut rng);
        order(world, admin, account, true).await;
        holds(world, asker, account).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
        order(world, admin, account, false).await;
    }
}

/// Lets all accounts go on that are paused. The others are not asked for anything: an order would open an account that the restart did not.
pub(super) async fn resume_all(world: &World, admin: &str) {
    for account in world.accounts().into_iter().filter(|account| world.is_paused(*account)) {
        order(world, admin, account, false).await;
    }
}

/// What an operator was told before the gateway ended is on record.
pub(super) fn compare(world: &World) {
    let Some(ordered) = journal::ordered(&world.path()) else { return };
    for account in world.accounts() {
        if let Some(paused) = world.ledger.ordered(account)
            && ordered.contains(&account) != paused
        {
            world.ledger.disobeyed(format!("an operator was told that {account} is paused: {paused}, and that is not on record"));
        }
    }
}

async fn order(world: &World, admin: &str, account: Address, paused: bool) {
    let (word, body) = if paused { ("pause", json!({ "reason": "crash test" })) } else { ("resume", json!({})) };
    world.ledger.order(account);
    let url = format!("http://{admin}/accounts/dev/{account}/{word}");
    if let Ok((200, _)) = soon("an order", http::post_json(&url, &body)).await {
        world.ledger.obeyed(account, paused);
        compare(world);
    }
}

/// A paused account takes nothing.
async fn holds(world: &World, asker: &Asker, account: Address) {
    if world.ledger.ordered(account) != Some(true) {
        return;
    }
    let answer = asker.ask("while paused by an operator", "eth_sendTransaction", account, json!({ "gas": "0x5208" })).await;
    if matches!(answer, Answer::Hash(_)) {
        world.ledger.disobeyed(format!("{account} is paused by an operator and took a transaction: {answer:?}"));
    }
}
