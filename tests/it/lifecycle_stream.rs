//! I7a from outside: the life of 1,000 transactions, read by a client that is cut off again and again, over a gateway that is
//! killed once and ended once in between.

use std::collections::{BTreeMap, HashSet};

use alloy_primitives::{Address, B256};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError, Subscription};
use tokio::sync::watch;

use crate::support::anvil::{parse, quantity};
use crate::support::journal::{self, Event};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

const ACCOUNTS: usize = 10;
const TRANSACTIONS: usize = 1_000;
/// How often the reader hangs up, restarts of the gateway apart.
const CUTS: usize = 20;

/// Where the gateway is; `None` while it is not.
type Place = watch::Receiver<Option<String>>;

/// A client that reads the stream and comes back by cursor.
struct Reader {
    place: Place,
    cursor: String,
    events: Vec<Value>,
    cuts: usize,
}

impl Reader {
    /// Reads until it has `wanted` events, and hangs up after each part of them as long as cuts are left.
    async fn read(mut self, mut wanted: watch::Receiver<Option<usize>>) -> Self {
        // Parts of all sizes: some end within a block, some in the middle of what was missed.
        let mut parts = [1, 2, 60, 5, 150, 90, 33, 250].into_iter().cycle();
        loop {
            let (client, mut stream) = self.connect().await;
            let part = if self.cuts < CUTS { parts.next() } else { None };
            let mut left = part.unwrap_or(usize::MAX);
            loop {
                if wanted.borrow_and_update().is_some_and(|wanted| self.events.len() >= wanted) {
                    return self;
                }
                if left == 0 {
                    self.cuts += 1;
                    break;
                }
                tokio::select! {
                    event = stream.next() => {
                        // The gateway is gone.
                        let Some(event) = event else { break };
                        event["cursor"].as_str().unwrap().clone_into(&mut self.cursor);
                        self.events.push(event);
                        left -= 1;
                    }
                    changed = wanted.changed() => changed.unwrap(),
                }
            }
            // Whatever is on its way to this client is lost with it.
            drop(client);
        }
    }

    async fn connect(&mut self) -> (Client, Subscription) {
        loop {
            let place = soon("a gateway", self.place.wait_for(Option::is_some)).await.unwrap().clone().unwrap();
            let connected = async {
                let client = Client::connect(&place, &[]).await?;
                let stream = client.subscribe_by("sluice_subscribe", json!(["transactions", { "after": self.cursor }])).await?;
                Ok::<_, ClientError>((client, stream))
            };
            match connected.await {
                Ok(connected) => return connected,
                // The gateway ends at this moment; anything else is a failure.
                Err(ClientError::Connection(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("the cursor {} is not taken: {error}", self.cursor),
            }
        }
    }
}

/// Sends transfers of these values and answers the hashes that were told before the connection ended.
async fn send(
    client: &Client,
    accounts: &[Address],
    values: std::ops::Range<usize>,
) -> FuturesUnordered<impl Future<Output = Option<B256>> + use<>> {
    values
        .map(|i| {
            let answer = client.start("eth_sendTransaction", transfer(accounts[i % ACCOUNTS], i as u64));
            async move {
                match soon("an answer", answer).await {
                    Ok(hash) => Some(parse(&hash)),
                    Err(ClientError::Connection(_)) => None,
                    Err(error) if error.reason() == Some("shutting_down") => None,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lifecycle_stream_is_complete_and_in_order_across_cuts_and_restarts() {
    let Some(mut world) = World::start("the_lifecycle_stream_is_complete_and_in_order_across_cuts_and_restarts").await else { return };
    world.extra.environment = "confirmations = 3\naccount = { queue_deadline = \"10m\" }".into();
    let accounts = world.accounts(ACCOUNTS).await;
    world.slow_signs(20);
    let mut gateway = world.gateway().await;
    let mut client = gateway.connect().await;
    let begin = client.request("sluice_getCursor", json!([])).await.unwrap();
    let (at, place) = watch::channel(Some(gateway.url("ws")));
    let (total, wanted) = watch::channel(None);
    let reader = Reader { place, cursor: begin.as_str().unwrap().into(), events: Vec::new(), cuts: 0 };
    let reading = tokio::spawn(reader.read(wanted));
    let mut told = HashSet::<B256>::new();

    // A third of them, in the middle of which it is killed; then another, in the middle of which it is ended in order.
    for kill in [true, false] {
        let start = journal::attempts(&world.journal()).len();
        let mut sends = send(&client, &accounts, start..start + TRANSACTIONS * 2 / 5).await;
        while told.len() < start + 100 {
            told.extend(soon("an answer", sends.next()).await.expect("there are more answers").into_iter());
        }
        if kill {
            at.send_replace(None);
            gateway.process.kill();
        } else {
            gateway.process.terminate();
            at.send_replace(None);
        }
        while let Some(hash) = sends.next().await {
            told.extend(hash);
        }
        if !kill {
            assert_eq!(gateway.process.exit().await.code(), Some(0), "{}", gateway.process.log());
        }
        drop(gateway);
        gateway = world.gateway().await;
        client = gateway.connect().await;
        at.send_replace(Some(gateway.url("ws")));
    }
    let start = journal::attempts(&world.journal()).len();
    assert!(start < TRANSACTIONS, "the restarts came too late: {start} are on record");
    let mut sends = send(&client, &accounts, start..TRANSACTIONS).await;
    while let Some(hash) = sends.next().await {
        told.insert(hash.expect("the gateway stays"));
    }
    eventually("everything to be mined", || async {
        let attempts = journal::attempts(&world.journal());
        let mined = |state: &String| state == "included" || state == "confirmed";
        attempts.iter().all(|(_, state)| mined(state)).then_some(())
    })
    .await;
    world.anvil.call("anvil_mine", json!(["0x4"])).await.unwrap();
    let on_record = eventually("everything to be confirmed", || async {
        let events = journal::events(&world.journal(), "payments");
        let confirmed = events.iter().filter(|event| event.state == "confirmed").count();
        (confirmed == TRANSACTIONS).then_some(events)
    })
    .await;

    total.send_replace(Some(on_record.len()));
    let reader = soon("the reader", reading).await.unwrap();
    assert_eq!(reader.cuts, CUTS);
    let received: Vec<Event> = reader.events.iter().map(event).collect();
    assert_eq!(received, on_record, "every event of the journal, once, in order of commit");
    check(&received, &reader.events, &told);
    // Nothing comes behind the last one, and the whole of it can be read again.
    let mut again = client.subscribe_by("sluice_subscribe", json!(["transactions", { "after": "start" }])).await.unwrap();
    for event in &reader.events {
        assert_eq!(soon("an event", again.next()).await.as_ref(), Some(event), "the same, cursor included");
    }
}

fn event(json: &Value) -> Event {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(json["slot"]["chainId"], "0x7a69");
    Event {
        id: text(&json["id"]).replace('-', ""),
        address: parse(&json["slot"]["address"]),
        nonce: quantity(&json["slot"]["nonce"]),
        hash: parse(&json["hash"]),
        state: text(&json["state"]),
        block: (!json["block"].is_null()).then(|| (quantity(&json["block"]["number"]), parse(&json["block"]["hash"]))),
        detail: json["detail"].as_str().map(str::to_owned),
        time: quantity(&json["time"]),
    }
}

/// Each transaction has a life that makes sense, with the receipt of its own block, and what was told to the sender is in it.
fn check(received: &[Event], json: &[Value], told: &HashSet<B256>) {
    let mut lives = BTreeMap::<(Address, u64), Vec<&Event>>::new();
    for (event, json) in received.iter().zip(json) {
        lives.entry((event.address, event.nonce)).or_default().push(event);
        if event.state == "included" {
            let (number, hash) = event.block.unwrap();
            let receipt = &json["receipt"];
            assert_eq!(parse::<B256>(&receipt["transactionHash"]), event.hash);
            assert_eq!((quantity(&receipt["blockNumber"]), parse::<B256>(&receipt["blockHash"])), (number, hash));
            assert_eq!((&json["reverted"], &receipt["status"]), (&json!(false), &json!("0x1")));
        } else {
            assert_eq!((json.get("receipt"), json.get("reverted")), (None, None));
        }
    }
    assert_eq!(lives.len(), TRANSACTIONS);
    for (slot, life) in &lives {
        let ids: HashSet<&str> = life.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids.len(), 1, "{slot:?} has one transaction");
        let states: Vec<&str> = life.iter().map(|event| event.state.as_str()).collect();
        // The answer of the node may come behind the block, or be lost with the process.
        let with = ["committed", "broadcast", "included", "confirmed"];
        let without = ["committed", "included", "confirmed"];
        assert!(states == with || states == without, "{slot:?}: {states:?}");
    }
    let hashes: HashSet<B256> = received.iter().map(|event| event.hash).collect();
    assert_eq!(hashes.len(), TRANSACTIONS);
    assert!(told.is_subset(&hashes), "every hash that was told has its events");
    let cursors: HashSet<&str> = json.iter().map(|event| event["cursor"].as_str().unwrap()).collect();
    assert_eq!(cursors.len(), json.len(), "every event has a cursor of its own");
}
