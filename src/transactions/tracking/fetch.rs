//! What is fetched of the chain: blocks with the hashes of their transactions, and receipts.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{B256, U64};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::reason;
use crate::node::{CallError, Pool};

/// Look-ups in flight.
pub(super) const LOOK_UPS: usize = 64;
/// Blocks that are asked for by number at the same time.
const BLOCKS: usize = 16;
/// Time for the reasons of all failed executions of a block together, and for that of one that was looked up.
pub(super) const REASONS: Duration = Duration::from_secs(1);

/// A hash and what the node has of its receipt.
pub(super) type LookedUp = (B256, Result<Option<Found>, CallError>);

/// A receipt, what it says, and why execution failed if it did.
pub(super) struct Found {
    pub(super) json: Arc<RawValue>,
    pub(super) facts: ReceiptFacts,
    pub(super) reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockBody {
    pub(super) hash: B256,
    pub(super) number: U64,
    pub(super) parent_hash: B256,
    pub(super) transactions: Vec<B256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceiptFacts {
    pub(super) block_hash: B256,
    pub(super) block_number: U64,
    #[serde(default)]
    pub(super) transaction_index: U64,
    pub(super) status: Option<U64>,
}

impl ReceiptFacts {
    pub(super) fn succeeded(&self) -> bool {
        self.status.is_none_or(|status| status == U64::from(1))
    }
}

pub(super) async fn block(pool: &Pool, hash: B256) -> Result<BlockBody, CallError> {
    pool.call::<Option<BlockBody>>("eth_getBlockByHash", (hash, false))
        .await?
        .ok_or_else(|| CallError::Malformed(format!("the node does not have block {hash} that it announced")))
}

/// Blocks by these numbers, some at a time, as far as the nodes tell them without a fault: a walk by hash finds what it needs in them, and the rest by itself.
pub(super) async fn ahead(pool: &Pool, numbers: Range<u64>) -> HashMap<B256, BlockBody> {
    let ask = |number| async move { pool.call::<Option<BlockBody>>("eth_getBlockByNumber", (U64::from(number), false)).await };
    let mut answers = stream::iter(numbers.rev()).map(ask).buffer_unordered(BLOCKS);
    let mut found = HashMap::new();
    while let Some(Ok(body)) = answers.next().await {
        found.extend(body.map(|body| (body.hash, body)));
    }
    found
}

/// Each hash with whether the reason of a failure is wanted.
pub(super) async fn receipts_of(pool: Pool, hashes: Vec<(B256, bool)>) -> Vec<LookedUp> {
    let until = tokio::time::Instant::now() + REASONS;
    let read = |(hash, reasons): (B256, bool)| receipt(pool.clone(), hash, reasons.then_some(until));
    stream::iter(hashes).map(read).buffered(LOOK_UPS).collect().await
}

pub(super) async fn receipt(pool: Pool, hash: B256, reasons_until: Option<tokio::time::Instant>) -> LookedUp {
    let mut found = read_receipt(&pool, hash).await;
    if let (Ok(Some(found)), Some(until)) = (&mut found, reasons_until)
        && !found.facts.succeeded()
    {
        found.reason = reason::reason(&pool, hash, found.facts.block_number.to(), until).await;
    }
    (hash, found)
}

async fn read_receipt(pool: &Pool, hash: B256) -> Result<Option<Found>, CallError> {
    let params = serde_json::value::to_raw_value(&(hash,)).map_err(|error| CallError::Malformed(error.to_string()))?;
    let json = pool.call_raw("eth_getTransactionReceipt", Some(&params)).await?;
    if json.get() == "null" {
        return Ok(None);
    }
    let facts = serde_json::from_str(json.get()).map_err(|error| CallError::Malformed(error.to_string()))?;
    Ok(Some(Found { json, facts, reason: None }))
}
