//! The filter of a `logs` subscription, read by geth's rules and refused in its words, and written in the one spelling that all
//! filters of the same meaning share. Which blocks a stream may name is the node's to say.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::subscriptions::chain::LogFilter;

/// Positions of topics (geth's bound: a log has no more).
const MAX_TOPICS: usize = 4;
/// Topics in one position (geth's bound).
const MAX_SUB_TOPICS: usize = 1000;
/// Addresses (geth's default bound).
const MAX_ADDRESSES: usize = 1000;

/// Why a filter is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FilterError {
    /// It breaks a rule of the argument; geth's words.
    Invalid(String),
    /// It has more addresses than a node takes; geth's words.
    TooLong(&'static str),
}

/// A topic position; `None` is any topic.
type Position = Option<BTreeSet<B256>>;

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<B256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_block: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_block: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    address: BTreeSet<Address>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topics: Vec<Position>,
}

/// The filter in its one spelling (lower case, sorted, without what changes nothing), and as it is looked for in the blocks of the
/// chain; `None` where it names blocks, of which a node knows what it means.
pub(super) fn normalised(filter: &RawValue) -> Result<(String, Option<LogFilter>), FilterError> {
    let filter = read(filter)?;
    let text = serde_json::to_string(&filter).map_err(|error| FilterError::Invalid(error.to_string()))?;
    let Filter { block_hash, from_block, to_block, address, topics } = filter;
    let names_blocks = block_hash.is_some() || from_block.is_some() || to_block.is_some();
    Ok((text, (!names_blocks).then_some(LogFilter { addresses: address, topics })))
}

fn read(filter: &RawValue) -> Result<Filter, FilterError> {
    let members = match serde_json::from_str(filter.get()) {
        Ok(Value::Object(members)) => members,
        Ok(other) => return Err(invalid(format!("json: cannot unmarshal {} into Go value of type filters.input", go_kind(&other)))),
        Err(error) => return Err(invalid(error.to_string())),
    };
    // Go reads names without regard to case.
    let member =
        |name: &str| members.iter().rfind(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null()).map(|(_, value)| value);
    // In the order in which geth looks: what each member is, then what it says.
    let block_hash = member("blockHash").map(block_hash).transpose()?;
    let from_block = member("fromBlock").map(block).transpose()?;
    let to_block = member("toBlock").map(block).transpose()?;
    let topics = member("topics").map(list).transpose()?;
    if block_hash.is_some() && (from_block.is_some() || to_block.is_some()) {
        return Err(invalid("cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other"));
    }
    let address = member("address").map(addresses).transpose()?.unwrap_or_default();
    let topics = topics.map(positions).transpose()?.unwrap_or_default();
    // A stream begins at the latest block, and does not end, whether that is said or not.
    let said = |block: Option<String>| block.filter(|block| block != "latest");
    let (from_block, to_block) = (said(from_block), said(to_block));
    if address.len() > MAX_ADDRESSES {
        return Err(FilterError::TooLong("exceed max addresses or topics per search position"));
    }
    Ok(Filter { block_hash, from_block, to_block, address, topics })
}

fn addresses(value: &Value) -> Result<BTreeSet<Address>, FilterError> {
    let one = |text: &str| decode(text, "address").map(Address::from);
    match value {
        Value::String(text) => Ok(BTreeSet::from([one(text).map_err(|why| invalid(format!("invalid address: {why}")))?])),
        Value::Array(items) => {
            let each = items.iter().enumerate().map(|(index, item)| {
                let text = item.as_str().ok_or_else(|| invalid(format!("non-string address at index {index}")))?;
                one(text).map_err(|why| invalid(format!("invalid address at index {index}: {why}")))
            });
            each.collect()
        }
        _ => Err(invalid("invalid addresses in query")),
    }
}

fn list(value: &Value) -> Result<&[Value], FilterError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| invalid(go_field(go_kind(value), "topics", "[]interface {}")))
}

fn positions(items: &[Value]) -> Result<Vec<Position>, FilterError> {
    if items.len() > MAX_TOPICS {
        return Err(invalid("exceed max topics"));
    }
    items.iter().map(position).collect()
}

fn position(value: &Value) -> Result<Position, FilterError> {
    let one = |text: &str| decode(text, "topic").map(B256::from).map_err(invalid);
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(BTreeSet::from([one(text)?]))),
        Value::Array(items) if items.len() > MAX_SUB_TOPICS => Err(invalid("exceed max topics")),
        Value::Array(items) => {
            let mut topics = BTreeSet::new();
            for item in items {
                match item {
                    // As in geth, what comes after it is not looked at.
                    Value::Null => return Ok(None),
                    Value::String(text) => topics.insert(one(text)?),
                    _ => return Err(invalid("invalid topic(s)")),
                };
            }
            Ok((!topics.is_empty()).then_some(topics))
        }
        _ => Err(invalid("invalid topic(s)")),
    }
}

fn block_hash(value: &Value) -> Result<B256, FilterError> {
    let told = |what: &str| invalid(go_field(what, "blockHash", "common.Hash"));
    let Value::String(text) = value else { return Err(told("non-string")) };
    if text.is_empty() {
        return Err(invalid("hex string has length 0, want 64 for common.Hash"));
    }
    let text = prefixed(text).map_err(&told)?;
    if text.len() % 2 == 1 {
        return Err(told("hex string of odd length"));
    }
    if text.len() != 64 {
        return Err(invalid(format!("hex string has length {}, want 64 for common.Hash", text.len())));
    }
    digits(text).map(|bytes| B256::from_slice(&bytes)).map_err(told)
}

/// A name or a number.
fn block(value: &Value) -> Result<String, FilterError> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if ["earliest", "latest", "pending", "finalized", "safe"].contains(&text.as_str()) {
        return Ok(text);
    }
    if text.is_empty() {
        return Err(invalid("empty hex string"));
    }
    let digits = prefixed(&text).map_err(invalid)?;
    if digits.is_empty() {
        return Err(invalid("hex string \"0x\""));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(invalid("hex number with leading zero digits"));
    }
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(invalid("invalid hex string"));
    }
    match u64::from_str_radix(digits, 16) {
        Ok(number) if i64::try_from(number).is_ok() => Ok(format!("{number:#x}")),
        Ok(_) => Err(invalid("block number larger than int64")),
        Err(_) => Err(invalid("hex number > 64 bits")),
    }
}

/// geth's `hexutil.Decode` for so many bytes.
fn decode<const N: usize>(text: &str, what: &str) -> Result<[u8; N], String> {
    if text.is_empty() {
        return Err("empty hex string".into());
    }
    let bytes = digits(prefixed(text)?)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("hex has invalid length {length} after decoding; expected {N} for {what}"))
}

fn digits(text: &str) -> Result<Vec<u8>, &'static str> {
    const INVALID: &str = "invalid hex string";
    if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(INVALID);
    }
    if !text.len().is_multiple_of(2) {
        return Err("hex string of odd length");
    }
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| INVALID)
}

fn prefixed(text: &str) -> Result<&str, &'static str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or("hex string without 0x prefix")
}

fn invalid(words: impl Into<String>) -> FilterError {
    FilterError::Invalid(words.into())
}

fn go_field(what: &str, field: &str, kind: &str) -> String {
    format!("json: cannot unmarshal {what} into Go struct field input.{field} of type {kind}")
}

/// What Go's decoder calls a value of another type than the wanted one.
pub(super) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
