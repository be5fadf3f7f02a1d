//! Accounts, and what a transaction does to them. No code runs: a call moves value, reverts where the settings say so, and one to the
//! emitter has logs.

use std::collections::BTreeMap;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, Bytes, Log, U256};

use super::logs::{self, EMITTER};
use super::transaction::Transaction;

/// One account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Its next nonce.
    pub nonce: u64,
    /// Its wei.
    pub balance: U256,
    /// Its code: a delegation (EIP-7702), or the input of the transaction that created it.
    pub code: Bytes,
}

/// The accounts after a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    accounts: BTreeMap<Address, Account>,
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Whether it was not reverted.
    pub success: bool,
    /// Gas that it used.
    pub gas_used: u64,
    /// What it paid per gas, in wei.
    pub price: u128,
    /// The contract that it created.
    pub contract: Option<Address>,
    /// What it emitted.
    pub logs: Vec<Log>,
}

/// How code that is a delegation begins (EIP-7702).
const DELEGATION: [u8; 3] = [0xef, 0x01, 0x00];

impl State {
    /// Accounts with these wei.
    pub fn new(balances: &BTreeMap<Address, U256>) -> Self {
        let account = |(address, balance): (&Address, &U256)| (*address, Account { balance: *balance, ..Account::default() });
        Self { accounts: balances.iter().map(account).collect() }
    }

    /// An account; an empty one for an unknown address.
    pub fn account(&self, address: Address) -> Account {
        self.accounts.get(&address).cloned().unwrap_or_default()
    }

    /// Its next nonce.
    pub fn nonce(&self, address: Address) -> u64 {
        self.accounts.get(&address).map_or(0, |account| account.nonce)
    }

    /// Its wei.
    pub fn balance(&self, address: Address) -> U256 {
        self.accounts.get(&address).map_or(U256::ZERO, |account| account.balance)
    }

    /// Whether it has delegated its code.
    pub fn is_delegated(&self, address: Address) -> bool {
        self.accounts.get(&address).is_some_and(|account| account.code.starts_with(&DELEGATION))
    }

    /// All addresses with their accounts.
    pub fn accounts(&self) -> &BTreeMap<Address, Account> {
        &self.accounts
    }

    pub(super) fn set_balance(&mut self, address: Address, wei: U256) {
        self.accounts.entry(address).or_default().balance = wei;
    }

    /// Whether it can be in a block now: its nonce is next and its sender can pay it.
    pub(super) fn is_next(&self, transaction: &Transaction) -> bool {
        self.nonce(transaction.from) == transaction.nonce() && transaction.cost() <= self.balance(transaction.from)
    }

    /// Executes it; [`State::is_next`] holds. Base fee and tip are burned.
    pub(super) fn execute(
        &mut self,
        transaction: &Transaction,
        base_fee: Option<u64>,
        chain_id: u64,
        reverting: &BTreeMap<Address, String>,
    ) -> Executed {
        let envelope = &transaction.envelope;
        let price = envelope.effective_gas_price(base_fee);
        let refused = envelope.to().is_some_and(|to| reverting.contains_key(&to));
        // Its logs; `None` if it is reverted.
        let logs = match envelope.to() {
            _ if refused => None,
            Some(EMITTER) => logs::emitted(envelope.input()),
            _ => Some(Vec::new()),
        };
        let of_logs = logs.as_deref().map_or(0, logs::gas);
        let needed = transaction.intrinsic_gas() + of_logs;
        let logs = logs.filter(|_| of_logs == 0 || needed <= envelope.gas_limit());
        let gas_used = needed.max(transaction.floor_gas()).min(envelope.gas_limit());
        let sender = self.accounts.entry(transaction.from).or_default();
        sender.nonce += 1;
        sender.balance = sender.balance.saturating_sub(U256::from(price).saturating_mul(U256::from(gas_used)));
        for authority in &transaction.authorities {
            let account = self.accounts.entry(authority.address).or_default();
            let for_us = authority.chain_id.is_zero() || authority.chain_id == U256::from(chain_id);
            if for_us && account.nonce == authority.nonce {
                account.nonce += 1;
                let code = if authority.code.is_zero() { Vec::new() } else { [&DELEGATION[..], authority.code.as_slice()].concat() };
                account.code = code.into();
            }
        }
        let success = logs.is_some();
        let contract = envelope.is_create().then(|| transaction.from.create(transaction.nonce()));
        if success {
            let value = envelope.value();
            let sender = self.accounts.entry(transaction.from).or_default();
            sender.balance = sender.balance.saturating_sub(value);
            if let Some(receiver) = contract.or(envelope.to()) {
                let receiver = self.accounts.entry(receiver).or_default();
                receiver.balance = receiver.balance.saturating_add(value);
                if contract.is_some() {
                    receiver.code = envelope.input().clone();
                }
            }
        }
        Executed { success, gas_used, price, contract, logs: logs.unwrap_or_default() }
    }
}
