//! Reading the configuration anew while the gateway runs: all of what can change changes at once, or nothing does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::StartError;
use super::build::{Foundation, generation};
use super::changes::applicable;
use super::status::time;
use crate::config::{Config, ConfigErrors};
use crate::server::{Live, Renewal};
use crate::telemetry::logs;

/// Why the configuration that was read is not in force. The one before goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is wrong.
    #[error("the configuration is wrong")]
    Config(#[from] ConfigErrors),
    /// Its tokens, certificates or keys cannot be had.
    #[error("{0}")]
    Start(#[from] StartError),
    /// It leaves nothing to serve before a restart.
    #[error("no service of it can be served without a restart: {0}")]
    NothingLeft(String),
    /// The reading itself ended by a fault.
    #[error("the configuration could not be read: {0}")]
    Fault(String),
}

impl ReloadError {
    /// Every error in words of its own.
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Config(errors) => errors.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

/// Reads the configuration anew, one time after the other.
pub struct Reloader {
    foundation: Arc<Foundation>,
    live: Live,
    /// What is in force: of what needs a restart, the values of the start.
    running: Config,
}

impl Reloader {
    pub(super) fn new(foundation: Arc<Foundation>, live: Live, running: Config) -> Self {
        Self { foundation, live, running }
    }

    /// Reads by `read` (on a blocking thread), finds the keys of every service again, opens tokens and certificates, and then
    /// exchanges everything in one step. On an error nothing has changed. What came of it is in the log and in /status.
    pub async fn reload(&mut self, read: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static) -> Result<(), ReloadError> {
        tracing::info!("reading the configuration again");
        let reports = Arc::clone(&self.foundation.reports);
        match self.exchange(read).await {
            Ok(Applied { restart, clients, operators }) => {
                // A file that was replaced where the gateway does not look is found here: its token is unchanged.
                tracing::info!(
                    server_token = clients.token,
                    server_certificate = clients.certificate,
                    admin_token = operators.token,
                    admin_certificate = operators.certificate,
                    "tokens and certificates were read"
                );
                if restart.is_empty() {
                    tracing::info!(services = self.running.services.len(), "the configuration that was read is in force");
                } else {
                    tracing::warn!(
                        needs_restart = restart.join(", "),
                        "the configuration that was read is in force but for what needs a restart"
                    );
                }
                reports.applied(restart, clients, operators);
                Ok(())
            }
            Err(error) => {
                let lines = error.lines();
                for line in &lines {
                    tracing::error!(error = line, "the configuration was not read: the one before goes on");
                }
                reports.refused(lines);
                Err(error)
            }
        }
    }

    async fn exchange(&mut self, read: impl FnOnce() -> Result<Config, ConfigErrors> + Send + 'static) -> Result<Applied, ReloadError> {
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| ReloadError::Fault(error.to_string()))??;
        let (config, restart) = applicable(&self.running, &read);
        if config.services.is_empty() {
            return Err(ReloadError::NothingLeft(restart.join(", ")));
        }
        let before = self.live.load_full();
        let next = generation(&self.foundation, &config, Some(&before)).await?.enter();
        let (clients, operators) = next.renewals(&before);
        self.live.store(Arc::new(next));
        logs::set_level(config.log.level.as_deref());
        self.running = config;
        Ok(Applied { restart, clients, operators })
    }
}

/// What is in force now.
struct Applied {
    /// What needs a restart.
    restart: Vec<String>,
    clients: Renewal,
    operators: Renewal,
}

/// What became of each reading, for /status.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Report>);

#[derive(Debug)]
struct Report {
    /// When what is in force was read.
    loaded: SystemTime,
    applied: u64,
    refused: u64,
    last: Option<Outcome>,
    restart: Vec<String>,
}

#[derive(Debug)]
struct Outcome {
    at: SystemTime,
    /// None if it is in force.
    errors: Vec<String>,
    clients: Renewal,
    operators: Renewal,
}

impl Default for Report {
    fn default() -> Self {
        Self { loaded: SystemTime::now(), applied: 0, refused: 0, last: None, restart: Vec::new() }
    }
}

impl Reports {
    fn applied(&self, restart: Vec<String>, clients: Renewal, operators: Renewal) {
        let at = SystemTime::now();
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.applied += 1;
        (report.loaded, report.restart) = (at, restart);
        report.last = Some(Outcome { at, errors: Vec::new(), clients, operators });
    }

    fn refused(&self, errors: Vec<String>) {
        let at = SystemTime::now();
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.refused += 1;
        report.last = Some(Outcome { at, errors, clients: Renewal::default(), operators: Renewal::default() });
    }

    /// `{ loadedAt, reloads: { applied, refused }, lastReload: { at, outcome, errors, server, admin }, needsRestart }`.
    pub(super) fn show(&self) -> Value {
        let report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = report.last.as_ref().map(|last| {
            let outcome = if last.errors.is_empty() { "applied" } else { "refused" };
            let renewal = |of: Renewal| json!({ "token": of.token, "certificate": of.certificate });
            let (server, admin) = (renewal(last.clients), renewal(last.operators));
            json!({ "at": time(last.at), "outcome": outcome, "errors": last.errors, "server": server, "admin": admin })
        });
        json!({
            "loadedAt": time(report.loaded),
            "reloads": { "applied": report.applied, "refused": report.refused },
            "lastReload": last,
            "needsRestart": report.restart,
        })
    }
}
