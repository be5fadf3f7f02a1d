//! The logs of a block: read once for all who ask at the time, and looked through once for all who have the same filter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use alloy_primitives::{Address, B256, Bloom};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use super::block::Block;
use super::filter::LogFilter;
use crate::node::{CallError, Pool};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BlockLogs {
    all: OnceCell<All>,
    /// Those of each filter, for as long as somebody has them.
    found: Mutex<HashMap<Arc<LogFilter>, Weak<Found>>>,
}

/// The logs of a block that a filter is about.
#[derive(Debug, Default)]
pub(super) struct Found(OnceCell<Vec<Arc<RawValue>>>);

impl Found {
    /// In the order of the block.
    pub(super) fn logs(&self) -> &[Arc<RawValue>] {
        self.0.get().map_or(&[], Vec::as_slice)
    }
}

#[derive(Debug)]
struct All {
    logs: Vec<BlockLog>,
    bytes: usize,
}

/// A log and what filters look at.
#[derive(Debug)]
struct BlockLog {
    address: Address,
    topics: Vec<B256>,
    /// As the node gave it.
    json: Arc<RawValue>,
}

#[derive(Deserialize)]
struct LogFacts {
    address: Address,
    topics: Vec<B256>,
}

impl BlockLogs {
    /// Those of this block that the filter is about. All of the block are asked for by whoever wants them first; an error if they are fewer than its bloom
    /// says: there are nodes that answer before they have them.
    pub(super) async fn matching(&self, block: &Block, filter: &Arc<LogFilter>, pool: &Pool) -> Result<Arc<Found>, CallError> {
        let found = self.found(filter);
        let look = async {
            if filter.is_the_nodes_to_judge() {
                return judged(block.place().hash, filter, pool).await;
            }
            let all = self.all.get_or_try_init(|| All::read(block, pool)).await?;
            let ours = all.logs.iter().filter(|log| filter.matches(log.address, &log.topics));
            Ok(ours.map(|log| Arc::clone(&log.json)).collect())
        };
        found.0.get_or_try_init(|| look).await?;
        Ok(found)
    }

    fn found(&self, filter: &Arc<LogFilter>) -> Arc<Found> {
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(filter).and_then(Weak::upgrade) {
            return found;
        }
        // Filters may be large, and who had them gone.
        known.retain(|_, found| found.strong_count() > 0);
        let found = Arc::default();
        known.insert(Arc::clone(filter), Arc::downgrade(&found));
        found
    }

    /// Length of what was read.
    pub(super) fn bytes(&self) -> usize {
        self.all.get().map_or(0, |all| all.bytes)
    }
}

/// The logs of a block that a node finds by the filter.
async fn judged(block: B256, filter: &LogFilter, pool: &Pool) -> Result<Vec<Arc<RawValue>>, CallError> {
    let LogFilter { addresses, topics } = filter;
    let filter = serde_json::json!([{ "blockHash": block, "address": addresses, "topics": topics }]);
    let logs: Vec<Box<RawValue>> = pool.call("eth_getLogs", filter).await?;
    Ok(logs.into_iter().map(Arc::from).collect())
}

impl All {
    async fn read(block: &Block, pool: &Pool) -> Result<Self, CallError> {
        let filter = serde_json::json!([{ "blockHash": block.place().hash }]);
        let logs: Vec<Box<RawValue>> = pool.call("eth_getLogs", filter).await?;
        let bytes = logs.iter().map(|log| log.get().len()).sum();
        let logs = logs.into_iter().map(BlockLog::read).collect::<Result<Vec<_>, _>>()?;
        let mut bloom = Bloom::default();
        logs.iter().for_each(|log| bloom.accrue_raw_log(log.address, &log.topics));
        match &block.bloom {
            Some(whole) if !bloom.contains(whole) => {
                Err(CallError::Malformed("the logs of the block are fewer than its bloom says".to_owned()))
            }
            _ => Ok(Self { logs, bytes }),
        }
    }
}

impl BlockLog {
    fn read(json: Box<RawValue>) -> Result<Self, CallError> {
        let LogFacts { address, topics } = serde_json::from_str(json.get()).map_err(|error| CallError::Malformed(error.to_string()))?;
        Ok(Self { address, topics, json: Arc::from(json) })
    }
}
