//! go-ethereum's own node, as a chain of its own with one block a second.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use super::anvil::parse;
use super::process::{Process, free_port};
use super::{eventually, parts, soon};

/// Chain id of `geth --dev`.
pub(crate) const CHAIN_ID: u64 = 1337;

#[derive(Debug)]
pub(crate) struct Geth {
    process: Process,
    /// HTTP and WebSocket.
    pub(crate) address: SocketAddr,
    /// Its Unix socket.
    pub(crate) ipc: PathBuf,
    /// The node's own account: unlocked, with more ether than anybody needs.
    pub(crate) account: Address,
    client: Client,
}

impl Geth {
    /// Starts it on a free port.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_at(folder, free_port()).await
    }

    /// Starts it on this port. A chain of an earlier start in the same folder goes on.
    pub(crate) async fn start_at(folder: &Path, port: u16) -> Self {
        let (port_text, engine) = (port.to_string(), free_port().to_string());
        let apis = "eth,net,web3,txpool,debug";
        let mut command = Command::new(parts::geth());
        command.args(["--dev", "--dev.period", "1", "--maxpeers", "0", "--nodiscover", "--cache", "128", "--ipcpath"]);
        let ipc = folder.join(format!("geth-{port}.ipc"));
        command.arg(&ipc);
        command.args(["--http", "--http.port", &port_text, "--http.api", apis, "--ws", "--ws.port", &port_text, "--ws.api", apis]);
        command.args(["--authrpc.port", &engine, "--verbosity", "2", "--datadir"]).arg(folder.join("geth"));
        let mut process = Process::start(&mut command, &folder.join(format!("geth-{port}.log")));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let url = format!("ws://{address}");
        let (client, account) = process
            .until("geth to answer", |_| async {
                let client = Client::connect(&url, &[]).await.ok()?;
                let accounts = client.request("eth_accounts", json!([])).await.ok()?;
                Some((client, parse(accounts.get(0)?)))
            })
            .await;
        Self { process, address, ipc, account, client }
    }

    /// Ends it, so that it finds its chain again: SIGTERM, and waits.
    pub(crate) async fn stop(&mut self) {
        self.process.terminate();
        self.process.exit().await;
    }

    /// A call of the node itself.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        soon(method, self.client.request(method, params)).await
    }

    /// Gives each address this many ether, and waits until that is mined.
    pub(crate) async fn fund(&self, addresses: &[Address], ether: u64) {
        let wei = format!("{:#x}", u128::from(ether) * 10u128.pow(18));
        for address in addresses {
            let payment = json!([{ "from": self.account, "to": address, "value": wei }]);
            let hash = parse(&self.call("eth_sendTransaction", payment).await.unwrap());
            eventually("a payment", || self.receipt(hash)).await;
        }
    }

    /// The receipt; `None` while it is not mined.
    pub(crate) async fn receipt(&self, hash: B256) -> Option<Value> {
        // For a moment after a block geth may say that it is still indexing.
        self.call("eth_getTransactionReceipt", json!([hash])).await.ok().filter(|receipt| !receipt.is_null())
    }
}
