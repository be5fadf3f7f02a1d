//! What clients do while the gateway is killed: a list of operations, each drawn by chance.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use super::ledger::{Answer, Change, Ledger, Name, Outcome, answer_of};
use crate::support::anvil::{parse, quantity};
use crate::support::soon;

/// Who asks, over one connection.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Arc<Client>,
    pub(super) ledger: Arc<Ledger>,
    /// The accounts that the load uses; others belong to what provokes rare edges.
    pub(super) accounts: Arc<[Address]>,
}

type Operation = fn(Asker, Address, StdRng) -> BoxFuture<'static, ()>;

/// Each with its weight.
const OPERATIONS: [(u32, Operation); 16] = [
    (30, |asker, from, _| async move { asker.send("plain", from, json!({})).await }.boxed()),
    (10, |asker, from, _| async move { asker.send("with gas", from, json!({ "gas": "0x5208" })).await }.boxed()),
    (10, |asker, from, rng| async move { asker.send("with fees", from, dynamic(rng)).await }.boxed()),
    (6, |asker, from, _| async move { asker.send("legacy", from, json!({ "gas": "0x5208", "gasPrice": "0xba43b7400" })).await }.boxed()),
    (6, |asker, from, _| async move { asker.given_nonce(from).await }.boxed()),
    (6, |asker, from, _| async move { asker.batch(from).await }.boxed()),
    (6, |asker, from, rng| async move { asker.held(from, rng).await }.boxed()),
    (10, |asker, from, _| async move { asker.once(from, "eth_sendTransaction", json!({})).await }.boxed()),
    (8, |asker, from, rng| async move { asker.once(from, "sluice_sendTransaction", wait_for(rng)).await }.boxed()),
    (10, |asker, _, rng| async move { asker.again(rng).await }.boxed()),
    (3, |asker, from, _| async move { asker.send("too dear", from, json!({ "gasPrice": "0xffffffffffffff" })).await }.boxed()),
    (3, |asker, from, _| async move { asker.send("pays too little", from, cheap()).await }.boxed()),
    (3, |asker, from, rng| async move { asker.regret(from, rng).await }.boxed()),
    (5, |asker, _, rng| async move { asker.change(Change::SpeedUp, rng).await }.boxed()),
    (5, |asker, _, rng| async move { asker.change(Change::Cancel, rng).await }.boxed()),
    (4, |asker, from, _| async move { asker.send("too little gas", from, json!({ "gas": "0x4e20" })).await }.boxed()),
];

fn dynamic(mut rng: StdRng) -> Value {
    let tip = rng.random_range(1_000_000_000_u64..3_000_000_000);
    json!({ "gas": "0x5208", "maxFeePerGas": format!("{:#x}", 40_000_000_000 + tip), "maxPriorityFeePerGas": format!("{tip:#x}") })
}

/// A price that no block takes, until it is raised.
fn cheap() -> Value {
    json!({ "gas": "0x5208", "maxFeePerGas": "0x2", "maxPriorityFeePerGas": "0x1" })
}

fn wait_for(mut rng: StdRng) -> Value {
    let state = ["queued", "queued", "broadcast", "included"][rng.random_range(0..4)];
    json!({ "waitFor": state, "timeout": 8_000 })
}

/// Clients at a time.
const CLIENTS: usize = 6;

/// Runs until the connection ends, or `requests` have been made by each client.
pub(super) async fn run(asker: Asker, seed: u64, requests: usize) {
    let clients = (0..CLIENTS as u64).map(|client| {
        let asker = asker.clone();
        let mut rng = StdRng::seed_from_u64(seed ^ (client << 48));
        tokio::spawn(async move {
            for _ in 0..requests {
                if asker.client.is_closed() {
                    return;
                }
                let total: u32 = OPERATIONS.iter().map(|(weight, _)| weight).sum();
                let mut drawn = rng.random_range(0..total);
                let operation = OPERATIONS.iter().find(|(weight, _)| {
                    let found = drawn < *weight;
                    drawn = drawn.saturating_sub(*weight);
                    found
                });
                let from = asker.accounts[rng.random_range(0..asker.accounts.len())];
                let own = StdRng::seed_from_u64(rng.random());
                operation.unwrap().1(asker.clone(), from, own).await;
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
}

/// An id as clients write it.
fn dashed(id: &str) -> String {
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

/// The members of `more` beside sender, receiver and value.
fn transaction(from: Address, value: u64, more: Value) -> Value {
    let mut transaction = json!({ "from": from, "to": from, "value": format!("{value:#x}") });
    let members = transaction.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    transaction
}

impl Asker {
    /// Asks and writes down what it was told.
    pub(super) async fn ask(&self, operation: &'static str, method: &str, from: Address, more: Value) -> Answer {
        let (number, value) = self.ledger.begin(operation, from);
        let answer = answer_of(soon(operation, self.client.request(method, json!([transaction(from, value, more)]))).await);
        self.ledger.end(number, answer.clone());
        answer
    }

    async fn send(&self, operation: &'static str, from: Address, more: Value) {
        self.ask(operation, "eth_sendTransaction", from, more).await;
    }

    /// The next nonce of the account; `None` if the gateway does not say.
    pub(super) async fn pending(&self, from: Address) -> Option<u64> {
        let count = soon("a count", self.client.request("eth_getTransactionCount", json!([from, "pending"]))).await;
        count.ok().map(|count| quantity(&count))
    }

    /// A request under an idempotency key of its own.
    async fn once(&self, from: Address, method: &'static str, mut more: Value) {
        let (number, value) = self.ledger.begin("once", from);
        more["idempotencyKey"] = json!(format!("key-{value}"));
        let request = (method, transaction(from, value, more));
        self.ledger.keep(request.clone(), number);
        self.repeat(number, request).await;
    }

    /// A request with a key again, whatever it was told: the answer is the same, and it is paid once.
    async fn again(&self, mut rng: StdRng) {
        let kept = self.ledger.kept(rng.random_range(0..usize::MAX));
        if let Some((number, request)) = kept {
            self.repeat(number, request).await;
        }
    }

    async fn repeat(&self, number: usize, (method, request): (&'static str, Value)) {
        let answer = answer_of(soon("a request with a key", self.client.request(method, json!([request]))).await);
        self.ledger.told_again(number, answer, method == "eth_sendTransaction");
    }

    /// What is acknowledged is cancelled or sped up at once, whether it is signed by then or not.
    async fn regret(&self, from: Address, mut rng: StdRng) {
        let (number, value) = self.ledger.begin("regretted", from);
        let mut request = transaction(from, value, cheap());
        let object = request.as_object_mut().unwrap();
        object.extend([("waitFor".to_owned(), json!("queued"))]);
        let answer = answer_of(soon("a request", self.client.request("sluice_sendTransaction", json!([request]))).await);
        self.ledger.end(number, answer.clone());
        let Answer::Queued(id) = answer else { return };
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        let change = if rng.random_ratio(2, 3) { Change::Cancel } else { Change::SpeedUp };
        self.ask_for(change, (Name::Id(id), value)).await;
    }

    /// One of the newest transactions is replaced.
    async fn change(&self, change: Change, mut rng: StdRng) {
        if let Some(named) = self.ledger.nameable(rng.random_range(0..6)) {
            self.ask_for(change, named).await;
        }
    }

    async fn ask_for(&self, change: Change, named: (Name, u64)) {
        let by = match &named.0 {
            Name::Hash(hash) => json!({ "hash": hash }),
            Name::Id(id) => json!({ "id": dashed(id) }),
        };
        let method = match change {
            Change::SpeedUp => "sluice_speedUpTransaction",
            Change::Cancel => "sluice_cancelTransaction",
        };
        let number = self.ledger.change(change, named);
        let outcome = match soon(method, self.client.request(method, json!([by]))).await {
            Ok(told) if told["hash"].is_null() => Outcome::Ended,
            Ok(told) => Outcome::Replaced { hash: parse(&told["hash"]), before: parse(&told["replaced"]) },
            Err(ClientError::Connection(_) | ClientError::Status(_)) => Outcome::Nothing,
            Err(error) => Outcome::Refused { reason: error.reason().unwrap_or_default().to_owned() },
        };
        self.ledger.changed(number, outcome);
    }

    async fn given_nonce(&self, from: Address) {
        let Some(nonce) = self.pending(from).await else { return };
        self.send("given nonce", from, json!({ "nonce": format!("{nonce:#x}") })).await;
    }

    async fn batch(&self, from: Address) {
        let begun: Vec<_> = (0..4).map(|_| self.ledger.begin("batch", from)).collect();
        let requests: Vec<_> =
            begun.iter().map(|(_, value)| ("eth_sendTransaction", json!([transaction(from, *value, json!({}))]))).collect();
        let answers = soon("a batch", self.client.batch(&requests)).await.unwrap_or_default();
        for ((number, _), answer) in begun.into_iter().zip(answers) {
            self.ledger.end(number, answer_of(answer));
        }
    }

    /// Bytes are signed for the client, which mostly sends them.
    pub(super) async fn held(&self, from: Address, mut rng: StdRng) {
        let Some(nonce) = self.pending(from).await else { return };
        let (number, value) = self.ledger.begin("held", from);
        let Some(raw) = self.sign(number, from, value, nonce).await else { return };
        if rng.random_ratio(2, 3) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
            self.ledger.hand_in(number);
            let sent = self.client.request("eth_sendRawTransaction", json!([raw]));
            if let answer @ (Answer::Hash(_) | Answer::Refused { .. }) = answer_of(soon("a raw send", sent).await) {
                self.ledger.end(number, answer);
            }
        }
    }

    /// `eth_signTransaction` for this nonce; the bytes as 0x-hex.
    pub(super) async fn sign(&self, number: usize, from: Address, value: u64, nonce: u64) -> Option<String> {
        let whole = json!({ "gas": "0x5208", "nonce": format!("{nonce:#x}"), "maxFeePerGas": "0x9502f9000",
            "maxPriorityFeePerGas": "0x77359400" });
        let signed = soon("a signature", self.client.request("eth_signTransaction", json!([transaction(from, value, whole)]))).await;
        let raw = signed.as_ref().ok().and_then(|signed| signed["raw"].as_str()).map(str::to_owned);
        self.ledger.end(number, answer_of(signed));
        raw
    }

    /// A question that is no send.
    pub(super) async fn question(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        soon(method, self.client.request(method, params)).await
    }
}
