//! Pools over scripted nodes, for the tests of this room and of those above it.

pub(crate) mod backend;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::Pool;
use super::socket::Dial;
use crate::config::{AccountBounds, Broadcast, Bump, Confirmations, Environment, FeeMode, LogSource, Node, NodeClocks, Roles, Superseded};
use crate::telemetry::metrics::Metrics;
use backend::Backend;

/// A pool that stops when it is dropped.
pub(crate) struct Running {
    pub(crate) pool: Pool,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    _stop: DropGuard,
}

impl std::ops::Deref for Running {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

pub(crate) struct Setup {
    pub(crate) deadline: Duration,
    pub(crate) clocks: NodeClocks,
    pub(crate) pin: Option<B256>,
    /// Blocks that a reorg can take back; without it, nothing is ever settled.
    pub(crate) depth: u64,
    /// By backend; without any, all have the default.
    pub(crate) roles: Vec<Roles>,
}

/// Connections that are made again at once.
pub(crate) fn quick() -> NodeClocks {
    NodeClocks { reconnect_max: Duration::from_millis(50), ..NodeClocks::default() }
}

impl Default for Setup {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(20), clocks: quick(), pin: None, depth: 1 << 40, roles: Vec::new() }
    }
}

pub(crate) fn environment(urls: Vec<Url>, deadline: Duration) -> Environment {
    Environment {
        name: "dev".into(),
        chain_id: 31337,
        nodes: urls.into_iter().map(|url| Node { url, roles: Roles::default() }).collect(),
        clocks: NodeClocks::default(),
        account: AccountBounds::default(),
        answer_after: Duration::from_secs(2),
        broadcast: Broadcast::Pipelined,
        confirmations: Confirmations::Blocks(12),
        finalized_fallback: 64,
        node_deadline: deadline,
        sync_timeout: Duration::from_secs(20),
        sync_timeout_max: Duration::from_secs(300),
        gas_percent: 100,
        rebroadcast: Duration::from_secs(30),
        hold: Duration::from_secs(600),
        reconcile_blocks: 12,
        fees: FeeMode::Eip1559,
        bump: Bump::default(),
        superseded: Superseded::Mined,
        logs: LogSource::Chain,
    }
}

impl Setup {
    pub(crate) fn start(self, backends: &[&Backend]) -> Running {
        let urls = backends.iter().map(|backend| backend.url()).collect();
        let metrics = Arc::new(Metrics::new().unwrap());
        let stop = CancellationToken::new();
        let mut environment = Environment { clocks: self.clocks, finalized_fallback: self.depth, ..environment(urls, self.deadline) };
        environment.nodes.iter_mut().zip(self.roles).for_each(|(node, roles)| node.roles = roles);
        let pool = Pool::start_with(&environment, self.pin, &metrics, stop.clone(), None, Dial::Tcp);
        Running { pool, metrics, stop: stop.clone(), _stop: stop.drop_guard() }
    }

    /// Starts, and waits until every endpoint is up and its head is known.
    pub(crate) async fn ready(self, backends: &[&Backend]) -> Running {
        let running = self.start(backends);
        until(&running, |pool| pool.endpoints().iter().all(|endpoint| endpoint.up && endpoint.head.is_some() == endpoint.roles.read)).await;
        running
    }
}

pub(crate) async fn ready(backends: &[&Backend]) -> Running {
    Setup::default().ready(backends).await
}

/// Fails a test that hangs.
pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("this never happened")
}

/// Waits until the pool is as it should be; it is looked at after every change.
pub(crate) async fn until(pool: &Pool, mut as_it_should: impl FnMut(&Pool) -> bool) {
    let mut news = pool.inner.board.news();
    soon(async {
        while !as_it_should(pool) {
            news.changed().await.unwrap();
        }
    })
    .await;
}

/// A pool whose connections go where `dial` says, in memory: `None` is a refused connection.
pub(crate) fn pool_in_memory(
    environment: &Environment,
    metrics: &Metrics,
    stop: CancellationToken,
    dial: impl Fn(&Url) -> Option<tokio::io::DuplexStream> + Send + Sync + 'static,
) -> Pool {
    Pool::start_with(environment, None, metrics, stop, None, Dial::Memory(Arc::new(dial)))
}
