//! The simulators of load-tests/ before the real binary: what other tests build on them for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alloy_consensus::{TxEip1559, TxLegacy};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use futures_util::future::join_all;
use serde_json::json;
use sluice_load_tests::client::{Client, ClientError, Subscription};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::random::Delays;
use sluice_load_tests::sim_kms::{self, KmsError, SimKms};
use sluice_load_tests::sim_node::{self, Fault, Node, Reorg, Returned, SimNode};
use sluice_load_tests::wallet::Wallet;

use crate::support::anvil::{Anvil, parse};
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{CHAIN_ID, Geth};
use crate::support::parts::{Part, have};
use crate::support::world::{World, transfer};
use crate::support::{ANYWHERE, eventually, soon};

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

    let (keys, url) = (kms_listener.url(), node_listener.url());
    let extra = Extra::environment("confirmations = 3");
    let configuration = Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys), service: "payments", extra: &extra };
    let file = configuration.write(folder.path());
    let gateway =
        Gateway::start(sluice(&["serve", file.to_str().unwrap()]), "payments", &folder.path().join("gateway.log")).await.ready().await;
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

/// A transfer of 1 wei on this chain, with fees that are always enough.
fn plain(chain_id: u64, nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(0x11)),
        value: U256::from(1),
        ..TxEip1559::default()
    }
}

/// What both are sent, in this order, each with a name for people. The first has been mined before the second comes.
fn questions(chain_id: u64) -> Vec<(&'static str, Bytes)> {
    let (wallet, other) = (Wallet::new(SEED, 0), Wallet::new(SEED, 1));
    let signed = |wallet: &Wallet, transaction: TxEip1559| wallet.sign(transaction.into()).unwrap().0;
    let plain = |nonce| plain(chain_id, nonce);
    let rich = U256::from(10).pow(U256::from(24));
    let unprotected = TxLegacy { nonce: 9, gas_price: 10_000_000_000, gas_limit: 21_000, to: plain(0).to, ..TxLegacy::default() };
    vec![
        ("taken", signed(&wallet, plain(0))),
        ("nonce too low", signed(&wallet, TxEip1559 { value: U256::from(2), ..plain(0) })),
        ("mined before", signed(&wallet, plain(0))),
        ("behind a gap", signed(&wallet, plain(5))),
        ("known", signed(&wallet, plain(5))),
        ("replacement", signed(&wallet, TxEip1559 { value: U256::from(2), ..plain(5) })),
        ("funds", signed(&other, TxEip1559 { value: rich, ..plain(0) })),
        ("intrinsic gas", signed(&wallet, TxEip1559 { gas_limit: 20_999, ..plain(1) })),
        ("block gas", signed(&wallet, TxEip1559 { gas_limit: 90_000_000, ..plain(1) })),
        ("tip above cap", signed(&wallet, TxEip1559 { max_priority_fee_per_gas: 10_000_000_001, ..plain(1) })),
        ("wrong chain", signed(&wallet, TxEip1559 { chain_id: 1, ..plain(1) })),
        ("tip below minimum", signed(&wallet, TxEip1559 { max_priority_fee_per_gas: 0, ..plain(6) })),
        ("fee cap", signed(&wallet, TxEip1559 { gas_limit: 1_000_000, max_fee_per_gas: 1_234_000_000_000, ..plain(7) })),
        ("floor gas", signed(&wallet, TxEip1559 { gas_limit: 22_600, input: Bytes::from(vec![1; 100]), ..plain(1) })),
        ("below base fee", signed(&wallet, TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 1, ..plain(8) })),
        ("unprotected", wallet.sign(unprotected.into()).unwrap().0),
        ("gas cap", signed(&wallet, TxEip1559 { gas_limit: 16_777_217, ..plain(10) })),
    ]
}

/// The hash, or code and words.
type Said = Result<serde_json::Value, (i64, String)>;

/// What the simulated client says to all of them; the first is mined at once.
fn simulated(client: sim_node::Client, chain_id: u64, questions: &[(&str, Bytes)]) -> Vec<Said> {
    let wei = U256::from(1_000_000_000_000_000_000_000_u128);
    let wallets = [0, 1].map(|number| Wallet::new(SEED, number).address());
    let mut node = Node::new(sim_node::Settings::new(client, chain_id, SEED).with_balance(wei, wallets));
    let said = questions.iter().enumerate().map(|(place, (_, raw))| {
        let said = node.call(Duration::ZERO, "eth_sendRawTransaction", &json!([raw]));
        if place == 0 {
            node.mine(Duration::ZERO);
        }
        said.map_err(|error| (error.code, error.message))
    });
    said.collect()
}

fn said(answer: Result<serde_json::Value, ClientError>) -> Said {
    answer.map_err(|error| match error {
        ClientError::Rpc { code, message, .. } => (code, message),
        other => panic!("{other}"),
    })
}

fn compare(questions: &[(&str, Bytes)], real: &[Said], simulated: &[Said]) {
    let differences: Vec<_> = questions
        .iter()
        .zip(real.iter().zip(simulated))
        .filter(|(_, (real, simulated))| real != simulated)
        .map(|((name, _), (real, simulated))| format!("{name}: {real:?}, simulated {simulated:?}"))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_anvil_speaks_as_the_real_one() {
    if !have("the_simulated_anvil_speaks_as_the_real_one", &[Part::Node]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let anvil = Anvil::start(folder.path(), &[]).await;
    let questions = questions(31337);
    let mut real = Vec::new();
    for number in [0, 1] {
        anvil.fund(Wallet::new(SEED, number).address(), 1_000).await;
    }
    for (_, raw) in &questions {
        let said = said(anvil.call("eth_sendRawTransaction", json!([raw])).await);
        if let Ok(hash) = &said
            && real.is_empty()
        {
            eventually("the first to be mined", || anvil.receipt(parse(hash))).await;
        }
        real.push(said);
    }
    compare(&questions, &real, &simulated(sim_node::Client::Anvil, 31337, &questions));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_geth_speaks_as_the_real_one() {
    if !have("the_simulated_geth_speaks_as_the_real_one", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let questions = questions(CHAIN_ID);
    let mut real = Vec::new();
    geth.fund(&[0, 1].map(|number| Wallet::new(SEED, number).address()), 1_000).await;
    for (_, raw) in &questions {
        let said = said(geth.call("eth_sendRawTransaction", json!([raw])).await);
        if let Ok(hash) = &said
            && real.is_empty()
        {
            eventually("the first to be mined", || geth.receipt(parse(hash))).await;
        }
        real.push(said);
    }
    compare(&questions, &real, &simulated(sim_node::Client::Geth, CHAIN_ID, &questions));
}
