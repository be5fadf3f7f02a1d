//! One file per command; what they share is how they fail and how they read the configuration.

pub(crate) mod account;
pub(crate) mod check;
pub(crate) mod healthcheck;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod serve;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use sluice_gateway::config::{self, Config, ConfigErrors};
use sluice_gateway::gateway::StartError;
use sluice_gateway::journal::keys_only::KeysOnly;
use sluice_gateway::journal::sqlite::SqliteJournal;
use sluice_gateway::journal::{Journal, JournalError};
use sluice_gateway::server::ask::AskError;
use sluice_gateway::signing::{DirectoryError, KeyStoreError};

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the configuration is wrong:\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Keys(#[from] DirectoryError),
    #[error("{0}")]
    KeyStore(#[from] KeyStoreError),
    #[error("{0}")]
    Ask(#[from] AskError),
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Ok(config::load(path, config::variables())?)
}

/// The public keys on record, if there is a journal yet; nothing is written.
fn keys_on_record(config: &Config) -> Result<Arc<KeysOnly>, Failure> {
    let base = if config.journal.path.exists() {
        let journal: Arc<dyn Journal> = SqliteJournal::open_read_only(&config.journal.path)?;
        Some(journal)
    } else {
        None
    };
    Ok(Arc::new(KeysOnly::new(base)))
}
