//! What the gateway's metrics say while it works.

use std::collections::HashMap;

use alloy_primitives::{Address, B256};
use serde_json::json;

use crate::support::anvil::parse;
use crate::support::gateway::Gateway;
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

/// The samples of the page, by name and labels as they are written.
async fn samples(gateway: &Gateway) -> HashMap<String, f64> {
    let (status, page) = gateway.admin("metrics").await;
    assert_eq!(status, 200);
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Waits until an account's gauges are these.
async fn shown(gateway: &Gateway, account: Address, gauges: &[(&str, u64)]) {
    let labels = format!("{{account=\"{account}\",environment=\"dev\"}}");
    eventually(&format!("{gauges:?}"), || async {
        let samples = samples(gateway).await;
        gauges.iter().all(|(name, value)| samples.get(&format!("sluice_account_{name}{labels}")) == Some(&(*value as f64))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_shown_as_it_is_also_after_a_restart() {
    let Some(mut world) = World::start_with("an_account_is_shown_as_it_is_also_after_a_restart", &["--no-mining"]).await else { return };
    world.extra.environment = "account = { broadcast_window = 2 }".into();
    let accounts = world.accounts(2).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let sends: Vec<_> = (0..3).map(|i| client.start("eth_sendTransaction", transfer(accounts[0], i))).collect();
    for send in sends {
        soon("an answer", send).await.unwrap();
    }
    let waiting = [("in_flight", 2), ("unsent", 1), ("window", 2), ("next_nonce", 3), ("queued", 0), ("signing", 0), ("paused", 0)];
    shown(&gateway, accounts[0], &waiting).await;
    shown(&gateway, accounts[0], &[("requests_total", 3)]).await;
    let names = samples(&gateway).await;
    assert!(!names.keys().any(|name| name.contains(&accounts[1].to_string())), "an account that did nothing has no series");

    gateway.process.kill();
    drop(gateway);
    let gateway = world.gateway().await;
    shown(&gateway, accounts[0], &[("in_flight", 2), ("unsent", 1), ("window", 2), ("next_nonce", 3)]).await;
    for _ in 0..2 {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
        // What was unsent goes out now.
        eventually("a look at the pool", || async {
            let samples = samples(&gateway).await;
            let unsent = format!("sluice_account_unsent{{account=\"{}\",environment=\"dev\"}}", accounts[0]);
            (samples.get(&unsent) == Some(&0.0)).then_some(())
        })
        .await;
    }
    world.anvil.call("evm_setAutomine", json!([true])).await.unwrap();
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    shown(&gateway, accounts[0], &[("in_flight", 0), ("unsent", 0), ("next_nonce", 3)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_kms_takes_is_not_sluices_own() {
    const HELD: u64 = 200;
    const SENDS: u64 = 5;
    let Some(world) = World::start("the_time_that_kms_takes_is_not_sluices_own").await else { return };
    let accounts = world.accounts(1).await;
    world.slow_signs(HELD);
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for i in 0..SENDS {
        let hash: B256 = parse(&soon("an answer", client.request("eth_sendTransaction", transfer(accounts[0], i))).await.unwrap());
        world.mined(hash).await;
        soon("a signature", client.request("personal_sign", json!([format!("0x{i:02x}"), accounts[0]]))).await.unwrap();
    }
    eventually("all inclusions to be seen", || async {
        (samples(&gateway).await["sluice_broadcast_to_inclusion_seconds_count{environment=\"dev\"}"] == SENDS as f64).then_some(())
    })
    .await;
    let samples = samples(&gateway).await;
    let held = (HELD * SENDS) as f64 / 1_000.0;
    for method in ["eth_sendTransaction", "personal_sign"] {
        let sum = |name: &str| samples[&format!("sluice_request_{name}_seconds_sum{{method=\"{method}\"}}")];
        let (whole, own) = (sum("duration"), sum("own_duration"));
        assert!(own > 0.0 && whole - own >= held, "{method}: {own} of {whole} s, {held} s of which KMS took");
    }
    // The stages are the whole way, without a gap.
    let stage = |name: &str| {
        let labels = format!("{{environment=\"dev\",stage=\"{name}\"}}");
        assert_eq!(samples[&format!("sluice_transaction_stage_duration_seconds_count{labels}")], SENDS as f64, "{name}");
        samples[&format!("sluice_transaction_stage_duration_seconds_sum{labels}")]
    };
    assert!(stage("sign") >= held);
    let sum: f64 = ["prepare", "queue", "sign", "order", "commit", "window", "node"].into_iter().map(stage).sum();
    let whole = samples["sluice_accept_to_broadcast_seconds_sum{environment=\"dev\"}"];
    assert!((sum - whole).abs() < 1e-6, "{sum} {whole}");
    assert!(samples["sluice_sign_duration_seconds_sum{configuration=\"kms\",outcome=\"ok\"}"] >= 2.0 * held);
    assert_eq!(samples["sluice_sign_queue_seconds_count{configuration=\"kms\"}"], (2 * SENDS) as f64);
}
