//! The `sluice_` namespace through the real gateway: each method, each of its errors, and who sees what.

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError, Subscription};
use sluice_load_tests::http;

use crate::support::anvil::{parse, quantity};
use crate::support::gateway::Gateway;
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

async fn ask(client: &Client, method: &str, params: Value) -> Result<Value, ClientError> {
    soon(method, client.request(method, params)).await
}

async fn send(client: &Client, from: Address, value: u64) -> Value {
    ask(client, "eth_sendTransaction", transfer(from, value)).await.unwrap()
}

async fn follow(client: &Client, options: Value) -> Subscription {
    soon("a subscription", client.subscribe_by("sluice_subscribe", json!(["transactions", options]))).await.unwrap()
}

/// Reads up to the first event in this state.
async fn until(stream: &mut Subscription, state: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = soon(state, stream.next()).await.expect("the stream goes on");
        let found = event["state"] == state;
        events.push(event);
        if found {
            return events;
        }
    }
}

/// Code and reason of an error.
fn told(answer: Result<Value, ClientError>) -> (i64, String) {
    let error = answer.unwrap_err();
    (error.code().unwrap_or_default(), error.reason().unwrap_or_default().to_owned())
}

/// Another service of the same process, with the same keys and a wider one of its own.
const OTHER: &str = r#"
[[service]]
name = "other"
environment = "dev"
configurations = ["kms"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_found_by_id_and_hash_with_its_whole_life() {
    let Some(mut world) = World::start("a_transaction_is_found_by_id_and_hash_with_its_whole_life").await else { return };
    world.extra.environment = "confirmations = 2".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash = send(&client, accounts[0], 7).await;
    world.mined(parse(&hash)).await;
    world.anvil.call("anvil_mine", json!(["0x2"])).await.unwrap();
    let found = eventually("it to be confirmed", || async {
        let found = ask(&client, "sluice_getTransaction", json!([hash])).await.unwrap();
        (found["state"] == "confirmed").then_some(found)
    })
    .await;
    assert_eq!((&found["hash"], &found["kind"]), (&hash, &json!("send")));
    assert_eq!(found["slot"], json!({ "chainId": "0x7a69", "address": accounts[0], "nonce": "0x0" }));
    assert_eq!(found["from"], json!(accounts[0]));
    assert_eq!(found["request"], transfer(accounts[0], 7)[0]);
    let receipt = world.anvil.receipt(parse(&hash)).await.unwrap();
    assert_eq!(found["receipt"], receipt, "as the node gives it");
    assert_eq!(found["block"], json!({ "number": receipt["blockNumber"], "hash": receipt["blockHash"] }));
    let events = found["events"].as_array().unwrap();
    let states: Vec<&str> = events.iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert!(states.starts_with(&["committed"]) && states.ends_with(&["included", "confirmed"]), "{states:?}");
    assert!(events.iter().all(|event| event["id"] == found["id"] && event.get("cursor").is_none()));
    assert!(quantity(&found["createdAt"]) > 1_600_000_000_000);
    let by_id = ask(&client, "sluice_getTransaction", json!([found["id"]])).await.unwrap();
    assert_eq!(by_id, found);
    let over_http = gateway.call("sluice_getTransaction", json!([hash])).await.unwrap();
    assert_eq!(over_http, found);

    let nowhere = (-32001, "not_found".to_owned());
    let invalid = (-32602, "invalid_params".to_owned());
    assert_eq!(told(ask(&client, "sluice_getTransaction", json!([B256::ZERO])).await), nowhere);
    assert_eq!(told(ask(&client, "sluice_getTransaction", json!(["01234567-89ab-7def-8123-456789abcdef"])).await), nowhere);
    assert_eq!(told(ask(&client, "sluice_getTransaction", json!(["0x12"])).await), invalid);
    assert_eq!(told(ask(&client, "sluice_getTransaction", json!(["latest"])).await), invalid);
    assert_eq!(told(ask(&client, "sluice_getTransaction", json!([])).await), invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_accounts_say_what_waits() {
    let Some(world) = World::start_with("lists_are_paged_and_accounts_say_what_waits", &["--no-mining"]).await else { return };
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let idle = ask(&client, "sluice_getAccount", json!([accounts[0]])).await.unwrap();
    assert_eq!((&idle["nextNonce"], &idle["open"], &idle["paused"]), (&json!("0x0"), &json!([]), &Value::Null));
    let mut hashes = Vec::new();
    for i in 0..10 {
        hashes.push(send(&client, accounts[i % 2], 100 + i as u64).await);
    }
    let list = async |options: Value| {
        let page = ask(&client, "sluice_listTransactions", json!([options])).await.unwrap();
        let told: Vec<Value> = page["transactions"].as_array().unwrap().iter().map(|one| one["hash"].clone()).collect();
        (told, page["next"].clone())
    };
    let newest: Vec<Value> = hashes.iter().rev().cloned().collect();
    assert_eq!(list(json!({})).await, (newest.clone(), Value::Null));
    assert_eq!(list(json!({ "order": "oldest" })).await.0, hashes);
    let (first, next) = list(json!({ "limit": 4 })).await;
    let (second, next) = list(json!({ "limit": 4, "after": next })).await;
    let (third, end) = list(json!({ "limit": 4, "after": next })).await;
    assert_eq!([first, second, third].concat(), newest);
    assert_eq!(end, Value::Null);
    let mine: Vec<Value> = newest.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(list(json!({ "from": accounts[0], "limit": "0x64" })).await.0, mine);
    let sent = async |state: &str| list(json!({ "state": state })).await.0.len();
    eventually("all to be broadcast", || async { (sent("broadcast").await == 10).then_some(()) }).await;
    assert_eq!(sent("confirmed").await, 0);

    let account = eventually("the window to say so", || async {
        let account = ask(&client, "sluice_getAccount", json!([accounts[0]])).await.unwrap();
        (account["live"]["inFlight"] == "0x5").then_some(account)
    })
    .await;
    assert_eq!((&account["chainId"], &account["address"], &account["floor"]), (&json!("0x7a69"), &json!(accounts[0]), &json!("0x0")));
    assert_eq!((&account["nextNonce"], &account["counts"]), (&json!("0x5"), &json!({ "broadcast": "0x5" })));
    assert_eq!(
        account["live"],
        json!({ "queued": "0x0", "signing": "0x0", "unsent": "0x0", "inFlight": "0x5", "window": "0x40", "foreignNonces": false })
    );
    let open = account["open"].as_array().unwrap();
    let nonces: Vec<u64> = open.iter().map(|slot| quantity(&slot["nonce"])).collect();
    assert_eq!(nonces, [0, 1, 2, 3, 4]);
    for slot in open {
        let found = ask(&client, "sluice_getTransaction", json!([slot["id"]])).await.unwrap();
        assert_eq!((&found["hash"], &found["slot"]["nonce"], &slot["state"]), (&slot["hash"], &slot["nonce"], &json!("broadcast")));
    }

    let unknown = (-32000, "unknown_account".to_owned());
    let invalid = (-32602, "invalid_params".to_owned());
    let cursor = (-32602, "invalid_cursor".to_owned());
    let stranger = Address::repeat_byte(0x42);
    let next = list(json!({ "limit": 4 })).await.1;
    for (method, params, expected) in [
        ("sluice_getAccount", json!([stranger]), &unknown),
        ("sluice_getAccount", json!([]), &invalid),
        ("sluice_getAccount", json!(["0x12"]), &invalid),
        ("sluice_listTransactions", json!([{ "from": stranger }]), &unknown),
        ("sluice_listTransactions", json!([{ "state": "mined" }]), &invalid),
        ("sluice_listTransactions", json!([{ "limit": 0 }]), &invalid),
        ("sluice_listTransactions", json!([{ "limit": 501 }]), &invalid),
        ("sluice_listTransactions", json!([{ "page": 1 }]), &invalid),
        ("sluice_listTransactions", json!([{ "after": "x" }]), &cursor),
        ("sluice_listTransactions", json!([{ "after": next, "order": "oldest" }]), &cursor),
        ("sluice_getCursor", json!([{ "from": stranger }]), &unknown),
        ("sluice_getCursor", json!([{ "after": "start" }]), &invalid),
        ("sluice_getTransaction", json!([B256::repeat_byte(1), 1]), &invalid),
        ("sluice_listTransactions", json!([{}, 1]), &invalid),
        ("sluice_getAccount", json!([accounts[0], 1]), &invalid),
        ("sluice_getCursor", json!([{}, 1]), &invalid),
        ("sluice_sendTransaction", json!([]), &invalid),
        ("sluice_sendTransaction", json!([{ "from": accounts[0], "to": accounts[0], "idempotency_key": "order-1" }]), &invalid),
        ("sluice_payNothing", json!([]), &(-32601, "method_not_found".to_owned())),
    ] {
        assert_eq!(&told(ask(&client, method, params.clone()).await), expected, "{method} {params}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_reverted_inclusions_reorgs_and_the_receipt_of_each_block() {
    let Some(mut world) = World::start("a_stream_tells_reverted_inclusions_reorgs_and_the_receipt_of_each_block").await else { return };
    world.extra.environment = "confirmations = 3".into();
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut stream = follow(&client, json!({})).await;
    // Code that reverts at once.
    let reverting = json!([{ "from": accounts[0], "data": "0x60006000fd", "gas": "0x186a0" }]);
    let reverted: B256 = parse(&ask(&client, "eth_sendTransaction", reverting).await.unwrap());
    let included = until(&mut stream, "included").await.pop().unwrap();
    assert_eq!((&included["reverted"], &included["receipt"]["status"]), (&json!(true), &json!("0x0")));
    assert!(included["detail"].as_str().unwrap().starts_with("reverted"), "{included}");
    assert_eq!(parse::<B256>(&included["hash"]), reverted);
    world.anvil.call("anvil_mine", json!(["0x3"])).await.unwrap();
    until(&mut stream, "confirmed").await;

    let hash: B256 = parse(&send(&client, accounts[0], 5).await);
    let first = until(&mut stream, "included").await.pop().unwrap();
    assert_eq!(first["receipt"]["blockHash"], first["block"]["hash"]);
    // The stream is left before the reorg, and taken up again by a new process: both receipts are those of their own blocks.
    drop(client);
    world.anvil.call("anvil_reorg", json!([1, []])).await.unwrap();
    gateway.process.kill();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut stream = follow(&client, json!({ "after": first["cursor"] })).await;
    let orphaned = until(&mut stream, "orphaned").await.pop().unwrap();
    assert_eq!(parse::<B256>(&orphaned["hash"]), hash);
    let second = until(&mut stream, "included").await.pop().unwrap();
    assert_ne!(second["block"]["hash"], first["block"]["hash"]);
    assert_eq!(second["receipt"]["blockHash"], second["block"]["hash"]);
    assert_eq!(second["receipt"], world.anvil.receipt(hash).await.unwrap());
    let mut again = follow(&client, json!({ "after": "start", "ids": [first["id"]] })).await;
    let told = [until(&mut again, "included").await.pop().unwrap(), until(&mut again, "included").await.pop().unwrap()];
    assert_eq!(told[0]["receipt"], first["receipt"], "of the block that is gone, still");
    assert_eq!(told[1]["receipt"], second["receipt"]);
    assert_ne!(told[0]["cursor"], first["cursor"], "another filter, another cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_another_service_of_the_same_process_sees_nothing_of_it() {
    let Some(mut world) = World::start("i11_another_service_of_the_same_process_sees_nothing_of_it").await else { return };
    world.extra.service = OTHER.into();
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let (mine, others) = (gateway.connect().await, Client::connect(&format!("ws://{}/other", gateway.listen), &[]).await.unwrap());
    let (mut here, mut there) = (follow(&mine, json!({ "after": "start" })).await, follow(&others, json!({ "after": "start" })).await);
    let hash = send(&mine, accounts[0], 1).await;
    let events = until(&mut here, "included").await;
    let id = &events[0]["id"];
    let nowhere = (-32001, "not_found".to_owned());
    for name in [id, &hash] {
        assert_eq!(told(ask(&others, "sluice_getTransaction", json!([name])).await), nowhere);
    }
    assert_eq!(ask(&others, "sluice_listTransactions", json!([])).await.unwrap(), json!({ "transactions": [], "next": null }));
    assert_eq!(ask(&others, "sluice_listTransactions", json!([{ "from": accounts[0] }])).await.unwrap()["transactions"], json!([]));
    let foreign = events.last().unwrap()["cursor"].clone();
    let refused = others.subscribe_by("sluice_subscribe", json!(["transactions", { "after": foreign }])).await.unwrap_err();
    assert_eq!(told(Err(refused)), (-32602, "invalid_cursor".into()));
    let refused = others.subscribe_by("sluice_subscribe", json!(["transactions", { "ids": [id] }])).await.unwrap_err();
    assert_eq!(told(Err(refused)), nowhere);
    // The same account at work for both: its nonces are told, whose they are is not.
    let account = ask(&others, "sluice_getAccount", json!([accounts[0]])).await.unwrap();
    assert_eq!(
        (&account["nextNonce"], &account["open"][0]["id"], &account["open"][0]["hash"]),
        (&json!("0x1"), &Value::Null, &Value::Null)
    );
    // What comes first there is its own.
    let own = send(&others, accounts[0], 2).await;
    let first = until(&mut there, "committed").await;
    assert_eq!((first.len(), &first[0]["hash"], &first[0]["slot"]["nonce"]), (1, &own, &json!("0x1")));
    let next = soon("an event", here.next());
    let last = send(&mine, accounts[1], 3).await;
    let mut next = next.await.unwrap();
    while next["hash"] == hash {
        next = soon("an event", here.next()).await.unwrap();
    }
    assert_eq!(next["hash"], last, "nothing of the other service came in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_filtered_ended_and_refused() {
    let Some(world) = World::start("streams_are_filtered_ended_and_refused").await else { return };
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let filter = json!({ "from": [accounts[1]] });
    let cursor = ask(&client, "sluice_getCursor", json!([filter])).await.unwrap();
    let before = send(&client, accounts[1], 1).await;
    let mut one = follow(&client, json!({ "from": accounts[1], "after": cursor })).await;
    let mut all = follow(&client, json!({ "from": accounts })).await;
    let (first, second) = (send(&client, accounts[0], 2).await, send(&client, accounts[1], 3).await);
    let mut seen = Vec::new();
    while seen.last() != Some(&second) {
        let event = soon("an event", one.next()).await.unwrap();
        assert_eq!(event["slot"]["address"], json!(accounts[1]));
        if event["state"] == "committed" {
            seen.push(event["hash"].clone());
        }
    }
    assert_eq!(seen, [before, second.clone()], "what was sent before the subscription, and behind the cursor, is in it");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = until(&mut all, "committed").await.pop().unwrap();
        seen.push(event["hash"].clone());
    }
    assert_eq!(seen, [first, second]);

    assert_eq!(ask(&client, "sluice_unsubscribe", json!([one.id])).await.unwrap(), true);
    assert_eq!(ask(&client, "sluice_unsubscribe", json!([one.id])).await.unwrap(), false);
    let refused = async |params: Value| told(client.subscribe_by("sluice_subscribe", params).await.map(|_| Value::Null));
    let invalid = (-32602, "invalid_params".to_owned());
    let bad_cursor = (-32602, "invalid_cursor".to_owned());
    assert_eq!(refused(json!([])).await, invalid);
    assert_eq!(refused(json!(["blocks"])).await, (-32602, "unsupported".into()));
    assert_eq!(refused(json!(["transactions", { "hashes": [] }])).await, invalid);
    assert_eq!(refused(json!(["transactions", {}, 1])).await, invalid);
    assert_eq!(refused(json!(["transactions", { "from": [] }])).await, invalid);
    assert_eq!(refused(json!(["transactions", { "from": "0x01" }])).await, invalid);
    assert_eq!(refused(json!(["transactions", { "from": vec![accounts[0]; 201] }])).await, invalid);
    assert_eq!(refused(json!(["transactions", { "ids": ["7"] }])).await, invalid);
    assert_eq!(refused(json!(["transactions", { "from": Address::repeat_byte(0x42) }])).await, (-32000, "unknown_account".into()));
    assert_eq!(refused(json!(["transactions", { "after": "nonsense" }])).await, bad_cursor);
    assert_eq!(refused(json!(["transactions", { "after": cursor }])).await, bad_cursor, "made for another filter");

    no_notifications(&gateway).await;
    let batch = soon("a batch", client.batch(&[("sluice_subscribe", json!(["transactions"])), ("eth_chainId", json!([]))])).await.unwrap();
    assert_eq!(told(batch[0].clone()), (-32601, "unsupported".into()));
    assert_eq!(batch[1].as_ref().unwrap(), "0x7a69");
}

async fn no_notifications(gateway: &Gateway) {
    for method in ["sluice_subscribe", "sluice_unsubscribe"] {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": ["transactions"] });
        let (_, body) = http::post_json(&gateway.url("http"), &request).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&answer["error"]["code"], &answer["error"]["data"]["reason"]), (&json!(-32601), &json!("unsupported")), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_record_is_told_without_a_node() {
    let Some(mut world) = World::start("what_is_on_record_is_told_without_a_node").await else { return };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut stream = follow(&client, json!({})).await;
    let hash = send(&client, accounts[0], 1).await;
    let told = until(&mut stream, "included").await;
    world.anvil.stop();
    let account = ask(&client, "sluice_getAccount", json!([accounts[0]])).await.unwrap();
    assert_eq!((&account["nextNonce"], &account["live"]["queued"]), (&json!("0x1"), &json!("0x0")));
    gateway.process.kill();

    let gateway = world.listening().await;
    let client = gateway.connect().await;
    let found = ask(&client, "sluice_getTransaction", json!([hash])).await.unwrap();
    assert_eq!((&found["state"], &found["receipt"]), (&json!("included"), &told.last().unwrap()["receipt"]));
    let listed = ask(&client, "sluice_listTransactions", json!([])).await.unwrap();
    assert_eq!((&listed["transactions"][0]["hash"], &listed["next"]), (&hash, &Value::Null));
    let account = ask(&client, "sluice_getAccount", json!([accounts[0]])).await.unwrap();
    assert_eq!((&account["nextNonce"], &account["counts"], &account["live"]), (&json!("0x1"), &json!({ "included": "0x1" }), &Value::Null));
    let mut again = follow(&client, json!({ "after": "start" })).await;
    assert_eq!(until(&mut again, "included").await, told, "with the receipt");
}
