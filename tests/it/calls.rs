//! What clients call beside plain sends: batches, receipts by hash, heads, pass-through.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{ClientError, outcome};
use sluice_load_tests::http;

use crate::support::anvil::{parse, quantity};
use crate::support::soon;
use crate::support::world::{World, transfer};

/// Sends of two accounts, mixed, with a question in between.
fn batch(accounts: &[Address]) -> Vec<(&'static str, Value)> {
    let mut batch: Vec<_> = (0..12).map(|i| ("eth_sendTransaction", transfer(accounts[i % 2], 100 + i as u64))).collect();
    batch.insert(5, ("eth_chainId", json!([])));
    batch
}

/// Items of one `from` have nonces in array order, from `first` on.
async fn in_array_order(world: &World, batch: &[(&str, Value)], answers: Vec<Result<Value, ClientError>>, first: u64) {
    assert_eq!(answers.len(), batch.len());
    let mut next = BTreeMap::<Address, u64>::new();
    for ((method, params), answer) in batch.iter().zip(answers) {
        let answer = answer.unwrap();
        if *method == "eth_chainId" {
            assert_eq!(answer, "0x7a69");
            continue;
        }
        world.mined(parse(&answer)).await;
        let transaction = world.anvil.call("eth_getTransactionByHash", json!([answer])).await.unwrap();
        let nonce = next.entry(parse(&params[0]["from"])).or_insert(first);
        assert_eq!(transaction["value"], params[0]["value"], "the answer is that of another item");
        assert_eq!(quantity(&transaction["nonce"]), *nonce);
        *nonce += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_one_sender_take_nonces_in_array_order_over_http_and_websocket() {
    let test = "items_of_one_sender_take_nonces_in_array_order_over_http_and_websocket";
    let Some(world) = World::start(test).await else { return };
    let accounts = world.accounts(2).await;
    world.slow_signs(20);
    let gateway = world.gateway().await;
    let batch = batch(&accounts);

    let client = gateway.connect().await;
    let answers = soon("the batch", client.batch(&batch)).await.unwrap();
    in_array_order(&world, &batch, answers, 0).await;

    let items: Vec<Value> =
        (0..).zip(&batch).map(|(id, (method, params))| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).collect();
    let (status, body) = http::post_json(&gateway.url("http"), &Value::Array(items)).await.unwrap();
    assert_eq!(status, 200);
    let answers: Vec<Value> = serde_json::from_slice(&body).unwrap();
    let ids: Vec<u64> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..batch.len() as u64).collect::<Vec<_>>(), "answers in the order of the requests");
    in_array_order(&world, &batch, answers.into_iter().map(outcome).collect(), 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_is_mined_already_is_delivered_at_once() {
    let Some(world) = World::start("a_hash_that_is_mined_already_is_delivered_at_once").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let old: B256 = parse(&client.request("eth_sendTransaction", transfer(accounts[0], 1)).await.unwrap());
    let receipt = world.mined(old).await;

    let mut receipts = client.subscribe(json!(["transactionReceipts", { "transactionHashes": [old] }])).await.unwrap();
    let block = soon("the old receipt", receipts.next()).await.unwrap();
    assert_eq!(block, json!([receipt]), "geth's shape: an array of receipts as eth_getTransactionReceipt gives them");

    // A later transaction is not among the hashes of that stream; a stream of all that is one's own has both.
    let mut all = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let new: B256 = parse(&client.request("eth_sendTransaction", transfer(accounts[0], 2)).await.unwrap());
    let mut seen = Vec::<B256>::new();
    while seen.len() < 2 {
        let block = soon("both receipts", all.next()).await.unwrap();
        seen.extend(block.as_array().unwrap().iter().map(|receipt| parse::<B256>(&receipt["transactionHash"])));
    }
    assert_eq!(seen, [old, new]);
    assert_eq!(client.request("eth_unsubscribe", json!([receipts.id])).await.unwrap(), true);
    assert!(
        soon("the end of the stream", async { client.request("eth_unsubscribe", json!(["0x1234"])).await })
            .await
            .is_ok_and(|gone| gone == false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_relayed_as_the_node_sends_them() {
    let Some(world) = World::start("heads_are_relayed_as_the_node_sends_them").await else { return };
    world.accounts(1).await;
    let gateway = world.gateway().await;
    let clients = [gateway.connect().await, gateway.connect().await];
    let mut streams = Vec::new();
    for client in &clients {
        streams.push(client.subscribe(json!(["newHeads"])).await.unwrap());
    }
    for _ in 0..3 {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
    }
    for stream in &mut streams {
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let head = soon("a head", stream.next()).await.unwrap();
            let block = world.anvil.call("eth_getBlockByNumber", json!([head["number"], false])).await.unwrap();
            assert_eq!(head["hash"], block["hash"]);
            numbers.push(quantity(&head["number"]));
        }
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_pass_through_untouched() {
    let Some(world) = World::start("other_methods_pass_through_untouched").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x0", true])),
        ("eth_getBalance", json!([accounts[0], "latest"])),
        ("eth_getTransactionCount", json!([accounts[0], "latest"])),
        ("web3_clientVersion", json!([])),
        ("net_listening", json!([])),
        ("eth_syncing", json!([])),
    ] {
        let expected = world.anvil.call(method, params.clone()).await.unwrap();
        assert_eq!(client.request(method, params.clone()).await.unwrap(), expected, "{method} over WebSocket");
        assert_eq!(gateway.call(method, params).await.unwrap(), expected, "{method} over HTTP");
    }
    // The node's own error, too.
    let own = world.anvil.call("eth_getBalance", json!(["nonsense"])).await.unwrap_err();
    let passed = client.request("eth_getBalance", json!(["nonsense"])).await.unwrap_err();
    assert_eq!((passed.code(), passed.to_string()), (own.code(), own.to_string()));
    // Namespaces that nobody configured do not: the node would let anybody change its chain.
    for method in ["anvil_setBalance", "evm_mine", "txpool_status", "debug_traceTransaction", "wallet_sendTransaction"] {
        let error = client.request(method, json!([])).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Some(-32601), Some("method_not_found")), "{method}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pending_count_is_the_next_nonce_that_would_be_handed_out() {
    let Some(world) = World::start("the_pending_count_is_the_next_nonce_that_would_be_handed_out").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.slow_signs(500);
    let sends: Vec<_> = (0..5).map(|i| client.start("eth_sendTransaction", transfer(accounts[0], i))).collect();
    for send in sends {
        world.mined(parse(&soon("an answer", send).await.unwrap())).await;
    }
    assert_eq!(client.request("eth_getTransactionCount", json!([accounts[0], "pending"])).await.unwrap(), "0x5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_nonce_waits_for_those_below_it() {
    let Some(world) = World::start("a_given_nonce_waits_for_those_below_it").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let given = |nonce: u64| {
        let mut params = transfer(accounts[0], nonce);
        params[0]["nonce"] = json!(format!("{nonce:#x}"));
        params
    };
    let last = client.start("eth_sendTransaction", given(2));
    let first = client.start("eth_sendTransaction", given(0));
    // Requests of one connection run side by side: what has to come after another waits for its answer.
    let first = soon("0", first).await;
    let middle = client.start("eth_sendTransaction", transfer(accounts[0], 1));
    let hashes = [first, soon("1", middle).await, soon("2", last).await].map(|hash| parse::<B256>(&hash.unwrap()));
    for hash in hashes {
        world.mined(hash).await;
    }
    let order: Vec<B256> = world.anvil.mined().await.iter().map(|mined| mined.hash).collect();
    assert_eq!(order, hashes);
    let again = client.request("eth_sendTransaction", given(1)).await.unwrap_err();
    assert!(matches!(again.reason(), Some("nonce_held" | "nonce_too_low")), "{again}");
}
