//! What a test can change while the node runs.

use std::time::Duration;

use alloy_consensus::TxLegacy;
use alloy_primitives::{Address, B256, Log, TxKind, U256};

use super::faults::Fault;
use super::gas;
use super::logs::{self, EMITTER};
use super::node::Node;
use super::transaction::Transaction;
use crate::announcements::HeadFault;
use crate::faults::Faults;
use crate::random::{Delays, digest};

impl Node {
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

    /// What is to go wrong with the heads that are told from now on, instead of what was. It goes wrong for all who subscribe.
    pub fn set_head_faults(&mut self, faults: Faults<HeadFault>) {
        self.head_faults = faults;
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
    pub fn set_delays(&mut self, delays: Delays) {
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

    /// Whether geth's local tracker is on, from now on.
    pub fn set_local_tracker(&mut self, is_on: bool) {
        self.settings.local_tracker = is_on;
    }

    /// Somebody else who has the key uses a nonce: a transfer of `value` wei that the node takes without a signature. Without a
    /// nonce it is the next free one; with one, it takes the place of what the pool has there. Answers its hash.
    pub fn impersonate(&mut self, now: Duration, from: Address, to: Address, value: U256, nonce: Option<u64>) -> B256 {
        let call = TxLegacy { to: TxKind::Call(to), value, gas_limit: 21_000, ..TxLegacy::default() };
        self.unsigned(now, from, nonce, call)
    }

    /// A call that emits these logs is in the pool: from an account that has the wei for it, at its next free nonce. Answers its hash.
    pub fn emit(&mut self, now: Duration, from: Address, logs: &[Log]) -> B256 {
        let input = logs::emitting(logs);
        let gas_limit = (gas::intrinsic(&input, false, None, 0) + logs::gas(logs)).max(gas::floor(&input));
        self.unsigned(now, from, None, TxLegacy { to: TxKind::Call(EMITTER), gas_limit, input, ..TxLegacy::default() })
    }

    fn unsigned(&mut self, now: Duration, from: Address, nonce: Option<u64>, call: TxLegacy) -> B256 {
        let nonce = nonce.unwrap_or_else(|| self.pool.next_nonce(self.state(), from));
        let base_fee = u128::from(self.base_fee().unwrap_or(0));
        let gas_price = base_fee * 2 + self.settings.tip.max(self.settings.included_tip);
        let unique = digest(self.settings.seed, "impersonated", self.luck.number());
        let call = TxLegacy { chain_id: Some(self.settings.chain_id), nonce, gas_price, ..call };
        let transaction = Transaction::unsigned(from, call, unique);
        let hash = transaction.hash;
        self.pool.put(transaction, now);
        hash
    }
}
