//! Sluice before go-ethereum's own node.

use alloy_primitives::B256;
use serde_json::json;

use crate::support::anvil::{parse, quantity};
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{CHAIN_ID, Geth};
use crate::support::parts::{Part, have};
use crate::support::world::transfer;
use crate::support::{eventually, soon};

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_while_geth_is_away_is_mined_when_it_is_back() {
    if !have("what_waits_while_geth_is_away_is_mined_when_it_is_back", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut geth = Geth::start(folder.path()).await;
    let (node, chain_id) = (format!("ws://{}", geth.address), CHAIN_ID.to_string());
    let address = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let dev = sluice(&[&["dev", "--node", &node, "--chain-id", &chain_id, "--accounts", "1"], &address[..]].concat());
    let gateway = Gateway::start(dev, "dev", &folder.path().join("dev.log")).await.ready().await;
    let client = gateway.connect().await;
    let from = parse(&client.request("eth_accounts", json!([])).await.unwrap()[0]);
    geth.fund(&[from], 1_000).await;

    let mut hashes: Vec<B256> = Vec::new();
    for value in 0..3 {
        hashes.push(parse(&soon("a hash", client.request("eth_sendTransaction", transfer(from, value))).await.unwrap()));
    }
    // With what geth mined of these or not: its pool does not outlive it.
    geth.stop().await;
    let geth = Geth::start_at(folder.path(), geth.address.port()).await;
    for (nonce, hash) in hashes.into_iter().enumerate() {
        eventually("a receipt", || geth.receipt(hash)).await;
        let transaction = geth.call("eth_getTransactionByHash", json!([hash])).await.unwrap();
        assert_eq!(quantity(&transaction["nonce"]), nonce as u64);
    }
}
