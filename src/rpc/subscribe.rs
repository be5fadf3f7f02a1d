//! `eth_subscribe` and `eth_unsubscribe`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde::Deserialize;
use serde_json::Value;

use super::arguments::Arguments;
use super::errors::{INVALID_PARAMS, LIMIT_EXCEEDED, Reason, RpcError, SERVER_ERROR};
use super::log_filter::{FilterError, go_kind, normalised};
use super::pass_through::call_error;
use super::refusals::{invalid_argument, missing_argument};
use super::service::{Service, current, principal};
use crate::subscriptions::chain::{LogFilter, OfLogs};
use crate::subscriptions::connection::ConnectionHandle;
use crate::subscriptions::hub::{JoinError, Subject};
use crate::subscriptions::receipts::{MAX_HASHES, Wanted};
use crate::telemetry::metrics::SubscriptionMeter;

/// What a client subscribes to.
#[derive(Debug, PartialEq)]
enum Kind {
    /// What the node announces.
    Relayed {
        name: &'static str,
        /// Parameters for the node, one spelling for all that mean the same.
        params: Cow<'static, str>,
    },
    /// The headers of the chain.
    Heads,
    /// The logs of the chain that a filter is about, and the filter's one spelling.
    Logs {
        params: String,
        filter: LogFilter,
    },
    Receipts(Option<Vec<B256>>),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReceiptOptions {
    #[serde(default)]
    transaction_hashes: Option<Vec<B256>>,
}

/// Registers the subscription.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, service, extensions| async move {
            serve(&params, pending, current(service, &extensions), &extensions).await.map_err(SubscriptionError::from)
        },
    )?;
    Ok(())
}

fn read(params: &Params<'_>) -> Result<Kind, ErrorObjectOwned> {
    if params.as_str().is_none() {
        return Err(RpcError::invalid_params("non-array args").into());
    }
    let arguments = Arguments::of(params)?;
    let name = arguments.given(0).and_then(|name| serde_json::from_str::<String>(name.get()).ok());
    let name = name.ok_or_else(|| RpcError::invalid_params("expected subscription name as first argument"))?;
    let relayed = |name, params| Ok(Kind::Relayed { name, params });
    match name.as_str() {
        "newHeads" => arguments.at_most(1).map(|()| Kind::Heads),
        "syncing" => arguments.at_most(1).and_then(|()| relayed("syncing", r#"["syncing"]"#.into())),
        "logs" => logs(&arguments),
        "newPendingTransactions" => relayed("newPendingTransactions", pending_transactions(&arguments)?.into()),
        "transactionReceipts" => receipts(&arguments),
        other => {
            let shown: String = other.chars().take(64).collect();
            Err(RpcError::new(INVALID_PARAMS, Reason::Unsupported, format!("no \"{shown}\" subscription in eth namespace")).into())
        }
    }
}

fn logs(arguments: &Arguments<'_>) -> Result<Kind, ErrorObjectOwned> {
    let filter = arguments.raw(1).ok_or_else(|| missing_argument(1))?;
    let (text, filter) = normalised(filter).map_err(filter_error)?;
    arguments.at_most(2)?;
    let params = format!(r#"["logs",{text}]"#);
    Ok(match filter {
        Some(filter) => Kind::Logs { params, filter },
        None => Kind::Relayed { name: "logs", params: params.into() },
    })
}

/// How a client is told that its filter is not taken.
pub(super) fn filter_error(error: FilterError) -> ErrorObjectOwned {
    match error {
        FilterError::Invalid(words) => invalid_argument(1, words),
        FilterError::TooLong(words) => RpcError::new(SERVER_ERROR, Reason::LimitExceeded, words).into(),
    }
}

/// Without `true` the hashes are meant, and a node that knows no second parameter is not given one.
fn pending_transactions(arguments: &Arguments<'_>) -> Result<&'static str, ErrorObjectOwned> {
    let full = match arguments.optional(1)? {
        Some(Value::Bool(full)) => full,
        None => false,
        Some(other) => {
            return Err(invalid_argument(1, format_args!("json: cannot unmarshal {} into Go value of type bool", go_kind(&other))));
        }
    };
    arguments.at_most(2)?;
    Ok(if full { r#"["newPendingTransactions",true]"# } else { r#"["newPendingTransactions"]"# })
}

fn receipts(arguments: &Arguments<'_>) -> Result<Kind, ErrorObjectOwned> {
    let options: ReceiptOptions = arguments.optional(1)?.unwrap_or_default();
    match &options.transaction_hashes {
        Some(hashes) if hashes.len() > MAX_HASHES => Err(invalid_argument(1, format_args!("more than {MAX_HASHES} transaction hashes"))),
        Some(hashes) if hashes.is_empty() => Err(invalid_argument(1, "no transaction hashes; leave the member out for all of your own")),
        _ => Ok(Kind::Receipts(options.transaction_hashes)),
    }
}

/// What a client is told that gets no seat.
fn no_seat(error: JoinError) -> ErrorObjectOwned {
    const AGAIN: Duration = Duration::from_secs(5);
    match error {
        JoinError::Full => RpcError::new(
            LIMIT_EXCEEDED,
            Reason::LimitExceeded,
            "too many different log filters are open, on this connection or of this service",
        )
        .retry_after(AGAIN)
        .into(),
        JoinError::Call(error) => call_error(&error),
    }
}

/// Counts a subscription while it is open, and how it ends.
pub(super) struct Open(SubscriptionMeter);

impl Open {
    pub(super) fn of(service: &Service, kind: &str) -> Self {
        let meter = service.subscriptions.of(kind).clone();
        meter.open.inc();
        Self(meter)
    }

    /// It is over, with these last words if Sluice ended it.
    pub(super) fn over(self, over: Result<(), &'static str>) -> Result<(), &'static str> {
        if over.is_err() {
            self.0.ended.inc();
        }
        over
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

async fn serve(
    params: &Params<'_>,
    pending: PendingSubscriptionSink,
    service: Arc<Service>,
    extensions: &Extensions,
) -> Result<(), &'static str> {
    let kind = match read(params) {
        Ok(kind) => kind,
        Err(error) => {
            pending.reject(error).await;
            return Ok(());
        }
    };
    // The server puts one there; without it there is nobody to answer.
    let Some(connection) = extensions.get::<ConnectionHandle>().cloned() else { return Ok(()) };
    let (name, subject) = match kind {
        Kind::Heads => ("newHeads", Subject::heads()),
        Kind::Logs { params, filter } => {
            let source = service.chain.environment().logs;
            ("logs", Subject::logs(&service.name, &params, OfLogs { filter, source }))
        }
        // What is not spelled here is of the client's own choice.
        Kind::Relayed { name, params: Cow::Borrowed(params) } => (name, Subject::shared(params)),
        Kind::Relayed { name, params: Cow::Owned(params) } => (name, Subject::filter(&service.name, &params)),
        Kind::Receipts(hashes) => {
            let wanted = match hashes {
                Some(hashes) => Wanted::Hashes(hashes),
                None => Wanted::Own { service: Arc::clone(&service.name), principal: Arc::clone(&principal(extensions).name) },
            };
            let Some(sink) = connection.accept(pending).await else { return Ok(()) };
            let open = Open::of(&service, "transactionReceipts");
            // On the heap, like the way to a seat: what only some streams need, or only at their beginning, is no part of all of them.
            return open.over(Box::pin(service.receipts.serve(&service.chain, wanted, sink, Some(connection))).await);
        }
    };
    let seat = match Box::pin(service.hub.join(subject, &connection)).await {
        Ok(seat) => seat,
        Err(error) => {
            pending.reject(no_seat(error)).await;
            return Ok(());
        }
    };
    let Some(sink) = connection.accept(pending).await else { return Ok(()) };
    let open = Open::of(&service, name);
    open.over(seat.serve(sink, Some(connection)).await)
}

#[cfg(test)]
mod tests;
