//! `eth_subscribe` and `eth_unsubscribe`.

use std::sync::Arc;

use alloy_primitives::B256;
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use prometheus::IntGauge;
use serde::Deserialize;

use super::arguments::Arguments;
use super::errors::{INVALID_PARAMS, Reason, RpcError};
use super::pass_through::call_error;
use super::refusals::invalid_argument;
use super::service::{Service, principal};
use crate::subscriptions::connection::ConnectionHandle;
use crate::subscriptions::receipts::{MAX_HASHES, Wanted};

/// What a client subscribes to.
#[derive(Debug, PartialEq)]
enum Kind {
    Heads,
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
            serve(&params, pending, service, &extensions).await.map_err(SubscriptionError::from)
        },
    )?;
    Ok(())
}

fn read(params: &Params<'_>) -> Result<Kind, ErrorObjectOwned> {
    let arguments = Arguments::of(params)?;
    let kind: String = arguments.required(0)?;
    match kind.as_str() {
        "newHeads" => Ok(Kind::Heads),
        "transactionReceipts" => {
            let options: ReceiptOptions = arguments.optional(1)?.unwrap_or_default();
            match &options.transaction_hashes {
                Some(hashes) if hashes.len() > MAX_HASHES => {
                    Err(invalid_argument(1, format_args!("more than {MAX_HASHES} transaction hashes")))
                }
                Some(hashes) if hashes.is_empty() => {
                    Err(invalid_argument(1, "no transaction hashes; leave the member out for all of your own"))
                }
                _ => Ok(Kind::Receipts(options.transaction_hashes)),
            }
        }
        other => {
            let shown: String = other.chars().take(64).collect();
            Err(RpcError::new(INVALID_PARAMS, Reason::Unsupported, format!("no \"{shown}\" subscription in eth namespace")).into())
        }
    }
}

/// Counts a subscription while it is open.
pub(super) struct Open(IntGauge);

impl Open {
    pub(super) fn of(service: &Service, kind: &str) -> Self {
        let gauge = service.subscriptions.with_label_values(&[kind]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
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
    let connection = extensions.get::<ConnectionHandle>().cloned();
    match kind {
        Kind::Heads => {
            let lease = match service.heads.lease().await {
                Ok(lease) => lease,
                Err(error) => {
                    pending.reject(call_error(&error)).await;
                    return Ok(());
                }
            };
            let Ok(sink) = pending.accept().await else { return Ok(()) };
            let _open = Open::of(&service, "newHeads");
            let over = service.heads.serve(sink, connection).await;
            drop(lease);
            over
        }
        Kind::Receipts(hashes) => {
            let wanted = match hashes {
                Some(hashes) => Wanted::Hashes(hashes),
                None => Wanted::Own { service: Arc::clone(&service.name), principal: Arc::clone(&principal(extensions).name) },
            };
            let Ok(sink) = pending.accept().await else { return Ok(()) };
            let _open = Open::of(&service, "transactionReceipts");
            service.receipts.serve(&service.chain, wanted, sink, connection).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(params: &str) -> Result<Kind, String> {
        read(&Params::new(Some(params))).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn kinds_are_read() {
        let hash = format!("\"0x{}\"", "1".repeat(64));
        assert_eq!(kind(r#"["newHeads"]"#), Ok(Kind::Heads));
        assert_eq!(kind(r#"["transactionReceipts"]"#), Ok(Kind::Receipts(None)));
        assert_eq!(kind(r#"["transactionReceipts", {}]"#), Ok(Kind::Receipts(None)));
        let one = kind(&format!(r#"["transactionReceipts", {{"transactionHashes":[{hash}]}}]"#));
        assert_eq!(one, Ok(Kind::Receipts(Some(vec![B256::repeat_byte(0x11)]))));
    }

    #[test]
    fn what_is_not_served_is_told() {
        assert_eq!(kind("[]"), Err("missing value for required argument 0".into()));
        assert_eq!(kind(r#"["logs",{}]"#), Err("no \"logs\" subscription in eth namespace".into()));
        let many = vec![format!("\"0x{}\"", "1".repeat(64)); 201].join(",");
        let told = kind(&format!(r#"["transactionReceipts",{{"transactionHashes":[{many}]}}]"#));
        assert_eq!(told, Err("invalid argument 1: more than 200 transaction hashes".into()));
        assert!(kind(r#"["transactionReceipts",{"transactionHashes":[]}]"#).is_err());
        assert!(kind(r#"["transactionReceipts",{"hashes":[]}]"#).is_err());
    }
}
