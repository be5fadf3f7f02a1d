//! Streams of the chain that a client takes up again behind the block that it saw last: it is told what was taken back since, then what was added,
//! then what comes, and nothing else.

use std::path::PathBuf;

use alloy_primitives::{Address, B256, Bytes, Log, LogData, U256, keccak256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, Subscription};
use sluice_load_tests::node_proxy::NodeProxy;
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, Reorg, Returned, SimNode};
use tempfile::TempDir;

use crate::support::anvil::parse;
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::World;
use crate::support::{ANYWHERE, emitter, eventually, soon};

/// Who emits, on the simulated chain.
const EMITTER: Address = Address::repeat_byte(0xe1);

/// A block, and the number in its log.
type Logged = (B256, u64);

/// The chain, and its logs, as a client makes them of what it is told.
#[derive(Debug, Default)]
struct View {
    blocks: Vec<B256>,
    logs: Vec<Logged>,
}

impl View {
    fn head(&mut self, head: &Value) {
        let hash: B256 = parse(&head["hash"]);
        if head["removed"] == true {
            assert_eq!(self.blocks.pop(), Some(hash), "what is taken back is the newest: {head}");
        } else {
            assert_eq!(self.blocks.last(), Some(&parse(&head["parentHash"])), "what is added follows: {head}");
            self.blocks.push(hash);
        }
    }

    fn log(&mut self, log: &Value) {
        let logged = (parse(&log["blockHash"]), emitter::number(log));
        if log["removed"] == true {
            assert_eq!(self.logs.pop(), Some(logged), "what is taken back is the newest: {log}");
        } else {
            assert!(!self.logs.contains(&logged), "{log} is told twice");
            self.logs.push(logged);
        }
    }
}

/// Sluice before a simulated node.
struct Stage {
    node: SimNode,
    way: NodeProxy,
    configuration: PathBuf,
    folder: TempDir,
    _parts: Box<dyn std::any::Any>,
    starts: u32,
}

impl Stage {
    /// With these lines for the environment.
    async fn start(environment: &str) -> Self {
        let kms = SimKms::new(sim_kms::Settings::new(7, 1).with_tag("app", "payments"));
        let settings =
            sim_node::Settings::new(sim_node::Client::Geth, 31337, 7).with_balance(U256::from(10).pow(U256::from(21)), [EMITTER]);
        let node = SimNode::new(settings);
        let (keys, endpoint) = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
        let way = NodeProxy::start(endpoint.address()).await.unwrap();
        let (folder, keys_url, url, extra) = (tempfile::tempdir().unwrap(), keys.url(), way.url(), Extra::environment(environment));
        let configuration = Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys_url), service: "payments", extra: &extra };
        let configuration = configuration.write(folder.path());
        Self { node, way, configuration, folder, _parts: Box::new((keys, endpoint)), starts: 0 }
    }

    async fn gateway(&mut self) -> Gateway {
        self.starts += 1;
        let log = self.folder.path().join(format!("gateway-{}.log", self.starts));
        Gateway::start(sluice(&["serve", self.configuration.to_str().unwrap()]), "payments", &log).await.ready().await
    }

    /// A block with a log, which has this number in it.
    fn mine(&self, number: u64) {
        let data = Bytes::from(U256::from(number).to_be_bytes::<32>());
        let log = Log { address: EMITTER, data: LogData::new_unchecked(vec![keccak256("red")], data) };
        self.node.with(|node, now| node.emit(now, EMITTER, &[log]));
        self.node.mine();
    }

    /// So many of the newest blocks are orphaned; one more come in their place, with none of their logs.
    fn reorg(&self, depth: u64) {
        self.node.reorg(Reorg { depth, blocks: depth + 1, transactions: Returned::Lost });
    }

    fn chain(&self) -> Vec<B256> {
        self.node.with(|node, _| node.chain().canonical().map(|block| block.hash).collect())
    }

    /// The logs that the chain has.
    fn logs(&self) -> Vec<Logged> {
        let number = |log: &Log| u64::from_be_bytes(log.data.data[24..].try_into().unwrap());
        self.node.with(|node, _| {
            let of = |block: &std::sync::Arc<sim_node::Block>| {
                let emitted = block.transactions.iter().flat_map(|mined| mined.executed.logs.iter().map(number));
                emitted.map(|number| (block.hash, number)).collect::<Vec<_>>()
            };
            node.chain().canonical().flat_map(of).collect()
        })
    }

    async fn caught_up(&self, gateway: &Gateway) {
        let wanted = (self.chain().len() - 1) as f64;
        eventually("the head to be known", || async {
            (gateway.metric("sluice_head_number{environment=\"dev\"}").await == wanted).then_some(())
        })
        .await;
    }
}

async fn next(stream: &mut Subscription) -> Value {
    soon("a notification", stream.next()).await.expect("the connection is open")
}

/// Heads and logs on one connection, behind these blocks.
async fn behind(gateway: &Gateway, head: B256, log: B256) -> (Client, Subscription, Subscription) {
    let client = gateway.connect().await;
    let heads = client.subscribe_by("sluice_subscribe", json!(["newHeads", { "after": head }])).await.unwrap();
    let logs = client.subscribe_by("sluice_subscribe", json!(["logs", { "address": EMITTER, "after": log }])).await.unwrap();
    (client, heads, logs)
}

/// Reads until the view is the chain.
async fn follow(stage: &Stage, view: &mut View, heads: &mut Subscription, logs: &mut Subscription) {
    while view.blocks != stage.chain() {
        view.head(&next(heads).await);
    }
    while view.logs != stage.logs() {
        view.log(&next(logs).await);
    }
}

/// What happens while the client is away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meanwhile {
    /// Blocks, and a reorg of each other depth.
    Chain,
    /// The same while the gateway's connection is cut too.
    Cut,
    /// The same while the gateway is not there: nothing of before is known to the next one.
    Restart,
}

async fn come_and_go(meanwhile: Meanwhile, environment: &str) {
    let mut stage = Stage::start(environment).await;
    (1..=8).for_each(|number| stage.mine(number));
    let mut gateway = stage.gateway().await;
    let mut view = View { blocks: stage.chain(), logs: stage.logs() };
    let mut number = 9;
    // Odd ones without a reorg; some reorgs go below what the client saw.
    for depth in [0, 1, 0, 3, 6] {
        let (client, mut heads, mut logs) = behind(&gateway, *view.blocks.last().unwrap(), view.logs.last().unwrap().0).await;
        follow(&stage, &mut view, &mut heads, &mut logs).await;
        for _ in 0..2 {
            stage.mine(number);
            number += 1;
            follow(&stage, &mut view, &mut heads, &mut logs).await;
        }
        drop((client, heads, logs));
        if meanwhile == Meanwhile::Restart {
            gateway.process.kill();
        }
        if meanwhile == Meanwhile::Cut {
            stage.way.refuse(true);
            stage.way.cut();
        }
        stage.mine(number);
        number += 1;
        if depth > 0 {
            stage.reorg(depth);
        }
        stage.mine(number);
        number += 1;
        stage.way.refuse(false);
        if meanwhile == Meanwhile::Restart {
            gateway = stage.gateway().await;
        }
        stage.caught_up(&gateway).await;
    }
    let (_client, mut heads, mut logs) = behind(&gateway, *view.blocks.last().unwrap(), view.logs.last().unwrap().0).await;
    follow(&stage, &mut view, &mut heads, &mut logs).await;
    // Nothing beside that: the next thing that is told is the next block, and then a reorg.
    stage.mine(number);
    view.head(&next(&mut heads).await);
    view.log(&next(&mut logs).await);
    assert_eq!((&view.blocks, &view.logs), (&stage.chain(), &stage.logs()));
    stage.reorg(2);
    follow(&stage, &mut view, &mut heads, &mut logs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_what_was_taken_back_and_the_rest() {
    come_and_go(Meanwhile::Chain, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_the_node_was_away_too_misses_nothing() {
    come_and_go(Meanwhile::Cut, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_a_restart_misses_nothing() {
    come_and_go(Meanwhile::Restart, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_misses_nothing_where_every_block_is_looked_into() {
    come_and_go(Meanwhile::Restart, "logs = \"node\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_said() {
    let mut stage = Stage::start("").await;
    (1..=3).for_each(|number| stage.mine(number));
    let old = stage.chain()[2];
    (0..1100).for_each(|_| _ = stage.node.mine());
    let gateway = stage.gateway().await;
    let client = gateway.connect().await;
    for kind in ["newHeads", "logs"] {
        let unknown = client.subscribe_by("sluice_subscribe", json!([kind, { "after": B256::repeat_byte(7) }])).await.unwrap_err();
        assert_eq!((unknown.code(), unknown.reason()), (Some(-32001), Some("not_found")), "{unknown}");
        let garbled = client.subscribe_by("sluice_subscribe", json!([kind, { "after": "0x7" }])).await.unwrap_err();
        assert_eq!((garbled.code(), garbled.reason()), (Some(-32602), Some("invalid_params")), "{garbled}");
        let mut stream = client.subscribe_by("sluice_subscribe", json!([kind, { "after": old }])).await.unwrap();
        let (number, hash) = (format!("{:#x}", stage.chain().len() - 1), *stage.chain().last().unwrap());
        let gap = json!({ "gap": { "from": { "number": "0x2", "hash": old }, "to": { "number": number, "hash": hash } } });
        assert_eq!(next(&mut stream).await, gap);
        stage.mine(4);
        let told = next(&mut stream).await;
        assert!(told["hash"] == json!(stage.chain().last()) || emitter::number(&told) == 4, "it goes on behind the gap: {told}");
    }
}

/// The same on a node that forgets what it takes back: it was told here.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_node_that_forgets_its_orphans_they_are_told_by_who_saw_them() {
    let Some(world) = World::start("on_a_node_that_forgets_its_orphans_they_are_told_by_who_saw_them").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let deploy = json!([{ "from": from, "data": emitter::CODE }]);
    let hash: B256 = parse(&soon("a hash", client.request("eth_sendTransaction", deploy)).await.unwrap());
    let contract: Address = parse(&world.mined(hash).await["contractAddress"]);
    let stranger = world.anvil.call("eth_accounts", json!([])).await.unwrap()[0].clone();
    let emit = async |number: u64| {
        let call = json!([{ "from": stranger, "to": contract, "data": emitter::call(keccak256("red"), number), "gas": "0x30000" }]);
        let hash: B256 = parse(&world.anvil.call("eth_sendTransaction", call).await.unwrap());
        world.mined(hash).await;
    };
    let mut heads = client.subscribe_by("sluice_subscribe", json!(["newHeads"])).await.unwrap();
    let mut logs = client.subscribe_by("sluice_subscribe", json!(["logs", { "address": contract }])).await.unwrap();
    let (mut blocks, mut told) = (Vec::new(), Vec::new());
    for number in 0..3 {
        emit(number).await;
        blocks.push(next(&mut heads).await);
        told.push(next(&mut logs).await);
    }
    drop((client, heads, logs));
    world.anvil.call("anvil_reorg", json!([2, []])).await.unwrap();
    emit(3).await;
    let client = gateway.connect().await;
    let after = json!({ "after": blocks[2]["hash"] });
    let mut heads = client.subscribe_by("sluice_subscribe", json!(["newHeads", after])).await.unwrap();
    let mut logs = client.subscribe_by("sluice_subscribe", json!(["logs", after])).await.unwrap();
    for block in [&blocks[2], &blocks[1]] {
        let (mut gone, head) = (block.clone(), next(&mut heads).await);
        gone["removed"] = json!(true);
        assert_eq!(head, gone);
    }
    let mut parent = blocks[0]["hash"].clone();
    for _ in 0..3 {
        let head = next(&mut heads).await;
        assert_eq!((&head["parentHash"], &head["removed"]), (&parent, &Value::Null));
        parent = head["hash"].clone();
    }
    for log in [&told[2], &told[1]] {
        let mut gone = log.clone();
        gone["removed"] = json!(true);
        assert_eq!(next(&mut logs).await, gone);
    }
    let log = next(&mut logs).await;
    assert_eq!((emitter::number(&log), &log["blockHash"], &log["removed"]), (3, &parent, &json!(false)));
}
