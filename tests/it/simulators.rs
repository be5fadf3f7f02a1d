//! The simulators of load-tests/ before the real binary: what other tests build on them for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use futures_util::future::join_all;
use serde_json::json;
use sluice_load_tests::client::{Client, Subscription};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::random::Delays;
use sluice_load_tests::sim_kms::{self, KmsError, SimKms};
use sluice_load_tests::sim_node::{self, Fault, Reorg, Returned, SimNode};

use crate::support::anvil::parse;
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SEED: u64 = 11;

/// A KMS with two keys of the tests' service, slow now and then, throttled now and then, and broken now and then.
fn troubled_kms() -> SimKms {
    let settings = sim_kms::Settings::new(SEED, 2).with_tag("app", "payments");
    let kms = SimKms::new(sim_kms::Settings { delays: Delays { p50: 2, p99: 20, max: 200 }, ..settings });
    let faults = Faults::default()
        .then("Sign", 2, sim_kms::Fault::Error(KmsError::internal()))
        .then("Sign", 1, sim_kms::Fault::CutAfter)
        .sometimes("Sign", 1_000, sim_kms::Fault::Error(KmsError::throttled()));
    kms.with(|kms, _| kms.set_faults(faults));
    kms
}

fn addresses(kms: &SimKms) -> Vec<Address> {
    kms.with(|kms, _| kms.keys().iter().map(|key| key.address()).collect())
}

/// Sends `count` transfers of each account at once; their hashes by account, and in order.
async fn send(client: &Client, accounts: &[Address], count: u64) -> BTreeMap<Address, Vec<B256>> {
    let mut hashes = BTreeMap::new();
    for account in accounts {
        let sends: Vec<_> = (1..=count).map(|value| client.start("eth_sendTransaction", transfer(*account, value))).collect();
        hashes.insert(*account, sends);
    }
    let mut told = BTreeMap::new();
    for (account, sends) in hashes {
        let answers = soon("the hashes", join_all(sends)).await;
        told.insert(account, answers.into_iter().map(|answer| parse(&answer.unwrap())).collect());
    }
    told
}

/// Waits for the receipts of these hashes.
async fn receipts(stream: &mut Subscription, hashes: impl IntoIterator<Item = B256>) {
    let mut missing: BTreeSet<B256> = hashes.into_iter().collect();
    while !missing.is_empty() {
        for receipt in soon("a receipt", stream.next()).await.unwrap().as_array().unwrap() {
            assert_eq!(receipt["status"], "0x1");
            missing.remove(&parse::<B256>(&receipt["transactionHash"]));
        }
    }
}

fn configuration(folder: &Path, node: &str, kms: &str) -> String {
    let text = format!(
        r#"[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[journal]
path = "sluice.db"
[[environment]]
name = "dev"
chain_id = 31337
nodes = [{{ url = "{node}" }}]
confirmations = 3
[[configuration]]
name = "kms"
provider = "aws_kms"
region = "us-east-1"
endpoint = "{kms}"
access_key_id = {{ env = "TEST_ACCESS_KEY_ID" }}
secret_access_key = {{ env = "TEST_SECRET_ACCESS_KEY" }}
[[service]]
name = "payments"
environment = "dev"
configurations = ["kms"]
keys = {{ tag = {{ app = "payments" }} }}
"#
    );
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_reach_their_receipts_through_the_simulated_node() {
    let folder = tempfile::tempdir().unwrap();
    let kms = troubled_kms();
    let accounts = addresses(&kms);
    let ether = U256::from(1_000_000_000_000_000_000_u64);
    let settings = sim_node::Settings::new(sim_node::Client::Geth, 31337, SEED).with_balance(ether, accounts.clone());
    let node = SimNode::new(settings);
    let unknown = Fault::Lie { code: -32603, message: "a word that nobody has seen".into() };
    let faults = Faults::default()
        .then("eth_sendRawTransaction", 1, Fault::DropAnswer)
        .then("eth_sendRawTransaction", 1, unknown)
        .then("eth_sendRawTransaction", 1, Fault::Overtaken)
        .then("eth_sendRawTransaction", 1, Fault::Late { milliseconds: 300 })
        .then("eth_sendRawTransaction", 1, Fault::OtherHash);
    node.with(|node, _| node.set_faults(faults));
    let (kms_listener, node_listener) = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
    let blocks = node.clone();
    let blocks = tokio::spawn(async move { blocks.run_blocks(Duration::from_millis(200)).await });

    let config = configuration(folder.path(), &node_listener.url(), &kms_listener.url());
    let gateway = Gateway::start(sluice(&["serve", &config]), "payments", &folder.path().join("gateway.log")).await.ready().await;
    let client = gateway.connect().await;
    let mut stream = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let told = send(&client, &accounts, 10).await;
    receipts(&mut stream, told.values().flatten().copied()).await;

    let mined = node.with(|node, _| node.mined());
    for (account, hashes) in &told {
        let on_chain: Vec<(u64, B256)> = mined.values().filter(|one| one.sender == *account).map(|one| (one.nonce, one.hash)).collect();
        assert_eq!(on_chain.iter().map(|(nonce, _)| *nonce).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert_eq!(on_chain.iter().map(|(_, hash)| *hash).collect::<BTreeSet<_>>(), hashes.iter().copied().collect());
    }
    assert_eq!(node.with(|node, _| node.arrivals().iter().filter(|arrival| arrival.fault.is_some()).count()), 5);
    let sent = node.with(|node, _| node.arrivals().iter().map(|arrival| arrival.transaction.unwrap()).collect::<Vec<_>>());
    let payloads: BTreeSet<(Address, u64, B256)> = sent.iter().map(|one| (one.from, one.nonce, one.hash)).collect();
    assert_eq!(payloads.len(), 20, "one payload for each nonce, however often it came");

    // A reorg loses the newest ones; the same bytes come again.
    let last = send(&client, &accounts[..1], 1).await[&accounts[0]][0];
    receipts(&mut stream, [last]).await;
    blocks.abort();
    let depth = node.with(|node, _| node.chain().head().number() - node.mined()[&(accounts[0], 10)].block_number + 1);
    node.reorg(Reorg { depth, blocks: depth + 1, transactions: Returned::Lost });
    assert!(!node.with(|node, _| node.mined().contains_key(&(accounts[0], 10))));
    eventually("the lost one to be mined again", || {
        node.mine();
        let hash = node.with(|node, _| node.mined().get(&(accounts[0], 10)).map(|one| one.hash));
        async move { hash.filter(|hash| *hash == last) }
    })
    .await;
    assert_eq!(node.with(|node, _| node.payloads().iter().filter(|one| one.hash == last).count()), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_the_simulated_kms_are_taken_by_a_node_that_others_wrote() {
    let Some(world) = World::start("signatures_of_the_simulated_kms_are_taken_by_a_node_that_others_wrote").await else { return };
    let kms = troubled_kms();
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let accounts = addresses(&kms);
    for account in &accounts {
        world.anvil.fund(*account, 10).await;
    }
    let mut command = sluice(&["serve", &world.configuration()]);
    command.env("SLUICE__CONFIGURATION__KMS__ENDPOINT", listener.url());
    let gateway = Gateway::start(command, "payments", &world.folder.path().join("gateway.log")).await.ready().await;
    let client = gateway.connect().await;
    let mut stream = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let told = send(&client, &accounts, 10).await;
    receipts(&mut stream, told.values().flatten().copied()).await;
    assert_eq!(world.anvil.nonces().await[&accounts[1]], (0..10).collect::<Vec<_>>());
    let signed: Vec<B256> = kms.with(|kms, _| kms.signed().iter().map(|signed| signed.digest).collect());
    let digests: BTreeSet<B256> = signed.iter().copied().collect();
    assert!(signed.len() > 20);
    assert_eq!(digests.len(), 20, "what was signed twice, because the first answer was cut off, is the same digest");
}
