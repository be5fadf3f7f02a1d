//! What is paid once: idempotency keys, transactions that are acknowledged before they are sent, and calls that wait.

mod crashes;
mod queued;
mod sync;
mod waiting;

use alloy_primitives::{Address, B256};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError, outcome};
use sluice_load_tests::http;
use sluice_load_tests::node_proxy::RawFault;

use crate::support::anvil::parse;
use crate::support::gateway::Gateway;
use crate::support::world::World;
use crate::support::{eventually, soon};

/// A payment under a key.
fn keyed(from: Address, value: u64, key: &str) -> Value {
    json!([{ "from": from, "to": from, "value": format!("{value:#x}"), "gas": "0x5208", "idempotencyKey": key }])
}

async fn send(client: &Client, params: Value) -> Result<B256, ClientError> {
    soon("an answer", client.request("eth_sendTransaction", params)).await.map(|hash| parse(&hash))
}

fn told(error: &ClientError) -> (i64, &str) {
    (error.code().unwrap_or_default(), error.reason().unwrap_or_default())
}

fn data(error: &ClientError) -> &Value {
    match error {
        ClientError::Rpc { data, .. } => data,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_is_answered_with_the_same_hash_and_costs_no_signature() {
    let Some(world) = World::start("a_repeated_key_is_answered_with_the_same_hash_and_costs_no_signature").await else { return };
    let account = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash = send(&client, keyed(account, 1, "order-1")).await.unwrap();
    world.mined(hash).await;
    world.kms_proxy.reset();
    // The same request in other words, on another socket, and by the other method.
    let other = gateway.connect().await;
    let words = json!([{ "from": account, "to": account, "value": "0x1", "gas": "0x5208", "data": "0x", "chainId": "0x7a69", "idempotencyKey": "order-1" }]);
    assert_eq!(send(&other, words).await.unwrap(), hash);
    let again = soon("an answer", other.request("sluice_sendTransaction", keyed(account, 1, "order-1"))).await.unwrap();
    assert_eq!(parse::<B256>(&again["hash"]), hash);
    let found = client.request("sluice_getTransaction", json!([again["id"]])).await.unwrap();
    assert_eq!(parse::<B256>(&found["hash"]), hash);

    for (params, method) in
        [(keyed(account, 2, "order-1"), "eth_sendTransaction"), (keyed(account, 2, "order-1"), "sluice_sendTransaction")]
    {
        let error = soon("a conflict", client.request(method, params)).await.unwrap_err();
        assert_eq!(told(&error), (-32000, "idempotency_conflict"));
    }
    for bad in ["", "a b", &"x".repeat(256)] {
        assert_eq!(told(&send(&client, keyed(account, 1, bad)).await.unwrap_err()), (-32602, "invalid_params"));
    }
    let signing = json!([{ "from": account, "to": account, "idempotencyKey": "order-1" }]);
    assert_eq!(told(&client.request("eth_signTransaction", signing).await.unwrap_err()), (-32602, "invalid_params"));

    gateway.process.kill();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    assert_eq!(send(&client, keyed(account, 1, "order-1")).await.unwrap(), hash, "the journal has the key");
    assert_eq!(world.kms_proxy.stats().calls_of("Sign"), 0);
    assert_eq!(world.anvil.nonces().await[&account], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_under_one_key_at_once_are_one_signature_and_one_payment() {
    let Some(world) = World::start("fifty_requests_under_one_key_at_once_are_one_signature_and_one_payment").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    world.kms_proxy.reset();
    world.slow_signs(300);
    let clients = [gateway.connect().await, gateway.connect().await];
    let sends = (0..50).map(|number| send(&clients[number % 2], keyed(account, 1, "all-at-once")));
    let hashes: Vec<B256> = join_all(sends).await.into_iter().map(Result::unwrap).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    // Another content under it is told at once, whether the first one is in flight or on record.
    assert_eq!(told(&send(&clients[0], keyed(account, 9, "all-at-once")).await.unwrap_err()), (-32000, "idempotency_conflict"));
    let batch: Vec<(&str, Value)> = (0..4).map(|_| ("eth_sendTransaction", keyed(account, 1, "in-a-batch"))).collect();
    let answers: Vec<B256> =
        soon("the batch", clients[0].batch(&batch)).await.unwrap().into_iter().map(|one| parse(&one.unwrap())).collect();
    assert!(answers.iter().all(|hash| *hash == answers[0] && *hash != hashes[0]), "{answers:?}");
    for hash in [hashes[0], answers[0]] {
        world.mined(hash).await;
    }
    assert_eq!(world.kms_proxy.stats().digests.len(), 2);
    assert_eq!(world.anvil.nonces().await[&account], [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_and_comes_back_with_its_key_pays_once() {
    let Some(world) = World::start("a_client_that_goes_away_and_comes_back_with_its_key_pays_once").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    // Nothing is signed before everybody has left.
    world.kms_proxy.set_limit(0);
    for _ in 0..3 {
        let leaving = gateway.connect().await;
        let sent = leaving.start("eth_sendTransaction", keyed(account, 1, "lost"));
        let waits = || world.kms_proxy.stats().keys.values().any(|key| key.in_flight > 0);
        eventually("a Sign to wait", || async { waits().then_some(()) }).await;
        drop((sent, leaving));
    }
    world.kms_proxy.set_limit(u64::MAX);
    let client = gateway.connect().await;
    let hash = send(&client, keyed(account, 1, "lost")).await.unwrap();
    world.mined(hash).await;
    assert_eq!(send(&client, keyed(account, 1, "lost")).await.unwrap(), hash);
    assert_eq!(world.anvil.nonces().await[&account], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_request_failed_before_its_commit_is_free_and_a_refusal_is_its_answer() {
    let Some(world) = World::start("a_key_whose_request_failed_before_its_commit_is_free_and_a_refusal_is_its_answer").await else {
        return;
    };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let too_much = json!([{ "from": account, "to": account, "value": "0xfffffffffffffffffff", "gas": "0x5208", "idempotencyKey": "free" }]);
    assert_eq!(told(&send(&client, too_much.clone()).await.unwrap_err()), (-32000, "insufficient_funds"));
    world.anvil.call("anvil_setBalance", json!([account, "0xffffffffffffffffffffff"])).await.unwrap();
    // A balance is that of a head.
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    // The same request, since there is money: nothing of the first one stands in its way.
    let hash = eventually("the balance to be read", || async { send(&client, too_much.clone()).await.ok() }).await;
    world.mined(hash).await;

    world.node.set_faults([RawFault::refuses(1, "intrinsic gas too low")]);
    let refused = send(&client, keyed(account, 3, "refused")).await.unwrap_err();
    assert_eq!(told(&refused), (-32000, "refused"));
    world.kms_proxy.reset();
    let again = send(&client, keyed(account, 3, "refused")).await.unwrap_err();
    assert_eq!(told(&again), (-32000, "refused"));
    assert_eq!(data(&again)["hash"], data(&refused)["hash"]);
    assert_eq!(data(&again)["state"], "refused");
    assert_eq!(world.kms_proxy.stats().calls_of("Sign"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_answer_of_its_key_also_when_another_payment_is_final_in_its_slot() {
    let test = "a_refusal_is_the_answer_of_its_key_also_when_another_payment_is_final_in_its_slot";
    let Some(mut world) = World::start(test).await else { return };
    world.extra.environment = "confirmations = 1".into();
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.node.set_faults([RawFault::refuses(1, "intrinsic gas too low")]);
    let refused = send(&client, keyed(account, 3, "refused")).await.unwrap_err();
    assert_eq!(told(&refused), (-32000, "refused"));
    let hash = send(&client, keyed(account, 4, "paid")).await.unwrap();
    eventually("the other payment to be final", || async {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
        let found = client.request("sluice_getTransaction", json!([hash])).await.ok()?;
        (found["state"] == "confirmed").then_some(())
    })
    .await;
    assert_eq!(world.anvil.nonces().await[&account], [0], "it had the slot of the refused one");
    for method in ["eth_sendTransaction", "sluice_sendTransaction"] {
        let again = soon("an answer", client.request(method, keyed(account, 3, "refused"))).await.unwrap_err();
        assert_eq!(told(&again), (-32000, "refused"));
        assert_eq!((&data(&again)["hash"], &data(&again)["state"]), (&data(&refused)["hash"], &json!("refused")));
    }
    let listed = client.request("sluice_listTransactions", json!([{ "state": "refused" }])).await.unwrap();
    assert_eq!(listed["transactions"][0]["hash"], data(&refused)["hash"]);
    for method in ["sluice_speedUpTransaction", "sluice_cancelTransaction"] {
        let error = client.request(method, json!([{ "hash": data(&refused)["hash"] }])).await.unwrap_err();
        assert_eq!(told(&error), (-32000, "not_replaceable"), "{error}");
    }
}

/// One POST with headers.
async fn post(gateway: &Gateway, headers: &[(&str, &str)], body: &Value) -> Value {
    let headers = [&[("content-type", "application/json")], headers].concat();
    let (status, answer) = http::send(::http::Method::POST, &gateway.url("http"), &headers, body.to_string()).await.unwrap();
    assert_eq!(status, 200);
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_the_key_of_one_send_and_of_nothing_else() {
    let Some(world) = World::start("the_header_is_the_key_of_one_send_and_of_nothing_else").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let call = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let plain = json!([{ "from": account, "to": account, "value": "0x1", "gas": "0x5208" }]);
    let key = [("Idempotency-Key", "by-header")];
    let first = post(&gateway, &key, &call("eth_sendTransaction", plain.clone())).await;
    let hash: B256 = parse(&outcome(first).unwrap());
    for request in [
        post(&gateway, &key, &call("eth_sendTransaction", plain.clone())).await,
        post(&gateway, &key, &call("eth_sendTransaction", keyed(account, 1, "by-header"))).await,
        post(&gateway, &[], &call("eth_sendTransaction", keyed(account, 1, "by-header"))).await,
    ] {
        assert_eq!(parse::<B256>(&outcome(request).unwrap()), hash);
    }
    let bad = [("Idempotency-Key", "a b")];
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    for (headers, request) in [
        (&key[..], call("eth_sendTransaction", keyed(account, 1, "another"))),
        (&key[..], call("eth_chainId", json!([]))),
        (&key[..], call("eth_signTransaction", plain.clone())),
        (&bad[..], call("eth_sendTransaction", plain.clone())),
        (&twice[..], call("eth_sendTransaction", plain.clone())),
    ] {
        let error = outcome(post(&gateway, headers, &request).await).unwrap_err();
        assert_eq!(told(&error), (-32602, "invalid_params"), "{request}");
    }
    let batch = json!([call("eth_sendTransaction", plain.clone()), call("eth_sendTransaction", plain)]);
    let answers = post(&gateway, &key, &batch).await;
    for answer in answers.as_array().unwrap() {
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&account], [0]);
}
