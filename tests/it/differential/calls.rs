//! Answers to calls.

use std::collections::BTreeMap;

use alloy_primitives::keccak256;
use serde_json::{Value, json};
use sluice_load_tests::http;

use super::generate::{Facts, Generator};
use super::{Answer, Outcome, Pair};
use crate::support::anvil::parse;
use crate::support::emitter;
use crate::support::raw::RawSocket;

/// Requests of one run, alone over each transport.
const ALONE: usize = 400;
/// Batches of one run, and the most items of one.
const BATCHES: usize = 30;
const ITEMS: usize = 20;
/// How often a question is asked again whose answer changes while it is asked.
const AGAIN: usize = 20;

/// What is different by design: method, parameters, why. Each is asked both ways and must differ, or it is no difference.
const BY_DESIGN: [(&str, &str, &str); 7] = [
    ("eth_accounts", "[]", "the addresses that the service signs for, not the node's"),
    ("eth_sendTransaction", r#"[{"to":"0x0000000000000000000000000000000000000000"}]"#, "managed: `from` is one of the service's"),
    ("eth_sign", r#"["0x0000000000000000000000000000000000000000","0x12"]"#, "managed"),
    ("eth_sendRawTransaction", r#"["0xzz"]"#, "bytes are read to see whose they are: a managed sender's enter the table"),
    ("eth_subscribe", r#"["nonsense"]"#, "the stream is Sluice's; what cannot be subscribed to is -32602 with a reason"),
    ("txpool_status", "[]", "a namespace that the service does not name does not pass"),
    ("debug_traceTransaction", "[]", "the same"),
];
// Beside these: `eth_getTransactionCount` of a managed address at `pending`, which counts what is in memory (tests/it/calls.rs), and ids
// of filters, which are random.

pub(super) async fn facts(pair: &Pair) -> Facts {
    let topics = [keccak256("red"), keccak256("blue")];
    let (mut blocks, mut transactions) = (Vec::new(), Vec::new());
    for n in 0..6_u64 {
        let data = emitter::call(topics[usize::try_from(n % 2).unwrap()], n);
        let receipt = pair.mined(json!({ "to": pair.contract, "data": data, "gas": "0x30000" })).await;
        blocks.push(parse::<String>(&receipt["blockHash"]));
        transactions.push(parse::<String>(&receipt["transactionHash"]));
    }
    let addresses = [pair.account, pair.contract, alloy_primitives::Address::repeat_byte(0x77)].map(|address| address.to_string());
    Facts {
        head: pair.head().await,
        addresses: addresses.into(),
        blocks,
        transactions,
        topics: topics.map(|topic| topic.to_string()).into(),
    }
}

pub(super) fn seed() -> u64 {
    std::env::var("DIFFERENTIAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// One way to ask.
enum Way {
    Socket(Box<RawSocket>),
    Http(String),
}

impl Way {
    async fn exchange(&mut self, text: String) -> String {
        match self {
            Self::Socket(socket) => socket.exchange(&text).await,
            Self::Http(url) => {
                let json = [("content-type", "application/json")];
                let (_, body) = http::send(::http::Method::POST, url, &json, text).await.unwrap();
                String::from_utf8(body.to_vec()).unwrap()
            }
        }
    }

    /// The outcomes by id; one request without a batch has id 1.
    async fn ask(&mut self, text: &str) -> BTreeMap<String, Outcome> {
        let told = self.exchange(text.to_owned()).await;
        let answers: Vec<Answer> = match serde_json::from_str(&told) {
            Ok(answers) => answers,
            Err(_) => vec![serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}\nto {text}"))],
        };
        answers.into_iter().map(|answer| (answer.id.get().to_owned(), answer.into())).collect()
    }
}

/// Asks the node, Sluice and the node again; what the node says both times Sluice must say too.
async fn same(direct: &mut Way, through: &mut Way, text: &str) -> BTreeMap<String, Outcome> {
    for _ in 0..AGAIN {
        let before = direct.ask(text).await;
        let between = through.ask(text).await;
        if direct.ask(text).await == before {
            let differing: Vec<_> = before.keys().filter(|id| between.get(*id) != before.get(*id)).collect();
            for id in &differing {
                eprintln!("{id}\ndirectly: {:?}\nthrough Sluice: {:?}", before.get(*id), between.get(*id));
            }
            assert!(differing.is_empty() && between.len() == before.len(), "seed {}, {differing:?} of: {text}", seed());
            return before;
        }
    }
    panic!("the node never says the same twice: {text}");
}

async fn compare(pair: &Pair) {
    let facts = facts(pair).await;
    // Over a WebSocket always: so does Sluice ask, and anvil has other words for some errors over HTTP.
    let mut direct = Way::Socket(Box::new(pair.direct().await));
    let mut ways = [Way::Socket(Box::new(pair.through().await)), Way::Http(pair.gateway.url("http"))];
    let mut generator = Generator::new(seed(), &facts);
    let (mut results, mut errors) = (0, 0);
    for _ in 0..ALONE {
        let (method, params) = generator.request();
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        for through in &mut ways {
            match same(&mut direct, through, &text).await.into_values().next() {
                Some(Outcome::Result(_)) => results += 1,
                _ => errors += 1,
            }
        }
    }
    // Neither only good nor only bad ones.
    assert!(results > ALONE / 2 && errors > ALONE / 4, "{results} results, {errors} errors");
    for batch in 0..BATCHES {
        let items: Vec<String> = (1..=1 + batch % ITEMS)
            .map(|id| {
                let (method, params) = generator.request();
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
            })
            .collect();
        let text = format!("[{}]", items.join(","));
        for through in &mut ways {
            assert_eq!(same(&mut direct, through, &text).await.len(), items.len());
        }
    }
    let [through, _] = &mut ways;
    for (method, params, why) in BY_DESIGN {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        assert_ne!(direct.ask(&text).await, through.ask(&text).await, "{method} ({why})");
    }
    let own: Value = pair.gateway.call("eth_accounts", json!([])).await.unwrap();
    assert_eq!(own, json!([pair.managed]));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_as_anvil_answers_them() {
    if let Some(pair) = Pair::anvil("calls_are_answered_as_anvil_answers_them").await {
        compare(&pair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_as_geth_answers_them() {
    if let Some(pair) = Pair::geth("calls_are_answered_as_geth_answers_them").await {
        compare(&pair).await;
        answered_here(&pair).await;
    }
}

/// What is answered in the gateway, in geth's words: an error has a reason of Sluice's beside them.
async fn answered_here(pair: &Pair) {
    let (mut direct, mut through) = (pair.direct().await, pair.through().await);
    for method in ["eth_chainId", "net_version"] {
        for params in ["[]", "null", "[null]", "[7]", "{}", r#"[{"a":1},2]"#] {
            let (own, told) = (direct.ask(method, params).await, through.ask(method, params).await);
            match Outcome::from(own) {
                Outcome::Error { code, message, data: None } => {
                    let data = Some(r#"{"reason":"invalid_params"}"#.to_owned());
                    assert_eq!(Outcome::from(told), Outcome::Error { code, message, data }, "{method} {params}");
                }
                own => assert_eq!(Outcome::from(told), own, "{method} {params}"),
            }
        }
    }
}
