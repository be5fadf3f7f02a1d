//! ethers and viem as observers: what they are told of heads and logs at the node, and through Sluice in the same run, while Sluice's connection to the node is
//! cut and the chain goes another way.

use std::path::Path;
use std::process::Command;

use alloy_primitives::{Address, B256, Bytes, Log, U256, keccak256};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_load_tests::listener::Listener;
use sluice_load_tests::node_proxy::NodeProxy;
use sluice_load_tests::sim_node::{self, Reorg, Returned, SimNode};

use crate::support::anvil::{Anvil, parse, quantity};
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{self, Geth};
use crate::support::parts::{self, Part, have};
use crate::support::process::Process;
use crate::support::{ANYWHERE, emitter, eventually};

/// Blocks that the reorg takes: each with a log.
const DEPTH: u64 = 2;
/// Who has logs emitted on the simulated node, and in whose name.
const EMITTING: Address = Address::repeat_byte(0xaa);

enum Node {
    Anvil(Anvil),
    Geth(Geth),
    /// It alone says which logs a reorg took back: geth does not when its head is set back.
    Simulated(SimNode, Listener),
}

impl Node {
    fn url(&self) -> String {
        match self {
            Self::Anvil(anvil) => format!("ws://{}", anvil.address),
            Self::Geth(geth) => format!("ws://{}", geth.address),
            Self::Simulated(_, listener) => listener.url(),
        }
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        match self {
            Self::Anvil(anvil) => anvil.call(method, params).await.map_err(|error| error.to_string()),
            Self::Geth(geth) => geth.call(method, params).await.map_err(|error| error.to_string()),
            Self::Simulated(node, _) => node.with(|node, now| node.call(now, method, &params)).map_err(|error| error.message),
        }
    }

    /// Sends from the node's own account and waits for the receipt. After a reorg the node may not be of one mind about the nonce: it is asked again.
    async fn send(&self, transaction: Value) -> Value {
        let from = self.call("eth_accounts", json!([])).await.unwrap()[0].clone();
        let mut transaction = transaction;
        transaction["from"] = from;
        let hash = eventually("a hash", || async { self.call("eth_sendTransaction", json!([transaction])).await.ok() }).await;
        eventually("a receipt", || async {
            self.call("eth_getTransactionReceipt", json!([hash])).await.ok().filter(|receipt| !receipt.is_null())
        })
        .await
    }

    async fn contract(&self) -> Address {
        match self {
            Self::Simulated(..) => Address::repeat_byte(1),
            _ => parse(&self.send(json!({ "data": emitter::CODE })).await["contractAddress"]),
        }
    }

    /// A block with one log of the contract: hash of its transaction, and its number.
    async fn log(&self, contract: Address, number: u64) -> (B256, u64) {
        let receipt = match self {
            Self::Simulated(node, _) => {
                let log = Log::new_unchecked(contract, Vec::new(), Bytes::new());
                let hash = node.with(|node, now| {
                    let hash = node.emit(now, EMITTING, &[log]);
                    node.mine(now);
                    hash
                });
                self.call("eth_getTransactionReceipt", json!([hash])).await.unwrap()
            }
            _ => self.send(json!({ "to": contract, "data": emitter::call(keccak256("red"), number), "gas": "0x30000" })).await,
        };
        (parse(&receipt["transactionHash"]), quantity(&receipt["blockNumber"]))
    }

    /// The blocks from this number on are not canonical any more.
    async fn reorg(&self, from: u64) {
        let head = quantity(&self.call("eth_blockNumber", json!([])).await.unwrap());
        let depth = head + 1 - from;
        match self {
            Self::Anvil(_) => drop(self.call("anvil_reorg", json!([depth, []])).await.unwrap()),
            Self::Geth(_) => drop(self.call("debug_setHead", json!([format!("{:#x}", from - 1)])).await.unwrap()),
            Self::Simulated(node, _) => {
                node.reorg(Reorg { depth, blocks: depth, transactions: Returned::Lost });
            }
        }
    }
}

/// One line of tests/clients/streams.mjs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Told {
    Head { head: u64 },
    Log { block: B256, index: u64, transaction: B256, removed: bool },
    Error { error: String },
}

/// One observer.
struct Observer(Process);

impl Observer {
    fn start(library: &str, url: &str, contract: Address, log: &Path) -> Self {
        let mut command = Command::new("node");
        command.arg(parts::client("streams.mjs")).args([library, url, &contract.to_string()]);
        Self(Process::start(&mut command, log))
    }

    /// All that it was told; a line that is being written is not there yet.
    fn told(&self) -> Vec<Told> {
        let said = self.0.log();
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        let told: Vec<Told> =
            whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
        let errors: Vec<_> = told.iter().filter(|told| matches!(told, Told::Error { .. })).collect();
        assert!(errors.is_empty(), "{errors:?}");
        told
    }

    fn has(&self, transaction: B256) -> bool {
        self.told().iter().any(|told| matches!(told, Told::Log { transaction: known, .. } if *known == transaction))
    }

    /// The numbers of heads from the first with this number to the first with that one; `None` while there is none.
    fn heads(&self, from: u64, to: u64) -> Option<Vec<u64>> {
        let heads = self.told().into_iter().filter_map(|told| if let Told::Head { head } = told { Some(head) } else { None });
        let mut heads: Vec<u64> = heads.skip_while(|head| *head != from).collect();
        let last = heads.iter().position(|head| *head == to)?;
        heads.truncate(last + 1);
        Some(heads)
    }

    /// The logs behind that of one transaction up to that of another, and those of them that were taken back.
    fn logs(&self, behind: B256, to: B256) -> (Vec<Told>, Vec<Told>) {
        let of = |told: &Told| if let Told::Log { transaction, .. } = told { Some(*transaction) } else { None };
        let logs: Vec<Told> = self.told().into_iter().filter(|told| of(told).is_some()).collect();
        let first = logs.iter().position(|log| of(log) == Some(behind)).unwrap();
        let last = logs.iter().position(|log| of(log) == Some(to)).unwrap();
        logs[first + 1..=last].iter().cloned().partition(|log| matches!(log, Told::Log { removed: false, .. }))
    }
}

async fn observed(node: Node, chain_id: u64) {
    let folder = tempfile::tempdir().unwrap();
    let way = NodeProxy::start(node.url().trim_start_matches("ws://").parse().unwrap()).await.unwrap();
    let (url, id) = (way.url(), chain_id.to_string());
    let dev = sluice(&["dev", "--node", &url, "--chain-id", &id, "--accounts", "1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let gateway = Gateway::start(dev, "dev", &folder.path().join("gateway.log")).await.ready().await;
    let contract = node.contract().await;
    let mut observers = Vec::new();
    for library in ["ethers", "viem"] {
        for (place, url) in [("direct", node.url()), ("through", gateway.url("ws"))] {
            let log = folder.path().join(format!("{library}-{place}.log"));
            observers.push((library, Observer::start(library, &url, contract, &log)));
        }
    }
    let all_have = async |transaction: B256| {
        eventually("a log at every observer", || async { observers.iter().all(|(_, one)| one.has(transaction)).then_some(()) }).await;
    };
    // A subscription may be on its way only when its library says nothing of it: what counts begins behind a log that everybody has.
    let (begin, first) = eventually("everybody to stream", || async {
        let (transaction, number) = node.log(contract, 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        observers.iter().all(|(_, one)| one.has(transaction)).then_some((transaction, number))
    })
    .await;
    let mut orphans = Vec::new();
    for number in 1..=DEPTH {
        orphans.push(node.log(contract, number).await);
    }
    all_have(orphans[1].0).await;
    node.reorg(orphans[0].1).await;
    way.refuse(true);
    way.cut();
    for number in 10..14 {
        node.log(contract, number).await;
    }
    way.refuse(false);
    let (end, last) = node.log(contract, 20).await;
    all_have(end).await;

    for pair in observers.chunks(2) {
        let [(library, direct), (_, through)] = pair else { panic!("two of each library") };
        let heads = async |one: &Observer| eventually("the last head", || async { one.heads(first, last) }).await;
        assert_eq!(heads(through).await, heads(direct).await, "{library}: heads");
        let ((own, own_removed), (told, removed)) = (direct.logs(begin, end), through.logs(begin, end));
        assert_eq!(told, own, "{library}: logs");
        if *library == "ethers" {
            assert!(removed.is_empty() && own_removed.is_empty(), "ethers says nothing of them");
            continue;
        }
        if matches!(node, Node::Simulated(..)) {
            assert_eq!(removed, own_removed, "{library}: logs that were taken back");
        }
        let taken_back = removed.iter().map(|log| if let Told::Log { transaction, .. } = log { *transaction } else { B256::ZERO });
        let newest_first = orphans.iter().rev().map(|(transaction, _)| *transaction);
        assert_eq!(taken_back.collect::<Vec<_>>(), newest_first.collect::<Vec<_>>(), "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_and_viem_see_the_same_through_sluice_as_at_anvil() {
    if have("ethers_and_viem_see_the_same_through_sluice_as_at_anvil", &[Part::Node]) {
        let folder = tempfile::tempdir().unwrap();
        observed(Node::Anvil(Anvil::start(folder.path(), &[]).await), 31_337).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_and_viem_see_the_same_through_sluice_as_at_geth() {
    if have("ethers_and_viem_see_the_same_through_sluice_as_at_geth", &[Part::Node, Part::Go]) {
        let folder = tempfile::tempdir().unwrap();
        observed(Node::Geth(Geth::start(folder.path()).await), geth::CHAIN_ID).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_and_viem_see_the_same_through_sluice_as_at_the_simulated_node() {
    if have("ethers_and_viem_see_the_same_through_sluice_as_at_the_simulated_node", &[Part::Node]) {
        let settings =
            sim_node::Settings::new(sim_node::Client::Geth, 31_337, 7).with_balance(U256::from(10).pow(U256::from(20)), [EMITTING]);
        let node = SimNode::new(settings);
        for _ in 0..4 {
            node.mine();
        }
        let listener = node.listen(ANYWHERE).await.unwrap();
        observed(Node::Simulated(node, listener), 31_337).await;
    }
}
