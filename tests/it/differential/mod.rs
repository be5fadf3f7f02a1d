//! The node asked directly, and through Sluice: whatever is not answered by design here must be the node's own, byte for byte.
//!
//! Compared is the text of `result`, and code, message and the text of `data` of errors. Ids and subscription ids differ.

mod calls;
mod generate;
mod subscriptions;

use std::path::Path;

use alloy_primitives::Address;
use serde_json::{Value, json};
use sluice_load_tests::client::Client;
use tempfile::TempDir;

use crate::support::anvil::{Anvil, parse, quantity};
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{self, Geth};
use crate::support::parts::{Part, have};
use crate::support::raw::{Answer, RawSocket};
use crate::support::{emitter, eventually, soon};

/// What one call came to, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Result(String),
    Error { code: i64, message: String, data: Option<String> },
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer.error {
            Some(error) => Self::Error { code: error.code, message: error.message, data: error.data.map(|data| data.get().to_owned()) },
            None => Self::Result(answer.result.map_or_else(|| "null".to_owned(), |result| result.get().to_owned())),
        }
    }
}

/// A node, kept for its life.
#[derive(Debug)]
enum Node {
    Anvil(Anvil),
    Geth(Geth),
}

/// A node with some history, and a gateway before it.
struct Pair {
    gateway: Gateway,
    node: Node,
    /// The node's own, unlocked.
    account: Address,
    /// The gateway's.
    managed: Address,
    /// See [`emitter`].
    contract: Address,
    client: Client,
    _folder: TempDir,
}

impl Pair {
    /// Before anvil; `None` where it is missing, which is told.
    async fn anvil(test: &str) -> Option<Self> {
        if !have(test, &[Part::Node]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let anvil =
            Anvil::start(folder.path(), &["--mnemonic", "legal winner thank year wave sausage worth useful legal winner thank yellow"]);
        let node = Node::Anvil(anvil.await);
        Some(Self::start(folder, node).await)
    }

    /// Before geth; `None` where it is missing, which is told.
    async fn geth(test: &str) -> Option<Self> {
        if !have(test, &[Part::Go]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let node = Node::Geth(Geth::start(folder.path()).await);
        Some(Self::start(folder, node).await)
    }

    async fn start(folder: TempDir, node: Node) -> Self {
        let gateway = dev(folder.path(), &node).await;
        let client = soon("a WebSocket", Client::connect(&node.url("ws"), &[])).await.unwrap();
        let account = parse(&client.request("eth_accounts", json!([])).await.unwrap()[0]);
        let managed = parse(&gateway.call("eth_accounts", json!([])).await.unwrap()[0]);
        assert_ne!(account, managed);
        let mut pair = Self { gateway, node, account, managed, contract: Address::ZERO, client, _folder: folder };
        let created = pair.mined(json!({ "data": emitter::CODE })).await;
        pair.contract = parse(&created["contractAddress"]);
        pair
    }

    /// Sends from the node's own account; the hash. geth may choose the nonce of what it took just before: then it refuses, and is asked again.
    async fn send(&self, mut transaction: Value) -> Value {
        transaction["from"] = json!(self.account);
        eventually("a hash", || async {
            match self.client.request("eth_sendTransaction", json!([transaction])).await {
                Ok(hash) => Some(hash),
                Err(error) if error.to_string().contains("replacement transaction underpriced") => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }

    /// Sends and waits; the receipt.
    async fn mined(&self, transaction: Value) -> Value {
        let hash = self.send(transaction).await;
        eventually("a receipt", || async {
            let receipt = self.client.request("eth_getTransactionReceipt", json!([hash])).await.ok()?;
            Some(receipt).filter(|receipt| !receipt.is_null())
        })
        .await
    }

    async fn head(&self) -> u64 {
        quantity(&self.client.request("eth_blockNumber", json!([])).await.unwrap())
    }

    async fn direct(&self) -> RawSocket {
        RawSocket::connect(&self.node.url("ws")).await
    }

    async fn through(&self) -> RawSocket {
        self.gateway.raw_socket().await
    }
}

impl Node {
    fn url(&self, scheme: &str) -> String {
        let address = match self {
            Self::Anvil(anvil) => anvil.address,
            Self::Geth(geth) => geth.address,
        };
        format!("{scheme}://{address}")
    }

    fn chain_id(&self) -> u64 {
        match self {
            Self::Anvil(_) => 31337,
            Self::Geth(_) => geth::CHAIN_ID,
        }
    }
}

async fn dev(folder: &Path, node: &Node) -> Gateway {
    let (url, chain_id) = (node.url("ws"), node.chain_id().to_string());
    let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let command = sluice(&[&["dev", "--node", &url, "--chain-id", &chain_id, "--accounts", "1"], &listen[..]].concat());
    Gateway::start(command, "dev", &folder.join("dev.log")).await.ready().await
}
