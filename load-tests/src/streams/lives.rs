//! `sluice_subscribe("transactions")`: the life of own transactions.

use std::collections::{HashMap, HashSet};

use alloy_primitives::B256;
use serde_json::Value;

use super::{Verdict, hash};
use crate::sim_node::Node;

/// The lives that a client knows, by what was signed.
#[derive(Debug, Clone, Default)]
pub struct LifeView {
    cursors: HashSet<String>,
    /// State and block of the last event of each.
    last: HashMap<B256, (String, Option<B256>)>,
}

impl LifeView {
    /// The next event that was told. An error if its cursor came before, it cannot follow the one before, or its block or receipt is not the node's.
    pub fn told(&mut self, node: &Node, event: &Value) -> Verdict {
        let text =
            |member: &str| event.get(member).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("no {member}: {event}"));
        let (cursor, state, transaction) = (text("cursor")?, text("state")?, hash(event, "hash")?);
        if !self.cursors.insert(cursor) {
            return Err(format!("told twice: {event}"));
        }
        let block = event.get("block").filter(|block| !block.is_null()).map(|block| hash(block, "hash")).transpose()?;
        let before = self.last.get(&transaction).map(|(state, block)| (state.as_str(), *block));
        let follows = match (state.as_str(), before) {
            ("committed", before) => before.is_none(),
            ("broadcast", Some((before, _))) => before == "committed" || before == "orphaned",
            ("included", Some((before, last))) => before != "confirmed" && (before != "included" || last != block),
            ("orphaned", Some((before, _))) => before == "included",
            ("confirmed", Some((before, last))) => before == "included" && last == block,
            _ => false,
        };
        if !follows {
            return Err(format!("{state} behind {before:?}: {event}"));
        }
        if state == "included" && block.and_then(|block| node.receipt(block, transaction)).as_ref() != event.get("receipt") {
            return Err(format!("another receipt than the node's: {event}"));
        }
        self.last.insert(transaction, (state, block));
        Ok(())
    }

    /// Whether the inclusions of these transactions were told by now, all of which are mined.
    pub fn complete(&self, node: &Node, transactions: &[B256]) -> Verdict {
        for transaction in transactions {
            let mined = node.chain().place(*transaction).map(|place| place.block.hash);
            let told = self.last.get(transaction).filter(|(state, _)| state == "included" || state == "confirmed");
            if mined.is_none() || told.and_then(|(_, block)| *block) != mined {
                return Err(format!("{transaction} is in {mined:?}, told was {:?}", self.last.get(transaction)));
            }
        }
        Ok(())
    }
}
