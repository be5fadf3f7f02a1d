//! The process is killed at many moments of a keyed send; the client repeats its key until it has an answer.

use std::time::Duration;

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::{keyed, send};
use crate::support::anvil::{parse, quantity};
use crate::support::soon;
use crate::support::world::World;

/// How often the account paid this much.
async fn payments(world: &World, value: u64) -> usize {
    let newest = quantity(&world.anvil.call("eth_blockNumber", json!([])).await.unwrap());
    let mut count = 0;
    for number in 0..=newest {
        let block = world.anvil.call("eth_getBlockByNumber", json!([format!("{number:#x}"), true])).await.unwrap();
        count += block["transactions"].as_array().unwrap().iter().filter(|one| quantity(&one["value"]) == value).count();
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_paid_once_whenever_the_process_is_killed() {
    let Some(world) = World::start("a_key_is_paid_once_whenever_the_process_is_killed").await else { return };
    let account = world.accounts(1).await[0];
    // Long enough for a kill to fall before, into and behind it.
    world.slow_signs(30);
    let mut hashes: Vec<B256> = Vec::new();
    for round in 0..8_u64 {
        let (key, value) = (format!("round-{round}"), 1_000 + round);
        let mut gateway = world.gateway().await;
        let client = gateway.connect().await;
        let sent = client.start("eth_sendTransaction", keyed(account, value, &key));
        let early = tokio::time::timeout(Duration::from_millis(8 * round), sent).await.ok();
        let early: Option<B256> = early.map(|answer| parse(&answer.unwrap()));
        gateway.process.kill();
        let gateway = world.gateway().await;
        let client = gateway.connect().await;
        let hash = send(&client, keyed(account, value, &key)).await.unwrap();
        assert!(early.is_none_or(|early| early == hash), "round {round}: what was told stays true");
        world.mined(hash).await;
        hashes.push(hash);
    }
    for round in 0..8_u64 {
        assert_eq!(payments(&world, 1_000 + round).await, 1, "round {round}");
    }
    assert_eq!(world.anvil.nonces().await[&account].len(), hashes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_paid_once_whenever_the_process_is_killed() {
    let Some(world) = World::start("what_is_acknowledged_is_paid_once_whenever_the_process_is_killed").await else { return };
    let account = world.accounts(1).await[0];
    world.slow_signs(30);
    let mut ids: Vec<Value> = Vec::new();
    for round in 0..4_u64 {
        let mut gateway = world.gateway().await;
        let client = gateway.connect().await;
        for value in 0..5 {
            let params =
                json!([{ "from": account, "to": account, "value": format!("{:#x}", 2_000 + 5 * round + value), "waitFor": "queued" }]);
            let queued = soon("an acknowledgement", client.request("sluice_sendTransaction", params)).await.unwrap();
            ids.push(queued["id"].clone());
        }
        tokio::time::sleep(Duration::from_millis(25 * round)).await;
        gateway.process.kill();
    }
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for id in &ids {
        crate::support::eventually("it to be in a block", || async {
            let found = client.request("sluice_getTransaction", json!([id])).await.unwrap();
            (found["state"] == "included" || found["state"] == "confirmed").then_some(())
        })
        .await;
    }
    for number in 0..20 {
        assert_eq!(payments(&world, 2_000 + number).await, 1, "{number}");
    }
    assert_eq!(world.anvil.nonces().await[&account], (0..20).collect::<Vec<u64>>());
}
