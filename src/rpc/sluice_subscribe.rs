//! `sluice_subscribe` and `sluice_unsubscribe`.

mod chain;

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde::Deserialize;

use self::chain::Begin;
use super::arguments::Arguments;
use super::errors::{INVALID_PARAMS, RESOURCE_NOT_FOUND, Reason, RpcError};
use super::refusals::invalid_argument;
use super::service::{Service, current};
use super::sluice::{parse_id, unread};
use super::subscribe::Open;
use crate::journal::TransactionId;
use crate::subscriptions::chain::{About, LogFilter, OfLogs};
use crate::subscriptions::connection::ConnectionHandle;
use crate::subscriptions::lifecycle::filter::{Filter, MAX_NAMED};
use crate::subscriptions::lifecycle::{After, OpenError};

/// What a client subscribes to.
#[derive(Debug)]
enum Kind {
    /// The life of its own transactions.
    Transactions(Selection),
    /// The headers of the chain.
    Heads(Begin<()>),
    /// The logs of a filter.
    Logs(Begin<LogFilter>),
}

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

fn read(params: &Params<'_>) -> Result<Kind, ErrorObjectOwned> {
    let arguments = Arguments::of(params)?;
    let kind: String = arguments.required(0)?;
    let read = match kind.as_str() {
        "transactions" => Kind::Transactions(arguments.optional(1)?.unwrap_or_default()),
        "newHeads" => Kind::Heads(chain::heads(&arguments)?),
        "logs" => Kind::Logs(chain::logs(&arguments)?),
        other => {
            let shown: String = other.chars().take(64).collect();
            return Err(
                RpcError::new(INVALID_PARAMS, Reason::Unsupported, format!("no \"{shown}\" subscription in sluice namespace")).into()
            );
        }
    };
    arguments.at_most(2)?;
    Ok(read)
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
    // The server puts one there; without it there is nobody to answer.
    let Some(connection) = extensions.get::<ConnectionHandle>().cloned() else { return };
    let refused = match read(params) {
        Ok(Kind::Transactions(selection)) => transactions(selection, pending, service, extensions, connection).await,
        Ok(Kind::Heads(Begin { after, .. })) => of_chain("newHeads", About::Heads, after, pending, service, connection).await,
        Ok(Kind::Logs(Begin { what, after })) => {
            let about = OfLogs { filter: what, source: service.chain.environment().logs };
            of_chain("logs", About::Logs(about), after, pending, service, connection).await
        }
        Err(error) => Err((pending, error)),
    };
    if let Err((pending, error)) = refused {
        pending.reject(error).await;
    }
}

/// A stream that did not begin: who waits for it, and why.
type Refused = (PendingSubscriptionSink, ErrorObjectOwned);

async fn transactions(
    selection: Selection,
    pending: PendingSubscriptionSink,
    service: Arc<Service>,
    extensions: &Extensions,
    connection: ConnectionHandle,
) -> Result<(), Refused> {
    let opened = async {
        let filter = selection.filter(&service, 1)?;
        // Before the answer: what is committed behind it is in the stream.
        let opened = service.lifecycle.open(service.scope(extensions), filter, selection.begin(), Some(&connection));
        opened.await.map_err(|error| open_error(&error))
    };
    let stream = match opened.await {
        Ok(stream) => stream,
        Err(error) => return Err((pending, error)),
    };
    let Some(sink) = connection.accept(pending).await else { return Ok(()) };
    let _open = Open::of(&service, "transactions");
    service.lifecycle.serve(stream, sink, Some(connection)).await;
    Ok(())
}

async fn of_chain(
    name: &str,
    about: About,
    after: Option<B256>,
    pending: PendingSubscriptionSink,
    service: Arc<Service>,
    connection: ConnectionHandle,
) -> Result<(), Refused> {
    let stream = match service.hub.open(about, after).await {
        Ok(stream) => stream,
        Err(error) => return Err((pending, chain::open_error(&error))),
    };
    let Some(sink) = connection.accept(pending).await else { return Ok(()) };
    let _open = Open::of(&service, name);
    stream.serve(sink, connection).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(params: &str) -> String {
        match read(&Params::new(Some(params))).and_then(|kind| match kind {
            Kind::Transactions(selection) => selection.addresses(1).and(selection.ids(1)).map(|ids| format!("{} ids", ids.len())),
            Kind::Heads(Begin { after, .. }) => Ok(format!("heads after {after:?}")),
            Kind::Logs(Begin { what, after }) => Ok(format!("logs of {} after {after:?}", what.addresses.len())),
        }) {
            Ok(told) => told,
            Err(error) => error.message().to_owned(),
        }
    }

    fn begin(after: &str) -> After {
        match read(&Params::new(Some(&format!(r#"["transactions", {{{after}}}]"#)))) {
            Ok(Kind::Transactions(selection)) => selection.begin(),
            other => panic!("{other:?}"),
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
        assert_eq!(begin(""), After::Now);
        assert_eq!(begin(r#""after":"start""#), After::Start);
        assert_eq!(begin(r#""after":"AQ""#), After::Cursor("AQ".into()));
    }

    #[test]
    fn streams_of_the_chain_begin_behind_a_block() {
        let (address, block) = (Address::repeat_byte(1), B256::repeat_byte(7));
        assert_eq!(told(r#"["newHeads"]"#), "heads after None");
        assert_eq!(told(r#"["newHeads", {}]"#), "heads after None");
        assert_eq!(told(&format!(r#"["newHeads", {{"after":"{block}"}}]"#)), format!("heads after Some({block:?})"));
        assert_eq!(told(r#"["logs"]"#), "logs of 0 after None");
        let logs = format!(r#"["logs", {{"address":["{address}"],"topics":[null,["{block}"]],"after":"{block}"}}]"#);
        assert_eq!(told(&logs), format!("logs of 1 after Some({block:?})"));
        for kind in ["newHeads", "logs"] {
            let wrong = |after: &str| told(&format!(r#"["{kind}", {{"after":{after}}}]"#));
            assert_eq!(wrong(r#""0x12""#), "invalid argument 1: after is the hash of a block");
            assert_eq!(wrong(r#""latest""#), "invalid argument 1: after is the hash of a block");
            assert!(wrong("7").starts_with("invalid argument 1: invalid type"), "{}", wrong("7"));
            assert!(told(&format!(r#"["{kind}", {{"fromBlock":"0x1"}}]"#)).contains("unknown field `fromBlock`"));
            assert_eq!(told(&format!(r#"["{kind}", {{}}, 1]"#)), "too many arguments, want at most 2");
        }
        assert_eq!(
            told(r#"["logs", {"topics":["0x12"]}]"#),
            "invalid argument 1: hex has invalid length 1 after decoding; expected 32 for topic"
        );
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
