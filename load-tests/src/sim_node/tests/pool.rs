//! Bounds and replacements.

use alloy_consensus::TxEip7702;
use alloy_eips::eip7702::Authorization;
use alloy_primitives::Signature;

use super::*;
use crate::sim_node::BaseFee;

#[test]
fn a_replacement_pays_ten_percent_more_on_both_fields_but_one_wei_with_anvil() {
    let cases = [(11 * GWEI, 11 * GWEI / 10, true), (11 * GWEI - 1, 11 * GWEI / 10, false), (11 * GWEI, 11 * GWEI / 10 - 1, false)];
    for client in [Client::Geth, Client::Reth, Client::Besu, Client::Nethermind, Client::Erigon] {
        for (max_fee_per_gas, max_priority_fee_per_gas, is_taken) in cases {
            let mut node = node(client);
            send(&mut node, &wallet(0), transfer(0)).unwrap();
            let bumped = TxEip1559 { max_fee_per_gas, max_priority_fee_per_gas, ..transfer(0) };
            assert_eq!(send(&mut node, &wallet(0), bumped).is_ok(), is_taken, "{client:?} {max_fee_per_gas} {max_priority_fee_per_gas}");
            assert_eq!(node.pool().len(), 1);
        }
    }
    let mut anvil = node(Client::Anvil);
    anvil.set_automine(false);
    send(&mut anvil, &wallet(0), transfer(0)).unwrap();
    let bumped = TxEip1559 { max_fee_per_gas: 10 * GWEI + 1, max_priority_fee_per_gas: GWEI + 1, ..transfer(0) };
    let hash = send(&mut anvil, &wallet(0), bumped).unwrap();
    assert_eq!(anvil.pool().slot(wallet(0).address(), 0).unwrap().hash, hash);
}

#[test]
fn what_is_behind_a_gap_waits_until_the_gap_is_closed() {
    let (mut node, sender) = (node(Client::Geth), wallet(0));
    for nonce in [2, 1] {
        send(&mut node, &sender, transfer(nonce)).unwrap();
    }
    assert_eq!(call(&mut node, "txpool_status", json!([])).unwrap(), json!({ "pending": "0x0", "queued": "0x2" }));
    assert_eq!(nonce(&mut node, sender.address(), "pending"), 0);
    node.mine(second(1));
    assert!(node.mined().is_empty());
    send(&mut node, &sender, transfer(0)).unwrap();
    assert_eq!(nonce(&mut node, sender.address(), "pending"), 3);
    node.mine(second(2));
    assert_eq!(node.mined().keys().map(|(_, nonce)| *nonce).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(nonce(&mut node, sender.address(), "latest"), 3);
}

#[test]
fn geth_answers_a_hash_for_the_65th_behind_a_gap_and_forgets_it() {
    let (mut node, sender) = (node(Client::Geth), wallet(0));
    for nonce in 1..=65 {
        send(&mut node, &sender, transfer(nonce)).unwrap();
    }
    assert_eq!(node.pool().len(), 64);
    assert!(node.pool().slot(sender.address(), 65).is_none());
}

#[test]
fn an_open_pool_takes_what_the_clients_bounds_would_refuse() {
    for client in [Client::Geth, Client::Reth, Client::Besu, Client::Nethermind, Client::Erigon] {
        let bounded = settings(client);
        let open = crate::sim_node::Limits { pool: 20, ..bounded.limits.clone() }.open();
        let mut node = Node::new(Settings { limits: open, ..bounded });
        fill(&mut node, &wallet(0), 70);
        assert_eq!(node.pool().len(), 70, "{client:?}");
    }
}

#[test]
fn geth_keeps_sixteen_for_an_account_when_another_has_filled_the_pool() {
    let mut settings = settings(Client::Geth);
    settings.limits.pool = 20;
    let mut node = Node::new(settings);
    fill(&mut node, &wallet(0), 20);
    let full = RpcError::new(-32000, "txpool is full");
    assert_eq!(send(&mut node, &wallet(0), transfer(20)), Err(full.clone()));
    fill(&mut node, &wallet(1), 4);
    assert_eq!(send(&mut node, &wallet(1), transfer(4)), Err(full), "the other one has only its sixteen left");
    assert_eq!(node.pool().of(wallet(0).address()).count(), 16);
}

#[test]
fn what_waits_behind_a_gap_for_three_hours_is_forgotten_by_geth() {
    let mut node = node(Client::Geth);
    send(&mut node, &wallet(0), transfer(1)).unwrap();
    node.mine(second(3 * 3_600 - 1));
    assert_eq!(node.pool().len(), 1);
    node.mine(second(3 * 3_600));
    assert!(node.pool().is_empty());
}

#[test]
fn geth_counts_what_the_account_has_pooled_against_its_balance() {
    let mut node = node(Client::Geth);
    let large = |nonce| TxEip1559 { value: ether(600), ..transfer(nonce) };
    send(&mut node, &wallet(0), large(0)).unwrap();
    let refused = send(&mut node, &wallet(0), large(1)).unwrap_err();
    let queued = "queued cost 600000210000000000000, tx cost 600000210000000000000, overshot 200000420000000000000";
    assert_eq!(refused.message, format!("insufficient funds for gas * price + value: balance 1000000000000000000000, {queued}"));
    let mut reth = super::node(Client::Reth);
    send(&mut reth, &wallet(0), large(0)).unwrap();
    send(&mut reth, &wallet(0), large(1)).unwrap();
}

/// Otherwise an account whose lowest transaction got lost could never go on.
#[test]
fn reth_takes_the_accounts_own_nonce_when_its_share_is_full() {
    let mut node = node(Client::Reth);
    for nonce in 1..=16 {
        send(&mut node, &wallet(0), transfer(nonce)).unwrap();
    }
    send(&mut node, &wallet(0), transfer(17)).unwrap_err();
    send(&mut node, &wallet(0), transfer(0)).unwrap();
}

#[test]
fn the_local_tracker_answers_a_hash_for_what_the_pool_refused_and_tries_again() {
    let mut settings = settings(Client::Geth);
    (settings.limits.pool, settings.local_tracker) = (1, true);
    let mut node = Node::new(settings);
    send(&mut node, &wallet(0), transfer(0)).unwrap();
    let hash = send(&mut node, &wallet(1), transfer(0)).unwrap();
    assert_eq!(call(&mut node, "eth_getTransactionByHash", json!([hash])).unwrap(), Value::Null, "a hash is no proof of pooling");
    node.mine(second(1));
    node.mine(second(59));
    assert!(!node.mined().contains_key(&(wallet(1).address(), 0)));
    node.mine(second(60));
    assert_eq!(node.mined()[&(wallet(1).address(), 0)].hash, hash);
}

#[test]
fn a_transaction_that_pays_less_than_the_base_fee_waits_for_a_lower_one() {
    let mut node = node(Client::Geth);
    node.set_base_fee(20_000_000_000);
    node.mine(second(1));
    send(&mut node, &wallet(0), transfer(0)).unwrap();
    node.mine(second(2));
    assert!(node.mined().is_empty());
    node.set_base_fee(1);
    node.mine(second(3));
    assert_eq!(node.mined().len(), 1);
}

#[test]
fn a_builder_may_leave_out_small_tips_and_take_few_of_a_block() {
    let mut node = node(Client::Geth);
    node.set_included_tip(GWEI + 1);
    send(&mut node, &wallet(0), transfer(0)).unwrap();
    node.mine(second(1));
    assert!(node.mined().is_empty());
    node.set_included_tip(0);
    node.set_block_transactions(Some(1));
    let higher = TxEip1559 { max_priority_fee_per_gas: 2 * GWEI, ..transfer(0) };
    send(&mut node, &wallet(1), higher).unwrap();
    node.mine(second(2));
    assert_eq!(node.mined().keys().map(|(sender, _)| *sender).collect::<Vec<_>>(), [wallet(1).address()], "the highest tip first");
    node.mine(second(3));
    assert_eq!(node.mined().len(), 2);
}

#[test]
fn on_free_chains_nothing_is_paid_and_an_empty_account_can_send() {
    let mut node = Node::new(Settings::new(Client::Besu, CHAIN, 7).free());
    let free = TxEip1559 { max_fee_per_gas: 0, max_priority_fee_per_gas: 0, value: U256::ZERO, ..transfer(0) };
    send(&mut node, &wallet(0), free).unwrap();
    node.mine(second(1));
    assert_eq!(node.mined().len(), 1);
    for method in ["eth_gasPrice", "eth_maxPriorityFeePerGas"] {
        assert_eq!(call(&mut node, method, json!([])).unwrap(), "0x0");
    }
    assert_eq!(call(&mut node, "eth_getBlockByNumber", json!(["finalized", false])).unwrap()["number"], "0x1");
}

#[test]
fn a_chain_from_before_london_has_no_base_fee_and_no_dynamic_fees() {
    let mut node = Node::new(Settings { base_fee: BaseFee::Absent, ..settings(Client::Geth) });
    assert_eq!(send(&mut node, &wallet(0), transfer(0)), Err(RpcError::new(-32000, "transaction type not supported")));
    let legacy =
        alloy_consensus::TxLegacy { chain_id: Some(CHAIN), gas_price: GWEI, gas_limit: 21_000, to: transfer(0).to, ..Default::default() };
    send(&mut node, &wallet(0), legacy).unwrap();
    node.mine(second(1));
    assert_eq!(node.mined().len(), 1);
    let head = call(&mut node, "eth_getBlockByNumber", json!(["latest", false])).unwrap();
    assert_eq!(head.get("baseFeePerGas"), None);
    assert_eq!(call(&mut node, "eth_maxPriorityFeePerGas", json!([])).unwrap_err().code, -32601);
}

fn authorises(authority: &Wallet, nonce: u64, own: u64) -> TxEip7702 {
    let authorization = Authorization { chain_id: U256::from(CHAIN), address: Address::repeat_byte(0x77), nonce };
    let (signature, parity) = authority.key().sign_prehash_recoverable(authorization.signature_hash().as_slice()).unwrap();
    TxEip7702 {
        chain_id: CHAIN,
        nonce: own,
        gas_limit: 100_000,
        max_fee_per_gas: 10 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: Address::repeat_byte(0x11),
        authorization_list: vec![authorization.into_signed(Signature::from((signature, parity)))],
        ..TxEip7702::default()
    }
}

#[test]
fn a_delegated_account_has_one_in_flight_with_geth() {
    let mut node = node(Client::Geth);
    send(&mut node, &wallet(0), authorises(&wallet(0), 1, 0)).unwrap();
    node.mine(second(1));
    let address = wallet(0).address();
    assert_eq!(nonce(&mut node, address, "latest"), 2, "its own nonce and the one of its authorisation");
    assert_eq!(call(&mut node, "eth_getCode", json!([address, "latest"])).unwrap(), format!("0xef0100{}", "77".repeat(20)));
    let words = |result: Result<B256, RpcError>| result.unwrap_err().message;
    assert_eq!(words(send(&mut node, &wallet(0), transfer(3))), "gapped-nonce tx from delegated accounts");
    send(&mut node, &wallet(0), transfer(2)).unwrap();
    assert_eq!(words(send(&mut node, &wallet(0), transfer(3))), "in-flight transaction limit reached for delegated accounts");

    fill(&mut node, &wallet(1), 2);
    assert_eq!(words(send(&mut node, &wallet(2), authorises(&wallet(1), 2, 0))), "authority already reserved");
}
