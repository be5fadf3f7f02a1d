//! `newHeads`.

use std::collections::HashSet;

use alloy_primitives::B256;
use serde_json::Value;

use super::{Verdict, down_to, hash};
use crate::sim_node::Node;

/// The chain as a client makes it of the heads that it is told: each follows a block of the view, and what was above that is orphaned.
#[derive(Debug, Clone)]
pub struct HeadView {
    blocks: Vec<B256>,
    seen: HashSet<B256>,
    /// Whether it is told which blocks are taken back.
    is_explicit: bool,
}

impl HeadView {
    /// For a stream that begins behind the head of now.
    pub fn new(node: &Node) -> Self {
        Self::behind(node, node.chain().head().hash)
    }

    /// For a stream that begins behind this block.
    pub fn behind(node: &Node, block: B256) -> Self {
        let blocks = down_to(node, block);
        Self { seen: blocks.iter().copied().collect(), blocks, is_explicit: false }
    }

    /// The same for a stream that says which blocks are taken back (`removed: true`), newest first, before it tells those in their place.
    #[must_use]
    pub fn explicit(self) -> Self {
        Self { is_explicit: true, ..self }
    }

    /// The next header that was told. An error if it is not the node's, was told before, or follows no block of the view.
    pub fn told(&mut self, node: &Node, head: &Value) -> Verdict {
        let (hash, parent) = (hash(head, "hash")?, hash(head, "parentHash")?);
        let mut truth = node.header(hash).ok_or_else(|| format!("there is no block {hash}"))?;
        if self.is_explicit && head.get("removed").is_some() {
            truth["removed"] = true.into();
            let tip = self.blocks.pop();
            return if truth == *head && tip == Some(hash) {
                Ok(())
            } else {
                Err(format!("{hash} is taken back, the newest is {tip:?}: {head}"))
            };
        }
        if truth != *head {
            return Err(format!("the header of {hash} is another one: {head}"));
        }
        if !self.seen.insert(hash) {
            return Err(format!("{hash} is told twice"));
        }
        let below = self.blocks.iter().rposition(|block| *block == parent).ok_or_else(|| format!("a block before {hash} is missing"))?;
        if self.is_explicit && self.tip() != Some(parent) {
            return Err(format!("blocks before {hash} were not taken back"));
        }
        self.blocks.truncate(below + 1);
        self.blocks.push(hash);
        Ok(())
    }

    /// The newest block that was told.
    pub fn tip(&self) -> Option<B256> {
        self.blocks.last().copied()
    }

    /// Whether everything was told by now.
    pub fn complete(&self, node: &Node) -> Verdict {
        let is_chain = self.blocks.iter().eq(node.chain().canonical().map(|block| &block.hash));
        if is_chain { Ok(()) } else { Err(format!("the view ends with {:?}, the chain with {}", self.tip(), node.chain().head().hash)) }
    }
}
