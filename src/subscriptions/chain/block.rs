//! One block of the chain as streams show it: its header as `newHeads` writes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use alloy_primitives::{B256, Bloom, U64};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::Members;
use super::ring::Linked;
use super::told::Place;
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
    /// The header as it is told of a block that is not canonical any more, once it was.
    removed: OnceLock<Arc<RawValue>>,
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

/// Members of a block that its header does not have.
const BODY: [&str; 5] = ["size", "totalDifficulty", "transactions", "uncles", "withdrawals"];

impl Block {
    fn read(header: Arc<RawValue>, is_announced: bool) -> Result<Arc<Self>, CallError> {
        let Header { number, hash, parent_hash, logs_bloom } = serde_json::from_str(header.get()).map_err(malformed)?;
        let bloom = logs_bloom.and_then(|bloom| serde_json::from_str::<Bloom>(bloom.get()).ok()).filter(|bloom| !bloom.is_zero());
        let (orphaned, removed) = (AtomicBool::new(false), OnceLock::new());
        Ok(Arc::new(Self { number: number.to(), hash, parent: parent_hash, bloom, header, is_announced, orphaned, removed }))
    }

    /// The block of this hash as a node announced it, if that was lately.
    pub(super) fn announced(pool: &Pool, hash: B256) -> Option<Arc<Self>> {
        pool.announced(hash).and_then(|header| Self::read(header, true).ok())
    }

    /// The block of this hash as a node has it. `None` if none does.
    pub(super) async fn of_hash(pool: &Pool, hash: B256) -> Result<Option<Arc<Self>>, CallError> {
        let mut found: Option<Box<RawValue>> = pool.call("eth_getBlockByHash", (hash, false)).await?;
        // Another node may have seen a branch that this one has not.
        if found.is_none() && pool.readers().len() > 1 {
            let answers = pool.call_every::<Option<Box<RawValue>>>("eth_getBlockByHash", (hash, false)).await;
            found = answers.into_iter().filter_map(Result::ok).flatten().next();
        }
        let Some(block) = found else { return Ok(None) };
        let found = Self::read(header_of(&block, pool.newest_announced().as_deref())?, false)?;
        if found.hash == hash { Ok(Some(found)) } else { Err(malformed(format_args!("asked for block {hash}, it is {}", found.hash))) }
    }

    /// The block that a node calls by this name or number. `None` if it has none.
    pub(super) async fn called(pool: &Pool, name: &str) -> Result<Option<Arc<Self>>, CallError> {
        let Some(block) = pool.call::<Option<Box<RawValue>>>("eth_getBlockByNumber", (name, false)).await? else { return Ok(None) };
        Self::read(header_of(&block, pool.newest_announced().as_deref())?, false).map(Some)
    }

    /// Its place in the chain.
    pub(super) fn place(&self) -> Place {
        Place { number: self.number, hash: self.hash }
    }

    /// The place below it.
    pub(super) fn place_below(&self) -> Place {
        Place { number: self.number.saturating_sub(1), hash: self.parent }
    }

    /// The header, with `removed: true`.
    pub(super) fn removed_header(&self) -> Result<Arc<RawValue>, serde_json::Error> {
        match self.removed.get() {
            Some(removed) => Ok(Arc::clone(removed)),
            None => removed(&self.header).map(|header| Arc::clone(self.removed.get_or_init(|| header))),
        }
    }

    /// A reorg took it back, or made it canonical again.
    pub(super) fn orphan(&self, is_orphaned: bool) {
        self.orphaned.store(is_orphaned, Ordering::Release);
    }

    /// Whether a reorg took it back.
    pub(super) fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
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

/// The same log, or header, of a block that is not canonical any more.
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
