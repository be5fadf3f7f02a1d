//! Every metric, registered once, by concern. Hot paths hold resolved handles: nothing is looked up by label per event.
//!
//! docs/metrics.md says what each means; a test compares the two.

pub mod accounts;
mod clients;
mod families;
mod journal;
mod keys;
mod nodes;
mod process;
mod signing;
mod transactions;

use std::sync::Arc;
use std::time::Instant;

use prometheus::{Registry, TextEncoder};

use self::accounts::Accounts;
pub use self::clients::{ClientMetrics, ConnectionMeter, Lazy, SubscriptionMeter, Subscriptions};
use self::families::Families;
pub use self::families::Family;
pub use self::journal::JournalMetrics;
pub use self::keys::KeyMetrics;
pub use self::nodes::NodeMetrics;
pub use self::process::ProcessMetrics;
pub use self::signing::SigningMetrics;
pub use self::transactions::TransactionMetrics;

/// The registry and the families in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    /// The process.
    pub process: ProcessMetrics,
    /// Clients: requests, connections, subscriptions.
    pub clients: ClientMetrics,
    /// Transactions by environment.
    pub transactions: TransactionMetrics,
    /// Transactions by account, for a bounded number of accounts.
    pub accounts: Arc<Accounts>,
    /// Signs.
    pub signing: SigningMetrics,
    /// Keys of services.
    pub keys: KeyMetrics,
    /// Nodes.
    pub nodes: NodeMetrics,
    /// The journal.
    pub journal: JournalMetrics,
}

impl Metrics {
    /// Registers every family in a registry of its own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut make = Families::default();
        let process = ProcessMetrics::new(&mut make)?;
        let clients = ClientMetrics::new(&mut make)?;
        let transactions = TransactionMetrics::new(&mut make)?;
        let accounts = Arc::new(Accounts::new(&mut make, Instant::now())?);
        let signing = SigningMetrics::new(&mut make)?;
        let keys = KeyMetrics::new(&mut make)?;
        let nodes = NodeMetrics::new(&mut make)?;
        let journal = JournalMetrics::new(&mut make)?;
        let (registry, families) = make.finish();
        Ok(Self { registry, families, process, clients, transactions, accounts, signing, keys, nodes, journal })
    }

    /// Every family, also one without a series yet, in the order of registration.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The Prometheus text format (version 0.0.4). Takes some milliseconds with all places of accounts taken: not for a task of
    /// the runtime.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        self.accounts.sweep(Instant::now());
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// 0.1 ms to 60 s.
const SECONDS: [f64; 16] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

#[cfg(test)]
mod tests;
