//! A gateway with development keys before one of the two nodes.

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::anvil::{Anvil, parse};
use crate::support::eventually;
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{self, Geth};
use crate::support::parts::{Part, have};
use crate::support::world::ETHER;

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mines at once.
    Anvil,
    /// One block a second.
    Geth,
}

#[derive(Debug)]
enum Node {
    Anvil(Anvil),
    Geth(Geth),
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) gateway: Gateway,
    pub(super) chain_id: u64,
    /// As `eth_accounts` has them, all with funds.
    pub(super) accounts: Vec<Address>,
    node: Node,
    pub(super) folder: TempDir,
}

impl Stage {
    /// `None` where a part of the node or of the client is missing; that is told.
    pub(super) async fn start(test: &str, kind: Kind, client: &[Part]) -> Option<Self> {
        let node = if kind == Kind::Anvil { Part::Node } else { Part::Go };
        if !have(test, &[&[node], client].concat()) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (node, address, chain_id) = match kind {
            Kind::Anvil => {
                let anvil = Anvil::start(folder.path(), &[]).await;
                let address = anvil.address;
                (Node::Anvil(anvil), address, 31_337)
            }
            Kind::Geth => {
                let geth = Geth::start(folder.path()).await;
                let address = geth.address;
                (Node::Geth(geth), address, geth::CHAIN_ID)
            }
        };
        let (url, id) = (format!("ws://{address}"), chain_id.to_string());
        let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--accounts", "2"];
        let dev = sluice(&[&["dev", "--node", &url, "--chain-id", &id], &listen[..]].concat());
        let gateway = Gateway::start(dev, "dev", &folder.path().join("gateway.log")).await.ready().await;
        let accounts = gateway.call("eth_accounts", json!([])).await.unwrap();
        let accounts: Vec<Address> = accounts.as_array().unwrap().iter().map(parse).collect();
        let stage = Self { gateway, chain_id, accounts, node, folder };
        match &stage.node {
            Node::Geth(geth) => geth.fund(&stage.accounts, ETHER).await,
            Node::Anvil(anvil) => {
                for account in &stage.accounts {
                    anvil.fund(*account, ETHER).await;
                }
            }
        }
        Some(stage)
    }

    /// A call of the node itself.
    pub(super) async fn node(&self, method: &str, params: Value) -> Value {
        match &self.node {
            Node::Anvil(anvil) => anvil.call(method, params).await,
            Node::Geth(geth) => geth.call(method, params).await,
        }
        .unwrap()
    }

    /// The hashes of all transactions of anvil's chain by managed accounts.
    pub(super) async fn mined(&self) -> Vec<B256> {
        let Node::Anvil(anvil) = &self.node else { panic!("only anvil's chain is short") };
        anvil.mined().await.iter().filter(|one| self.accounts.contains(&one.from)).map(|one| one.hash).collect()
    }

    /// The receipt, from the node itself.
    pub(super) async fn receipt(&self, hash: B256) -> Value {
        eventually("a receipt", || async {
            match &self.node {
                Node::Anvil(anvil) => anvil.receipt(hash).await,
                Node::Geth(geth) => geth.receipt(hash).await,
            }
        })
        .await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("--- the files of this test are kept in {}", self.folder.path().display());
        }
    }
}
