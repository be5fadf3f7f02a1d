//! `newHeads` and `logs` of `sluice_subscribe`: the chain, from a block on that the client names.

use alloy_primitives::B256;
use jsonrpsee::types::ErrorObjectOwned;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::rpc::arguments::Arguments;
use crate::rpc::errors::{RESOURCE_NOT_FOUND, Reason, RpcError};
use crate::rpc::log_filter::normalised;
use crate::rpc::pass_through::call_error;
use crate::rpc::refusals::invalid_argument;
use crate::rpc::subscribe::filter_error;
use crate::subscriptions::chain::LogFilter;
use crate::subscriptions::hub::OpenError;

/// What is streamed, and the block that the client has seen last.
#[derive(Debug, PartialEq)]
pub(super) struct Begin<T> {
    pub(super) what: T,
    pub(super) after: Option<B256>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HeadOptions {
    after: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LogOptions {
    address: Option<Box<RawValue>>,
    topics: Option<Box<RawValue>>,
    after: Option<String>,
}

fn after(text: Option<String>) -> Result<Option<B256>, ErrorObjectOwned> {
    let block = |text: String| text.parse().map_err(|_| invalid_argument(1, "after is the hash of a block"));
    text.map(block).transpose()
}

/// Options of `newHeads`.
pub(super) fn heads(arguments: &Arguments<'_>) -> Result<Begin<()>, ErrorObjectOwned> {
    let options: HeadOptions = arguments.optional(1)?.unwrap_or_default();
    Ok(Begin { what: (), after: after(options.after)? })
}

/// Options of `logs`. The filter names no blocks: which they are is said by `after`.
pub(super) fn logs(arguments: &Arguments<'_>) -> Result<Begin<LogFilter>, ErrorObjectOwned> {
    let LogOptions { address, topics, after: block } = arguments.optional(1)?.unwrap_or_default();
    let filter = to_raw_value(&serde_json::json!({ "address": address, "topics": topics }));
    let filter = filter.map_err(|error| invalid_argument(1, error))?;
    let (_, filter) = normalised(&filter).map_err(filter_error)?;
    Ok(Begin { what: filter.unwrap_or_default(), after: after(block)? })
}

/// How a client is told that its stream cannot begin.
pub(super) fn open_error(error: &OpenError) -> ErrorObjectOwned {
    match error {
        OpenError::Unknown(_) => RpcError::new(RESOURCE_NOT_FOUND, Reason::NotFound, error.to_string()).into(),
        OpenError::Call(error) => call_error(error),
    }
}
