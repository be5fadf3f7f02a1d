//! How transactions go to nodes of several kinds, and what becomes of them there: broadcast modes, limits of pools, finality, failed
//! executions, reorgs deeper than what is on record, foreign use.

use std::time::Duration;

use alloy_consensus::{SignableTransaction as _, TxEnvelope, TxLegacy};
use alloy_eips::Encodable2718 as _;
use alloy_primitives::{Address, B256, Signature, TxKind, U256, hex};
use futures_util::future::join_all;
use k256::ecdsa::SigningKey;
use serde_json::json;
use sluice_load_tests::client::Client;
use sluice_load_tests::faults::Faults;
use sluice_load_tests::listener::Listener;
use sluice_load_tests::node_proxy::NodeProxy;
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, Fault, Reorg, Returned, SimNode};
use tempfile::TempDir;

use crate::support::anvil::{parse, quantity};
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{self, Geth};
use crate::support::parts::{Part, have};
use crate::support::world::{self, World, transfer};
use crate::support::{ANYWHERE, eventually, journal, soon};

const SEND: &str = "eth_sendRawTransaction";

/// Sluice between a simulated KMS and a simulated node.
struct Stage {
    folder: TempDir,
    node: SimNode,
    account: Address,
    gateway: Gateway,
    client: Client,
    _listeners: (Listener, Listener),
}

impl Stage {
    /// `environment`: more lines of the configuration.
    async fn start(settings: sim_node::Settings, environment: &str) -> Self {
        let kms = SimKms::new(sim_kms::Settings::new(7, 1).with_tag("app", "payments"));
        let account = kms.with(|kms, _| kms.keys()[0].address());
        let ether = U256::from(1_000_000_000_000_000_000_u64);
        let node = SimNode::new(settings.with_balance(ether, [account]));
        let listeners = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
        let folder = tempfile::tempdir().unwrap();
        let (keys, url) = (listeners.0.url(), listeners.1.url());
        let extra = Extra::environment(environment);
        let configuration = Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys), service: "payments", extra: &extra };
        configuration.write(folder.path());
        let gateway = Self::gateway(&folder, "gateway.log").await;
        let client = gateway.connect().await;
        Self { folder, node, account, gateway, client, _listeners: listeners }
    }

    async fn gateway(folder: &TempDir, log: &str) -> Gateway {
        let file = folder.path().join("sluice.toml");
        Gateway::start(sluice(&["serve", file.to_str().unwrap()]), "payments", &folder.path().join(log)).await.ready().await
    }

    async fn send(&self, count: u64) -> Vec<B256> {
        send(&self.client, self.account, count).await
    }

    /// Makes blocks until all of these are mined; they must be the account's first nonces, in this order.
    async fn mined_in_order(&self, hashes: &[B256]) {
        eventually("all to be mined", || {
            self.node.mine();
            let mined = self.node.with(|node, _| node.mined().into_values().map(|one| one.hash).collect::<Vec<_>>());
            async move { (mined.len() >= hashes.len()).then_some(()) }
        })
        .await;
        let mined = self.node.with(|node, _| node.mined());
        assert!(mined.keys().map(|(_, nonce)| *nonce).eq(0..hashes.len() as u64), "no hole and nothing else");
        assert!(hashes.iter().all(|hash| mined.values().any(|one| one.hash == *hash)), "the bytes that were told");
    }

    /// Nonces in the order of their first arrival at the node.
    fn first_arrivals(&self) -> Vec<u64> {
        let mut nonces = Vec::new();
        for sent in self.node.with(|node, _| node.arrivals().iter().filter_map(|arrival| arrival.transaction).collect::<Vec<_>>()) {
            if !nonces.contains(&sent.nonce) {
                nonces.push(sent.nonce);
            }
        }
        nonces
    }

    /// The details of the events that have this state.
    async fn told(&self, state: &str) -> Vec<journal::Event> {
        eventually(state, || async {
            let events = journal::events(&self.folder.path().join("sluice.db"), "payments");
            let told: Vec<_> = events.into_iter().filter(|event| event.state == state).collect();
            (!told.is_empty()).then_some(told)
        })
        .await
    }
}

/// Sends so many at once; their hashes in the order of the requests.
async fn send(client: &Client, account: Address, count: u64) -> Vec<B256> {
    let sends: Vec<_> = (1..=count).map(|value| client.start("eth_sendTransaction", transfer(account, value))).collect();
    soon("the hashes", join_all(sends)).await.into_iter().map(|answer| parse(&answer.unwrap())).collect()
}

fn node(client: sim_node::Client) -> sim_node::Settings {
    sim_node::Settings::new(client, 31337, 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn sequential_shows_no_gap_to_a_node_that_refuses_them() {
    let lines = "broadcast = \"sequential\"\nnode_deadline = \"500ms\"\nrebroadcast = \"1s\"\nanswer_after = \"200ms\"";
    let stage = Stage::start(node(sim_node::Client::Nethermind), lines).await;
    let syncing = Fault::Refuse { code: -32010, message: "node is syncing".into() };
    let faults = Faults::default().then(SEND, 1, Fault::DropRequest).then(SEND, 1, syncing).then(SEND, 1, Fault::DropAnswer);
    stage.node.with(|node, _| node.set_faults(faults));
    let hashes = stage.send(20).await;
    stage.mined_in_order(&hashes).await;
    assert_eq!(stage.first_arrivals(), (0..20).collect::<Vec<_>>());
    let verdicts = stage.node.with(|node, _| format!("{:?}", node.arrivals().iter().map(|one| &one.verdict).collect::<Vec<_>>()));
    assert!(!verdicts.contains("too high") && !verdicts.contains("too far"), "{verdicts}");
    assert_eq!(stage.node.with(|node, _| node.arrivals().iter().filter(|arrival| arrival.fault.is_some()).count()), 3);
}

/// Frames of one WebSocket overtake each other at this node, as geth's may; what is in one batch does not.
#[tokio::test(flavor = "multi_thread")]
async fn batched_keeps_the_order_where_frames_overtake_each_other() {
    let stage = Stage::start(node(sim_node::Client::Geth), "broadcast = \"batched\"").await;
    let word = |number: u8| Fault::Lie { code: -32603, message: format!("quota {number} that nobody has seen") };
    let faults = Faults::default().then(SEND, 1, word(1)).then(SEND, 1, word(2)).sometimes(SEND, 500_000, Fault::Overtaken);
    stage.node.with(|node, _| node.set_faults(faults));
    let blocks = stage.node.clone();
    let blocks = tokio::spawn(async move { blocks.run_blocks(Duration::from_millis(100)).await });
    let hashes = stage.send(200).await;
    stage.mined_in_order(&hashes).await;
    blocks.abort();
    let overtaken = stage.node.with(|node, _| node.arrivals().iter().filter(|one| matches!(one.fault, Some(Fault::Overtaken))).count());
    assert!(overtaken > 0, "frames did overtake each other");
    assert!(stage.first_arrivals().is_sorted(), "{:?}", stage.first_arrivals());
    let unrecognised = "sluice_submissions_total{environment=\"dev\",outcome=\"unrecognised\"}";
    assert_eq!(stage.gateway.metric(unrecognised).await, 2.0);
    assert_eq!(stage.gateway.process.log().matches("quota # that nobody has seen").count(), 1, "each text is told once");
}

/// reth keeps 16 transactions of an account.
async fn goes_on_behind_a_full_pool(mode: &str) {
    let lines = format!("broadcast = \"{mode}\"\nanswer_after = \"200ms\"");
    let stage = Stage::start(node(sim_node::Client::Reth), &lines).await;
    let hashes = stage.send(40).await;
    let full = "sluice_submissions_total{environment=\"dev\",outcome=\"pool_full\"}";
    eventually("the limit to be met", || async { (stage.gateway.metric(full).await > 0.0).then_some(()) }).await;
    if mode == "sequential" {
        assert_eq!(stage.first_arrivals(), (0..=16).collect::<Vec<_>>(), "nothing above the one that found no room");
    }
    stage.mined_in_order(&hashes).await;
    assert_eq!(stage.gateway.metric("sluice_fillers_total{environment=\"dev\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_goes_on_behind_a_full_pool() {
    goes_on_behind_a_full_pool("pipelined").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batched_goes_on_behind_a_full_pool() {
    goes_on_behind_a_full_pool("batched").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequential_goes_on_behind_a_full_pool() {
    goes_on_behind_a_full_pool("sequential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalized_block_confirms_and_nothing_before_it() {
    let settings = sim_node::Settings { finality: Some(5), ..node(sim_node::Client::Geth) };
    let stage = Stage::start(settings, "confirmations = \"finalized\"\nfinalized_fallback = 1").await;
    // The chain is old enough to have such a block.
    for _ in 0..8 {
        stage.node.mine();
    }
    let hashes = stage.send(1).await;
    stage.mined_in_order(&hashes).await;
    let block = stage.told("included").await[0].block.unwrap().0;
    let head = || stage.node.with(|node, _| node.chain().head().number());
    while head() < block + 3 {
        stage.node.mine();
    }
    // Included by the next block: everything before that was dealt with by then.
    let next = stage.send(1).await[0];
    stage.node.mine();
    eventually("the next one", || async { stage.told("included").await.iter().any(|event| event.hash == next).then_some(()) }).await;
    let early = journal::events(&stage.folder.path().join("sluice.db"), "payments");
    assert!(early.iter().all(|event| event.state != "confirmed"), "the finalized block is below: {early:?}");
    stage.node.mine();
    let confirmed = &stage.told("confirmed").await[0];
    assert_eq!((confirmed.hash, confirmed.block.unwrap().0, head()), (hashes[0], block, block + 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_finalized_block_is_told_once_and_depth_confirms() {
    let settings = sim_node::Settings { finality: None, ..node(sim_node::Client::Geth) };
    let stage = Stage::start(settings, "confirmations = \"finalized\"\nfinalized_fallback = 2").await;
    let hashes = stage.send(3).await;
    stage.mined_in_order(&hashes).await;
    let blocks = stage.node.clone();
    let blocks = tokio::spawn(async move { blocks.run_blocks(Duration::from_millis(100)).await });
    assert_eq!(stage.told("confirmed").await[0].nonce, 0);
    let more = stage.send(1).await;
    eventually("another one", || async { stage.told("confirmed").await.iter().any(|event| event.hash == more[0]).then_some(()) }).await;
    blocks.abort();
    assert_eq!(stage.gateway.process.log().matches("finalized_fallback counts").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_execution_is_told_with_the_reason_of_its_contract() {
    let stage = Stage::start(node(sim_node::Client::Geth), "").await;
    let contract = Address::repeat_byte(0xc0);
    stage.node.with(|node, _| node.set_reverting(contract, Some("no tokens left".into())));
    let request = json!([{ "from": stage.account, "to": contract, "gas": "0x186a0", "data": "0x12345678" }]);
    let hash: B256 = parse(&soon("the hash", stage.client.request("eth_sendTransaction", request)).await.unwrap());
    stage.mined_in_order(&[hash]).await;
    let told = stage.told("included").await;
    assert_eq!(told[0].detail.as_deref(), Some("reverted: no tokens left"));
}

/// After a restart one block is on record: any reorg is deeper than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_deeper_than_the_blocks_on_record_is_found_and_mended() {
    let mut stage = Stage::start(node(sim_node::Client::Geth), "rebroadcast = \"1s\"").await;
    let hashes = stage.send(3).await;
    stage.mined_in_order(&hashes).await;
    for hash in &hashes {
        eventually("it to be on record", || async { stage.told("included").await.iter().any(|one| one.hash == *hash).then_some(()) }).await;
    }
    stage.node.mine();
    stage.gateway.process.kill();
    stage.gateway = Stage::gateway(&stage.folder, "again.log").await;
    stage.client = stage.gateway.connect().await;
    let depth = stage.node.with(|node, _| node.chain().head().number());
    stage.node.reorg(Reorg { depth, blocks: depth, transactions: Returned::Lost });
    assert!(stage.node.with(|node, _| node.mined().is_empty()), "all are gone");
    eventually("all to be orphaned", || async {
        let told = journal::events(&stage.folder.path().join("sluice.db"), "payments");
        (told.iter().filter(|event| event.state == "orphaned").count() == hashes.len()).then_some(())
    })
    .await;
    stage.mined_in_order(&hashes).await;
    assert_eq!(stage.gateway.metric("sluice_fillers_total{environment=\"dev\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_in_batches_arrive_in_order_on_anvil() {
    let Some(mut world) = World::start("two_hundred_in_batches_arrive_in_order_on_anvil").await else { return };
    world.extra.environment = "broadcast = \"batched\"\naccount = { queue_deadline = \"10m\" }".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let hashes = send(&gateway.connect().await, accounts[0], 200).await;
    for hash in hashes {
        world.mined(hash).await;
    }
    assert_eq!(world.anvil.nonces().await[&accounts[0]], (0..200).collect::<Vec<_>>());
    assert_first_arrivals_in_order(&world.node, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_in_batches_arrive_in_order_on_geth() {
    let test = "two_hundred_in_batches_arrive_in_order_on_geth";
    if !have(test, &[Part::Go]) {
        return;
    }
    let Some(mut world) = World::start(test).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let proxy = NodeProxy::start(geth.address).await.unwrap();
    let environment =
        world::environment("geth", geth::CHAIN_ID, &proxy.url()) + "broadcast = \"batched\"\naccount = { queue_deadline = \"10m\" }\n";
    world.extra.tail = environment + &world::service("geth", "geth", "geth");
    // The other service has a key as well: the gateway is ready when all have.
    world.accounts(1).await;
    let accounts = world.accounts_of("geth", 1).await;
    geth.fund(&accounts, 100).await;
    let gateway = world.gateway().await;
    let client = Client::connect(&format!("ws://{}/geth", gateway.listen), &[]).await.unwrap();
    for hash in send(&client, accounts[0], 200).await {
        eventually("a receipt", || geth.receipt(hash)).await;
    }
    let count = geth.call("eth_getTransactionCount", json!([accounts[0], "latest"])).await.unwrap();
    assert_eq!(quantity(&count), 200);
    assert_first_arrivals_in_order(&proxy, 200);
}

fn assert_first_arrivals_in_order(proxy: &NodeProxy, count: u64) {
    let mut nonces = Vec::new();
    for sent in proxy.sent() {
        let nonce = sent.decode().unwrap().nonce;
        if !nonces.contains(&nonce) {
            nonces.push(nonce);
        }
    }
    assert_eq!(nonces, (0..count).collect::<Vec<_>>());
}

/// Who else has the key sends past Sluice: an alarm, and the next nonce is where the chain is. Nothing of it is signed again.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_use_of_a_key_on_geth_is_alarmed_and_nothing_is_signed_twice() {
    if !have("foreign_use_of_a_key_on_geth_is_alarmed_and_nothing_is_signed_twice", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let (node, chain_id) = (format!("ws://{}", geth.address), geth::CHAIN_ID.to_string());
    let address = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let dev = sluice(&[&["dev", "--node", &node, "--chain-id", &chain_id, "--accounts", "1"], &address[..]].concat());
    let gateway = Gateway::start(dev, "dev", &folder.path().join("dev.log")).await.ready().await;
    let client = gateway.connect().await;
    // The key that `sluice dev` has.
    let key = SigningKey::from_slice(&hex::decode("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap()).unwrap();
    let from = Address::from_public_key(key.verifying_key());
    geth.fund(&[from], 100).await;
    let first = send(&client, from, 1).await[0];
    eventually("a receipt", || geth.receipt(first)).await;

    let (to, gas_price) = (TxKind::Call(from), 100_000_000_000);
    let foreign = TxLegacy { chain_id: Some(geth::CHAIN_ID), nonce: 1, gas_price, gas_limit: 21_000, to, ..TxLegacy::default() };
    let (signature, parity) = key.sign_prehash_recoverable(foreign.signature_hash().as_slice()).unwrap();
    let signature = Signature::from_signature_and_parity(signature, parity.is_y_odd());
    let raw = hex::encode_prefixed(TxEnvelope::from(foreign.into_signed(signature)).encoded_2718());
    let foreign: B256 = parse(&geth.call(SEND, json!([raw])).await.unwrap());
    eventually("a receipt", || geth.receipt(foreign)).await;

    // A request makes an account that idles read its nonces.
    let next = send(&client, from, 1).await[0];
    eventually("a receipt", || geth.receipt(next)).await;
    let transaction = geth.call("eth_getTransactionByHash", json!([next])).await.unwrap();
    assert_eq!(quantity(&transaction["nonce"]), 2);
    assert!(gateway.metric("sluice_alarms_total{environment=\"dev\",kind=\"foreign_nonce\"}").await > 0.0);
    assert_eq!(gateway.metric("sluice_resigned_total").await, 0.0);
}
