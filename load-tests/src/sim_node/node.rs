//! The node: chain, pool and connections, and what happens to them by themselves or by whoever steers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_primitives::{Address, B256, Bytes, U256};
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
    pub(super) waiting: Vec<Waiting>,
    pub(super) arrivals: Vec<Arrival>,
    /// What geth's local tracker tries again, and since when it has not.
    pub(super) tracked: (Duration, Vec<Arc<Transaction>>),
    outbox: Vec<Delivery>,
    /// Blocks that were made, orphaned ones included.
    made: u64,
    next_base_fee: Option<u64>,
    pub(super) is_syncing: bool,
    pub(super) is_mining: bool,
    pub(super) is_announcing: bool,
    pub(super) down_until: Duration,
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
            waiting: Vec::new(),
            arrivals: Vec::new(),
            tracked: (Duration::ZERO, Vec::new()),
            outbox: Vec::new(),
            made: 0,
            next_base_fee: None,
            is_syncing: false,
            is_mining: true,
            is_announcing: true,
            down_until: Duration::ZERO,
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
        self.outbox.push(Delivery { connection, at, what });
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

    /// The next block has this base fee; those after it go on from there, or have the fixed one again.
    pub fn set_base_fee(&mut self, wei: u64) {
        self.next_base_fee = Some(wei);
    }

    /// The least tip that gets into a block from now on, in wei per gas.
    pub fn set_included_tip(&mut self, wei: u128) {
        self.settings.included_tip = wei;
    }

    /// Transactions of a block at most, from now on.
    pub fn set_block_transactions(&mut self, most: Option<usize>) {
        self.settings.block_transactions = most;
    }

    /// Whether every accepted transaction makes a block at once, from now on.
    pub fn set_automine(&mut self, automine: bool) {
        self.settings.automine = automine;
    }

    /// Whether [`Node::tick`] makes blocks.
    pub fn set_mining(&mut self, is_mining: bool) {
        self.is_mining = is_mining;
    }

    /// Whether new heads and transactions are told to subscribers: without it, their subscriptions are dead on a living socket.
    pub fn set_announcing(&mut self, is_announcing: bool) {
        self.is_announcing = is_announcing;
    }

    /// Whether the node says that it is syncing; besu and nethermind then take no transactions.
    pub fn set_syncing(&mut self, is_syncing: bool) {
        self.is_syncing = is_syncing;
    }

    /// What is to go wrong from now on, instead of what was.
    pub fn set_faults(&mut self, faults: Faults<Fault>) {
        self.faults = faults;
    }

    /// How long answers take from now on.
    pub fn set_delays(&mut self, delays: crate::random::Delays) {
        self.settings.delays = delays;
    }

    /// The address reverts every call from now on; `None`: no more.
    pub fn set_reverting(&mut self, address: Address, reason: Option<String>) {
        match reason {
            Some(reason) => drop(self.settings.reverting.insert(address, reason)),
            None => drop(self.settings.reverting.remove(&address)),
        }
    }

    /// An account has this many wei after the head. A reorg of the head takes it back.
    pub fn set_balance(&mut self, address: Address, wei: U256) {
        self.chain.change_state(|state| state.set_balance(address, wei));
    }

    /// The pool is empty; what geth's local tracker keeps is kept.
    pub fn forget_pool(&mut self) {
        self.pool.clear();
    }

    /// Somebody else who has the key uses a nonce: a transfer of `value` wei that the node takes without a signature. Without a
    /// nonce it is the next free one; with one, it takes the place of what the pool has there. Answers its hash.
    pub fn impersonate(&mut self, now: Duration, from: Address, to: Address, value: U256, nonce: Option<u64>) -> B256 {
        let nonce = nonce.unwrap_or_else(|| self.pool.next_nonce(self.state(), from));
        let base_fee = u128::from(self.base_fee().unwrap_or(0));
        let price = base_fee * 2 + self.settings.tip.max(self.settings.included_tip);
        let unique = digest(self.settings.seed, "impersonated", self.luck.number());
        let transaction = Transaction::impersonated(from, to, value, nonce, price, self.settings.chain_id, unique);
        let hash = transaction.hash;
        self.pool.put(transaction, now);
        hash
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
            transactions.push(Mined { transaction, executed, cumulative_gas: used });
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
