//! Blocks: the canonical line, and those that a reorg orphaned.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::{Header, TxEnvelope, proofs};
use alloy_primitives::{B256, keccak256};

use super::logs;
use super::state::{Executed, State};
use super::transaction::Transaction;

/// A transaction in a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Mined {
    /// The transaction.
    pub transaction: Arc<Transaction>,
    /// What came of it.
    pub executed: Executed,
    /// Gas of the block up to it and with it.
    pub cumulative_gas: u64,
    /// Logs of the block before its own.
    pub first_log: usize,
}

/// A block, and the accounts after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its header.
    pub header: Header,
    /// The hash of the header.
    pub hash: B256,
    /// Its transactions in their order.
    pub transactions: Vec<Mined>,
    /// The accounts after it.
    pub state: Arc<State>,
}

/// Where a transaction is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its block.
    pub block: Arc<Block>,
    /// Its index there.
    pub index: usize,
}

impl Place {
    /// The transaction there.
    pub fn mined(&self) -> Option<&Mined> {
        self.block.transactions.get(self.index)
    }
}

/// All blocks. There is always a genesis block.
#[derive(Debug, Clone)]
pub struct Chain {
    genesis: Arc<Block>,
    /// From block 1.
    canonical: Vec<Arc<Block>>,
    blocks: BTreeMap<B256, Arc<Block>>,
    /// Canonical transactions.
    places: BTreeMap<B256, Place>,
}

impl Block {
    /// The block of these parts. State and receipts have no tries here: their roots are hashes of what is in them.
    pub(super) fn new(header: Header, transactions: Vec<Mined>, state: Arc<State>) -> Arc<Self> {
        let envelopes: Vec<&TxEnvelope> = transactions.iter().map(|mined| &mined.transaction.envelope).collect();
        let outcomes: Vec<u8> =
            transactions.iter().flat_map(|mined| mined.transaction.hash.0.into_iter().chain([u8::from(mined.executed.success)])).collect();
        let header = Header {
            transactions_root: proofs::calculate_transaction_root(&envelopes),
            receipts_root: keccak256(&outcomes),
            state_root: keccak256([header.parent_hash.as_slice(), &outcomes].concat()),
            gas_used: transactions.last().map_or(0, |mined| mined.cumulative_gas),
            logs_bloom: logs::bloom(transactions.iter().flat_map(|mined| &mined.executed.logs)),
            ..header
        };
        Arc::new(Self { hash: header.hash_slow(), header, transactions, state })
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.header.number
    }
}

impl Chain {
    pub(super) fn new(genesis: Arc<Block>) -> Self {
        Self { blocks: BTreeMap::from([(genesis.hash, Arc::clone(&genesis))]), genesis, canonical: Vec::new(), places: BTreeMap::new() }
    }

    /// The newest block.
    pub fn head(&self) -> &Arc<Block> {
        self.canonical.last().unwrap_or(&self.genesis)
    }

    /// A canonical block.
    pub fn number(&self, number: u64) -> Option<&Arc<Block>> {
        match number.checked_sub(1) {
            None => Some(&self.genesis),
            Some(index) => self.canonical.get(usize::try_from(index).ok()?),
        }
    }

    /// A block, canonical or orphaned.
    pub fn hash(&self, hash: B256) -> Option<&Arc<Block>> {
        self.blocks.get(&hash)
    }

    /// Where a canonical transaction is.
    pub fn place(&self, transaction: B256) -> Option<&Place> {
        self.places.get(&transaction)
    }

    /// The canonical blocks from genesis.
    pub fn canonical(&self) -> impl Iterator<Item = &Arc<Block>> {
        std::iter::once(&self.genesis).chain(&self.canonical)
    }

    /// Every block that ever was, by number and hash.
    pub fn all(&self) -> Vec<&Arc<Block>> {
        let mut all: Vec<_> = self.blocks.values().collect();
        all.sort_by_key(|block| (block.number(), block.hash));
        all
    }

    /// Whether it is in the canonical line.
    pub fn is_canonical(&self, block: &Block) -> bool {
        self.number(block.number()).is_some_and(|canonical| canonical.hash == block.hash)
    }

    pub(super) fn push(&mut self, block: Arc<Block>) {
        for (index, mined) in block.transactions.iter().enumerate() {
            self.places.insert(mined.transaction.hash, Place { block: Arc::clone(&block), index });
        }
        self.blocks.insert(block.hash, Arc::clone(&block));
        self.canonical.push(block);
    }

    /// Takes the newest blocks off the canonical line, genesis never; answers them, oldest first.
    pub(super) fn pop(&mut self, depth: usize) -> Vec<Arc<Block>> {
        let orphaned = self.canonical.split_off(self.canonical.len().saturating_sub(depth));
        for mined in orphaned.iter().flat_map(|block| &block.transactions) {
            self.places.remove(&mined.transaction.hash);
        }
        orphaned
    }

    /// Other accounts after the head, from now on.
    pub(super) fn change_state(&mut self, change: impl FnOnce(&mut State)) {
        let mut head = Block::clone(self.head());
        change(Arc::make_mut(&mut head.state));
        let head = Arc::new(head);
        self.blocks.insert(head.hash, Arc::clone(&head));
        for (index, mined) in head.transactions.iter().enumerate() {
            self.places.insert(mined.transaction.hash, Place { block: Arc::clone(&head), index });
        }
        match self.canonical.last_mut() {
            Some(last) => *last = head,
            None => self.genesis = head,
        }
    }
}
