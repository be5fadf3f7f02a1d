//! `sluice check`: says every error, and proves that what the configuration names is there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_gateway::config::{Config, Environment};
use sluice_gateway::gateway::open_directory;
use sluice_gateway::journal::Journal;
use sluice_gateway::node::Pool;
use sluice_gateway::server::check_files;
use sluice_gateway::signing::{Directory, KeyState};
use sluice_gateway::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use super::{Failure, keys_on_record, load};

/// How long a node may take to connect and say which chain it is on.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn check(path: &Path, offline: bool) -> Result<(), Failure> {
    let config = load(path)?;
    println!("ok    configuration {}", path.display());
    if offline {
        return Ok(());
    }
    let mut faults = 0;
    for error in check_files(&config).await {
        println!("FAIL  {error}");
        faults += 1;
    }
    let metrics = Arc::new(Metrics::new().map_err(|error| Failure::Failed(error.to_string()))?);
    let journal = keys_on_record(&config)?;
    for environment in &config.environments {
        faults += check_nodes(environment, journal.as_ref(), &metrics).await?;
    }
    match open_directory(&config, journal, &metrics).await {
        Ok(directory) => faults += check_keys(&config, &directory).await,
        Err(error) => {
            println!("FAIL  {error}");
            faults += 1;
        }
    }
    match faults {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 check failed".into())),
        many => Err(Failure::Failed(format!("{many} checks failed"))),
    }
}

/// Each endpoint alone: one that works must not hide one that does not.
async fn check_nodes(environment: &Environment, journal: &dyn Journal, metrics: &Arc<Metrics>) -> Result<usize, Failure> {
    let mut pinned = journal.chain(environment.chain_id).await?.map(|pin| pin.genesis);
    let mut faults = 0;
    for (index, node) in environment.nodes.iter().enumerate() {
        let alone = Environment { nodes: vec![node.clone()], ..environment.clone() };
        let stop = CancellationToken::new();
        let pool = Pool::start(&alone, pinned, Arc::clone(metrics), stop.clone());
        let place = format!("environment.{}.nodes[{index}] {}", environment.name, node.label());
        match tokio::time::timeout(PATIENCE, pool.genesis()).await {
            Ok(genesis) => {
                // The first endpoint's chain is the one that the others must be on.
                pinned = Some(genesis);
                println!("ok    {place}: chain id {}, genesis {genesis}", environment.chain_id);
            }
            Err(_) => {
                let state = pool.endpoints().into_iter().next();
                let why = state.and_then(|state| state.detail).unwrap_or_else(|| format!("no answer within {PATIENCE:?}"));
                println!("FAIL  {place}: {why}");
                faults += 1;
            }
        }
        stop.cancel();
    }
    Ok(faults)
}

async fn check_keys(config: &Config, directory: &Arc<Directory>) -> usize {
    let mut faults = 0;
    for service in &config.services {
        let keys = match directory.select(&service.configurations, &service.keys).await {
            Ok(keys) => keys,
            Err(error) => {
                println!("FAIL  service.{}: {error}", service.name);
                faults += 1;
                continue;
            }
        };
        if keys.is_empty() {
            println!("FAIL  service.{}: no key matches", service.name);
            faults += 1;
        }
        for key in keys.all() {
            for holder in key.holders() {
                let probe = match holder.state {
                    KeyState::Unusable(why) => Err(why),
                    KeyState::Enabled => holder.store.probe(&holder.arn).await.map_err(|error| error.to_string()),
                };
                match probe {
                    Ok(()) => println!("ok    service.{}: {} {}", service.name, key.address(), holder.arn),
                    Err(why) => {
                        println!("FAIL  service.{}: {} {}: {why}", service.name, key.address(), holder.arn);
                        faults += 1;
                    }
                }
            }
        }
    }
    faults
}
