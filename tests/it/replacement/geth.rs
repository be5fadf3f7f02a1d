//! Before geth, which takes a replacement for a tenth more, and has its own words for less.

use alloy_primitives::B256;
use serde_json::json;

use super::{call, payment, send, shown};
use crate::support::anvil::{parse, quantity};
use crate::support::eventually;
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{CHAIN_ID, Geth};
use crate::support::parts::{Part, have};

#[tokio::test(flavor = "multi_thread")]
async fn geth_takes_what_is_stuck_once_it_pays_more() {
    if !have("geth_takes_what_is_stuck_once_it_pays_more", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let (node, chain_id) = (format!("ws://{}", geth.address), CHAIN_ID.to_string());
    let address = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let dev = sluice(&[&["dev", "--node", &node, "--chain-id", &chain_id, "--accounts", "2"], &address[..]].concat());
    let gateway = Gateway::start(dev, "dev", &folder.path().join("dev.log")).await.ready().await;
    let client = gateway.connect().await;
    let accounts = client.request("eth_accounts", json!([])).await.unwrap();
    let (first, second) = (parse(&accounts[0]), parse(&accounts[1]));
    geth.fund(&[first, second], 1_000).await;

    // Far below the base fee: no block takes it. A tenth more and a wei does not help, but is what geth asks for.
    let mut low = payment(first);
    low["maxFeePerGas"] = json!("0x3e8");
    low["maxPriorityFeePerGas"] = json!("0x1");
    let stuck = send(&client, low).await;
    let asked = json!([{ "hash": stuck, "maxFeePerGas": "0x44d", "maxPriorityFeePerGas": "0x3" }]);
    let faster = call(&client, "sluice_speedUpTransaction", asked).await.unwrap();
    let in_pool = geth.call("eth_getTransactionByHash", json!([faster["hash"]])).await.unwrap();
    assert_eq!(in_pool["maxFeePerGas"], "0x44d", "geth has the replacement");
    assert_eq!(geth.call("eth_getTransactionByHash", json!([stuck])).await.unwrap(), json!(null), "and not what it replaced");

    // Without a price it pays what the chain asks for.
    call(&client, "sluice_speedUpTransaction", json!([{ "hash": stuck }])).await.unwrap();
    let life = shown(&client, &stuck.to_string(), "included").await;
    let mined: B256 = parse(&life["hash"]);
    eventually("a receipt", || geth.receipt(mined)).await;
    assert_eq!(life["attempts"].as_array().unwrap().len(), 3, "{life}");
    let receipt = call(&client, "eth_getTransactionReceipt", json!([stuck])).await.unwrap();
    assert_eq!(parse::<B256>(&receipt["transactionHash"]), mined);
    assert_eq!(quantity(&geth.call("eth_getTransactionCount", json!([first, "latest"])).await.unwrap()), 1);

    // A cancel of another one.
    let mut low = payment(second);
    low["maxFeePerGas"] = json!("0x3e8");
    low["maxPriorityFeePerGas"] = json!("0x1");
    let unwanted = send(&client, low).await;
    let cancel = call(&client, "sluice_cancelTransaction", json!([{ "hash": unwanted }])).await.unwrap();
    let receipt = eventually("a receipt", || geth.receipt(parse(&cancel["hash"]))).await;
    assert_eq!(parse::<alloy_primitives::Address>(&receipt["to"]), second);
    shown(&client, &unwanted.to_string(), "cancelled").await;
}
