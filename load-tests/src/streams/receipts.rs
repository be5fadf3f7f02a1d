//! `transactionReceipts`.

use std::collections::{HashMap, HashSet};

use alloy_primitives::B256;
use serde_json::Value;

use super::{Verdict, hash};
use crate::sim_node::Node;

/// The receipts that a client has: one of each transaction and block. A reorg is told by that of the new block alone.
#[derive(Debug, Clone, Default)]
pub struct ReceiptView {
    seen: HashSet<(B256, B256)>,
    /// The block that was told last, by transaction.
    blocks: HashMap<B256, B256>,
}

impl ReceiptView {
    /// The next receipts of one block that were told. An error if one is not the node's, or was told before.
    pub fn told(&mut self, node: &Node, receipts: &Value) -> Verdict {
        let receipts = receipts.as_array().ok_or_else(|| format!("no receipts, which is a gap or an end: {receipts}"))?;
        for receipt in receipts {
            let (block, transaction) = (hash(receipt, "blockHash")?, hash(receipt, "transactionHash")?);
            if node.receipt(block, transaction).as_ref() != Some(receipt) {
                return Err(format!("the receipt of {transaction} in {block} is another one: {receipt}"));
            }
            if !self.seen.insert((transaction, block)) {
                return Err(format!("the receipt of {transaction} in {block} is told twice"));
            }
            self.blocks.insert(transaction, block);
        }
        Ok(())
    }

    /// The block of the receipt of this transaction that was told last.
    pub fn block(&self, transaction: B256) -> Option<B256> {
        self.blocks.get(&transaction).copied()
    }

    /// Receipts that were told.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// Whether those of these transactions were told by now, all of which are mined.
    pub fn complete(&self, node: &Node, transactions: &[B256]) -> Verdict {
        for transaction in transactions {
            let mined = node.chain().place(*transaction).map(|place| place.block.hash);
            if mined.is_none() || self.block(*transaction) != mined {
                return Err(format!("{transaction} is in {mined:?}, told was {:?}", self.block(*transaction)));
            }
        }
        Ok(())
    }
}
