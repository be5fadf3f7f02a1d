//! Transactions that are acknowledged before they have an attempt.

use serde_json::{Value, json};
use sluice_load_tests::client::Client;

use super::{data, told};
use crate::support::anvil::parse;
use crate::support::world::World;
use crate::support::{eventually, soon};

async fn state(client: &Client, id: &Value, wanted: &str) -> Value {
    eventually(wanted, || async {
        let found = client.request("sluice_getTransaction", json!([id])).await.unwrap();
        (found["state"] == wanted).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_restart_and_is_told_from_the_first_event_on() {
    let Some(world) = World::start("what_is_acknowledged_survives_a_restart_and_is_told_from_the_first_event_on").await else { return };
    let account = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    // Nothing is signed: it stays queued.
    world.kms_proxy.set_limit(0);
    let params = json!([{ "from": account, "to": account, "value": "0x7", "waitFor": "queued", "idempotencyKey": "later" }]);
    let queued = soon("an acknowledgement", client.request("sluice_sendTransaction", params.clone())).await.unwrap();
    assert_eq!((&queued["state"], &queued["hash"], &queued["slot"]), (&json!("queued"), &Value::Null, &Value::Null));
    let again = soon("the same", client.request("sluice_sendTransaction", params.clone())).await.unwrap();
    assert_eq!(again, queued);
    let list = client.request("sluice_listTransactions", json!([{ "state": "queued" }])).await.unwrap();
    assert_eq!((list["transactions"].as_array().unwrap().len(), &list["transactions"][0]["id"]), (1, &queued["id"]));
    gateway.process.kill();

    let gateway = world.listening().await;
    let client = gateway.connect().await;
    let mut stream = client.subscribe_by("sluice_subscribe", json!(["transactions", { "after": "start" }])).await.unwrap();
    world.kms_proxy.set_limit(u64::MAX);
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "included") {
        let event = soon("an event", stream.next()).await.unwrap();
        assert_eq!(event["id"], queued["id"]);
        assert_eq!(event["hash"].is_null(), event["state"] == "queued", "{event}");
        states.push(event["state"].as_str().unwrap().to_owned());
    }
    assert_eq!(states[..2], ["queued", "committed"]);
    let found = state(&client, &queued["id"], "included").await;
    world.mined(parse(&found["hash"])).await;
    // Who asks with the key for a hash, gets it.
    let plain = json!([{ "from": account, "to": account, "value": "0x7", "idempotencyKey": "later" }]);
    assert_eq!(soon("the hash", client.request("eth_sendTransaction", plain)).await.unwrap(), found["hash"]);
    assert_eq!(world.anvil.nonces().await[&account], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_sent_is_ended_and_readable_by_id_and_key() {
    let Some(world) = World::start("what_can_never_be_sent_is_ended_and_readable_by_id_and_key").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    // Its code reverts: no estimate of gas can be had.
    let reverts = json!([{ "from": account, "input": "0x60006000fd", "waitFor": "queued", "idempotencyKey": "never" }]);
    let queued = soon("an acknowledgement", client.request("sluice_sendTransaction", reverts.clone())).await.unwrap();
    let ended = state(&client, &queued["id"], "refused").await;
    assert!(ended["hash"].is_null());
    let events: Vec<&str> = ended["events"].as_array().unwrap().iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(events, ["queued", "refused"]);
    assert!(ended["events"][1]["detail"].as_str().unwrap().contains("revert"), "{ended}");
    let error = soon("a refusal", client.request("sluice_sendTransaction", reverts)).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "refused"));
    assert_eq!(data(&error)["id"], queued["id"]);
    assert!(data(&error).get("hash").is_none());

    // What Sluice is to finish whatever the nonces are by then takes none.
    let given = json!([{ "from": account, "to": account, "nonce": "0x0", "waitFor": "queued" }]);
    assert_eq!(told(&client.request("sluice_sendTransaction", given).await.unwrap_err()), (-32000, "unsupported"));
    let stranger = json!([{ "from": alloy_primitives::Address::repeat_byte(9), "to": account, "waitFor": "queued" }]);
    assert_eq!(told(&client.request("sluice_sendTransaction", stranger).await.unwrap_err()), (-32000, "unknown_account"));
    assert_eq!(world.node.sent_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_is_cancelled_before_it_is_signed() {
    let Some(world) = World::start("what_is_queued_is_cancelled_before_it_is_signed").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.kms_proxy.set_limit(0);
    let params = json!([{ "from": account, "to": account, "value": "0x7", "waitFor": "queued", "idempotencyKey": "changed-my-mind" }]);
    let queued = soon("an acknowledgement", client.request("sluice_sendTransaction", params.clone())).await.unwrap();
    let cancelled = soon("the cancel", client.request("sluice_cancelTransaction", json!([{ "id": queued["id"] }]))).await.unwrap();
    assert_eq!((&cancelled["id"], &cancelled["hash"]), (&queued["id"], &Value::Null));
    let ended = state(&client, &queued["id"], "refused").await;
    assert_eq!(ended["events"][1]["detail"], "cancelled before it was signed");
    let again = client.request("sluice_cancelTransaction", json!([{ "id": queued["id"] }])).await.unwrap_err();
    assert_eq!(told(&again), (-32000, "not_replaceable"));
    assert!(again.to_string().contains("has ended: cancelled before it was signed"), "{again}");
    // What was being signed meanwhile is thrown away; the next payment has its nonce.
    world.kms_proxy.set_limit(u64::MAX);
    let next = json!([{ "from": account, "to": account, "value": "0x8", "waitFor": "included" }]);
    let next = soon("the next", client.request("sluice_sendTransaction", next)).await.unwrap();
    assert_eq!(next["slot"]["nonce"], "0x0");
    assert_eq!(told(&client.request("sluice_sendTransaction", params).await.unwrap_err()), (-32000, "refused"));
    assert_eq!(world.anvil.nonces().await[&account], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_an_account_is_acknowledged_than_may_wait() {
    let Some(mut world) = World::start("no_more_of_an_account_is_acknowledged_than_may_wait").await else { return };
    world.extra.environment = "account = { acknowledged = 2 }".into();
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let ask = |of: usize| {
        let params = json!([{ "from": accounts[of], "to": accounts[of], "value": "0x1", "waitFor": "queued" }]);
        client.request("sluice_sendTransaction", params)
    };
    world.kms_proxy.set_limit(0);
    let first = soon("an acknowledgement", ask(0)).await.unwrap();
    soon("another", ask(0)).await.unwrap();
    let error = soon("no room", ask(0)).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "queue_full"));
    assert!(error.to_string().contains("2 acknowledged transactions of this account wait"), "{error}");
    assert!(data(&error)["retryAfterMs"].is_u64(), "{error}");
    soon("one of another account", ask(1)).await.unwrap();
    world.kms_proxy.set_limit(u64::MAX);
    state(&client, &first["id"], "included").await;
    soon("there is room", ask(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_first_request_is_acknowledged_begins_where_the_chain_is() {
    let Some(world) = World::start("an_account_whose_first_request_is_acknowledged_begins_where_the_chain_is").await else { return };
    let account = world.accounts(1).await[0];
    world.anvil.call("anvil_setNonce", json!([account, "0x29"])).await.unwrap();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let params = json!([{ "from": account, "to": account, "value": "0x1", "waitFor": "queued" }]);
    let queued = soon("an acknowledgement", client.request("sluice_sendTransaction", params)).await.unwrap();
    state(&client, &queued["id"], "included").await;
    assert_eq!(world.anvil.nonces().await[&account], [41]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_balance_holds_up_nothing_behind_it() {
    let Some(world) = World::start("what_waits_for_a_balance_holds_up_nothing_behind_it").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let ask = |value: &str| {
        let params = json!([{ "from": account, "to": account, "value": value, "waitFor": "queued" }]);
        client.request("sluice_sendTransaction", params)
    };
    // More than the places for what is worked on, each beyond what the account has.
    for _ in 0..70 {
        soon("an acknowledgement", ask("0xffffffffffffffffffffffff")).await.unwrap();
    }
    let affordable = soon("an acknowledgement", ask("0x1")).await.unwrap();
    state(&client, &affordable["id"], "included").await;
    let list = client.request("sluice_listTransactions", json!([{ "state": "queued", "limit": 100 }])).await.unwrap();
    assert_eq!(list["transactions"].as_array().unwrap().len(), 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_one_that_is_queued_before_it_waits_for_it() {
    let Some(world) = World::start("what_depends_on_one_that_is_queued_before_it_waits_for_it").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    // Without data it opens; with data it reverts until it is open.
    let code = "0x6018600c60003960186000f336600a576001600055005b60005460165760006000fd5b00";
    let deployed = json!([{ "from": account, "input": code, "waitFor": "included" }]);
    let deployed = soon("a contract", client.request("sluice_sendTransaction", deployed)).await.unwrap();
    let contract = &deployed["receipt"]["contractAddress"];
    let ask = |input: &'static str| {
        let params = json!([{ "from": account, "to": contract, "input": input, "waitFor": "queued" }]);
        client.request("sluice_sendTransaction", params)
    };
    world.kms_proxy.set_limit(0);
    let opens = soon("an acknowledgement", ask("0x")).await.unwrap();
    let depends = soon("an acknowledgement", ask("0x01")).await.unwrap();
    world.kms_proxy.set_limit(u64::MAX);
    state(&client, &opens["id"], "included").await;
    let found = state(&client, &depends["id"], "included").await;
    assert_eq!(found["receipt"]["status"], "0x1", "{found}");
    // With nothing ahead of it, a revert is the end.
    let data = json!([{ "from": account, "input": "0x60006000fd", "waitFor": "queued" }]);
    let reverts = soon("an acknowledgement", client.request("sluice_sendTransaction", data)).await.unwrap();
    state(&client, &reverts["id"], "refused").await;
}
