//! What a checker asks: which transactions are in blocks, which ever were, and how they and their blocks are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde::Serialize;
use serde_json::Value;

use super::chain::{Block, Place};
use super::node::Node;
use super::views;

/// A transaction that is or was in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    /// Who signed it.
    pub sender: Address,
    /// Its nonce.
    pub nonce: u64,
    /// Its hash.
    pub hash: B256,
    /// The block.
    pub block_hash: B256,
    /// The block's number.
    pub block_number: u64,
    /// Whether the block is in the canonical line now.
    pub is_canonical: bool,
    /// Whether it was not reverted.
    pub success: bool,
}

impl Node {
    /// The header of a block, orphaned ones included, as `newHeads` tells it.
    pub fn header(&self, block: B256) -> Option<Value> {
        self.chain.hash(block).map(|block| views::header(block))
    }

    /// The receipt of a transaction in that block, orphaned ones included.
    pub fn receipt(&self, block: B256, transaction: B256) -> Option<Value> {
        let block = self.chain.hash(block)?;
        let index = block.transactions.iter().position(|mined| mined.transaction.hash == transaction)?;
        Some(views::receipt(&Place { block: Arc::clone(block), index }))
    }

    /// The canonical transactions by sender and nonce.
    pub fn mined(&self) -> BTreeMap<(Address, u64), Payload> {
        let blocks = self.chain.canonical().flat_map(|block| self.payloads_of(block));
        blocks.map(|payload| ((payload.sender, payload.nonce), payload)).collect()
    }

    /// Every transaction that was ever in a block, once for each block, orphaned blocks included.
    pub fn payloads(&self) -> Vec<Payload> {
        self.chain.all().into_iter().flat_map(|block| self.payloads_of(block)).collect()
    }

    fn payloads_of<'a>(&'a self, block: &'a Block) -> impl Iterator<Item = Payload> + use<'a> {
        let is_canonical = self.chain.is_canonical(block);
        block.transactions.iter().map(move |mined| Payload {
            sender: mined.transaction.from,
            nonce: mined.transaction.nonce(),
            hash: mined.transaction.hash,
            block_hash: block.hash,
            block_number: block.number(),
            is_canonical,
            success: mined.executed.success,
        })
    }
}
