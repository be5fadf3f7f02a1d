//! Positional parameters, read one by one with geth's words for what is missing or wrong.

use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::errors::RpcError;
use super::refusals::{invalid_argument, missing_argument};

/// The parameters of one call, not read further than the array.
pub(super) struct Arguments<'a> {
    items: Vec<&'a RawValue>,
}

impl<'a> Arguments<'a> {
    pub(super) fn of(params: &'a Params<'_>) -> Result<Self, ErrorObjectOwned> {
        let Some(text) = params.as_str() else { return Ok(Self { items: Vec::new() }) };
        let items = serde_json::from_str(text).map_err(|_| ErrorObjectOwned::from(RpcError::invalid_params("non-array args")))?;
        Ok(Self { items })
    }

    /// The parameters of a method that has so many of them at most.
    pub(super) fn up_to(params: &'a Params<'_>, count: usize) -> Result<Self, ErrorObjectOwned> {
        let arguments = Self::of(params)?;
        arguments.at_most(count)?;
        Ok(arguments)
    }

    /// The argument as it stands; `null` counts as missing.
    pub(super) fn raw(&self, position: usize) -> Option<&'a RawValue> {
        self.items.get(position).copied().filter(|item| item.get() != "null")
    }

    /// The argument as it stands, `null` too.
    pub(super) fn given(&self, position: usize) -> Option<&'a RawValue> {
        self.items.get(position).copied()
    }

    /// geth's answer to more arguments than a method has.
    pub(super) fn at_most(&self, count: usize) -> Result<(), ErrorObjectOwned> {
        if self.items.len() <= count {
            return Ok(());
        }
        Err(RpcError::invalid_params(format!("too many arguments, want at most {count}")).into())
    }

    pub(super) fn required<T: Deserialize<'a>>(&self, position: usize) -> Result<T, ErrorObjectOwned> {
        self.optional(position)?.ok_or_else(|| missing_argument(position))
    }

    pub(super) fn optional<T: Deserialize<'a>>(&self, position: usize) -> Result<Option<T>, ErrorObjectOwned> {
        let Some(item) = self.raw(position) else { return Ok(None) };
        serde_json::from_str(item.get()).map(Some).map_err(|error| invalid_argument(position, plain(&error)))
    }
}

/// serde's words without its position in a text that the client never saw.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}
