//! Who is let in, what operators see, and how the gateway ends.

use std::collections::HashSet;

use ::http::Method;
use alloy_primitives::B256;
use serde_json::json;
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::http;

use crate::support::anvil::parse;
use crate::support::world::{World, transfer};
use crate::support::{eventually, journal, soon};

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_and_clients_without_the_token_are_refused() {
    let Some(mut world) = World::start("pages_of_other_origins_and_clients_without_the_token_are_refused").await else { return };
    world.accounts(1).await;
    std::fs::write(world.folder.path().join("token"), "s3cret-of-the-door\n").unwrap();
    world.extra.server = "token_file = \"token\"\norigins = [\"https://app.example.org\"]".into();
    let gateway = world.gateway().await;
    let token = ("authorization", "Bearer s3cret-of-the-door");
    let (good, bad) = (("origin", "https://app.example.org"), ("origin", "https://evil.example.org"));
    for (headers, status) in [
        (vec![token], 200),
        (vec![token, good], 200),
        (vec![token, bad], 403),
        (vec![], 401),
        (vec![good], 401),
        (vec![("authorization", "Bearer s3cret-of-the-doo")], 401),
    ] {
        let mut with = headers.clone();
        with.push(("content-type", "application/json"));
        let (answered, _) = http::send(Method::POST, &gateway.url("http"), &with, CALL).await.unwrap();
        assert_eq!(answered, status, "HTTP with {headers:?}");
        let socket = soon("a handshake", Client::connect(&gateway.url("ws"), &headers)).await;
        match (status, socket) {
            (200, Ok(client)) => assert_eq!(client.request("eth_chainId", json!([])).await.unwrap(), "0x7a69"),
            (_, Err(ClientError::Status(answered))) => assert_eq!(answered, status, "WebSocket with {headers:?}"),
            (_, other) => panic!("WebSocket with {headers:?}: {:?}", other.err()),
        }
    }
    assert!(!gateway.process.log().contains("s3cret"), "no token in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_metrics_and_status_without_secrets() {
    let Some(world) = World::start("operators_see_metrics_and_status_without_secrets").await else { return };
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for account in &accounts {
        let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(*account, 1)).await.unwrap());
        world.mined(hash).await;
    }
    let (status, metrics) = gateway.admin("metrics").await;
    assert_eq!(status, 200);
    let value = |line: &str| metrics.lines().find_map(|one| one.strip_prefix(line)?.trim().parse::<f64>().ok());
    assert_eq!(value("sluice_signs_total{configuration=\"kms\",outcome=\"ok\"}"), Some(2.0), "{metrics}");
    assert_eq!(value("sluice_get_public_key_total"), Some(2.0));
    assert_eq!(value("sluice_submissions_total{environment=\"dev\",outcome=\"accepted\"}"), Some(2.0), "{metrics}");
    assert!(metrics.contains("sluice_requests_total{method=\"eth_sendTransaction\",outcome=\"ok\",service=\"payments\"} 2"), "{metrics}");
    assert!(metrics.contains("sluice_upstream_up{"), "{metrics}");
    let (status, page) = gateway.admin("status").await;
    assert_eq!(status, 200);
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["services"][0]["name"], "payments");
    assert_eq!(gateway.admin("livez").await.0, 200);
    assert_eq!(gateway.admin("readyz").await.0, 200);
    assert_eq!(gateway.admin("nonsense").await.0, 404);
    // I10: signed bytes are in no log.
    let log = gateway.process.log();
    for sent in world.node.sent() {
        assert!(!log.contains(sent.raw.trim_start_matches("0x")), "signed bytes are in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight_and_takes_nothing_new() {
    let Some(world) = World::start("sigterm_finishes_what_is_in_flight_and_takes_nothing_new").await else { return };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    // Long enough for one more request to arrive while the gateway drains.
    world.slow_signs(2_000);
    let sends: Vec<_> = (0..8).map(|i| client.start("eth_sendTransaction", transfer(accounts[0], i))).collect();
    eventually("8 Signs in flight", || async { (world.kms_proxy.stats().max_in_flight() == 8).then_some(()) }).await;
    gateway.process.terminate();
    eventually("the gateway to drain", || async { gateway.process.log().contains("draining").then_some(()) }).await;
    let late = client.start("eth_sendTransaction", transfer(accounts[0], 99));
    let mut told = HashSet::<B256>::new();
    for send in sends {
        told.insert(parse(&soon("an answer", send).await.unwrap()));
    }
    let refused = soon("the late answer", late).await.unwrap_err();
    assert_eq!(refused.reason(), Some("shutting_down"), "{refused}");
    let ended = gateway.process.exit().await;
    assert_eq!(ended.code(), Some(0), "{}", gateway.process.log());
    assert!(Client::connect(&gateway.url("ws"), &[]).await.is_err());
    let on_record: HashSet<B256> = journal::attempts(&world.journal()).into_iter().map(|(hash, _)| hash).collect();
    assert_eq!(on_record, told);
    for hash in told {
        world.mined(hash).await;
    }
    assert_eq!(world.anvil.nonces().await[&accounts[0]], (0..8).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_after_a_restart_gets_the_receipts_that_it_missed() {
    let Some(world) =
        World::start_with("a_client_that_comes_back_after_a_restart_gets_the_receipts_that_it_missed", &["--no-mining"]).await
    else {
        return;
    };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut told = Vec::<B256>::new();
    for i in 0..3 {
        told.push(parse(&soon("an answer", client.request("eth_sendTransaction", transfer(accounts[0], i))).await.unwrap()));
    }
    gateway.process.kill();
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let mut received = Vec::<B256>::new();
    while received.len() < told.len() {
        let block = soon("a receipt", receipts.next()).await.unwrap();
        received.extend(block.as_array().unwrap().iter().map(|receipt| parse::<B256>(&receipt["transactionHash"])));
    }
    assert_eq!(received, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_and_reached_no_node_is_sent_after_a_restart() {
    let Some(mut world) = World::start("what_was_committed_and_reached_no_node_is_sent_after_a_restart").await else { return };
    world.extra.environment = "answer_after = \"100ms\"".into();
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    // The node never sees them, and never says so.
    world
        .node
        .set_faults([sluice_load_tests::node_proxy::RawFault { count: u64::MAX, answer: sluice_load_tests::node_proxy::RawAnswer::Lose }]);
    let mut told = Vec::<B256>::new();
    for i in 0..5 {
        told.push(parse(&soon("an answer", client.request("eth_sendTransaction", transfer(accounts[0], i))).await.unwrap()));
    }
    gateway.process.kill();
    assert!(world.anvil.mined().await.is_empty());
    world.node.set_faults([]);
    let _gateway = world.gateway().await;
    for hash in &told {
        world.mined(*hash).await;
    }
    let mined: Vec<B256> = world.anvil.mined().await.iter().map(|one| one.hash).collect();
    assert_eq!(mined, told, "the same bytes, in order");
}
