//! A contract that logs what it is told.

use alloy_primitives::B256;
use serde_json::Value;

/// Its creation code. A call with two words emits one log: the first word is its topic, the second its data.
pub(crate) const CODE: &str = concat!(
    "0x600f80600b6000396000f3", // creation: copies the 15 bytes behind it and returns them
    "602035600052",             // memory[0..32] = second word
    "6000356020",               // topic = first word, size = 32
    "6000a100"                  // offset = 0, LOG1, STOP
);

/// The data of a call.
pub(crate) fn call(topic: B256, number: u64) -> String {
    format!("{topic}{number:064x}")
}

/// The number in a log.
pub(crate) fn number(log: &Value) -> u64 {
    u64::from_str_radix(log["data"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}
