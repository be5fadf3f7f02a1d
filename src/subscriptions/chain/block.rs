//! One block of the chain as streams show it: its header as `newHeads` writes it, and its logs, which are fetched once somebody wants them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloy_primitives::{Address, B256, Bloom, U64};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use super::filter::LogFilter;
use super::members::Members;
use super::ring::Linked;
use crate::node::{CallError, Pool};

/// See the module.
#[derive(Debug)]
pub(super) struct Block {
    number: u64,
    hash: B256,
    parent: B256,
    /// As a node announces it.
    pub(super) header: Arc<RawValue>,
    /// Whether one did.
    pub(super) is_announced: bool,
    /// `None` where the chain has none, or an empty one: there are chains whose headers have that beside logs.
    pub(super) bloom: Option<Bloom>,
    /// It is not canonical any more.
    orphaned: AtomicBool,
}

/// The logs of a block: read once, kept for as long as somebody reads them.
#[derive(Debug, Default)]
pub(super) struct BlockLogs(OnceCell<Vec<BlockLog>>);

/// A log and what filters look at.
#[derive(Debug)]
struct BlockLog {
    address: Address,
    topics: Vec<B256>,
    /// As the node gave it.
    json: Arc<RawValue>,
}

impl Linked for Arc<Block> {
    fn number(&self) -> u64 {
        self.number
    }

    fn hash(&self) -> B256 {
        self.hash
    }

    fn parent(&self) -> B256 {
        self.parent
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    number: U64,
    hash: B256,
    parent_hash: B256,
    /// Not every chain has one.
    #[serde(default, borrow)]
    logs_bloom: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LogFacts {
    address: Address,
    topics: Vec<B256>,
}

/// Members of a block that its header does not have.
const BODY: [&str; 5] = ["size", "totalDifficulty", "transactions", "uncles", "withdrawals"];

impl Block {
    fn read(header: Arc<RawValue>, is_announced: bool) -> Result<Arc<Self>, CallError> {
        let Header { number, hash, parent_hash, logs_bloom } = serde_json::from_str(header.get()).map_err(malformed)?;
        let bloom = logs_bloom.and_then(|bloom| serde_json::from_str::<Bloom>(bloom.get()).ok()).filter(|bloom| !bloom.is_zero());
        Ok(Arc::new(Self { number: number.to(), hash, parent: parent_hash, bloom, header, is_announced, orphaned: AtomicBool::new(false) }))
    }

    /// The block of this hash: as it was announced, else as a node has it. `None` if that node does not.
    pub(super) async fn find(pool: &Pool, hash: B256) -> Result<Option<Arc<Self>>, CallError> {
        if let Some(header) = pool.announced(hash) {
            return Self::read(header, true).map(Some);
        }
        let Some(block) = pool.call::<Option<Box<RawValue>>>("eth_getBlockByHash", (hash, false)).await? else { return Ok(None) };
        let found = Self::read(header_of(&block, pool.newest_announced().as_deref())?, false)?;
        if found.hash == hash { Ok(Some(found)) } else { Err(malformed(format_args!("asked for block {hash}, it is {}", found.hash))) }
    }

    /// The newest block that a node has.
    pub(super) async fn latest(pool: &Pool) -> Result<Arc<Self>, CallError> {
        let block = pool.call::<Box<RawValue>>("eth_getBlockByNumber", ("latest", false)).await?;
        let found = Self::read(header_of(&block, pool.newest_announced().as_deref())?, false)?;
        // As it was announced, if it was.
        pool.announced(found.hash).map_or(Ok(found), |header| Self::read(header, true))
    }

    /// A reorg took it back.
    pub(super) fn orphan(&self) {
        self.orphaned.store(true, Ordering::Release);
    }

    /// Whether a reorg took it back.
    pub(super) fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
    }
}

impl BlockLogs {
    /// Those of this block that the filter is about. All of the block are asked for by whoever wants them first; an error if they are fewer than its bloom
    /// says: there are nodes that answer before they have them.
    pub(super) async fn matching(&self, block: &Block, filter: &LogFilter, pool: &Pool) -> Result<Vec<Arc<RawValue>>, CallError> {
        if filter.is_the_nodes_to_judge() {
            let LogFilter { addresses, topics } = filter;
            let filter = serde_json::json!([{ "blockHash": block.hash, "address": addresses, "topics": topics }]);
            let logs: Vec<Box<RawValue>> = pool.call("eth_getLogs", filter).await?;
            return Ok(logs.into_iter().map(Arc::from).collect());
        }
        let ask = async {
            let filter = serde_json::json!([{ "blockHash": block.hash }]);
            let logs: Vec<Box<RawValue>> = pool.call("eth_getLogs", filter).await?;
            let logs = logs.into_iter().map(BlockLog::read).collect::<Result<Vec<_>, _>>()?;
            let mut bloom = Bloom::default();
            logs.iter().for_each(|log| bloom.accrue_raw_log(log.address, &log.topics));
            match &block.bloom {
                Some(whole) if !bloom.contains(whole) => Err(malformed("the logs of the block are fewer than its bloom says")),
                _ => Ok(logs),
            }
        };
        let logs = self.0.get_or_try_init(|| ask).await?;
        let ours = logs.iter().filter(|log| filter.matches(log.address, &log.topics));
        Ok(ours.map(|log| Arc::clone(&log.json)).collect())
    }
}

impl BlockLog {
    fn read(json: Box<RawValue>) -> Result<Self, CallError> {
        let LogFacts { address, topics } = serde_json::from_str(json.get()).map_err(malformed)?;
        Ok(Self { address, topics, json: Arc::from(json) })
    }
}

/// The header of a block, with the members that announced headers have, where one is known.
fn header_of(block: &RawValue, like: Option<&RawValue>) -> Result<Arc<RawValue>, CallError> {
    let members: Members<'_> = serde_json::from_str(block.get()).map_err(malformed)?;
    let known: Option<Members<'_>> = like.and_then(|like| serde_json::from_str(like.get()).ok());
    let belongs = |name: &str| match &known {
        Some(known) => known.0.iter().any(|(other, _)| other == name),
        None => !BODY.contains(&name),
    };
    members.written(|name, value| belongs(name).then(|| value.get())).map(Arc::from).map_err(malformed)
}

/// The same log, of a block that is not canonical any more.
pub(super) fn removed(log: &RawValue) -> Result<Arc<RawValue>, serde_json::Error> {
    let mut members: Members<'_> = serde_json::from_str(log.get())?;
    let yes: &RawValue = serde_json::from_str("true")?;
    match members.0.iter_mut().find(|(name, _)| name == "removed") {
        Some((_, is_removed)) => *is_removed = yes,
        None => members.0.push(("removed".into(), yes)),
    }
    members.written(|_, value| Some(value.get())).map(Arc::from)
}

fn malformed(error: impl std::fmt::Display) -> CallError {
    CallError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_block_becomes_the_header_that_a_node_announces() {
        let block = raw(r#"{"number":"0x1","gasUsed":"0x0","size":"0x200","transactions":["0x1"],"uncles":[],"mixHash":"0x2"}"#);
        assert_eq!(header_of(&block, None).unwrap().get(), r#"{"number":"0x1","gasUsed":"0x0","mixHash":"0x2"}"#);
        let like = raw(r#"{"size":"0x1","number":"0x0","mixHash":"0x1","parentHash":"0x2"}"#);
        assert_eq!(header_of(&block, Some(&like)).unwrap().get(), r#"{"number":"0x1","size":"0x200","mixHash":"0x2"}"#);
        assert!(header_of(&raw("[]"), None).is_err());
    }

    #[test]
    fn a_removed_log_differs_in_that_alone() {
        let log = raw(r#"{"address":"0x01","removed":false,"data":"0x"}"#);
        assert_eq!(removed(&log).unwrap().get(), r#"{"address":"0x01","removed":true,"data":"0x"}"#);
        assert_eq!(removed(&raw(r#"{"data":"0x"}"#)).unwrap().get(), r#"{"data":"0x","removed":true}"#, "a node that leaves it out");
    }
}
