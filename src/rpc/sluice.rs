//! The `sluice_` namespace: what is on record of a principal's own transactions and accounts. docs/sluice-namespace.md describes
//! it for clients.

mod views;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, U64};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::views::{AccountView, LifeView, ListView};
use super::arguments::Arguments;
use super::errors::{INVALID_PARAMS, LIMIT_EXCEEDED, RESOURCE_NOT_FOUND, RESOURCE_UNAVAILABLE, Reason, RpcError};
use super::eth::raw;
use super::refusals::invalid_argument;
use super::service::{Service, connection, waited_all};
use super::sluice_subscribe::{Selection, open_error};
use crate::journal::TransactionId;
use crate::journal::history::{Life, ListQuery, Name, Shown};
use crate::subscriptions::lifecycle::cursor::{Cursor, Seal};
use crate::subscriptions::lifecycle::{OpenError, ReadError};

type Answer = Result<Arc<RawValue>, ErrorObjectOwned>;

/// Transactions on one page of a list, if the client does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 500;

/// Registers the methods.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_async_method("sluice_getTransaction", |params, service, extensions| async move {
        let answer = transaction(&params, &service, &extensions).await;
        waited_all(&extensions);
        answer
    })?;
    module.register_async_method("sluice_listTransactions", |params, service, extensions| async move {
        let answer = list(&params, &service, &extensions).await;
        waited_all(&extensions);
        answer
    })?;
    module.register_async_method("sluice_getAccount", |params, service, extensions| async move {
        let answer = account(&params, &service, &extensions).await;
        waited_all(&extensions);
        answer
    })?;
    module.register_async_method("sluice_getCursor", |params, service, extensions| async move {
        let answer = cursor(&params, &service, &extensions).await;
        waited_all(&extensions);
        answer
    })?;
    Ok(())
}

/// The journal cannot be read now, or is asked too much.
pub(super) fn unread(error: &ReadError) -> ErrorObjectOwned {
    const AGAIN: Duration = Duration::from_secs(1);
    match error {
        ReadError::Busy => RpcError::new(LIMIT_EXCEEDED, Reason::LimitExceeded, error.to_string()).retry_after(AGAIN).into(),
        ReadError::Journal(error) => {
            tracing::warn!(%error, "a client's question to the journal has no answer");
            RpcError::new(RESOURCE_UNAVAILABLE, Reason::JournalUnavailable, "the journal cannot be read").into()
        }
    }
}

/// An id as Sluice writes it.
pub(super) fn parse_id(text: &str) -> Option<TransactionId> {
    /// Of the forms that the parser knows, the one with hyphens.
    const LENGTH: usize = 36;
    (text.len() == LENGTH).then(|| Uuid::parse_str(text).ok()).flatten().map(TransactionId)
}

fn name(text: &str) -> Option<Name> {
    match text.strip_prefix("0x") {
        Some(_) => text.parse::<B256>().ok().map(Name::Hash),
        None => parse_id(text).map(Name::Id),
    }
}

/// The transaction of this name, of the caller's own.
pub(super) async fn find(service: &Service, extensions: &Extensions, name: Name) -> Result<Life, ErrorObjectOwned> {
    let found = service
        .lifecycle
        .read(connection(extensions), |history| history.life(service.scope(extensions), name))
        .await
        .map_err(|error| unread(&error))?;
    found.ok_or_else(|| {
        let text = match name {
            Name::Id(id) => id.to_string(),
            Name::Hash(hash) => hash.to_string(),
        };
        RpcError::new(RESOURCE_NOT_FOUND, Reason::NotFound, format!("no transaction {text} of this service")).into()
    })
}

async fn transaction(params: &Params<'_>, service: &Service, extensions: &Extensions) -> Answer {
    let text: String = Arguments::up_to(params, 1)?.required(0)?;
    let name = name(&text).ok_or_else(|| invalid_argument(0, "neither a transaction id nor a transaction hash"))?;
    raw(&LifeView::new(&find(service, extensions, name).await?))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListOptions {
    from: Option<Address>,
    state: Option<String>,
    #[serde(default)]
    order: Order,
    limit: Option<U64>,
    after: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum Order {
    #[default]
    Newest,
    Oldest,
}

async fn list(params: &Params<'_>, service: &Service, extensions: &Extensions) -> Answer {
    let options: ListOptions = Arguments::up_to(params, 1)?.optional(0)?.unwrap_or_default();
    let from = options.from.map(|from| service.own_address(from)).transpose()?;
    let state = options.state.as_deref().map(state).transpose()?;
    let limit = options.limit.map_or(Ok(PAGE), limit)?;
    let ascending = options.order == Order::Oldest;
    let scope = service.scope(extensions);
    let selection = json!({ "from": from, "state": state.map(Shown::as_str), "ascending": ascending });
    let seal = Seal::of_list(&scope, &selection);
    let after = options.after.as_deref().map(|text| read_after(text, seal)).transpose()?;
    let query = ListQuery { from, state, ascending, after, limit };
    let page =
        service.lifecycle.read(connection(extensions), |history| history.list(scope, query)).await.map_err(|error| unread(&error))?;
    let next = page.next.map(|id| Cursor::new(seal, *id.0.as_bytes(), &[]).to_string());
    raw(&ListView::new(&page.transactions, next))
}

fn state(word: &str) -> Result<Shown, ErrorObjectOwned> {
    Shown::parse(word).ok_or_else(|| {
        let words = Shown::words().join(", ");
        invalid_argument(0, format_args!("state is one of {words}"))
    })
}

fn limit(limit: U64) -> Result<usize, ErrorObjectOwned> {
    let limit: u64 = limit.to();
    let size = usize::try_from(limit).ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    size.ok_or_else(|| invalid_argument(0, format_args!("limit is from 1 to {MAX_PAGE}")))
}

fn read_after(text: &str, seal: Seal) -> Result<TransactionId, ErrorObjectOwned> {
    let invalid = |error: OpenError| RpcError::new(INVALID_PARAMS, Reason::InvalidCursor, error.to_string());
    let cursor = Cursor::<16>::parse(text).ok_or_else(|| invalid(OpenError::Garbled))?;
    if !cursor.is_of(seal, &[]) {
        let words = "the cursor is not of this service, principal, chain and selection";
        return Err(RpcError::new(INVALID_PARAMS, Reason::InvalidCursor, words).into());
    }
    Ok(TransactionId(Uuid::from_bytes(cursor.place())))
}

async fn account(params: &Params<'_>, service: &Service, extensions: &Extensions) -> Answer {
    let address = service.own_address(Arguments::up_to(params, 1)?.required(0)?)?;
    let scope = service.scope(extensions);
    let chain_id = scope.chain_id;
    let (record, live) = tokio::join!(
        service.lifecycle.read(connection(extensions), |history| history.account_record(scope, address)),
        service.chain.figures(address)
    );
    let record = record.map_err(|error| unread(&error))?;
    raw(&AccountView::new(chain_id, address, record.as_ref(), live.ok()))
}

/// The cursor behind everything so far: to be asked for before something is sent, so that nothing of it is missed.
async fn cursor(params: &Params<'_>, service: &Service, extensions: &Extensions) -> Answer {
    let selection: Selection = Arguments::up_to(params, 1)?.optional(0)?.unwrap_or_default();
    if selection.is_begun() {
        return Err(invalid_argument(0, "after is for sluice_subscribe: the cursor is always that of now"));
    }
    let filter = selection.filter(service, 0)?;
    let cursor =
        service.lifecycle.cursor(service.scope(extensions), &filter, connection(extensions)).await.map_err(|error| open_error(&error))?;
    raw(&cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::AttemptState;

    #[test]
    fn a_transaction_is_named_by_id_or_hash() {
        let id = TransactionId::new();
        assert_eq!(name(&id.to_string()), Some(Name::Id(id)));
        assert_eq!(name(&id.to_string().to_uppercase()), Some(Name::Id(id)));
        let hash = B256::repeat_byte(0xab);
        assert_eq!(name(&hash.to_string()), Some(Name::Hash(hash)));
        let simple = id.0.simple().to_string();
        for bad in ["", "0x", "0x12", "latest", simple.as_str(), &format!("{{{id}}}"), &hash.to_string()[2..], "0xzz"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_and_states_are_told() {
        assert_eq!(limit(U64::from(500)).unwrap(), 500);
        for bad in [0, 501, u64::MAX] {
            assert_eq!(limit(U64::from(bad)).unwrap_err().message(), "invalid argument 0: limit is from 1 to 500");
        }
        assert_eq!(state("broadcast").unwrap(), Shown::Attempt(AttemptState::Broadcast));
        assert_eq!(state("cancelled").unwrap(), Shown::Cancelled);
        let told = state("mined").unwrap_err();
        assert!(told.message().starts_with("invalid argument 0: state is one of queued, committed, held, "), "{}", told.message());
    }
}
