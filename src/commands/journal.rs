//! `sluice journal inspect` and `sluice journal forget-chain`.

use std::path::Path;
use std::sync::Arc;

use sluice_gateway::journal::sqlite::SqliteJournal;
use sluice_gateway::journal::{Journal as _, inspect};
use sluice_gateway::telemetry::metrics::Metrics;

use super::{Failure, load};

pub(crate) async fn inspect(path: &Path, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let journal = SqliteJournal::open_read_only(&config.journal.path)?;
    let (summary, keys, chains) = (journal.summary().await?, journal.keys().await?, journal.chains().await?);
    if as_json {
        println!("{}", inspect::json(&summary, keys.len(), &chains));
    } else {
        print!("{}", inspect::text(&summary, keys.len(), &chains));
    }
    Ok(())
}

pub(crate) async fn forget_chain(path: &Path, environment: &str) -> Result<(), Failure> {
    let config = load(path)?;
    let known = config.environments.iter().find(|known| known.name == environment);
    let chain_id = known.ok_or_else(|| Failure::Usage(format!("the file has no environment \"{environment}\"")))?.chain_id;
    if !config.journal.path.exists() {
        return Err(Failure::Failed(format!("there is no journal at {}", config.journal.path.display())));
    }
    let metrics = Metrics::new().map_err(|error| Failure::Failed(error.to_string()))?;
    let journal = SqliteJournal::open(&config.journal.path, Arc::new(metrics))?;
    let attempts = journal.forget_chain(chain_id).await?;
    journal.close().await;
    println!("chain {chain_id} of environment \"{environment}\" is forgotten ({attempts} attempts)");
    Ok(())
}
