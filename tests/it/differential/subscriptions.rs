//! Streams, and what is said to a subscription that is not taken.

use std::collections::HashMap;

use alloy_primitives::keccak256;
use serde_json::{Value, json};

use super::calls::{facts, seed};
use super::generate::Generator;
use super::{Node, Outcome, Pair};
use crate::support::emitter;
use crate::support::raw::RawSocket;

/// Filters of one run beside those that are written out.
const FILTERS: usize = 12;
/// Transactions of one run.
const SENT: usize = 24;
/// Subscriptions that are tried for what is said to them.
const TRIED: usize = 300;

/// What one connection is told of some subscriptions.
struct Streams {
    socket: RawSocket,
    /// By the text of the id.
    kinds: HashMap<String, usize>,
    results: Vec<Vec<String>>,
}

impl Streams {
    async fn open(mut socket: RawSocket, kinds: &[String]) -> Self {
        let mut ids = HashMap::new();
        for (index, params) in kinds.iter().enumerate() {
            let answer = socket.ask("eth_subscribe", params).await;
            let id = answer.result.unwrap_or_else(|| panic!("{params}: {:?}", answer.error));
            ids.insert(id.get().to_owned(), index);
        }
        assert_eq!(ids.len(), kinds.len());
        Self { socket, kinds: ids, results: vec![Vec::new(); kinds.len()] }
    }

    /// Reads until every subscription is as it should be.
    async fn until(&mut self, enough: impl Fn(usize, &[String]) -> bool) {
        while !self.results.iter().enumerate().all(|(index, results)| enough(index, results)) {
            let notified = self.socket.notification().await;
            let result = notified.result.unwrap_or_else(|| panic!("{:?}", notified.error));
            self.results[self.kinds[notified.subscription.get()]].push(result.get().to_owned());
        }
    }
}

/// Parameters of `eth_subscribe`, and how many results each has; heads are counted by their last number.
async fn compare(pair: &Pair) {
    let facts = facts(pair).await;
    let mut generator = Generator::new(seed(), &facts);
    let mut filters = vec![json!({}), json!({ "address": pair.contract }), json!({ "topics": [null] }), json!({ "topics": [[], null] })];
    filters.extend((0..FILTERS).map(|_| generator.live_filter()));
    let mut kinds: Vec<String> = filters.iter().map(|filter| json!(["logs", filter]).to_string()).collect();
    kinds.extend([r#"["newPendingTransactions"]"#, r#"["newPendingTransactions",true]"#, r#"["newHeads"]"#].map(String::from));
    let (pending, heads) = (filters.len(), kinds.len() - 1);

    let before = pair.head().await;
    let mut direct = Streams::open(pair.direct().await, &kinds).await;
    let mut through = Streams::open(pair.through().await, &kinds).await;
    // anvil mines at once, and tells of a pending transaction with its block if it has one by then.
    let anvil = matches!(pair.node, Node::Anvil(_));
    if anvil {
        pair.client.request("evm_setAutomine", json!([false])).await.unwrap();
    }
    let mut last = json!(null);
    for n in 0..SENT {
        last = match n % 4 {
            0 => json!({ "to": pair.contract, "data": emitter::call(keccak256("red"), n as u64), "gas": "0x30000" }),
            1 => json!({ "to": pair.contract, "data": emitter::call(keccak256("blue"), n as u64), "gas": "0x30000" }),
            2 => json!({ "to": pair.managed, "value": format!("{n:#x}") }),
            _ => json!({ "data": emitter::CODE }),
        };
        if n + 1 < SENT {
            pair.send(last.clone()).await;
        }
    }
    if anvil {
        for streams in [&mut direct, &mut through] {
            streams.until(|index, results| index < pending || index == heads || results.len() + 1 >= SENT).await;
        }
        pair.client.request("evm_mine", json!([])).await.unwrap();
        pair.client.request("evm_setAutomine", json!([true])).await.unwrap();
    }
    let last = pair.mined(last).await;
    let last_block = last["blockNumber"].as_str().unwrap();
    let mut expected = Vec::new();
    for filter in &filters {
        let mut range = filter.clone();
        (range["fromBlock"], range["toBlock"]) = (json!(format!("{:#x}", before + 1)), json!(last_block));
        let logs = pair.client.request("eth_getLogs", json!([range])).await.unwrap();
        expected.push(logs.as_array().unwrap().len());
    }
    // The last one is mined at once.
    let seen = if anvil { SENT - 1 } else { SENT };
    expected.extend([seen, seen]);
    assert!(expected[0] == SENT / 2 && expected.iter().any(|logs| *logs > 0 && *logs < SENT / 2), "{expected:?}");

    let enough = |index: usize, results: &[String]| match expected.get(index) {
        Some(count) => results.len() >= *count,
        None => results.last().is_some_and(|head| number(head) >= number(&json!({ "number": last_block }).to_string())),
    };
    direct.until(enough).await;
    through.until(enough).await;
    for (index, kind) in kinds.iter().enumerate().take(pending + 2) {
        let (own, relayed) = (&direct.results[index], &through.results[index]);
        assert_eq!(relayed[..expected[index]], own[..expected[index]], "{kind}");
    }
    // The direct stream of heads is the older one.
    let (own, relayed) = (&direct.results[heads], &through.results[heads]);
    let start = own.iter().position(|head| *head == relayed[0]).expect("the first head");
    let both = (own.len() - start).min(relayed.len());
    assert_eq!(relayed[..both], own[start..start + both]);
    assert!(both > 0 && number(&own[start + both - 1]) >= number(&json!({ "number": last_block }).to_string()));
}

fn number(head: &str) -> u64 {
    let head: Value = serde_json::from_str(head).unwrap();
    crate::support::anvil::quantity(&head["number"])
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_relayed_as_anvil_sends_them() {
    if let Some(pair) = Pair::anvil("streams_are_relayed_as_anvil_sends_them").await {
        compare(&pair).await;
        reorganised(&pair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_relayed_as_geth_sends_them() {
    if let Some(pair) = Pair::geth("streams_are_relayed_as_geth_sends_them").await {
        compare(&pair).await;
    }
}

/// A chain that goes back and on another way. anvil does not say which logs it takes back; Sluice does, and what it says beside that is the same.
async fn reorganised(pair: &Pair) {
    let kinds = [r#"["newHeads"]"#.to_owned(), r#"["logs",{}]"#.to_owned()];
    let mut direct = Streams::open(pair.direct().await, &kinds).await;
    let mut through = Streams::open(pair.through().await, &kinds).await;
    let log = |n: u64| json!({ "to": pair.contract, "data": emitter::call(keccak256("red"), n), "gas": "0x30000" });
    let first = pair.mined(log(1)).await["transactionHash"].to_string();
    // Its logs cannot be read once it is orphaned: then nobody is told of them, and nobody that they are gone.
    let is_told = |index: usize, results: &[String]| results.iter().any(|result| result.contains(&first)) || index == 0;
    direct.until(is_told).await;
    through.until(is_told).await;
    pair.client.request("anvil_reorg", json!([3, []])).await.unwrap();
    let last = pair.mined(log(2)).await;
    let (hash, transaction) = (last["blockHash"].to_string(), last["transactionHash"].to_string());
    let enough = |index: usize, results: &[String]| {
        let wanted = if index == 0 { &hash } else { &transaction };
        results.last().is_some_and(|result| result.contains(wanted.as_str()))
    };
    direct.until(enough).await;
    through.until(enough).await;
    let [heads, logs] = &through.results[..] else { panic!("two subscriptions") };
    let (removed, told): (Vec<String>, Vec<String>) = logs.iter().cloned().partition(|log| log.contains(r#""removed":true"#));
    assert_eq!([heads, &told], [&direct.results[0], &direct.results[1]]);
    assert_eq!(removed[0].replace(r#""removed":true"#, r#""removed":false"#), told[0], "the newest of them first");
}

/// Good and bad parameters of `eth_subscribe`: taken or not, and what is said to those that are not.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_refused_in_geths_words() {
    let Some(pair) = Pair::geth("subscriptions_are_refused_in_geths_words").await else { return };
    let facts = facts(&pair).await;
    let mut generator = Generator::new(seed(), &facts);
    let (mut direct, mut through) = (pair.direct().await, pair.through().await);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..TRIED {
        let params = generator.subscription();
        let (own, told) = (direct.ask("eth_subscribe", &params).await, through.ask("eth_subscribe", &params).await);
        match (Outcome::from(own), Outcome::from(told)) {
            (Outcome::Result(own), Outcome::Result(told)) => {
                taken += 1;
                for (socket, id) in [(&mut direct, own), (&mut through, told)] {
                    let gone = socket.ask("eth_unsubscribe", &format!("[{id}]")).await;
                    assert_eq!(gone.result.unwrap().get(), "true", "{params} after {taken}");
                }
            }
            (Outcome::Error { code, message, data: None }, Outcome::Error { code: told_code, message: told, data }) => {
                refused += 1;
                assert_eq!((told_code, told), (code, message), "{params} (seed {})", seed());
                // Words of Sluice's own have a reason; the node's have none.
                assert!(data.is_none_or(|data| data.starts_with(r#"{"reason":""#)), "{params}");
            }
            (own, told) => panic!("{params} (seed {})\ndirectly: {own:?}\nthrough Sluice: {told:?}", seed()),
        }
    }
    assert!(taken > TRIED / 5 && refused > TRIED / 5, "{taken} taken, {refused} refused");
    assert!(matches!(pair.node, Node::Geth(_)));
}
