//! Everything that one test runs against: node, KMS, the proxies before both, and the configuration that binds them.

use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::kms_proxy::KmsProxy;
use sluice_load_tests::node_proxy::NodeProxy;
use tempfile::TempDir;

use super::anvil::{Anvil, parse};
use super::configuration::{Configuration, Extra, Keys};
use super::gateway::{Gateway, run, sluice, words};
use super::kms::Kms;
use super::parts::{Part, have};
use super::{eventually, soon};

/// Ether of each funded account.
pub(crate) const ETHER: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) extra: Extra,
    /// Name of the service, and the tag `app` of its keys.
    pub(crate) service: String,
    pub(crate) node: NodeProxy,
    pub(crate) kms_proxy: KmsProxy,
    pub(crate) anvil: Anvil,
    pub(crate) kms: Kms,
    starts: std::cell::Cell<u32>,
    pub(crate) folder: TempDir,
}

impl World {
    /// `None` where a part is missing; that is told.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[]).await
    }

    /// The same, with more arguments for anvil.
    pub(crate) async fn start_with(test: &str, arguments: &[&str]) -> Option<Self> {
        if !have(test, &[Part::Node, Part::Python]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (anvil, kms) = tokio::join!(Anvil::start(folder.path(), arguments), Kms::start(folder.path()));
        let node = NodeProxy::start(anvil.address).await.unwrap();
        let kms_proxy = KmsProxy::start(kms.address).await.unwrap();
        Some(Self {
            extra: Extra::default(),
            service: "payments".into(),
            node,
            kms_proxy,
            anvil,
            kms,
            starts: std::cell::Cell::new(0),
            folder,
        })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("sluice.db")
    }

    /// Writes the configuration and says where it is.
    pub(crate) fn configuration(&self) -> String {
        let keys = Keys::Kms(&self.kms_proxy.url());
        let configuration = Configuration { chain_id: 31337, node: &self.node.url(), keys, service: &self.service, extra: &self.extra };
        configuration.write(self.folder.path()).to_str().unwrap().into()
    }

    /// Creates keys by the command line, past the counting proxy, and funds their addresses.
    pub(crate) async fn accounts(&self, count: usize) -> Vec<Address> {
        self.accounts_of("payments", count).await
    }

    /// The same, of another app.
    pub(crate) async fn accounts_of(&self, app: &str, count: usize) -> Vec<Address> {
        let mut accounts = Vec::new();
        for _ in 0..count {
            let tag = format!("app={app}");
            let mut command = sluice(&["keys", "create", &self.configuration(), "--tag", &tag, "--json"]);
            command.env("SLUICE__CONFIGURATION__KMS__ENDPOINT", format!("http://{}", self.kms.address));
            let output = soon("keys create", tokio::task::spawn_blocking(|| run(command))).await.unwrap();
            assert!(output.status.success(), "{}", words(&output));
            let key: Value = serde_json::from_slice(&output.stdout).unwrap();
            let address = parse(&key["address"]);
            self.anvil.fund(address, ETHER).await;
            accounts.push(address);
        }
        accounts
    }

    /// Starts a gateway and waits until it listens. It may never be ready.
    pub(crate) async fn listening(&self) -> Gateway {
        self.starts.set(self.starts.get() + 1);
        let log = self.folder.path().join(format!("gateway-{}.log", self.starts.get()));
        Gateway::start(sluice(&["serve", &self.configuration()]), "payments", &log).await
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) async fn gateway(&self) -> Gateway {
        self.listening().await.ready().await
    }

    /// Waits for the receipt.
    pub(crate) async fn mined(&self, hash: B256) -> Value {
        eventually("a receipt", || self.anvil.receipt(hash)).await
    }

    /// Holds each Sign back, long enough to see what happens meanwhile.
    pub(crate) fn slow_signs(&self, milliseconds: u64) {
        self.kms_proxy.set_hold(Duration::from_millis(milliseconds));
    }
}

/// Another environment, for the end of those.
pub(crate) fn environment(name: &str, chain_id: u64, url: &str) -> String {
    format!("[[environment]]\nname = \"{name}\"\nchain_id = {chain_id}\nnodes = [{{ url = \"{url}\" }}]\n")
}

/// Another service, for the end of the configuration.
pub(crate) fn service(name: &str, environment: &str, app: &str) -> String {
    let keys = format!("{{ tag = {{ app = \"{app}\" }} }}");
    format!("[[service]]\nname = \"{name}\"\nenvironment = \"{environment}\"\nconfigurations = [\"kms\"]\nkeys = {keys}\n")
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("--- the files of this test are kept in {}", self.folder.path().display());
        }
    }
}

/// A transfer of `value` wei to the sender itself.
pub(crate) fn transfer(from: Address, value: u64) -> Value {
    json!([{ "from": from, "to": from, "value": format!("{value:#x}") }])
}
