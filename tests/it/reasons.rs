//! The reasons of docs/errors.md that no other test of this folder is told: each can happen, and the account goes on afterwards.

use alloy_primitives::{Address, B256};
use rusqlite::Connection;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::http;
use sluice_load_tests::node_proxy::{RawAnswer, RawFault};

use crate::support::anvil::parse;
use crate::support::gateway::Gateway;
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

async fn send(client: &Client, from: Address) -> Result<Value, ClientError> {
    soon("an answer", client.request("eth_sendTransaction", transfer(from, 1))).await
}

/// Waits until the log has called for somebody.
async fn alarm(gateway: &Gateway, kind: &str) {
    let series = format!("sluice_alarms_total{{environment=\"dev\",kind=\"{kind}\"}}");
    eventually("the alarm", || async { (gateway.metric(&series).await > 0.0).then_some(()) }).await;
}

fn told(error: &ClientError) -> (i64, &str) {
    (error.code().unwrap_or_default(), error.reason().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_told_by_its_reason() {
    let Some(mut world) = World::start("what_is_wrong_with_a_request_is_told_by_its_reason").await else { return };
    world.extra.server = "max_subscriptions = 1\nmax_principal_subscriptions = 2".into();
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let both = json!([{ "from": account, "to": account, "gasPrice": "0x1", "maxFeePerGas": "0x1" }]);
    let blob = json!([{ "from": account, "to": account, "type": "0x3" }]);
    for (method, params, expected) in [
        ("eth_sendTransaction", both, (-32000, "invalid_transaction")),
        ("eth_sendTransaction", blob, (-32000, "unsupported")),
        ("eth_sendTransaction", json!([]), (-32602, "invalid_params")),
        ("eth_sendTransaction", json!([{ "from": "0x1" }]), (-32602, "invalid_params")),
        ("eth_subscribe", json!(["nothing"]), (-32602, "unsupported")),
    ] {
        let error = client.request(method, params).await.unwrap_err();
        assert_eq!(told(&error), expected, "{method}");
    }
    // On a connection of its own: the place of a subscription that was refused is given back after its answer.
    let client = gateway.connect().await;
    client.request("eth_subscribe", json!(["newHeads"])).await.unwrap();
    let error = client.request("eth_subscribe", json!(["newHeads"])).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "limit_exceeded"));
    let another = gateway.connect().await;
    another.request("eth_subscribe", json!(["newHeads"])).await.unwrap();
    let third = gateway.connect().await;
    for (method, params) in [("eth_subscribe", json!(["newHeads"])), ("sluice_subscribe", json!(["transactions"]))] {
        let error = third.request(method, params).await.unwrap_err();
        assert_eq!(told(&error), (-32005, "limit_exceeded"), "of one principal, over all its connections");
        assert!(error.to_string().contains("over all connections"), "{error}");
    }
    drop(another);
    eventually("the place of a connection that is gone", || async {
        third.request("sluice_subscribe", json!(["transactions"])).await.ok()
    })
    .await;
    for body in ["{", r#"{"jsonrpc":"2.0","id":-1,"method":"eth_chainId"}"#, "[]"] {
        let headers = [("content-type", "application/json")];
        let (_, answer) = http::send(::http::Method::POST, &gateway.url("http"), &headers, body.to_owned()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["error"]["data"]["reason"], "invalid_request", "{body}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filler_that_is_refused_pauses_the_account() {
    let Some(mut world) = World::start("a_filler_that_is_refused_pauses_the_account").await else { return };
    world.extra.environment = "hold = \"1s\"\nanswer_after = \"100ms\"".into();
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    // What is above the held nonce is lost on its way, and held; the filler below it is refused.
    world.node.set_faults([RawFault { count: 1, answer: RawAnswer::Swallow }, RawFault::refuses(u64::MAX, "intrinsic gas too low")]);
    let mut whole = transfer(account, 1);
    whole[0]["gas"] = json!("0x5208");
    whole[0]["gasPrice"] = json!("0x77359400");
    whole[0]["nonce"] = json!("0x0");
    soon("a signature", client.request("eth_signTransaction", whole)).await.unwrap();
    send(&client, account).await.unwrap();
    alarm(&gateway, "filler_refused").await;
    let error = send(&client, account).await.unwrap_err();
    assert_eq!(told(&error), (-32002, "account_paused"), "{error}");
    assert!(error.to_string().contains("intrinsic gas too low"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_who_uses_the_key_is_told_until_the_chain_has_settled() {
    let Some(mut world) = World::start("somebody_else_who_uses_the_key_is_told_until_the_chain_has_settled").await else { return };
    world.extra.environment = "account = { queue_deadline = \"1s\" }".into();
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.mined(parse(&send(&client, account).await.unwrap())).await;
    // Nonce 1 is mined and nonce 2 waits, since a block has room for one: where new nonces begin cannot be told.
    world.anvil.call("anvil_impersonateAccount", json!([account])).await.unwrap();
    world.anvil.call("evm_setAutomine", json!([false])).await.unwrap();
    for _ in 0..2 {
        world.anvil.call("eth_sendTransaction", transfer(account, 5)).await.unwrap();
    }
    world.anvil.call("evm_setBlockGasLimit", json!(["0x7530"])).await.unwrap();
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    alarm(&gateway, "foreign_nonce").await;
    let error = send(&client, account).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "foreign_nonce"), "{error}");
    world.anvil.call("evm_setBlockGasLimit", json!(["0x1c9c380"])).await.unwrap();
    world.anvil.call("evm_setAutomine", json!([true])).await.unwrap();
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    let hash: B256 = eventually("a send", || async { send(&client, account).await.ok().map(|hash| parse(&hash)) }).await;
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&account], [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_write_is_told_and_nothing_was_promised() {
    let Some(world) = World::start("a_journal_that_cannot_write_is_told_and_nothing_was_promised").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.mined(parse(&send(&client, account).await.unwrap())).await;
    // Another program that writes, and does not end.
    let other = Connection::open(world.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = send(&client, account).await.unwrap_err();
    assert_eq!(told(&error), (-32002, "journal_unavailable"), "{error}");
    assert_eq!(world.node.sent_count(), 1, "the first");
    other.execute_batch("ROLLBACK").unwrap();
    world.mined(parse(&send(&client, account).await.unwrap())).await;
    assert_eq!(world.anvil.nonces().await[&account], [0, 1]);
}
