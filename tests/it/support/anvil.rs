//! A real node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use super::process::{Process, free_port};
use super::{parts, soon, unstick};

/// One mined transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mined {
    pub(crate) from: Address,
    pub(crate) nonce: u64,
    pub(crate) hash: B256,
}

#[derive(Debug)]
pub(crate) struct Anvil {
    process: Process,
    pub(crate) address: SocketAddr,
    client: Client,
    watch: tokio::task::AbortHandle,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Anvil {
    /// Starts it on a free port.
    pub(crate) async fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_at(folder, free_port(), arguments).await
    }

    /// Starts it on this port. `fifo`: with its default order, transactions of one sender whose fees vary are dropped.
    pub(crate) async fn start_at(folder: &Path, port: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new(parts::anvil());
        command.args(["--host", "127.0.0.1", "--order", "fifo", "--accounts", "1", "--port", &port.to_string()]).args(arguments);
        let mut process = Process::start(&mut command, &folder.join(format!("anvil-{port}.log")));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let url = format!("ws://{address}");
        let client = process
            .until("anvil to answer", |_| async {
                let client = Client::connect(&url, &[]).await.ok()?;
                client.request("eth_chainId", json!([])).await.ok()?;
                Some(client)
            })
            .await;
        let watcher = soon("a connection to anvil", Client::connect(&url, &[])).await.unwrap();
        let watch = tokio::spawn(unstick::watch(watcher)).abort_handle();
        Self { process, address, client, watch }
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.process.kill();
    }

    /// A call of the node itself.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        soon(method, self.client.request(method, params)).await
    }

    /// Gives the address this many ether.
    pub(crate) async fn fund(&self, address: Address, ether: u64) {
        let wei = u128::from(ether) * 10u128.pow(18);
        self.call("anvil_setBalance", json!([address, format!("{wei:#x}")])).await.unwrap();
    }

    /// The receipt; `None` while it is not mined.
    pub(crate) async fn receipt(&self, hash: B256) -> Option<Value> {
        Some(self.call("eth_getTransactionReceipt", json!([hash])).await.unwrap()).filter(|receipt| !receipt.is_null())
    }

    /// Every transaction of the chain, in order.
    pub(crate) async fn mined(&self) -> Vec<Mined> {
        let head = self.call("eth_blockNumber", json!([])).await.unwrap();
        let head = quantity(&head);
        let mut mined = Vec::new();
        for start in (0..=head).step_by(100) {
            let numbers: Vec<_> =
                (start..=head.min(start + 99)).map(|number| ("eth_getBlockByNumber", json!([format!("{number:#x}"), true]))).collect();
            for block in soon("blocks", self.client.batch(&numbers)).await.unwrap() {
                for transaction in block.unwrap()["transactions"].as_array().unwrap() {
                    mined.push(Mined {
                        from: parse(&transaction["from"]),
                        nonce: quantity(&transaction["nonce"]),
                        hash: parse(&transaction["hash"]),
                    });
                }
            }
        }
        mined
    }

    /// The nonces of all mined transactions by sender, in order of mining.
    pub(crate) async fn nonces(&self) -> BTreeMap<Address, Vec<u64>> {
        let mut nonces = BTreeMap::<_, Vec<_>>::new();
        for one in self.mined().await {
            nonces.entry(one.from).or_default().push(one.nonce);
        }
        nonces
    }
}

/// A JSON-RPC quantity.
pub(crate) fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// An address or hash.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    value.as_str().unwrap().parse().unwrap()
}
