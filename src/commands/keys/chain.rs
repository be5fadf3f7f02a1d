//! What the chains say of addresses, for people: balance and nonces. A node that is down is an answer like any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U64, U256};
use futures_util::stream::{self, StreamExt as _};
use sluice_gateway::config::Environment;
use sluice_gateway::journal::{Account, Journal};
use sluice_gateway::node::{CallError, Pool};
use sluice_gateway::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// How long the nodes of an environment may take to connect and say which chain they are on.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses that are asked about at the same time.
const CONCURRENCY: usize = 16;

/// An address in one environment.
#[derive(Debug, Clone, Default)]
pub(super) struct OnChain {
    /// In wei.
    pub(super) balance: Option<U256>,
    pub(super) latest: Option<u64>,
    pub(super) pending: Option<u64>,
    /// The next nonce to hand out, by the journal; none if the account is not on record.
    pub(super) next: Option<u64>,
    /// Why the chain's part is not known.
    pub(super) error: Option<String>,
}

/// Asks the environment's nodes and the journal about these addresses.
pub(super) async fn look(
    environment: &Environment,
    addresses: &[Address],
    journal: &dyn Journal,
    metrics: &Arc<Metrics>,
) -> BTreeMap<Address, OnChain> {
    let stop = CancellationToken::new();
    let pinned = journal.chain(environment.chain_id).await.ok().flatten().map(|pin| pin.genesis);
    let pool = Pool::start(environment, pinned, Arc::clone(metrics), stop.clone());
    let up = tokio::select! {
        connected = tokio::time::timeout(PATIENCE, pool.genesis()) => connected.is_ok(),
        () = all_failed(&pool) => false,
    };
    let down = (!up).then(|| why(&pool));
    let asking: Vec<_> = addresses
        .iter()
        .map(|address| {
            let (pool, down) = (&pool, down.clone());
            async move {
                let mut found = match down {
                    Some(error) => OnChain { error: Some(error), ..OnChain::default() },
                    None => {
                        ask(pool, *address).await.unwrap_or_else(|error| OnChain { error: Some(error.to_string()), ..OnChain::default() })
                    }
                };
                let account = Account { chain_id: environment.chain_id, address: *address };
                found.next = journal.account(account).await.ok().flatten().map(|stored| stored.next_nonce);
                (*address, found)
            }
        })
        .collect();
    let found = stream::iter(asking).buffer_unordered(CONCURRENCY).collect().await;
    stop.cancel();
    found
}

async fn ask(pool: &Pool, address: Address) -> Result<OnChain, CallError> {
    let nonce = async |block| pool.call::<U64>("eth_getTransactionCount", (address, block)).await;
    let (balance, latest, pending) =
        tokio::join!(pool.call::<U256>("eth_getBalance", (address, "latest")), nonce("latest"), nonce("pending"));
    Ok(OnChain { balance: Some(balance?), latest: Some(latest?.to()), pending: Some(pending?.to()), ..OnChain::default() })
}

/// Resolves when every endpoint has been tried in vain: there is no need to wait longer.
async fn all_failed(pool: &Pool) {
    while !pool.endpoints().iter().all(|state| state.last_error.is_some()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the endpoints say of themselves; they repeat no URL.
fn why(pool: &Pool) -> String {
    let words: Vec<String> = pool
        .endpoints()
        .into_iter()
        .map(|state| format!("{}: {}", state.label, state.detail.unwrap_or_else(|| format!("no answer within {PATIENCE:?}"))))
        .collect();
    words.join("; ")
}
