//! Blocks of chains that branch, for tests.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::subscriptions::chain) struct Block {
    pub(in crate::subscriptions::chain) number: u64,
    pub(in crate::subscriptions::chain) hash: B256,
    pub(in crate::subscriptions::chain) parent: B256,
}

impl Linked for Block {
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

/// Block `number` of a branch that leaves the main one (branch 0) after block `fork`.
pub(in crate::subscriptions::chain) fn block(number: u64, branch: u8, fork: u64) -> Block {
    let hash = |number: u64| {
        let branch = if number <= fork { 0 } else { branch };
        B256::left_padding_from(&[branch, u8::try_from(number).unwrap(), 1])
    };
    Block { number, hash: hash(number), parent: hash(number.wrapping_sub(1).min(200)) }
}

pub(in crate::subscriptions::chain) fn main(number: u64) -> Block {
    block(number, 0, 255)
}
