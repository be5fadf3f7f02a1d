//! The node: chain, pool and connections, and the making of blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_primitives::{B256, Bytes};
use serde::{Deserialize, Serialize};

use super::chain::{Block, Chain, Mined};
use super::faults::Fault;
use super::pool::Pool;
use super::protocol::Waiting;
use super::rules::View;
use super::send::Arrival;
use super::settings::{BaseFee, Settings};
use super::state::State;
use super::subscriptions::Connection;
use super::transaction::Transaction;
use crate::announcements::{Announcements, HeadFault};
use crate::faults::Faults;
use crate::random::{Random, digest};

/// What a connection gets, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which connection.
    pub connection: u64,
    /// Time on the node's clock; deliveries of the same time keep their order.
    pub at: Duration,
    /// What it gets.
    pub what: Outgoing,
}

/// One thing that a connection gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A message: an answer, the answers of a batch, or a notification.
    Text(String),
    /// Its end, without a closing handshake.
    Cut,
    /// Nothing any more: it stays open, and what comes on it is not looked at. Not even pings are answered.
    Hang,
}

/// A reorganisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reorg {
    /// How many of the newest blocks are orphaned, all but genesis at most.
    pub depth: u64,
    /// How many blocks come instead, at least one.
    pub blocks: u64,
    /// What becomes of the transactions of the orphaned blocks.
    pub transactions: Returned,
}

/// What becomes of orphaned transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Returned {
    /// They go back into the pool, and the new blocks take what is in the pool.
    Mined,
    /// They go back into the pool, and the new blocks are empty.
    Pooled,
    /// The node forgets them, and the new blocks are empty.
    Lost,
}

/// A simulated node: a state machine without clock, sockets or chance of its own. The same settings and the same calls at the same
/// times give the same bytes. Times are since the start of the node's clock and must not go backwards.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) settings: Settings,
    pub(super) chain: Chain,
    pub(super) pool: Pool,
    pub(super) faults: Faults<Fault>,
    /// Decides chances.
    pub(super) luck: Random,
    /// Decides delays.
    pub(super) pace: Random,
    pub(super) connections: BTreeMap<u64, Connection>,
    /// Connections that there were.
    pub(super) accepted: u64,
    /// Subscriptions that there were, by kind.
    pub(super) subscribed: BTreeMap<&'static str, u64>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) arrivals: Vec<Arrival>,
    /// What arrived, read: the same bytes often come again.
    pub(super) decoded: BTreeMap<Bytes, Arc<Transaction>>,
    /// What geth's local tracker tries again, and since when it has not.
    pub(super) tracked: (Duration, Vec<Arc<Transaction>>),
    outbox: Vec<Delivery>,
    /// Blocks that were made, orphaned ones included.
    made: u64,
    pub(super) next_base_fee: Option<u64>,
    pub(super) is_syncing: bool,
    pub(super) is_mining: bool,
    pub(super) is_announcing: bool,
    /// What goes wrong with heads that are told.
    pub(super) head_faults: Faults<HeadFault>,
    pub(super) announcements: Announcements,
    pub(super) down_until: Duration,
    /// Nothing is brought to any connection before.
    pub(super) stalled_until: Duration,
}

/// How often geth's local tracker tries again.
const TRACKER_PAUSE: Duration = Duration::from_secs(60);

impl Node {
    /// A node that has only its genesis block.
    pub fn new(settings: Settings) -> Self {
        let base_fee_per_gas = match settings.base_fee {
            BaseFee::Moving(wei) | BaseFee::Fixed(wei) => Some(wei),
            BaseFee::Absent => None,
        };
        let header = Header {
            gas_limit: settings.gas_limit,
            mix_hash: digest(settings.seed, "genesis", settings.chain_id),
            base_fee_per_gas,
            ..Header::default()
        };
        let genesis = Block::new(header, Vec::new(), Arc::new(State::new(&settings.balances)));
        Self {
            chain: Chain::new(genesis),
            pool: Pool::default(),
            faults: Faults::default(),
            luck: Random::new(settings.seed, "faults"),
            pace: Random::new(settings.seed, "delays"),
            connections: BTreeMap::new(),
            accepted: 0,
            subscribed: BTreeMap::new(),
            waiting: Vec::new(),
            arrivals: Vec::new(),
            decoded: BTreeMap::new(),
            tracked: (Duration::ZERO, Vec::new()),
            outbox: Vec::new(),
            made: 0,
            next_base_fee: None,
            is_syncing: false,
            is_mining: true,
            is_announcing: true,
            head_faults: Faults::default(),
            announcements: Announcements::default(),
            down_until: Duration::ZERO,
            stalled_until: Duration::ZERO,
            settings,
        }
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its blocks.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Its pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The accounts after the head.
    pub fn state(&self) -> &State {
        &self.chain.head().state
    }

    /// Every raw transaction that arrived, in order.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// What the connections are to get by now and later; who asks has to bring it.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.outbox)
    }

    pub(super) fn deliver(&mut self, connection: u64, at: Duration, what: Outgoing) {
        self.outbox.push(Delivery { connection, at: at.max(self.stalled_until), what });
    }

    /// The base fee of the next block, in wei.
    pub fn base_fee(&self) -> Option<u64> {
        let header = &self.chain.head().header;
        match self.settings.base_fee {
            BaseFee::Absent => None,
            BaseFee::Fixed(wei) => Some(self.next_base_fee.unwrap_or(wei)),
            BaseFee::Moving(wei) => Some(self.next_base_fee.unwrap_or_else(|| {
                let last = header.base_fee_per_gas.unwrap_or(wei);
                calc_next_block_base_fee(header.gas_used, header.gas_limit, last, BaseFeeParams::ethereum())
            })),
        }
    }

    /// The block timer's call: [`Node::mine`] unless mining was switched off. Answers the new head.
    pub fn tick(&mut self, now: Duration) -> Option<B256> {
        self.is_mining.then(|| self.mine(now))
    }

    /// Makes a block of what the pool has, and announces it. Answers its hash.
    pub fn mine(&mut self, now: Duration) -> B256 {
        self.perform_waiting(now, None);
        self.retry_tracked(now);
        self.append(now, true)
    }

    /// Orphans blocks and makes others. Answers the hash of the new head.
    pub fn reorg(&mut self, now: Duration, reorg: Reorg) -> B256 {
        let orphaned = self.chain.pop(usize::try_from(reorg.depth).unwrap_or(usize::MAX));
        orphaned.iter().rev().for_each(|block| self.announce_logs(now, block, true));
        if reorg.transactions != Returned::Lost {
            for mined in orphaned.iter().flat_map(|block| &block.transactions) {
                if self.pool.slot(mined.transaction.from, mined.transaction.nonce()).is_none() {
                    self.pool.put(Arc::clone(&mined.transaction), now);
                }
            }
        }
        let fill = reorg.transactions == Returned::Mined;
        for _ in 1..reorg.blocks {
            self.append(now, fill);
        }
        self.append(now, fill)
    }

    fn append(&mut self, now: Duration, fill: bool) -> B256 {
        self.made += 1;
        let (parent, base_fee_per_gas) = (Arc::clone(self.chain.head()), self.base_fee());
        self.next_base_fee = None;
        let mut state = Arc::clone(&parent.state);
        let mut transactions = Vec::<Mined>::new();
        let most = if fill { self.settings.block_transactions.unwrap_or(usize::MAX) } else { 0 };
        let mut used = 0;
        while transactions.len() < most {
            let left = self.settings.gas_limit - used;
            let Some(transaction) = self.pool.pick(&state, base_fee_per_gas, left, self.settings.included_tip) else { break };
            let state = Arc::make_mut(&mut state);
            let executed = state.execute(&transaction, base_fee_per_gas, self.settings.chain_id, &self.settings.reverting);
            used += executed.gas_used;
            let first_log = transactions.last().map_or(0, |before| before.first_log + before.executed.logs.len());
            transactions.push(Mined { transaction, executed, cumulative_gas: used, first_log });
        }
        let header = Header {
            parent_hash: parent.hash,
            number: parent.number() + 1,
            gas_limit: self.settings.gas_limit,
            timestamp: (parent.header.timestamp + 1).max(self.settings.genesis_time + now.as_secs()),
            extra_data: Bytes::from_static(self.settings.client.name().as_bytes()),
            mix_hash: digest(self.settings.seed, "block", self.made),
            base_fee_per_gas,
            ..Header::default()
        };
        let block = Block::new(header, transactions, state);
        self.chain.push(Arc::clone(&block));
        self.pool.reset(&self.settings, &block.state, now);
        self.announce_head(now, &block);
        self.announce_logs(now, &block, false);
        block.hash
    }

    /// Takes a transaction into the pool, or says why not.
    pub(super) fn pool_transaction(&mut self, now: Duration, transaction: &Arc<Transaction>) -> Result<(), super::words::Refusal> {
        let state = Arc::clone(&self.chain.head().state);
        let view = View { settings: &self.settings, state: &state, base_fee: self.base_fee(), is_syncing: self.is_syncing, now };
        view.add(&mut self.pool, transaction)
    }

    fn retry_tracked(&mut self, now: Duration) {
        if self.tracked.1.is_empty() || now < self.tracked.0 + TRACKER_PAUSE {
            return;
        }
        self.tracked.0 = now;
        let tracked = std::mem::take(&mut self.tracked.1);
        let refused = |transaction: &Arc<Transaction>| self.pool_transaction(now, transaction).is_err_and(|refusal| refusal.passes());
        self.tracked.1 = tracked.into_iter().filter(refused).collect();
    }
}
