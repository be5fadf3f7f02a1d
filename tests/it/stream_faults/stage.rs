//! Sluice between a simulated KMS and two ways to one simulated node, with clients that stream and one that sends.

use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, Bytes, Log, U256};
use futures_util::future::join_all;
use serde_json::json;
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::listener::Listener;
use sluice_load_tests::node_proxy::NodeProxy;
use sluice_load_tests::random::Random;
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, BaseFee, Reorg, Returned, SimNode};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::observers::{EMITTERS, Observer, filters, topic};
use crate::support::anvil::parse;
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::{ANYWHERE, eventually};

/// Blocks before anything goes wrong: reorgs are never deeper.
const BLOCKS: usize = 48;
/// Whose logs are emitted; it is not the gateway's.
const EMITTING: Address = Address::repeat_byte(0xaa);
/// What a dead connection, a silent subscription and a lost transaction take to be noticed.
const ENVIRONMENT: &str = r#"confirmations = 64
rebroadcast = "1s"
clocks = { connect = "2s", ping = "100ms", pong = "400ms", silence = "600ms", head_silence = "300ms", poll = "50ms", reconnect_max = "100ms" }"#;

pub(super) struct Stage {
    pub(super) node: SimNode,
    pub(super) ways: [NodeProxy; 2],
    pub(super) gateway: Gateway,
    pub(super) random: Mutex<Random>,
    accounts: Vec<Address>,
    sender: Client,
    sent: Mutex<Vec<JoinHandle<Result<B256, ClientError>>>>,
    observers: Vec<Observer>,
    _servers: [Listener; 2],
    _folder: TempDir,
}

impl Stage {
    /// With so many clients; `logs` is `environment.logs`, `seeded` a fault that the gateway has.
    pub(super) async fn start(seed: u64, clients: usize, logs: &str, seeded: Option<&str>) -> Self {
        let kms = SimKms::new(sim_kms::Settings::new(seed, 2).with_tag("app", "payments"));
        let accounts: Vec<Address> = kms.with(|kms, _| kms.keys().iter().map(sim_kms::Key::address).collect());
        let settings =
            sim_node::Settings { base_fee: BaseFee::Fixed(1_000_000_000), ..sim_node::Settings::new(sim_node::Client::Geth, 31337, seed) };
        let ether = U256::from(10).pow(U256::from(24));
        let node = SimNode::new(settings.with_balance(ether, accounts.iter().copied().chain([EMITTING])));
        (0..BLOCKS).for_each(|_| {
            node.mine();
        });
        let (keys, endpoint) = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
        let ways = [NodeProxy::start(endpoint.address()).await.unwrap(), NodeProxy::start(endpoint.address()).await.unwrap()];
        let folder = tempfile::tempdir().unwrap();
        let (keys_url, url, extra) = (keys.url(), ways[0].url(), Extra::environment(&format!("{ENVIRONMENT}\nlogs = \"{logs}\"")));
        let configuration = Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys_url), service: "payments", extra: &extra };
        let both = configuration
            .text()
            .replace(&format!("{{ url = \"{url}\" }}"), &format!("{{ url = \"{url}\" }}, {{ url = \"{}\" }}", ways[1].url()));
        let file = folder.path().join("sluice.toml");
        std::fs::write(&file, both).unwrap();
        let mut command = sluice(&["serve", file.to_str().unwrap()]);
        if let Some(seeded) = seeded {
            command.env("SLUICE_SEEDED_FAULT", seeded);
        }
        let gateway = Gateway::start(command, "payments", &folder.path().join("gateway.log")).await.ready().await;
        let sender = gateway.connect().await;
        let (random, sent) = (Mutex::new(Random::new(seed, "stream faults")), Mutex::default());
        let servers = [keys, endpoint];
        let mut stage =
            Self { node, ways, gateway, random, accounts, sender, sent, observers: Vec::new(), _servers: servers, _folder: folder };
        stage.connected().await;
        stage.observe(clients).await;
        stage
    }

    async fn observe(&mut self, clients: usize) {
        let connections = join_all((0..clients).map(|_| self.gateway.connect())).await;
        for (number, client) in connections.into_iter().map(Arc::new).enumerate() {
            let (name, filters) = (format!("client {number}"), filters());
            self.observers.push(Observer::heads(name.clone(), &client, &self.node).await);
            self.observers.push(Observer::logs(name.clone(), &client, &self.node, &filters[number % filters.len()]).await);
            if number % 10 == 0 {
                self.observers.push(Observer::receipts(name.clone(), &client, &self.node).await);
                self.observers.push(Observer::lives(name, &client, &self.node).await);
            }
        }
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().below(bound)
    }

    /// A block with some logs, or none.
    pub(super) fn mine(&self) {
        let logs: Vec<Log> = (0..self.below(4)).map(|_| self.log()).collect();
        self.mine_with(&logs);
    }

    fn mine_with(&self, logs: &[Log]) {
        self.node.with(|node, now| {
            if !logs.is_empty() {
                node.emit(now, EMITTING, logs);
            }
            node.mine(now)
        });
    }

    fn log(&self) -> Log {
        let topics = (0..self.below(4)).map(|_| topic(self.below(2) as u8)).collect();
        Log::new_unchecked(EMITTERS[self.below(3) as usize], topics, Bytes::from(self.below(1_000).to_be_bytes().to_vec()))
    }

    /// The newest blocks are orphaned, and one more come instead.
    pub(super) fn reorg(&self, depth: u64) {
        let transactions = [Returned::Mined, Returned::Pooled, Returned::Lost][self.below(3) as usize];
        self.node.reorg(Reorg { depth, blocks: depth + 1, transactions });
    }

    /// Sends one transaction of each account; nobody waits for the answers.
    pub(super) fn send(&self) {
        let mut sent = self.sent.lock().unwrap();
        for account in &self.accounts {
            let value = format!("{:#x}", sent.len() + 1);
            let answer = self.sender.start("eth_sendTransaction", json!([{ "from": account, "to": EMITTING, "value": value }]));
            sent.push(tokio::spawn(async move { answer.await.map(|hash| parse(&hash)) }));
        }
    }

    /// Waits until the gateway has a connection by each way.
    pub(super) async fn connected(&self) {
        self.missed(0).await;
    }

    /// Waits until so many endpoints are missed.
    pub(super) async fn missed(&self, endpoints: usize) {
        eventually("the endpoints to be up or missed", || async {
            let (_, page) = self.gateway.admin("metrics").await;
            let down = page.lines().filter(|line| line.starts_with("sluice_upstream_up{") && line.ends_with("} 0")).count();
            (down == endpoints).then_some(())
        })
        .await;
    }

    /// Waits until the first client was told the newest head.
    pub(super) async fn caught_up(&self) -> Result<(), String> {
        self.observers[0].complete(&[]).await.map(drop)
    }

    /// Waits until each client was told everything; how many events. Nothing goes wrong any more.
    pub(super) async fn complete(&self) -> Result<u64, String> {
        let own = self.own().await;
        // What all filters but the last have.
        let all = Log::new_unchecked(EMITTERS[0], vec![topic(0), topic(1)], Bytes::new());
        self.mine_with(&[all]);
        let mut events = 0;
        for observer in &self.observers {
            events += observer.complete(&own).await?;
        }
        Ok(events)
    }

    /// What was sent and told a hash, all of it mined by now; what was told an error is not.
    async fn own(&self) -> Vec<B256> {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap());
        let answers = join_all(sent).await;
        let own: Vec<B256> = answers.into_iter().filter_map(|answer| answer.unwrap().ok()).collect();
        eventually("what was sent to be mined", || async {
            self.node.mine();
            let is_mined = self.node.with(|node, _| own.iter().all(|hash| node.chain().place(*hash).is_some()));
            is_mined.then_some(())
        })
        .await;
        let mined = self.node.with(|node, _| node.mined().keys().filter(|(sender, _)| self.accounts.contains(sender)).count());
        assert_eq!(mined, own.len(), "what was told an error is never mined");
        own
    }

    /// Steps of a kind that streams of the chain were told.
    pub(super) async fn steps(&self, kind: &str) -> f64 {
        self.gateway.metric(&format!("sluice_stream_steps_total{{environment=\"dev\",kind=\"{kind}\"}}")).await
    }
}
