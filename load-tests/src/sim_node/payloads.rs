//! What a checker asks: which transactions are in blocks, and which ever were.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use serde::Serialize;

use super::chain::Block;
use super::node::Node;

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
