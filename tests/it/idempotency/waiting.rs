//! `sluice_sendTransaction` that waits for what becomes of the transaction.

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

use super::{data, told};
use crate::support::anvil::parse;
use crate::support::world::World;
use crate::support::{eventually, soon};

fn wait(from: Address, value: u64, until: &str, timeout: Value) -> Value {
    json!([{ "from": from, "to": from, "value": format!("{value:#x}"), "gas": "0x5208", "waitFor": until, "timeout": timeout }])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_when_the_state_is_reached() {
    let Some(mut world) = World::start("an_answer_comes_when_the_state_is_reached").await else { return };
    world.extra.environment = "confirmations = 3".into();
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let sent = soon("broadcast", client.request("sluice_sendTransaction", wait(account, 1, "broadcast", Value::Null))).await.unwrap();
    assert!(sent["receipt"].is_null() && sent["hash"].is_string(), "{sent}");
    let included = soon("included", client.request("sluice_sendTransaction", wait(account, 2, "included", json!(60_000)))).await.unwrap();
    assert_eq!((&included["receipt"]["transactionHash"], &included["receipt"]["status"]), (&included["hash"], &json!("0x1")));
    assert_eq!(included["block"]["hash"], included["receipt"]["blockHash"]);

    let confirmed = client.start("sluice_sendTransaction", wait(account, 3, "confirmed", json!("0xea60")));
    let mining = async {
        loop {
            world.anvil.call("evm_mine", json!([])).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let confirmed = tokio::select! { answer = soon("confirmed", confirmed) => answer.unwrap(), () = mining => panic!("blocks end") };
    assert_eq!((&confirmed["state"], &confirmed["receipt"]["transactionHash"]), (&json!("confirmed"), &confirmed["hash"]));
    for (until, timeout) in [("mined", json!(1)), ("included", json!("soon")), ("included", json!(-1))] {
        let error = client.request("sluice_sendTransaction", wait(account, 4, until, timeout)).await.unwrap_err();
        assert_eq!(told(&error), (-32602, "invalid_params"));
    }
    assert_eq!(world.anvil.nonces().await[&account], [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_on_through_a_reorg() {
    let Some(mut world) = World::start("a_wait_goes_on_through_a_reorg").await else { return };
    world.extra.environment = "confirmations = 6".into();
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let confirmed = tokio::spawn(client.start("sluice_sendTransaction", wait(account, 5, "confirmed", json!(120_000))));
    let first = eventually("its first block", || async { world.anvil.mined().await.pop() }).await;
    let hash: B256 = first.hash;
    eventually("the inclusion to be on record", || async {
        let found = client.request("sluice_getTransaction", json!([hash])).await.ok()?;
        (found["state"] == "included").then_some(())
    })
    .await;
    world.anvil.call("anvil_reorg", json!([1, []])).await.unwrap();
    eventually("the other block", || async {
        let found = client.request("sluice_getTransaction", json!([hash])).await.unwrap();
        let states: Vec<&str> = found["events"].as_array().unwrap().iter().filter_map(|event| event["state"].as_str()).collect();
        (states.contains(&"orphaned") && found["state"] == "included").then_some(())
    })
    .await;
    for _ in 0..8 {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
    }
    let answer = soon("confirmed", confirmed).await.unwrap().unwrap();
    assert_eq!((parse::<B256>(&answer["hash"]), &answer["state"]), (hash, &json!("confirmed")));
    assert_eq!(answer["receipt"]["blockHash"], answer["block"]["hash"], "the receipt of the block that is final");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_where_the_transaction_is_and_it_goes_on() {
    let test = "who_waits_too_long_is_told_where_the_transaction_is_and_it_goes_on";
    let Some(world) = World::start_with(test, &["--no-mining"]).await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let error = soon("a time-out", client.request("sluice_sendTransaction", wait(account, 1, "included", json!(300)))).await.unwrap_err();
    assert_eq!(told(&error), (4, "timeout"));
    let hash: B256 = parse(&data(&error)["hash"]);
    let found = client.request("sluice_getTransaction", json!([data(&error)["id"]])).await.unwrap();
    assert_eq!(parse::<B256>(&found["hash"]), hash);
    assert!(["committed", "broadcast"].contains(&data(&error)["state"].as_str().unwrap()), "{error}");
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    world.mined(hash).await;
}
