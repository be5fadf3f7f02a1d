//! The chain under a world: anvil, go-ethereum or the simulated node, each with blocks that come by themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::listener::Listener;
use sluice_load_tests::sim_node::{Client as Rules, Fault, Reorg, Returned, Settings, SimNode};

use crate::support::anvil::{Anvil, parse, quantity};
use crate::support::geth::{self, Geth};
use crate::support::{eventually, soon};

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Environment {
    Anvil,
    Geth,
    Simulator,
}

impl Environment {
    pub(super) const ALL: [Self; 3] = [Self::Anvil, Self::Geth, Self::Simulator];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Anvil => "anvil",
            Self::Geth => "geth",
            Self::Simulator => "simulator",
        }
    }
}

/// One mined transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mined {
    pub(super) from: Address,
    pub(super) nonce: u64,
    pub(super) hash: B256,
    pub(super) value: u128,
    pub(super) block: (u64, B256),
}

enum Node {
    Anvil(#[expect(dead_code, reason = "ends with this")] Box<Anvil>),
    Geth(Box<Geth>),
    Simulator { node: SimNode, blocks: tokio::task::AbortHandle, _listener: Listener },
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Self::Simulator { blocks, .. } = self {
            blocks.abort();
        }
    }
}

/// A running chain.
pub(super) struct Chain {
    node: Node,
    client: Client,
    /// Where its WebSocket is.
    pub(super) address: SocketAddr,
    pub(super) id: u64,
}

/// Whose rules the simulated node has, by seed.
const SIMULATED: [Rules; 3] = [Rules::Geth, Rules::Reth, Rules::Erigon];
const SIMULATED_ID: u64 = 7_777;
/// Time between simulated blocks.
const BLOCK: Duration = Duration::from_millis(400);

/// What goes wrong with raw sends to the simulated node, in so many of 10,000.
fn troubles() -> Faults<Fault> {
    const SEND: &str = "eth_sendRawTransaction";
    Faults::default()
        .sometimes(SEND, 300, Fault::DropAnswer)
        .sometimes(SEND, 500, Fault::Late { milliseconds: 300 })
        .sometimes(SEND, 100, Fault::DropRequest)
        .sometimes(SEND, 50, Fault::CutAfter)
        .sometimes(SEND, 50, Fault::CutBefore)
        .sometimes(SEND, 20, Fault::ForgetPool)
}

/// How long the node may take for its answer to a raw send.
const ANSWER: Duration = Duration::from_secs(2);
/// Blocks at least on top of what prepares a chain: no reorg of a run reaches it.
const SETTLED: u64 = 4;

impl Chain {
    /// `troubled`: the simulated node loses, delays and cuts some of what it is sent.
    pub(super) async fn start(environment: Environment, folder: &Path, seed: u64, troubled: bool) -> Self {
        let (node, address, id) = match environment {
            Environment::Anvil => {
                let anvil = Anvil::start(folder, &["--block-time", "0.5"]).await;
                let address = anvil.address;
                (Node::Anvil(Box::new(anvil)), address, 31337)
            }
            Environment::Geth => {
                let geth = Geth::start(folder).await;
                let address = geth.address;
                (Node::Geth(Box::new(geth)), address, geth::CHAIN_ID)
            }
            Environment::Simulator => {
                let rules = SIMULATED[usize::try_from(seed % SIMULATED.len() as u64).unwrap()];
                let node = SimNode::new(Settings { automine: false, ..Settings::new(rules, SIMULATED_ID, seed) });
                let listener = node.listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
                let address = listener.address();
                if troubled {
                    node.with(|node, _| node.set_faults(troubles()));
                }
                let mining = node.clone();
                let blocks = tokio::spawn(async move { mining.run_blocks(BLOCK).await }).abort_handle();
                (Node::Simulator { node, blocks, _listener: listener }, address, SIMULATED_ID)
            }
        };
        let client = soon("a connection", Client::connect(&format!("ws://{address}"), &[])).await.unwrap();
        Self { node, client, address, id }
    }

    /// Ends the troubles of the simulated node.
    pub(super) fn heal(&self) {
        if let Node::Simulator { node, .. } = &self.node {
            node.with(|node, _| node.set_faults(Faults::default()));
        }
    }

    /// A call of the node itself.
    pub(super) async fn call(&self, method: &str, params: Value) -> Value {
        soon(method, self.client.request(method, params)).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub(super) async fn height(&self) -> u64 {
        quantity(&self.call("eth_blockNumber", json!([])).await)
    }

    pub(super) async fn genesis(&self) -> B256 {
        parse(&self.call("eth_getBlockByNumber", json!(["0x0", false])).await["hash"])
    }

    /// The account's nonce in the newest block.
    pub(super) async fn nonce(&self, address: Address) -> u64 {
        quantity(&self.call("eth_getTransactionCount", json!([address, "latest"])).await)
    }

    /// Gives each of them a thousand ether, for good.
    pub(super) async fn fund(&self, addresses: &[Address]) {
        let wei = format!("{:#x}", 1_000 * 10u128.pow(18));
        match &self.node {
            Node::Anvil(_) => {
                for address in addresses {
                    self.call("anvil_setBalance", json!([address, wei])).await;
                }
            }
            Node::Simulator { node, .. } => {
                for address in addresses {
                    node.with(|node, _| node.set_balance(*address, wei.parse().unwrap()));
                }
            }
            Node::Geth(geth) => {
                let mut payments: Vec<B256> = Vec::new();
                for address in addresses {
                    let payment = json!([{ "from": geth.account, "to": address, "value": wei }]);
                    payments.push(parse(&self.call("eth_sendTransaction", payment).await));
                }
                for payment in payments {
                    eventually("a payment", || geth.receipt(payment)).await;
                }
            }
        }
        let funded = self.height().await;
        self.reaches(funded + SETTLED).await;
    }

    /// Waits until the chain has this block.
    pub(super) async fn reaches(&self, number: u64) {
        eventually("blocks", || async { (self.height().await >= number).then_some(()) }).await;
    }

    /// What the node has of these accounts, for people.
    pub(super) async fn state_of(&self, accounts: &[Address]) -> String {
        let mut words = format!("block {}", self.height().await);
        for account in accounts {
            words += &format!("; {account} at {}", self.nonce(*account).await);
            if let Node::Simulator { node, .. } = &self.node {
                let pooled: Vec<u64> = node.with(|node, _| node.pool().of(*account).map(|transaction| transaction.nonce()).collect());
                words += &format!(", pooled {pooled:?}, base fee {:?}", node.with(|node, _| node.base_fee()));
            }
        }
        words
    }

    /// Takes the newest blocks away, so many of them, and waits until others are in their place and one more: a reorg that begins
    /// before would reach deeper.
    pub(super) async fn reorg(&self, depth: u64) {
        let before = self.height().await;
        match &self.node {
            Node::Anvil(_) => drop(self.call("anvil_reorg", json!([depth, []])).await),
            Node::Simulator { node, .. } => {
                node.reorg(Reorg { depth, blocks: depth, transactions: Returned::Pooled });
            }
            Node::Geth(_) => drop(self.call("debug_setHead", json!([format!("{:#x}", before.saturating_sub(depth))])).await),
        }
        self.reaches(before + 1).await;
    }

    /// Gives signed bytes to the node, past the gateway; false if it does not want them. A troubled node loses, delays and cuts these, too:
    /// they have a connection of their own, and no answer is no refusal.
    pub(super) async fn send(&self, raw: &str) -> bool {
        let client = soon("a connection", Client::connect(&format!("ws://{}", self.address), &[])).await.unwrap();
        let answer = tokio::time::timeout(ANSWER, client.request("eth_sendRawTransaction", json!([raw]))).await;
        !matches!(answer, Ok(Err(ClientError::Rpc { .. })))
    }

    /// Every transaction of the chain, in order.
    pub(super) async fn mined(&self) -> Vec<Mined> {
        eventually("a chain without a hole", || self.mined_now()).await
    }

    /// `None` if a block is not there: anvil takes blocks away and makes others while it reorganises.
    async fn mined_now(&self) -> Option<Vec<Mined>> {
        let head = self.height().await;
        let mut mined = Vec::new();
        for start in (0..=head).step_by(50) {
            let numbers: Vec<_> =
                (start..=head.min(start + 49)).map(|number| ("eth_getBlockByNumber", json!([format!("{number:#x}"), true]))).collect();
            for block in soon("blocks", self.client.batch(&numbers)).await.unwrap() {
                let block = block.unwrap();
                for transaction in block["transactions"].as_array()? {
                    mined.push(Mined {
                        from: parse(&transaction["from"]),
                        nonce: quantity(&transaction["nonce"]),
                        hash: parse(&transaction["hash"]),
                        value: u128::from_str_radix(transaction["value"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap(),
                        block: (quantity(&block["number"]), parse(&block["hash"])),
                    });
                }
            }
        }
        Some(mined)
    }
}
