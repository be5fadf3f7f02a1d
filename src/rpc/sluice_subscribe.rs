//! `sluice_subscribe` and `sluice_unsubscribe`.

use std::sync::Arc;

use alloy_primitives::Address;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde::Deserialize;

use super::arguments::Arguments;
use super::errors::{INVALID_PARAMS, RESOURCE_NOT_FOUND, Reason, RpcError};
use super::refusals::invalid_argument;
use super::service::{Service, connection, current};
use super::sluice::{parse_id, unread};
use super::subscribe::Open;
use crate::journal::TransactionId;
use crate::subscriptions::connection::ConnectionHandle;
use crate::subscriptions::lifecycle::filter::{Filter, MAX_NAMED};
use crate::subscriptions::lifecycle::{After, OpenError};

/// The only kind there is.
const TRANSACTIONS: &str = "transactions";

/// Registers the subscription.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_subscription(
        "sluice_subscribe",
        "sluice_subscription",
        "sluice_unsubscribe",
        |params, pending, service, extensions| async move { serve(&params, pending, current(service, &extensions), &extensions).await },
    )?;
    Ok(())
}

/// Which of its own events a client wants.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Selection {
    from: Option<Addresses>,
    ids: Option<Vec<String>>,
    after: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(untagged, expecting = "from is an address or a list of addresses")]
enum Addresses {
    One(Address),
    Many(Vec<Address>),
}

impl Selection {
    /// The filter; `position` is that of the argument, for errors.
    pub(super) fn filter(&self, service: &Service, position: usize) -> Result<Filter, ErrorObjectOwned> {
        let addresses = self.addresses(position)?;
        for address in &addresses {
            service.own_address(*address)?;
        }
        Ok(Filter::new(addresses, self.ids(position)?))
    }

    fn addresses(&self, position: usize) -> Result<Vec<Address>, ErrorObjectOwned> {
        match &self.from {
            None => Ok(Vec::new()),
            Some(Addresses::One(address)) => Ok(vec![*address]),
            Some(Addresses::Many(addresses)) => check(addresses.len(), "addresses", position).map(|()| addresses.clone()),
        }
    }

    fn ids(&self, position: usize) -> Result<Vec<TransactionId>, ErrorObjectOwned> {
        let Some(ids) = &self.ids else { return Ok(Vec::new()) };
        check(ids.len(), "ids", position)?;
        let read = |text: &String| parse_id(text).ok_or_else(|| invalid_argument(position, "ids has something that is no transaction id"));
        ids.iter().map(read).collect()
    }

    /// Whether it says where to begin.
    pub(super) fn is_begun(&self) -> bool {
        self.after.is_some()
    }

    fn begin(&self) -> After {
        match self.after.as_deref() {
            None => After::Now,
            Some("start") => After::Start,
            Some(cursor) => After::Cursor(cursor.to_owned()),
        }
    }
}

fn check(length: usize, what: &str, position: usize) -> Result<(), ErrorObjectOwned> {
    match length {
        0 => Err(invalid_argument(position, format_args!("no {what}; leave the member out for all of your own"))),
        length if length > MAX_NAMED => Err(invalid_argument(position, format_args!("more than {MAX_NAMED} {what}"))),
        _ => Ok(()),
    }
}

fn read(params: &Params<'_>) -> Result<Selection, ErrorObjectOwned> {
    let arguments = Arguments::of(params)?;
    let kind: String = arguments.required(0)?;
    if kind != TRANSACTIONS {
        let shown: String = kind.chars().take(64).collect();
        return Err(RpcError::new(INVALID_PARAMS, Reason::Unsupported, format!("no \"{shown}\" subscription in sluice namespace")).into());
    }
    arguments.at_most(2)?;
    Ok(arguments.optional(1)?.unwrap_or_default())
}

/// How a client is told that its stream cannot begin.
pub(super) fn open_error(error: &OpenError) -> ErrorObjectOwned {
    let told = match error {
        OpenError::Garbled | OpenError::Foreign | OpenError::Gone => {
            RpcError::new(INVALID_PARAMS, Reason::InvalidCursor, error.to_string())
        }
        OpenError::Unknown(_) => RpcError::new(RESOURCE_NOT_FOUND, Reason::NotFound, error.to_string()),
        OpenError::Read(error) => return unread(error),
    };
    told.into()
}

async fn serve(params: &Params<'_>, pending: PendingSubscriptionSink, service: Arc<Service>, extensions: &Extensions) {
    let opened = async {
        let selection = read(params)?;
        let filter = selection.filter(&service, 1)?;
        // Before the answer: what is committed behind it is in the stream.
        let opened = service.lifecycle.open(service.scope(extensions), filter, selection.begin(), connection(extensions));
        opened.await.map_err(|error| open_error(&error))
    };
    let stream = match opened.await {
        Ok(stream) => stream,
        Err(error) => {
            pending.reject(error).await;
            return;
        }
    };
    // The server puts one there; without it there is nobody to answer.
    let Some(connection) = extensions.get::<ConnectionHandle>().cloned() else { return };
    let Some(sink) = connection.accept(pending).await else { return };
    let _open = Open::of(&service, TRANSACTIONS);
    service.lifecycle.serve(stream, sink, Some(connection)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(params: &str) -> String {
        let read = read(&Params::new(Some(params)));
        match read.and_then(|selection| selection.addresses(1).and(selection.ids(1))) {
            Ok(ids) => format!("{} ids", ids.len()),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn selections_are_read() {
        let address = Address::repeat_byte(1);
        let id = TransactionId::new();
        assert_eq!(told(r#"["transactions"]"#), "0 ids");
        assert_eq!(told(r#"["transactions", null]"#), "0 ids");
        assert_eq!(told(&format!(r#"["transactions", {{"from":"{address}","ids":["{id}"]}}]"#)), "1 ids");
        assert_eq!(told(&format!(r#"["transactions", {{"from":["{address}"],"after":"start"}}]"#)), "0 ids");
        let begin = |after: &str| read(&Params::new(Some(&format!(r#"["transactions", {{{after}}}]"#)))).unwrap().begin();
        assert_eq!(begin(""), After::Now);
        assert_eq!(begin(r#""after":"start""#), After::Start);
        assert_eq!(begin(r#""after":"AQ""#), After::Cursor("AQ".into()));
    }

    #[test]
    fn what_is_not_served_is_told() {
        assert_eq!(told("[]"), "missing value for required argument 0");
        assert_eq!(told(r#"["blocks"]"#), "no \"blocks\" subscription in sluice namespace");
        assert_eq!(told(r#"["transactions", {}, 1]"#), "too many arguments, want at most 2");
        assert_eq!(told(r#"["transactions", {"from":[]}]"#), "invalid argument 1: no addresses; leave the member out for all of your own");
        assert_eq!(told(r#"["transactions", {"ids":[]}]"#), "invalid argument 1: no ids; leave the member out for all of your own");
        assert_eq!(told(r#"["transactions", {"ids":["7"]}]"#), "invalid argument 1: ids has something that is no transaction id");
        assert_eq!(told(r#"["transactions", {"from":"0x12"}]"#), "invalid argument 1: from is an address or a list of addresses");
        assert!(told(r#"["transactions", {"hashes":[]}]"#).contains("unknown field `hashes`"));
        let id = TransactionId::new();
        let many = vec![format!("\"{id}\""); MAX_NAMED + 1].join(",");
        assert_eq!(told(&format!(r#"["transactions",{{"ids":[{many}]}}]"#)), "invalid argument 1: more than 200 ids");
    }
}
