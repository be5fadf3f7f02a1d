//! Receipts and the events of transactions: with the block, once, and all of them, whatever becomes of the connections and of the gateway.

use alloy_primitives::B256;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, Subscription};

use crate::support::anvil::{parse, quantity};
use crate::support::gateway::Gateway;
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

const CONFIRMATIONS: u64 = 4;
const TRANSACTIONS: u64 = 3;

/// What happens while blocks are made and taken back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The node is away.
    Cut,
    /// The gateway is killed, and started again.
    Restart,
}

/// A client that reads everything.
struct Reader {
    client: Client,
    own: Subscription,
    by_hash: Subscription,
    events: Subscription,
}

impl Reader {
    async fn start(gateway: &Gateway, hashes: &[B256], after: &Value) -> Self {
        let client = gateway.connect().await;
        let own = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
        let by_hash = client.subscribe(json!(["transactionReceipts", { "transactionHashes": hashes }])).await.unwrap();
        let events = client.subscribe_by("sluice_subscribe", json!(["transactions", { "after": after }])).await.unwrap();
        Self { client, own, by_hash, events }
    }

    /// The receipts of the next block that has some, which both streams tell.
    async fn receipts(&mut self) -> Vec<Value> {
        let (own, by_hash) = (next(&mut self.own).await, next(&mut self.by_hash).await);
        assert_eq!(own, by_hash);
        own.as_array().unwrap().clone()
    }

    /// So many events in this state, which come next; others go before if they are of these states.
    async fn events(&mut self, state: &str, passed: &[&str]) -> Vec<Value> {
        let mut found = Vec::new();
        while found.len() < TRANSACTIONS as usize {
            let event = next(&mut self.events).await;
            if event["state"] == state {
                found.push(event);
            } else {
                assert!(passed.iter().any(|passed| event["state"] == *passed), "{event} before {state}");
            }
        }
        found
    }
}

async fn next(stream: &mut Subscription) -> Value {
    soon("a notification", stream.next()).await.expect("the connection is open")
}

/// Receipts and `included` events of the block that is the newest one: nothing is above it that would have brought them.
async fn of_the_newest(world: &World, reader: &mut Reader, passed: &[&str]) -> Vec<Value> {
    let receipts = reader.receipts().await;
    let head = world.anvil.call("eth_getBlockByNumber", json!(["latest", false])).await.unwrap();
    assert_eq!(receipts.len() as u64, TRANSACTIONS);
    assert!(receipts.iter().all(|receipt| receipt["blockHash"] == head["hash"]), "{receipts:?}");
    let events = reader.events("included", passed).await;
    let told: Vec<&Value> = events.iter().map(|event| &event["receipt"]).collect();
    assert!(receipts.iter().all(|receipt| told.contains(&receipt)), "with the receipts of that block: {events:?}");
    events
}

async fn lives(fault: Fault, test: &str) {
    let Some(mut world) = World::start_with(test, &["--no-mining"]).await else { return };
    world.extra.environment = format!("confirmations = {CONFIRMATIONS}");
    let from = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let begin = client.request("sluice_getCursor", json!([])).await.unwrap();
    let mut hashes = Vec::<B256>::new();
    for value in 0..TRANSACTIONS {
        hashes.push(parse(&soon("a hash", client.request("eth_sendTransaction", transfer(from, value))).await.unwrap()));
    }
    let mut reader = Reader::start(&gateway, &hashes, &begin).await;
    reader.events("broadcast", &["committed"]).await;

    let begins = |gateway: &mut Gateway| match fault {
        Fault::None => {}
        Fault::Cut => {
            world.node.refuse(true);
            world.node.cut();
        }
        Fault::Restart => gateway.process.kill(),
    };
    // A client goes on where it is, or comes back by its cursor.
    let ends = async |gateway: Gateway, reader: Reader, cursor: &Value| match fault {
        Fault::None | Fault::Cut => {
            world.node.refuse(false);
            (gateway, reader)
        }
        Fault::Restart => {
            drop(reader);
            let gateway = world.gateway().await;
            let reader = Reader::start(&gateway, &hashes, cursor).await;
            (gateway, reader)
        }
    };

    // Mined.
    let cursor = client.request("sluice_getCursor", json!([])).await.unwrap();
    begins(&mut gateway);
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    (gateway, reader) = ends(gateway, reader, &cursor).await;
    let included = of_the_newest(&world, &mut reader, &[]).await;
    let cursor = included.last().unwrap()["cursor"].clone();

    // Taken back, and mined again in another block.
    begins(&mut gateway);
    world.anvil.call("anvil_reorg", json!([1, []])).await.unwrap();
    (gateway, reader) = ends(gateway, reader, &cursor).await;
    let orphaned = reader.events("orphaned", &[]).await;
    assert!(orphaned.iter().all(|event| hashes.iter().any(|hash| event["hash"] == json!(hash))));
    let cursor = orphaned.last().unwrap()["cursor"].clone();
    eventually("them to be in the pool again", || async {
        let pool = world.anvil.call("txpool_status", json!([])).await.unwrap();
        (quantity(&pool["pending"]) == TRANSACTIONS).then_some(())
    })
    .await;
    begins(&mut gateway);
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    (gateway, reader) = ends(gateway, reader, &cursor).await;
    let again = of_the_newest(&world, &mut reader, &["broadcast"]).await;
    assert_ne!(again[0]["block"], included[0]["block"]);
    let cursor = again.last().unwrap()["cursor"].clone();

    // Final, at the block that makes them so.
    begins(&mut gateway);
    world.anvil.call("anvil_mine", json!([format!("{:#x}", CONFIRMATIONS - 1)])).await.unwrap();
    (gateway, reader) = ends(gateway, reader, &cursor).await;
    let confirmed = reader.events("confirmed", &[]).await;
    assert!(confirmed.iter().zip(&again).all(|(confirmed, again)| confirmed["block"] == again["block"]), "{confirmed:?}");
    drop(reader);

    // Once: the whole life again, from the first cursor and from the last one.
    let mut reader = Reader::start(&gateway, &hashes, &begin).await;
    let mut lives = std::collections::BTreeMap::<String, Vec<String>>::new();
    for event in [reader.events("included", &["committed", "broadcast"]).await, reader.events("orphaned", &[]).await].concat() {
        lives.entry(event["hash"].as_str().unwrap().into()).or_default().push(event["state"].as_str().unwrap().into());
    }
    assert!(lives.len() as u64 == TRANSACTIONS && lives.values().all(|life| life == &["included", "orphaned"]), "{lives:?}");
    assert_eq!(reader.events("included", &["broadcast"]).await, again);
    assert_eq!(reader.events("confirmed", &[]).await, confirmed);
    let last = confirmed.last().unwrap()["cursor"].clone();
    let mut rest = reader.client.subscribe_by("sluice_subscribe", json!(["transactions", { "after": last }])).await.unwrap();
    let hash = soon("a hash", reader.client.request("eth_sendTransaction", transfer(from, 9))).await.unwrap();
    for stream in [&mut reader.events, &mut rest] {
        let event = next(stream).await;
        assert_eq!((&event["state"], &event["hash"]), (&json!("committed"), &hash), "nothing comes twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_events_come_with_the_block() {
    lives(Fault::None, "receipts_and_events_come_with_the_block").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_events_of_the_time_when_the_node_was_away_are_told_when_it_is_back() {
    lives(Fault::Cut, "receipts_and_events_of_the_time_when_the_node_was_away_are_told_when_it_is_back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_events_go_on_after_a_restart() {
    lives(Fault::Restart, "receipts_and_events_go_on_after_a_restart").await;
}
