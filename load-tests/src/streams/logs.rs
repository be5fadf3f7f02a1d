//! `logs`.

use std::collections::HashSet;

use alloy_primitives::B256;
use serde_json::Value;

use super::{Verdict, down_to, hash};
use crate::sim_node::Node;

/// The logs that a client has: those of each block whole and in order, behind those of the blocks below it, and taken back newest first when a
/// reorg takes their block.
#[derive(Debug, Clone)]
pub struct LogView {
    filter: Value,
    /// The chain that the stream began behind.
    base: HashSet<B256>,
    /// Blocks with logs that were told and not taken back, and how many of each.
    blocks: Vec<(B256, usize)>,
    /// Whether the newest of them is being taken back.
    is_taken_back: bool,
    /// Whether the client came back by a block: nobody knows any more where it began.
    is_back: bool,
    seen: HashSet<B256>,
}

impl LogView {
    /// For a stream with this filter (`address`, `topics`) that begins behind the head of now.
    pub fn new(node: &Node, filter: Value) -> Self {
        Self::behind(node, filter, node.chain().head().hash)
    }

    /// For a stream that begins behind this block.
    pub fn behind(node: &Node, filter: Value, block: B256) -> Self {
        let base = down_to(node, block).into_iter().collect();
        Self { filter, base, blocks: Vec::new(), is_taken_back: false, is_back: false, seen: HashSet::new() }
    }

    /// The client was away and comes back by the block that it saw last. From here on a reorg may take back logs of blocks that it began behind, too, as it
    /// does on a stream of a node.
    pub fn come_back(&mut self) {
        self.is_back = true;
    }

    /// The next log that was told. An error if a node without a gap would have told another one.
    pub fn told(&mut self, node: &Node, log: &Value) -> Verdict {
        let block = hash(log, "blockHash")?;
        let is_removed = log.get("removed").and_then(Value::as_bool).ok_or_else(|| format!("neither there nor removed: {log}"))?;
        let expected = if is_removed { self.taken_back(node, block)? } else { self.added(node, block)? };
        if expected == *log { Ok(()) } else { Err(format!("told was {log}, and next was {expected}")) }
    }

    /// The newest block of which there are logs.
    pub fn tip(&self) -> Option<B256> {
        self.blocks.last().map(|(block, _)| *block)
    }

    /// Whether all logs of the newest block are told, and none of them is taken back.
    pub fn is_whole(&self, node: &Node) -> bool {
        let whole = |(block, count): &(B256, usize)| self.logs_of(node, *block, false).is_ok_and(|logs| logs.len() == *count);
        !self.is_taken_back && self.blocks.last().is_none_or(whole)
    }

    /// Whether everything was told by now.
    pub fn complete(&self, node: &Node) -> Verdict {
        let mut expected = Vec::new();
        for block in node.chain().canonical().filter(|block| !self.base.contains(&block.hash)) {
            let count = self.logs_of(node, block.hash, false)?.len();
            expected.extend((count > 0).then_some((block.hash, count)));
        }
        if expected == self.blocks {
            Ok(())
        } else {
            Err(format!("the logs end with those of {:?}, the chain's with those of {:?}", self.blocks.last(), expected.last()))
        }
    }

    fn logs_of(&self, node: &Node, block: B256, is_removed: bool) -> Result<Vec<Value>, String> {
        node.logs_of(block, &self.filter, is_removed).map_err(|error| format!("{block}: {}", error.message))
    }

    /// A log of this block; which one it has to be.
    fn added(&mut self, node: &Node, block: B256) -> Result<Value, String> {
        if self.is_taken_back {
            return Err(format!("a log of {block}, while another block is taken back by halves"));
        }
        let all = self.logs_of(node, block, false)?;
        let place = match self.blocks.last_mut() {
            Some((newest, count)) if *newest == block => {
                *count += 1;
                *count - 1
            }
            _ => {
                self.joins(node, block)?;
                if !self.seen.insert(block) {
                    return Err(format!("the logs of {block} are told twice"));
                }
                self.blocks.push((block, 1));
                0
            }
        };
        all.get(place).cloned().ok_or_else(|| format!("more logs of {block} than it has for {}", self.filter))
    }

    /// The logs of the newest block are whole, this block is above it, and there are none in between.
    fn joins(&self, node: &Node, block: B256) -> Verdict {
        if let Some((newest, count)) = self.blocks.last()
            && self.logs_of(node, *newest, false)?.len() != *count
        {
            return Err(format!("logs of {newest} are missing before those of {block}"));
        }
        let mut at = block;
        loop {
            at = node.chain().hash(at).ok_or_else(|| format!("there is no block {at}"))?.header.parent_hash;
            match self.tip() {
                Some(newest) if newest == at => return Ok(()),
                Some(newest) if self.base.contains(&at) => {
                    return Err(format!("{block} is not above {newest}, whose logs were not taken back"));
                }
                None if self.base.contains(&at) => return Ok(()),
                _ if !self.logs_of(node, at, false)?.is_empty() => {
                    return Err(format!("the logs of {at} are missing before those of {block}"));
                }
                _ => {}
            }
        }
    }

    /// A log of this block is taken back; which one it has to be.
    fn taken_back(&mut self, node: &Node, block: B256) -> Result<Value, String> {
        if self.is_back && self.blocks.is_empty() && self.base.contains(&block) {
            self.blocks.push((block, self.logs_of(node, block, true)?.len()));
        }
        let Some((newest, left)) = self.blocks.last().copied() else {
            return Err(format!("a log of {block} is taken back that was not told"));
        };
        let all = self.logs_of(node, newest, true)?;
        if newest != block || (!self.is_taken_back && left != all.len()) {
            return Err(format!("a log of {block} is taken back, and the newest are {left} of {newest}"));
        }
        self.is_taken_back = left > 1;
        match self.blocks.last_mut() {
            Some((_, count)) if left > 1 => *count -= 1,
            _ => drop(self.blocks.pop()),
        }
        all.get(all.len() - left).cloned().ok_or_else(|| format!("more logs of {block} than it has"))
    }
}
