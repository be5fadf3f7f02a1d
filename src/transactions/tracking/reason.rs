//! Why an execution failed: what a replay of the transaction on the block before its own answers. Best effort: a node without that
//! state, or other transactions before it in the block, may answer something else or nothing.

use alloy_primitives::{B256, U256, hex};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::node::{CallError, NodeError, Pool};

/// Characters of a reason, at most.
const LENGTH: usize = 200;
/// What the replay is made with; prices are left out, so that funds do not matter.
const FIELDS: [&str; 7] = ["from", "to", "gas", "value", "input", "accessList", "authorizationList"];

/// The reason, if the nodes tell one before the deadline.
pub(super) async fn reason(pool: &Pool, hash: B256, block: u64, deadline: Instant) -> Option<String> {
    let replay = async {
        let transaction: Value = pool.call("eth_getTransactionByHash", (hash,)).await.ok()?;
        let parent = format!("{:#x}", block.checked_sub(1)?);
        match pool.call::<Value>("eth_call", (call(&transaction)?, parent)).await {
            Err(CallError::Node(error)) => read(&error),
            _ => None,
        }
    };
    timeout_at(deadline, replay).await.ok().flatten()
}

/// The transaction as a call.
fn call(transaction: &Value) -> Option<Value> {
    let fields = transaction.as_object()?;
    let is_wanted = |name: &str, value: &Value| FIELDS.contains(&name) && !value.is_null();
    Some(fields.iter().filter(|(name, value)| is_wanted(name, value)).map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// What an error of `eth_call` says: the data that the code reverted with, else the node's words.
fn read(error: &NodeError) -> Option<String> {
    let data = error.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok());
    let reason = data.as_ref().and_then(bytes).and_then(|data| decode(&data)).unwrap_or_else(|| error.message.clone());
    let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH).collect();
    (!reason.trim().is_empty()).then_some(reason)
}

/// The bytes in an error's data: a hex string, with words before it or inside an object, depending on the client.
fn bytes(data: &Value) -> Option<Vec<u8>> {
    match data {
        Value::String(text) => text.get(text.find("0x")?..).and_then(|text| hex::decode(text.trim()).ok()),
        Value::Object(fields) => fields.get("data").and_then(bytes),
        _ => None,
    }
}

/// `Error(string)`, `Panic(uint256)`, or the selector of an error that is the contract's own; `None` without data.
fn decode(data: &[u8]) -> Option<String> {
    let (selector, rest) = data.split_first_chunk::<4>()?;
    let told = match selector {
        [0x08, 0xc3, 0x79, 0xa0] => string(rest),
        [0x4e, 0x48, 0x7b, 0x71] => rest.first_chunk::<32>().map(|code| format!("Panic({:#x})", U256::from_be_slice(code))),
        _ => None,
    };
    Some(told.unwrap_or_else(|| format!("error 0x{}", hex::encode(selector))))
}

/// An ABI-encoded string: an offset, a length, the text.
fn string(rest: &[u8]) -> Option<String> {
    let word = |at: usize| {
        let word = rest.get(at..at.checked_add(32)?)?;
        usize::try_from(U256::from_be_slice(word)).ok()
    };
    let at = word(0)?;
    let text = rest.get(at.checked_add(32)?..)?.get(..word(at)?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alloy_primitives::U256;
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;

    fn error(message: &str, data: &Value) -> NodeError {
        NodeError { code: 3, message: message.into(), data: Some(Arc::from(to_raw_value(data).unwrap())) }
    }

    fn encoded(text: &str) -> String {
        let mut data = hex::decode("08c379a0").unwrap();
        data.extend(U256::from(32).to_be_bytes::<32>());
        data.extend(U256::from(text.len()).to_be_bytes::<32>());
        data.extend(text.as_bytes());
        data.resize(data.len().next_multiple_of(32) + 4, 0);
        format!("0x{}", hex::encode(data))
    }

    #[test]
    fn the_standard_errors_are_decoded_wherever_a_client_puts_the_data() {
        let data = encoded("not enough tokens");
        for data in [json!(data), json!(format!("Reverted {data}")), json!({ "data": data })] {
            assert_eq!(read(&error("execution reverted", &data)).as_deref(), Some("not enough tokens"), "{data}");
        }
        let panic = format!("0x4e487b71{:064x}", 0x11);
        assert_eq!(read(&error("execution reverted", &json!(panic))).as_deref(), Some("Panic(0x11)"));
        assert_eq!(read(&error("execution reverted", &json!("0xcf4791810000"))).as_deref(), Some("error 0xcf479181"));
        assert_eq!(read(&error("out of gas", &Value::Null)).as_deref(), Some("out of gas"));
        assert_eq!(read(&error("execution reverted", &json!("0x"))).as_deref(), Some("execution reverted"));
    }

    #[test]
    fn a_reason_is_bounded_and_one_line() {
        let told = read(&error("", &json!(encoded(&"long\n".repeat(1_000))))).unwrap();
        assert!(told.chars().count() == LENGTH && !told.contains('\n'), "{told}");
        // Lengths and offsets that lead nowhere.
        for data in ["0x08c379a0", "0x08c379a0ffff"] {
            assert_eq!(read(&error("", &json!(data))).as_deref(), Some("error 0x08c379a0"));
        }
        let far = format!("0x08c379a0{}{}", "f".repeat(64), "f".repeat(64));
        assert_eq!(read(&error("", &json!(far))).as_deref(), Some("error 0x08c379a0"));
        assert_eq!(read(&error("", &Value::Null)), None);
    }

    #[test]
    fn a_replay_has_the_fields_of_the_transaction_without_its_prices() {
        let transaction = json!({ "from": "0x1", "to": null, "gas": "0x5208", "value": "0x0", "input": "0x", "nonce": "0x4",
            "gasPrice": "0x9", "maxFeePerGas": "0x9", "hash": "0x2", "blockNumber": "0x3", "v": "0x0" });
        let expected = json!({ "from": "0x1", "gas": "0x5208", "value": "0x0", "input": "0x" });
        assert_eq!(call(&transaction), Some(expected));
        assert_eq!(call(&Value::Null), None);
    }
}
