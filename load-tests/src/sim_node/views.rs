//! Blocks, transactions and receipts as JSON-RPC writes them.

use alloy_consensus::Transaction as _;
use alloy_primitives::{U64, U128};
use serde_json::{Value, json};

use super::chain::{Block, Place};
use super::logs;
use super::transaction::Transaction;

/// A header, as `newHeads` tells it.
pub(super) fn header(block: &Block) -> Value {
    let mut header = serde_json::to_value(&block.header).unwrap_or_default();
    header["hash"] = json!(block.hash);
    header
}

/// A block, with whole transactions or their hashes.
pub(super) fn block(block: &std::sync::Arc<Block>, whole: bool) -> Value {
    let mut view = header(block);
    let transactions = block.transactions.iter().enumerate().map(|(index, mined)| match whole {
        true => transaction(&mined.transaction, Some(&Place { block: block.clone(), index })),
        false => json!(mined.transaction.hash),
    });
    view["transactions"] = transactions.collect();
    view["uncles"] = json!([]);
    view["size"] = json!(U64::from(540 + block.transactions.iter().map(|mined| mined.transaction.raw.len()).sum::<usize>()));
    view
}

/// A transaction, with its place if it has one.
pub(super) fn transaction(transaction: &Transaction, place: Option<&Place>) -> Value {
    let mut view = serde_json::to_value(&transaction.envelope).unwrap_or_default();
    view["from"] = json!(transaction.from);
    view["blockHash"] = json!(place.map(|place| place.block.hash));
    view["blockNumber"] = json!(place.map(|place| U64::from(place.block.number())));
    view["transactionIndex"] = json!(place.map(|place| U64::from(place.index)));
    let price = place.and_then(Place::mined).map_or(transaction.cap(), |mined| mined.executed.price);
    view["gasPrice"] = json!(U128::from(price));
    view
}

/// The receipt of what is at this place.
pub(super) fn receipt(place: &Place) -> Value {
    let Some(mined) = place.mined() else { return Value::Null };
    let (transaction, executed) = (&mined.transaction, &mined.executed);
    json!({
        "type": U64::from(transaction.envelope.tx_type() as u8),
        "status": U64::from(executed.success),
        "cumulativeGasUsed": U64::from(mined.cumulative_gas),
        "logs": logs::of(&place.block, place.index, false).map(|(_, told)| told).collect::<Value>(),
        "logsBloom": logs::bloom(&executed.logs),
        "transactionHash": transaction.hash,
        "transactionIndex": U64::from(place.index),
        "blockHash": place.block.hash,
        "blockNumber": U64::from(place.block.number()),
        "gasUsed": U64::from(executed.gas_used),
        "effectiveGasPrice": U128::from(executed.price),
        "from": transaction.from,
        "to": transaction.envelope.to(),
        "contractAddress": executed.contract,
    })
}
