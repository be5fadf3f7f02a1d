//! Structured logs to stderr: for people on a terminal, one line of JSON for each event otherwise.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged without a word from the operator, and what its `RUST_LOG` is added to: the libraries tell of every
/// connection and request, which Sluice tells in its own words. At `warn`, jsonrpsee logs what clients send, at any length.
const DEFAULT: &str =
    "info,aws=warn,h2=warn,hyper=error,jsonrpsee=error,rustls=warn,soketto=warn,sqlx=warn,tokio_tungstenite=warn,tungstenite=warn";

/// The targets of Sluice's own events begin with this.
const OWN: &str = "sluice";

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The directives are not what `RUST_LOG` takes.
    #[error("RUST_LOG is not a list of directives such as \"info,sluice_gateway::node=debug\": {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("logs are set up already: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// The filter of the logs of this process; none where `RUST_LOG` has decided.
static LEVELS: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sends the logs of this process to stderr. `directives` are the value of `RUST_LOG`, if it is set: a level (`debug`), or levels
/// of targets (`sluice_gateway::node=debug`); `info` without. Libraries stay at `warn` or `error` unless a directive names them, and at
/// `debug` at most.
pub fn init(directives: Option<&str>) -> Result<(), LogsError> {
    let is_given = directives.is_some_and(|directives| !directives.trim().is_empty());
    let (filter, levels) = reload::Layer::new(filter(directives)?);
    let people = std::io::stderr().is_terminal();
    tracing_subscriber::registry().with(layer(people, filter, std::io::stderr)).try_init()?;
    if !is_given {
        // It is empty: only one installation succeeds.
        let _ = LEVELS.set(levels);
    }
    Ok(())
}

/// Sets the levels that the configuration states, or the default ones; nothing where `RUST_LOG` is set. `directives` are as in
/// [`init`], and checked when they were read.
pub fn set_level(directives: Option<&str>) {
    let Some(levels) = LEVELS.get() else { return };
    let changed =
        filter(directives).map_err(|error| error.to_string()).and_then(|filter| levels.reload(filter).map_err(|error| error.to_string()));
    if let Err(error) = changed {
        tracing::error!(error, "the levels of the log stay as they are");
    }
}

fn filter(directives: Option<&str>) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    match directives.map(str::trim).filter(|directives| !directives.is_empty()) {
        // A later directive of the same target replaces an earlier one.
        Some(directives) => EnvFilter::try_new(format!("{DEFAULT},{directives}")),
        None => EnvFilter::try_new(DEFAULT),
    }
}

/// At `trace`, libraries log frames, bodies and headers, so signed bytes and tokens. No directive lets that out (I10).
fn no_foreign_traces() -> FilterFn {
    filter_fn(|metadata: &Metadata<'_>| *metadata.level() != Level::TRACE || metadata.target().starts_with(OWN))
}

fn layer<S, F, W>(people: bool, filter: F, writer: W) -> impl Layer<S>
where
    F: Filter<S> + 'static,
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = if people { layer.boxed() } else { layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed() };
    layer.with_filter(filter.and(no_foreign_traces()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(people: bool, directives: Option<&str>, events: impl FnOnce()) -> Vec<String> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = layer(people, filter(directives).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        buffer.lines()
    }

    #[test]
    fn json_is_one_line_for_each_event() {
        let lines = logged(false, None, || {
            let span = tracing::info_span!("connection", service = "payments");
            let _entered = span.enter();
            tracing::info!(target: "sluice_gateway::node", endpoint = "ws://127.0.0.1:1", "two\nlines");
            tracing::warn!(target: "soketto::proto", "odd");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["target"], "sluice_gateway::node");
        assert_eq!(event["message"], "two\nlines");
        assert_eq!(event["endpoint"], "ws://127.0.0.1:1");
        assert_eq!(event["span"]["service"], "payments");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&lines[1]).unwrap()["level"], "WARN");
    }

    #[test]
    fn people_get_text() {
        let lines = logged(true, None, || tracing::info!(target: "sluice_gateway", port = 8545, "listening"));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("listening") && lines[0].contains("8545"), "{lines:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&lines[0]).is_err());
    }

    #[test]
    fn libraries_are_quiet_unless_named() {
        let events = || {
            tracing::debug!(target: "sluice_gateway::rpc", "ours");
            tracing::info!(target: "hyper::proto", "theirs");
            tracing::warn!(target: "jsonrpsee-server", "parameters of a client");
        };
        assert!(logged(false, None, events).is_empty());
        assert_eq!(logged(false, Some("debug"), events).len(), 1);
        assert_eq!(logged(false, Some(" hyper=info "), events).len(), 1);
        assert_eq!(logged(false, Some("debug,hyper=info"), events).len(), 2);
        assert_eq!(logged(false, Some(""), || tracing::info!(target: "sluice_gateway", "ours")).len(), 1);
    }

    #[test]
    fn no_directive_shows_the_traces_of_libraries() {
        let lines = logged(false, Some("trace,hyper=trace,tungstenite=trace"), || {
            tracing::trace!(target: "hyper::proto", "authorization: Bearer hidden");
            tracing::trace!(target: "tungstenite::protocol", "0x02f8hidden");
            tracing::trace!(target: "sluice_gateway::node", "ours");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("ours"));
    }

    #[test]
    fn wrong_directives_are_an_error() {
        assert!(matches!(init(Some("sluice_gateway=loud")), Err(LogsError::Directives(_))));
    }

    #[test]
    fn a_second_installation_is_an_error() {
        // Whether the first is one depends on the other tests of this process.
        let _ = init(Some("off"));
        assert!(matches!(init(Some("off")), Err(LogsError::Installed(_))));
    }
}
