//! `sluice journal`. Whether a command may run beside a gateway is in docs/journal.md.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloy_primitives::Address;
use sluice_gateway::journal::sqlite::{self, ExportError, Pruning, SqliteJournal};
use sluice_gateway::journal::{Engine as _, Journal as _, inspect};
use sluice_gateway::telemetry::metrics::Metrics;

use super::{Failure, load};

/// Attempts that `inspect --account` lists at most.
const LISTED: u32 = 500;
/// The shortest time for which idempotency keys are kept.
const KEYS_AT_LEAST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) async fn inspect(path: &Path, account: Option<Address>, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let journal = SqliteJournal::open_read_only(&config.journal.path)?;
    if let Some(address) = account {
        let slots = journal.slots(address, LISTED).await?;
        if as_json {
            println!("{}", inspect::slots_json(&slots));
        } else {
            print!("{}", inspect::slots_text(&slots));
        }
        return Ok(());
    }
    let (overview, summary) = (journal.overview().await?, journal.summary().await?);
    let (keys, chains) = (journal.keys().await?, journal.chains().await?);
    if as_json {
        println!("{}", inspect::json(&overview, &summary, keys.len(), &chains));
    } else {
        print!("{}", inspect::text(&overview, &summary, keys.len(), &chains));
    }
    Ok(())
}

pub(crate) fn export(path: &Path, with_bytes: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let mut output = BufWriter::new(io::stdout().lock());
    match sqlite::export(&config.journal.path, with_bytes, &mut output) {
        // Whoever reads has seen enough.
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

pub(crate) fn backup(path: &Path, target: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    let bytes = sqlite::backup(&config.journal.path, target)?;
    println!("{} is written and checked ({bytes} bytes)", target.display());
    Ok(())
}

pub(crate) fn restore(path: &Path, backup: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    let restored = sqlite::restore(&config.journal.path, backup)?;
    say_aside(&restored.aside);
    println!(
        "{} is the journal at {} now; {} accounts are in reconcile: the gateway sends nothing of them until the chain has settled, or \
         you release them",
        backup.display(),
        config.journal.path.display(),
        restored.accounts
    );
    if restored.ended > 0 {
        println!(
            "{} acknowledged transactions waited at the time of the backup and are ended: look on the chain whether they were paid since",
            restored.ended
        );
    }
    Ok(())
}

pub(crate) async fn init(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    let (journal, aside) = SqliteJournal::init(&config.journal.path, metrics()?)?;
    journal.close().await;
    say_aside(&aside);
    println!("an empty journal begins at {}; it knows nothing of what was sent before", config.journal.path.display());
    Ok(())
}

/// What `sluice journal prune` was asked for; ages before now.
pub(crate) struct Prune {
    pub(crate) older_than: Option<Duration>,
    pub(crate) keep: Option<u32>,
    pub(crate) keys_older_than: Option<Duration>,
    pub(crate) vacuum: bool,
}

pub(crate) fn prune(path: &Path, asked: &Prune) -> Result<(), Failure> {
    if asked.older_than.is_none() && asked.keep.is_none() {
        return Err(Failure::Usage("what may go? Give --older-than, --keep or both".into()));
    }
    if asked.keys_older_than.is_some_and(|age| age < KEYS_AT_LEAST) {
        return Err(Failure::Usage("idempotency keys are kept for 30 days at least: --keys-older-than is too short".into()));
    }
    let config = load(path)?;
    let now = SystemTime::now();
    let before = |age: Duration| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let what = Pruning {
        transactions_before: asked.older_than.map_or(now, before),
        keep: asked.keep.unwrap_or(0),
        keys_before: asked.keys_older_than.map(before),
        vacuum: asked.vacuum,
    };
    let pruned = sqlite::prune(&config.journal.path, what)?;
    println!(
        "{} transactions are pruned, with {} attempts and {} events; {} idempotency keys",
        pruned.transactions, pruned.attempts, pruned.events, pruned.keys
    );
    Ok(())
}

pub(crate) async fn forget_chain(path: &Path, environment: &str) -> Result<(), Failure> {
    let config = load(path)?;
    let known = config.environments.iter().find(|known| known.name == environment);
    let chain_id = known.ok_or_else(|| Failure::Usage(format!("the file has no environment \"{environment}\"")))?.chain_id;
    if !config.journal.path.exists() {
        return Err(Failure::Failed(format!("there is no journal at {}", config.journal.path.display())));
    }
    let journal = SqliteJournal::open(&config.journal.path, metrics()?)?;
    let attempts = journal.forget_chain(chain_id).await?;
    journal.close().await;
    println!("chain {chain_id} of environment \"{environment}\" is forgotten ({attempts} attempts)");
    Ok(())
}

fn metrics() -> Result<Arc<Metrics>, Failure> {
    Metrics::new().map(Arc::new).map_err(|error| Failure::Failed(error.to_string()))
}

fn say_aside(files: &[PathBuf]) {
    for file in files {
        println!("kept aside: {}", file.display());
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Journal(error) => Self::Journal(error),
            ExportError::Output(error) => Self::Failed(format!("cannot write the export: {error}")),
        }
    }
}
