//! The node's rules, words, chain, faults and servers.

mod chain;
mod faults;
mod logs;
mod pool;
mod repeat;
mod server;
mod streams;
mod words;

use std::time::Duration;

use alloy_consensus::{TxEip1559, TypedTransaction};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use serde_json::{Value, json};

use super::{Client, Node, RpcError, Settings};
use crate::wallet::Wallet;

const CHAIN: u64 = 31_337;
const GWEI: u128 = 1_000_000_000;

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ether(n: u64) -> U256 {
    U256::from(n) * U256::from(1_000_000_000_000_000_000_u64)
}

fn wallet(n: u64) -> Wallet {
    Wallet::new(7, n)
}

/// A node where the first ten wallets have 1,000 ether each.
fn settings(client: Client) -> Settings {
    Settings::new(client, CHAIN, 7).with_balance(ether(1_000), (0..10).map(|n| wallet(n).address()))
}

fn node(client: Client) -> Node {
    Node::new(settings(client))
}

/// A transfer of 1 wei with fees that every client takes.
fn transfer(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 10 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: TxKind::Call(Address::repeat_byte(0x11)),
        value: U256::from(1),
        ..TxEip1559::default()
    }
}

fn signed(wallet: &Wallet, transaction: impl Into<TypedTransaction>) -> (Bytes, B256) {
    wallet.sign(transaction.into()).unwrap()
}

/// Sends without connection, at time zero.
fn send(node: &mut Node, wallet: &Wallet, transaction: impl Into<TypedTransaction>) -> Result<B256, RpcError> {
    let (raw, _) = signed(wallet, transaction);
    call(node, "eth_sendRawTransaction", json!([raw])).map(|hash| serde_json::from_value(hash).unwrap())
}

/// Sends transfers with the nonces from 0 below `count`.
fn fill(node: &mut Node, wallet: &Wallet, count: u64) {
    for nonce in 0..count {
        send(node, wallet, transfer(nonce)).unwrap();
    }
}

fn call(node: &mut Node, method: &str, params: Value) -> Result<Value, RpcError> {
    node.call(Duration::ZERO, method, &params)
}

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn nonce(node: &mut Node, address: Address, block: &str) -> u64 {
    quantity(&call(node, "eth_getTransactionCount", json!([address, block])).unwrap())
}

/// A frame with one send.
fn frame(id: u64, raw: &Bytes) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": [hex::encode_prefixed(raw)] }).to_string()
}
