//! One world: a chain, a journal, and one life of the gateway after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use alloy_primitives::Address;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use sluice_gateway::telemetry::crash::Edge;
use sluice_load_tests::http;
use sluice_load_tests::node_proxy::NodeProxy;
use tempfile::TempDir;

use super::chain::{Chain, Environment};
use super::journal::Journal;
use super::ledger::Ledger;
use super::wallet::{KEYS, Wallet};
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::sluice;
use crate::support::process::Process;

/// Accounts that the load uses.
const LOADED: usize = 3;
/// Keys of the first life; the others come later, one at a time.
const FIRST_KEYS: usize = 6;

pub(super) struct World {
    pub(super) chain: Chain,
    pub(super) node: NodeProxy,
    pub(super) ledger: std::sync::Arc<Ledger>,
    pub(super) loaded: std::sync::Arc<[Address]>,
    /// Whose fillers are refused.
    pub(super) paused: Address,
    /// Whose key others use too.
    pub(super) foreign: Wallet,
    /// Whose nonces are lent.
    pub(super) lender: Wallet,
    pub(super) folder: TempDir,
    keys: usize,
    lives: u32,
}

/// What came of a start.
pub(super) enum Start {
    /// It takes sends.
    Lives(Life),
    /// It killed itself before.
    Killed,
    /// It ended by itself, with these words.
    Failed(String),
}

/// A gateway that takes sends.
pub(super) struct Life {
    pub(super) process: Process,
    listen: String,
    /// Address of the admin port.
    pub(super) admin: String,
}

impl Life {
    pub(super) fn url(&self) -> String {
        format!("ws://{}/payments", self.listen)
    }
}

impl World {
    pub(super) async fn start(environment: Environment, seed: u64, troubled: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let chain = Chain::start(environment, folder.path(), seed, troubled).await;
        let node = NodeProxy::start(chain.address).await.unwrap();
        let wallets: Vec<Wallet> = (0..FIRST_KEYS).map(Wallet::new).collect();
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        let mut world = Self {
            ledger: std::sync::Arc::default(),
            loaded: wallets[..LOADED].iter().map(|wallet| wallet.address).collect(),
            paused: wallets[3].address,
            foreign: wallets[4].clone(),
            lender: wallets[5].clone(),
            chain,
            node,
            folder,
            keys: 0,
            lives: 0,
        };
        world.chain.fund(&wallets.iter().map(|wallet| wallet.address).collect::<Vec<_>>()).await;
        for _ in 0..FIRST_KEYS {
            world.add_key();
        }
        // Not every account begins at nonce 0.
        for wallet in &wallets[1..4] {
            world.send_elsewhere(wallet, 0).await;
        }
        world
    }

    /// One more key for the next life, if there is another.
    pub(super) fn add_key(&mut self) {
        if self.keys < KEYS {
            std::fs::write(self.folder.path().join(format!("keys/{}.json", self.keys)), Wallet::file(self.keys)).unwrap();
            self.keys += 1;
        }
    }

    /// The accounts that have ether.
    pub(super) fn accounts(&self) -> Vec<Address> {
        (0..FIRST_KEYS).map(|index| Wallet::new(index).address).collect()
    }

    /// Every key of the gateway.
    pub(super) fn keys(&self) -> Vec<Address> {
        (0..self.keys).map(|index| Wallet::new(index).address).collect()
    }

    pub(super) fn loaded(&self, rng: &mut StdRng) -> Address {
        self.loaded[rng.random_range(0..self.loaded.len())]
    }

    /// A payment by somebody else who has the key; mined when this returns.
    pub(super) async fn send_elsewhere(&self, wallet: &Wallet, nonce: u64) {
        let (raw, hash) = wallet.transfer(self.chain.id, nonce, 1 + nonce);
        self.ledger.foreign(hash);
        if self.chain.send(&raw).await {
            for _ in 0..100 {
                if self.chain.nonce(wallet.address).await > nonce {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("sluice.db")
    }

    /// The journal as it is now, if there is one.
    pub(super) fn journal(&self) -> Option<Journal> {
        Journal::read(&self.path())
    }

    pub(super) fn is_paused(&self, account: Address) -> bool {
        self.journal().is_some_and(|journal| journal.accounts.iter().any(|one| one.address == account && one.paused.is_some()))
    }

    /// Whether something of the account's is not final yet.
    pub(super) fn is_busy(&self, account: Address) -> bool {
        self.journal().is_some_and(|journal| journal.slots.iter().any(|slot| slot.address == account && !slot.done))
    }

    fn configuration(&self) -> PathBuf {
        let environment = format!(
            r#"confirmations = {}
answer_after = "1s"
node_deadline = "3s"
rebroadcast = "2s"
hold = "3s"
bump = {{ after = "1s", blocks = 1, times = 20 }}
account = {{ queue_deadline = "5s" }}"#,
            super::CONFIRMATIONS,
        );
        let folder = self.folder.path();
        let keys = folder.join("keys");
        let configuration = Configuration {
            chain_id: self.chain.id,
            node: &self.node.url(),
            keys: Keys::Keystore(&keys, "TEST_SECRET_ACCESS_KEY"),
            service: "payments",
            extra: &Extra::environment(&environment),
        };
        configuration.write(folder)
    }

    /// Starts the gateway, and waits until it takes sends.
    pub(super) async fn live(&mut self, kill: Option<(Edge, u64)>, fault: Option<Edge>) -> Start {
        self.lives += 1;
        let log = self.folder.path().join(format!("gateway-{}.log", self.lives));
        let mut command = sluice(&["serve", self.configuration().to_str().unwrap()]);
        if let Some((edge, passing)) = kill {
            command.env("SLUICE_CRASH_AT", format!("{edge}:{passing}"));
        }
        if let Some(edge) = fault {
            command.env("SLUICE_SEEDED_FAULT", edge.to_string());
        }
        let mut process = Process::start(&mut command, &log);
        let until = std::time::Instant::now() + crate::support::PATIENCE;
        loop {
            if process.ended().is_some() {
                let why = process.log().lines().last().unwrap_or_default().to_owned();
                return if killed_itself(&mut process) { Start::Killed } else { Start::Failed(why) };
            }
            if let Some(addresses) = serving(&process.log())
                && let Ok((200, _)) = http::get(&format!("http://{}/readyz", addresses["admin"])).await
            {
                let place = |name: &str| addresses[name].clone();
                return Start::Lives(Life { process, listen: place("listen"), admin: place("admin") });
            }
            assert!(std::time::Instant::now() < until, "the gateway is not ready:\n{}", process.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// Whether the process was killed, and not by the test.
pub(super) fn killed_itself(process: &mut Process) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    process.ended().is_some_and(|status| status.signal() == Some(9))
}

fn serving(log: &str) -> Option<BTreeMap<String, String>> {
    let line = log.lines().find(|line| line.contains("\"serving\""))?;
    let json: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| Some((name.to_owned(), json.get(name).or_else(|| json.get("fields")?.get(name))?.as_str()?.to_owned()));
    ["listen", "admin"].into_iter().map(field).collect()
}
