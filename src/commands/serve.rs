//! `sluice serve` and `sluice dev`.

use std::path::{Path, PathBuf};

use sluice_gateway::config::{self, Config};
use sluice_gateway::gateway::{Ended, Gateway};
use sluice_gateway::telemetry::logs;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, load};
use crate::Dev;

pub(crate) async fn serve(path: &Path) -> Result<(), Failure> {
    // Before anything that takes time: without a handler the signal would end the process.
    let reload = signal(SignalKind::hangup()).map_err(|error| Failure::Failed(format!("signals: {error}")))?;
    let config = load(path)?;
    logs::set_level(config.log.level.as_deref());
    run(&config, Some((reload, path.to_owned()))).await
}

pub(crate) async fn dev(dev: Dev) -> Result<(), Failure> {
    // Goes with everything in it when the command ends.
    let folder = tempfile::Builder::new().prefix("sluice-dev-").tempdir();
    let folder = folder.map_err(|error| Failure::Failed(format!("no place for the journal: {error}")))?;
    let journal = dev.journal.unwrap_or_else(|| folder.path().join("sluice-dev.db"));
    let config = config::development(dev.node, dev.chain_id, dev.accounts, dev.listen, dev.admin, journal)?;
    run(&config, None).await
}

/// `reload` is the signal that asks to read this file again.
async fn run(config: &Config, reload: Option<(Signal, PathBuf)>) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    watch_signals(&shutdown)?;
    let gateway = tokio::select! {
        gateway = Gateway::start(config) => gateway?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(listen = %gateway.address(), admin = %gateway.admin_address(), services = config.services.len(), "serving");
    if let Some((mut signal, path)) = reload {
        let mut reloader = gateway.reloader();
        let reloading = shutdown.clone().run_until_cancelled_owned(async move {
            while signal.recv().await.is_some() {
                let path = path.clone();
                // What came of it is in the log and in /status.
                let _ = reloader.reload(move || config::load(&path, config::variables())).await;
            }
        });
        tokio::spawn(reloading);
    }
    match gateway.run(shutdown).await {
        Ended::Drained => Ok(()),
        Ended::Cut => {
            Err(Failure::Failed("requests were still open when the time to drain was over; the journal has what was committed".into()))
        }
        Ended::Fatal => Err(Failure::Failed("the journal has become unusable; start again to recover".into())),
    }
}

/// The first SIGTERM or SIGINT drains, the second ends at once.
fn watch_signals(shutdown: &CancellationToken) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("second signal: ending at once");
                std::process::exit(1);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}
