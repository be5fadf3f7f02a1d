//! Nodes that are reached by other ways than a WebSocket: everything works that is promised over one.

use std::path::Path;

use alloy_primitives::{Address, B256, keccak256};
use serde_json::{Value, json};
use sluice_load_tests::client::Subscription;

use crate::support::anvil::{Anvil, parse, quantity};
use crate::support::emitter;
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{self, Geth};
use crate::support::parts::{Part, have};
use crate::support::{eventually, soon};

/// A gateway with a development key before this node.
async fn gateway(folder: &Path, node: &str, chain_id: u64) -> Gateway {
    let chain_id = chain_id.to_string();
    let address = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let dev = sluice(&[&["dev", "--node", node, "--chain-id", &chain_id, "--accounts", "1"], &address[..]].concat());
    Gateway::start(dev, "dev", &folder.join("dev.log")).await.ready().await
}

async fn account(gateway: &Gateway) -> Address {
    parse(&gateway.call("eth_accounts", json!([])).await.unwrap()[0])
}

/// Gives the account money, and waits until the gateway has seen the block: a head that is asked for comes later.
async fn fund(geth: &Geth, gateway: &Gateway) {
    geth.fund(&[account(gateway).await], 100).await;
    let funded = quantity(&geth.call("eth_blockNumber", json!([])).await.unwrap());
    eventually("the block with the money", || async {
        let head = gateway.status().await["environments"][0]["head"]["number"].as_u64();
        (head >= Some(funded)).then_some(())
    })
    .await;
}

async fn next(stream: &mut Subscription) -> Value {
    soon("a notification", stream.next()).await.expect("the connection is open")
}

/// Sends, and reads receipts, heads and logs from the streams.
async fn sends_and_streams(gateway: &Gateway, transport: &str) {
    let client = gateway.connect().await;
    let from = account(gateway).await;
    let endpoint = gateway.status().await["environments"][0]["endpoints"][0].clone();
    assert_eq!((&endpoint["transport"], &endpoint["up"]), (&json!(transport), &json!(true)), "{endpoint}");
    let send = async |call: Value| -> B256 { parse(&soon("a hash", client.request("eth_sendTransaction", json!([call]))).await.unwrap()) };
    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let mut mined = async || next(&mut receipts).await;
    let deployed = send(json!({ "from": from, "data": emitter::CODE })).await;
    let receipt = mined().await;
    let receipt = receipt.get(0).unwrap_or(&receipt).clone();
    assert_eq!(parse::<B256>(&receipt["transactionHash"]), deployed);
    let contract: Address = parse(&receipt["contractAddress"]);

    let mut heads = client.subscribe(json!(["newHeads"])).await.unwrap();
    let mut logs = client.subscribe(json!(["logs", { "address": contract }])).await.unwrap();
    let mut hashes = Vec::new();
    for number in 0..20 {
        hashes.push(send(json!({ "from": from, "to": contract, "data": emitter::call(keccak256("red"), number), "gas": "0x186a0" })).await);
    }
    let mut newest = 0;
    for (number, hash) in (0..).zip(&hashes) {
        let log = next(&mut logs).await;
        assert_eq!((emitter::number(&log), parse::<B256>(&log["transactionHash"])), (number, *hash));
        newest = newest.max(quantity(&log["blockNumber"]));
    }
    let mut told = 0;
    while told < hashes.len() {
        let receipt = mined().await;
        let batch = receipt.as_array().cloned().unwrap_or_else(|| vec![receipt]);
        for receipt in batch {
            assert_eq!((parse::<B256>(&receipt["transactionHash"]), &receipt["status"]), (hashes[told], &json!("0x1")));
            told += 1;
        }
    }
    let mut before: Option<Value> = None;
    loop {
        let head = next(&mut heads).await;
        if let Some(before) = &before {
            assert_eq!(head["parentHash"], before["hash"], "without a gap");
        }
        if quantity(&head["number"]) >= newest {
            break;
        }
        before = Some(head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_over_http_to_anvil_sends_and_streams() {
    if !have("a_gateway_over_http_to_anvil_sends_and_streams", &[Part::Node]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let anvil = Anvil::start(folder.path(), &[]).await;
    let gateway = gateway(folder.path(), &format!("http://{}", anvil.address), 31337).await;
    anvil.fund(account(&gateway).await, 100).await;
    sends_and_streams(&gateway, "http").await;
    let client = gateway.connect().await;
    let error = client.subscribe(json!(["newPendingTransactions"])).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some(-32601), Some("unsupported")), "{error}");
    assert!(error.to_string().contains("over HTTP"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_over_a_unix_socket_to_anvil_sends_and_streams() {
    if !have("a_gateway_over_a_unix_socket_to_anvil_sends_and_streams", &[Part::Node]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anvil.ipc");
    let anvil = Anvil::start(folder.path(), &["--ipc", path.to_str().unwrap()]).await;
    let gateway = gateway(folder.path(), &format!("ipc://{}", path.display()), 31337).await;
    anvil.fund(account(&gateway).await, 100).await;
    sends_and_streams(&gateway, "ipc").await;
    let client = gateway.connect().await;
    client.subscribe(json!(["newPendingTransactions"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_over_http_to_geth_sends_and_streams() {
    if !have("a_gateway_over_http_to_geth_sends_and_streams", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let gateway = gateway(folder.path(), &format!("http://{}", geth.address), geth::CHAIN_ID).await;
    fund(&geth, &gateway).await;
    sends_and_streams(&gateway, "http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_over_the_unix_socket_of_geth_sends_and_streams() {
    if !have("a_gateway_over_the_unix_socket_of_geth_sends_and_streams", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let gateway = gateway(folder.path(), &format!("ipc://{}", geth.ipc.display()), geth::CHAIN_ID).await;
    fund(&geth, &gateway).await;
    sends_and_streams(&gateway, "ipc").await;
    let client = gateway.connect().await;
    client.subscribe(json!(["newPendingTransactions"])).await.unwrap();
}
