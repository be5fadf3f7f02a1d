//! What a client of streams was told, compared with the chain of a simulated node as it is told: nothing missing, doubled or out of order. Each view
//! takes in what one subscription was told, and says what a node without a gap would not have told.

mod heads;
mod lives;
mod logs;
mod receipts;
#[cfg(test)]
mod tests;

use alloy_primitives::B256;
use serde_json::Value;

use crate::sim_node::Node;

pub use self::heads::HeadView;
pub use self::lives::LifeView;
pub use self::logs::LogView;
pub use self::receipts::ReceiptView;

/// Why what was told is not what a node without a gap tells; for people.
pub type Verdict = Result<(), String>;

/// A hash among the members of what was told.
fn hash(told: &Value, member: &str) -> Result<B256, String> {
    let hash = told.get(member).and_then(Value::as_str).and_then(|hash| hash.parse().ok());
    hash.ok_or_else(|| format!("no {member}, which is a gap or an end: {told}"))
}

/// A block and those below it, oldest first.
fn down_to(node: &Node, block: B256) -> Vec<B256> {
    let below = |block: &B256| node.chain().hash(*block).filter(|block| block.number() > 0).map(|block| block.header.parent_hash);
    let mut blocks: Vec<B256> = std::iter::successors(Some(block), below).collect();
    blocks.reverse();
    blocks
}
