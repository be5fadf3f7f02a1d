//! Ten thousand equal subscriptions of a hundred clients are one subscription at the node, for as long as somebody has one of them and a little longer.

use alloy_consensus::{TxEip1559, TypedTransaction};
use alloy_primitives::{Address, Bytes, Log, TxKind, U256};
use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, Subscription};
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, SimNode};
use sluice_load_tests::wallet::Wallet;

use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::{ANYWHERE, eventually, soon};

const CLIENTS: usize = 100;
/// Equal subscriptions of each client and kind.
const EACH: usize = 100;

/// One filter in several spellings.
fn spelled(n: usize) -> Value {
    let (one, other) = (Address::repeat_byte(0xab), Address::repeat_byte(0xcd));
    match n % 4 {
        0 => json!(["logs", { "address": [one, other] }]),
        1 => json!(["logs", { "address": [other, one], "topics": [] }]),
        2 => json!(["logs", { "address": [format!("0x{}", "AB".repeat(20)), other, one] }]),
        _ => json!(["logs", { "address": [one, other], "fromBlock": null, "topics": null }]),
    }
}

/// One that needs nothing but its sender's ether.
fn transfer() -> TypedTransaction {
    TypedTransaction::Eip1559(TxEip1559 {
        chain_id: 31337,
        gas_limit: 21_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(0xab)),
        ..TxEip1559::default()
    })
}

/// So many subscriptions of each client; each of another spelling.
async fn subscribe(clients: &[Client], each: usize, params: impl Fn(usize) -> Value) -> Vec<Subscription> {
    let all = clients.iter().flat_map(|client| (0..each).map(|n| client.subscribe(params(n))));
    soon("the subscriptions", try_join_all(all)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_equal_subscriptions_are_one_at_the_node() {
    let kms = SimKms::new(sim_kms::Settings::new(7, 1).with_tag("app", "payments"));
    let account = Address::repeat_byte(0xaa);
    let ether = U256::from(10).pow(U256::from(18));
    let node =
        SimNode::new(sim_node::Settings::new(sim_node::Client::Geth, 31337, 7).with_balance(ether, [account, Wallet::new(7, 0).address()]));
    let (keys, endpoint) = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let extra = Extra::default();
    let (url, keys_url) = (endpoint.url(), keys.url());
    let configuration = Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys_url), service: "payments", extra: &extra };
    let command = sluice(&["serve", configuration.write(folder.path()).to_str().unwrap()]);
    let gateway = Gateway::start(command, "payments", &folder.path().join("gateway.log")).await.ready().await;
    let clients = join_all((0..CLIENTS).map(|_| gateway.connect())).await;
    let at_the_node = |kind: &str| node.with(|node, _| node.subscriptions(kind));
    assert_eq!(at_the_node("newHeads"), (1, 1), "by which the gateway follows the head");
    let mut pending = subscribe(&clients, EACH, |_| json!(["newPendingTransactions"])).await;
    let mut heads = subscribe(&clients, EACH, |_| json!(["newHeads"])).await;
    let mut logs = subscribe(&clients, EACH, spelled).await;
    assert_eq!([pending.len(), heads.len(), logs.len()], [CLIENTS * EACH; 3]);
    // Heads and logs come from the chain as the gateway follows it.
    let all = || ["newPendingTransactions", "newHeads", "logs"].map(at_the_node);
    assert_eq!(all(), [(1, 1), (1, 1), (0, 0)]);

    // Each has what the one is told.
    let (raw, hash) = Wallet::new(7, 0).sign(transfer()).unwrap();
    node.with(|node, now| node.call(now, "eth_sendRawTransaction", &json!([raw]))).unwrap();
    let log = Log::new_unchecked(Address::repeat_byte(0xcd), Vec::new(), Bytes::new());
    node.with(|node, now| node.emit(now, account, &[log]));
    let block = json!(node.mine());
    for ((pending, heads), logs) in pending.iter_mut().zip(&mut heads).zip(&mut logs) {
        assert_eq!(soon("a transaction", pending.next()).await.unwrap(), json!(hash));
        assert_eq!(soon("a head", heads.next()).await.unwrap()["hash"], block);
        assert_eq!(soon("a log", logs.next()).await.unwrap()["blockHash"], block);
    }

    // The last one is given up, or its client goes away; who comes back at once has the same.
    let given_up = clients.iter().zip(pending.chunks(EACH)).take(CLIENTS / 2);
    let given_up = given_up.flat_map(|(client, mine)| mine.iter().map(move |one| client.request("eth_unsubscribe", json!([one.id]))));
    assert!(soon("the answers", try_join_all(given_up)).await.unwrap().iter().all(|gone| *gone == json!(true)));
    let stay: Vec<Client> = clients.into_iter().take(CLIENTS / 2).collect();
    let again = stay[0].subscribe(json!(["newPendingTransactions"])).await.unwrap();
    assert_eq!(all(), [(1, 1), (1, 1), (0, 0)], "it is there a little longer");
    assert_eq!(stay[0].request("eth_unsubscribe", json!([again.id])).await.unwrap(), true);
    eventually("the node to be told", || async { (at_the_node("newPendingTransactions") == (1, 0)).then_some(()) }).await;
    stay[0].subscribe(json!(["newPendingTransactions"])).await.unwrap();
    assert_eq!(all(), [(2, 1), (1, 1), (0, 0)]);
}
