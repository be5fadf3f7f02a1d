//! Streams of the chain, which have no gap, and what the node announces, relayed: what becomes of a subscription whose events may be missing.

use alloy_primitives::{Address, B256, keccak256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, Subscription};
use sluice_load_tests::http;

use crate::support::anvil::parse;
use crate::support::emitter;
use crate::support::raw::RawSocket;
use crate::support::soon;
use crate::support::world::{World, transfer};

async fn next(stream: &mut Subscription) -> Value {
    soon("a notification", stream.next()).await.expect("the connection is open")
}

/// Sends by the gateway and waits until it is mined; the receipt.
async fn mined(world: &World, client: &Client, params: Value) -> Value {
    let hash: B256 = parse(&soon("a hash", client.request("eth_sendTransaction", params)).await.unwrap());
    world.mined(hash).await
}

async fn deployed(world: &World, client: &Client, from: Address) -> Address {
    parse(&mined(world, client, json!([{ "from": from, "data": emitter::CODE }])).await["contractAddress"])
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_reach_whom_they_concern() {
    let Some(world) = World::start("logs_reach_whom_they_concern").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let (client, other) = (gateway.connect().await, gateway.connect().await);
    let contract = deployed(&world, &client, from).await;
    let (red, blue) = (keccak256("red"), keccak256("blue"));

    let mut all = client.subscribe(json!(["logs", {}])).await.unwrap();
    let mut reds = other.subscribe(json!(["logs", { "address": contract, "topics": [red] }])).await.unwrap();
    // The same in another spelling, and on another connection.
    let spelling = json!(["logs", { "topics": [[red, red]], "address": [contract.to_string().to_uppercase().replace("0X", "0x")] }]);
    let mut same = client.subscribe(spelling).await.unwrap();
    let mut nobody = other.subscribe(json!(["logs", { "address": from }])).await.unwrap();
    for (n, topic) in [red, blue, red, blue].into_iter().enumerate() {
        mined(&world, &client, json!([{ "from": from, "to": contract, "data": emitter::call(topic, n as u64) }])).await;
    }
    for expected in [(red, 0), (blue, 1), (red, 2), (blue, 3)] {
        let log = next(&mut all).await;
        assert_eq!((parse::<B256>(&log["topics"][0]), emitter::number(&log)), expected);
        let logs = world.anvil.call("eth_getLogs", json!([{ "blockHash": log["blockHash"] }])).await.unwrap();
        assert_eq!(logs[0]["transactionHash"], log["transactionHash"]);
    }
    for stream in [&mut reds, &mut same] {
        assert_eq!([emitter::number(&next(stream).await), emitter::number(&next(stream).await)], [0, 2]);
    }
    // Unsubscribed, once; whoever else watches goes on.
    assert_eq!(client.request("eth_unsubscribe", json!([same.id])).await.unwrap(), true);
    assert_eq!(client.request("eth_unsubscribe", json!([same.id])).await.unwrap(), false);
    assert_eq!(client.request("eth_unsubscribe", json!([reds.id])).await.unwrap(), false, "it is another connection's");
    mined(&world, &client, json!([{ "from": from, "to": contract, "data": emitter::call(red, 4) }])).await;
    assert_eq!(emitter::number(&next(&mut reds).await), 4);
    assert_eq!(emitter::number(&next(&mut all).await), 4);
    drop((client, other));
    assert!(same.next().await.is_none() && nobody.next().await.is_none(), "nothing came to whom it did not concern");
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_transactions_are_announced_by_hash_and_in_full() {
    let Some(world) = World::start("pending_transactions_are_announced_by_hash_and_in_full").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut hashes = client.subscribe(json!(["newPendingTransactions"])).await.unwrap();
    let mut also = client.subscribe(json!(["newPendingTransactions", false])).await.unwrap();
    let mut full = client.subscribe(json!(["newPendingTransactions", true])).await.unwrap();
    for value in 1..=3 {
        let receipt = mined(&world, &client, transfer(from, value)).await;
        assert_eq!(next(&mut hashes).await, receipt["transactionHash"]);
        assert_eq!(next(&mut also).await, receipt["transactionHash"]);
        let transaction = next(&mut full).await;
        assert_eq!((&transaction["hash"], &transaction["value"]), (&receipt["transactionHash"], &json!(format!("{value:#x}"))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_subscribed_to_is_told() {
    let Some(world) = World::start("what_cannot_be_subscribed_to_is_told").await else { return };
    world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let error = client.subscribe(json!(["nonsense"])).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some(-32602), Some("unsupported")), "{error}");
    let error = client.subscribe(json!(["logs", { "topics": ["0x12"] }])).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some(-32602), Some("invalid_params")), "{error}");
    // anvil has no `syncing`, and says so in words of its own.
    let mut direct = RawSocket::connect(&format!("ws://{}", world.anvil.address)).await;
    let own = direct.ask("eth_subscribe", r#"["syncing"]"#).await.error.unwrap();
    let passed = gateway.raw_socket().await.ask("eth_subscribe", r#"["syncing"]"#).await.error.unwrap();
    assert_eq!((passed.code, &passed.message, passed.data.is_none()), (own.code, &own.message, own.data.is_none()));

    for params in [json!(["logs", {}]), json!(["newHeads"])] {
        let error = gateway.call("eth_subscribe", params.clone()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Some(-32601), Some("unsupported")), "over HTTP: {error}");
        let answers = client.batch(&[("eth_subscribe", params.clone()), ("eth_chainId", json!([]))]).await.unwrap();
        let error = answers[0].as_ref().unwrap_err();
        assert_eq!((error.code(), error.reason()), (Some(-32601), Some("unsupported")), "in a batch: {error}");
        assert_eq!(answers[1].as_ref().unwrap(), "0x7a69");
        let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": params }]);
        let (_, body) = http::post_json(&gateway.url("http"), &batch).await.unwrap();
        let answers: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answers[0]["error"]["data"]["reason"], "unsupported", "{answers}");
    }
    let ids = [json!(["logs", {}]), json!(["newHeads"]), json!(["newPendingTransactions"])].map(|params| client.subscribe(params));
    for stream in ids {
        let id = stream.await.unwrap().id;
        let digits = id.strip_prefix("0x").unwrap();
        assert!(!digits.starts_with('0') && u128::from_str_radix(digits, 16).is_ok(), "a random quantity, as geth's: {id}");
    }
}

/// However quick the client is: an id that it has is known.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_can_be_given_back_at_once() {
    let Some(world) = World::start("an_id_can_be_given_back_at_once").await else { return };
    world.accounts(1).await;
    let gateway = world.gateway().await;
    let mut socket = gateway.raw_socket().await;
    for kind in [r#"["newHeads"]"#, r#"["logs",{}]"#, r#"["transactionReceipts"]"#].into_iter().cycle().take(600) {
        let id = socket.ask("eth_subscribe", kind).await.result.expect("an id");
        let gone = socket.ask("eth_unsubscribe", &format!("[{id}]")).await.result.unwrap();
        assert_eq!(gone.get(), "true");
    }
}

/// What the node tells of its own: it cannot say what it told nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_and_then_the_connection_ends() {
    let Some(world) = World::start("a_gap_is_told_and_then_the_connection_ends").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let mut socket = gateway.raw_socket().await;
    let id = socket.ask("eth_subscribe", r#"["newPendingTransactions"]"#).await.result.expect("an id");
    let client = gateway.connect().await;
    mined(&world, &client, transfer(from, 1)).await;
    assert!(socket.notification().await.result.is_some());

    world.node.cut();
    let last = socket.notification().await;
    assert_eq!((last.subscription.get(), last.result.is_none()), (id.get(), true));
    assert_eq!(last.error.unwrap().get(), r#""the connection to the node was lost: events may be missing""#);
    assert!(socket.ended().await, "and no more");
    let (_, metrics) = gateway.admin("metrics").await;
    assert!(metrics.contains("sluice_subscriptions_ended_total{kind=\"newPendingTransactions\"} 1\n"), "{metrics}");
    assert!(metrics.contains("sluice_subscriptions{kind=\"newPendingTransactions\"} 0\n"), "{metrics}");
    // A client that comes back is served, by a new subscription at the node.
    let mut pending = client.subscribe(json!(["newPendingTransactions"])).await.unwrap();
    let receipt = mined(&world, &client, transfer(from, 2)).await;
    assert_eq!(next(&mut pending).await, receipt["transactionHash"]);
}

/// What a node says of each block, and of those that came while its connection was away, with a reorg in between.
#[tokio::test(flavor = "multi_thread")]
async fn logs_whatever_the_bloom_outlive_the_connection() {
    let Some(mut world) = World::start("logs_whatever_the_bloom_outlive_the_connection").await else { return };
    world.extra.environment = "logs = \"node\"".into();
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let contract = deployed(&world, &client, from).await;
    let mut logs = client.subscribe(json!(["logs", { "address": contract }])).await.unwrap();
    let mut lasting = client.subscribe_by("sluice_subscribe", json!(["logs", { "address": contract }])).await.unwrap();
    let mut number = 0;
    let mut blocks = Vec::new();
    for round in 0..3 {
        for _ in 0..2 {
            let block = emitted(&world, contract, number).await["blockHash"].clone();
            for stream in [&mut logs, &mut lasting] {
                assert_eq!(logged(stream).await, (number, block.clone(), false));
            }
            blocks.push((number, block));
            number += 1;
        }
        world.node.refuse(true);
        world.node.cut();
        if round > 0 {
            // Two blocks, of which the logs are not in those in their place.
            world.anvil.call("anvil_reorg", json!([2, []])).await.unwrap();
        }
        let missed = [emitted(&world, contract, number).await, emitted(&world, contract, number + 1).await];
        world.node.refuse(false);
        for stream in [&mut logs, &mut lasting] {
            for (gone, block) in blocks.iter().rev().take(if round > 0 { 2 } else { 0 }) {
                assert_eq!(logged(stream).await, (*gone, block.clone(), true));
            }
            for (log, number) in missed.iter().zip(number..) {
                assert_eq!(logged(stream).await, (number, log["blockHash"].clone(), false));
            }
        }
        blocks.extend(missed.iter().zip(number..).map(|(log, number)| (number, log["blockHash"].clone())));
        number += 2;
    }
    let (_, metrics) = gateway.admin("metrics").await;
    assert!(metrics.contains("sluice_subscriptions_ended_total{kind=\"logs\"} 0\n"), "{metrics}");
}

/// The log of a call that somebody else made, with this number in it, and its block.
async fn emitted(world: &World, contract: Address, number: u64) -> Value {
    let stranger = world.anvil.call("eth_accounts", json!([])).await.unwrap()[0].clone();
    let call = json!([{ "from": stranger, "to": contract, "data": emitter::call(keccak256("red"), number), "gas": "0x30000" }]);
    let hash: B256 = parse(&world.anvil.call("eth_sendTransaction", call).await.unwrap());
    world.mined(hash).await["logs"][0].clone()
}

/// The next log: its number, its block, and whether it is removed.
async fn logged(stream: &mut Subscription) -> (u64, Value, bool) {
    let log = next(stream).await;
    (emitter::number(&log), log["blockHash"].clone(), log["removed"] == true)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_logs_are_told_without_a_gap_however_long_the_node_was_away() {
    let Some(world) = World::start("heads_and_logs_are_told_without_a_gap_however_long_the_node_was_away").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let contract = deployed(&world, &client, from).await;
    let mut heads = client.subscribe(json!(["newHeads"])).await.unwrap();
    let mut logs = client.subscribe(json!(["logs", { "address": contract }])).await.unwrap();
    emitted(&world, contract, 0).await;
    let first = next(&mut heads).await;
    assert_eq!(logged(&mut logs).await.0, 0);
    let mut newest = parse::<B256>(&first["hash"]);
    let mut next_number = 1;
    for _ in 0..3 {
        world.node.refuse(true);
        world.node.cut();
        for number in next_number..next_number + 4 {
            emitted(&world, contract, number).await;
        }
        world.node.refuse(false);
        for number in next_number..next_number + 4 {
            let head = next(&mut heads).await;
            assert_eq!(parse::<B256>(&head["parentHash"]), newest, "{head}");
            newest = parse(&head["hash"]);
            let keys = |head: &Value| head.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&head), keys(&first), "as the node announces them");
            assert_eq!(logged(&mut logs).await, (number, head["hash"].clone(), false));
        }
        next_number += 4;
    }
    let (_, metrics) = gateway.admin("metrics").await;
    assert!(metrics.contains("sluice_subscriptions_ended_total{kind=\"newHeads\"} 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_while_the_node_was_away_is_told_as_if_it_had_been_there() {
    let Some(world) = World::start("a_reorg_while_the_node_was_away_is_told_as_if_it_had_been_there").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let contract = deployed(&world, &client, from).await;
    let mut heads = client.subscribe(json!(["newHeads"])).await.unwrap();
    let mut logs = client.subscribe(json!(["logs", {}])).await.unwrap();
    let mut blocks = Vec::new();
    for number in 0..3 {
        emitted(&world, contract, number).await;
        blocks.push(next(&mut heads).await["hash"].clone());
        assert_eq!(logged(&mut logs).await, (number, blocks[number as usize].clone(), false));
    }
    world.node.refuse(true);
    world.node.cut();
    world.anvil.call("anvil_reorg", json!([2, []])).await.unwrap();
    emitted(&world, contract, 3).await;
    world.node.refuse(false);
    // Two blocks in the place of two, and one more.
    let mut parent = blocks[0].clone();
    for _ in 0..3 {
        let head = next(&mut heads).await;
        assert_eq!(head["parentHash"], parent);
        parent = head["hash"].clone();
    }
    assert_eq!(logged(&mut logs).await, (2, blocks[2].clone(), true));
    assert_eq!(logged(&mut logs).await, (1, blocks[1].clone(), true));
    assert_eq!(logged(&mut logs).await, (3, parent, false));
}

/// While the node is away nobody is answered an id for nothing, and everybody who waits is served when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_while_the_node_is_away_waits_for_it() {
    let Some(world) = World::start("who_subscribes_while_the_node_is_away_waits_for_it").await else { return };
    world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.node.refuse(true);
    world.node.cut();
    let heads = client.subscribe(json!(["newHeads"]));
    let logs = client.subscribe(json!(["logs", {}]));
    let back = async { world.node.refuse(false) };
    let (heads, logs, ()) = soon("the node to be back", async { tokio::join!(heads, logs, back) }).await;
    let mut heads = heads.unwrap();
    logs.unwrap();
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    assert_eq!(next(&mut heads).await["number"], "0x1");
}
