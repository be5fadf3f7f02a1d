//! Blocks, receipts, reorgs and what the reading methods say about them.

use super::*;
use crate::sim_node::{Reorg, Returned};

#[test]
fn blocks_are_linked_by_the_hashes_of_their_headers() {
    let mut node = node(Client::Geth);
    for n in 1..=3 {
        send(&mut node, &wallet(0), transfer(n - 1)).unwrap();
        node.mine(second(12 * n));
    }
    let blocks: Vec<_> = node.chain().canonical().cloned().collect();
    assert_eq!(blocks.len(), 4);
    for pair in blocks.windows(2) {
        assert_eq!(pair[1].header.parent_hash, pair[0].hash);
        assert_eq!(pair[1].hash, pair[1].header.hash_slow());
    }
    let times: Vec<u64> = blocks.iter().map(|block| block.header.timestamp).collect();
    assert_eq!(times, [0, 1_700_000_012, 1_700_000_024, 1_700_000_036]);
    let by_number = call(&mut node, "eth_getBlockByNumber", json!(["0x2", false])).unwrap();
    assert_eq!(by_number["hash"], json!(blocks[2].hash));
    assert_eq!(by_number, call(&mut node, "eth_getBlockByHash", json!([blocks[2].hash, false])).unwrap());
    assert_eq!(call(&mut node, "eth_getBlockByNumber", json!(["0x9", false])).unwrap(), Value::Null);
    assert_eq!(call(&mut node, "eth_blockNumber", json!([])).unwrap(), "0x3");
}

#[test]
fn a_transfer_moves_value_and_pays_for_its_gas() {
    let mut node = node(Client::Geth);
    let hash = send(&mut node, &wallet(0), TxEip1559 { value: ether(1), ..transfer(0) }).unwrap();
    let pending = call(&mut node, "eth_getTransactionByHash", json!([hash])).unwrap();
    assert_eq!((&pending["blockHash"], &pending["hash"]), (&Value::Null, &json!(hash)));
    assert_eq!(call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap(), Value::Null);
    node.mine(second(1));
    let receipt = call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap();
    assert_eq!((&receipt["status"], &receipt["gasUsed"], &receipt["type"]), (&json!("0x1"), &json!("0x5208"), &json!("0x2")));
    assert_eq!(receipt["blockHash"], json!(node.chain().head().hash));
    let price = u128::from(node.chain().head().header.base_fee_per_gas.unwrap()) + GWEI;
    assert_eq!(receipt["effectiveGasPrice"], format!("{price:#x}"));
    let paid = ether(1) + U256::from(21_000 * price);
    assert_eq!(call(&mut node, "eth_getBalance", json!([wallet(0).address(), "latest"])).unwrap(), json!(ether(1_000) - paid));
    assert_eq!(call(&mut node, "eth_getBalance", json!([Address::repeat_byte(0x11), "latest"])).unwrap(), json!(ether(1)));
    assert_eq!(call(&mut node, "eth_getBalance", json!([wallet(0).address(), "0x0"])).unwrap(), json!(ether(1_000)));
    let block = call(&mut node, "eth_getBlockByNumber", json!(["latest", true])).unwrap();
    assert_eq!(block["transactions"][0], call(&mut node, "eth_getTransactionByHash", json!([hash])).unwrap());
    assert_eq!(call(&mut node, "eth_getBlockReceipts", json!(["latest"])).unwrap(), json!([receipt]));
}

#[test]
fn a_chosen_address_reverts_calls_and_says_why() {
    let mut node = node(Client::Geth);
    let to = Address::repeat_byte(0x11);
    node.set_reverting(to, Some("not today".into()));
    let hash = send(&mut node, &wallet(0), transfer(0)).unwrap();
    node.mine(second(1));
    assert_eq!(call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap()["status"], "0x0");
    assert_eq!(call(&mut node, "eth_getBalance", json!([to, "latest"])).unwrap(), "0x0");
    for method in ["eth_call", "eth_estimateGas"] {
        let error = call(&mut node, method, json!([{ "from": wallet(0).address(), "to": to }, "latest"])).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (3, "execution reverted: not today"));
        // The selector of Error(string), its offset, its length, its text.
        let text = format!("{}{}", hex::encode("not today"), "00".repeat(23));
        assert_eq!(error.data.unwrap(), format!("0x08c379a0{:064x}{:064x}{text}", 32, 9));
    }
    node.set_reverting(to, None);
    assert_eq!(call(&mut node, "eth_call", json!([{ "to": to }, "latest"])).unwrap(), "0x");
    assert_eq!(call(&mut node, "eth_estimateGas", json!([{ "to": to, "input": "0x0001" }])).unwrap(), "0x523a");
}

#[test]
fn the_base_fee_moves_by_the_rule_of_eip_1559() {
    let mut node = node(Client::Geth);
    node.mine(second(1));
    node.mine(second(2));
    let fees: Vec<u64> = node.chain().canonical().map(|block| block.header.base_fee_per_gas.unwrap()).collect();
    assert_eq!(fees, [1_000_000_000, 875_000_000, 765_625_000], "an eighth less after an empty block");
    let history = call(&mut node, "eth_feeHistory", json!(["0x2", "latest", [50.0]])).unwrap();
    assert_eq!(history["oldestBlock"], "0x1");
    assert_eq!(history["baseFeePerGas"], json!(["0x342770c0", "0x2da282a8", format!("{:#x}", 765_625_000_u64 / 8 * 7)]));
    assert_eq!(history["reward"], json!([["0x3b9aca00"], ["0x3b9aca00"]]));
    node.set_base_fee(5);
    node.mine(second(3));
    assert_eq!(call(&mut node, "eth_getBlockByNumber", json!(["latest", false])).unwrap()["baseFeePerGas"], "0x5");
}

#[test]
fn finalized_and_safe_are_behind_the_head_or_unknown() {
    let mut node = Node::new(Settings { finality: Some(4), ..settings(Client::Geth) });
    for n in 1..=10 {
        node.mine(second(n));
    }
    let mut number = |tag| call(&mut node, "eth_getBlockByNumber", json!([tag, false])).map(|block| quantity(&block["number"]));
    assert_eq!([number("finalized"), number("safe"), number("latest"), number("earliest")], [Ok(6), Ok(8), Ok(10), Ok(0)]);
    let mut without = Node::new(Settings { finality: None, ..settings(Client::Geth) });
    let error = call(&mut without, "eth_getBlockByNumber", json!(["finalized", false])).unwrap_err();
    assert_eq!(error, RpcError::new(-32000, "finalized block not found"));
}

#[test]
fn a_reorg_puts_transactions_back_into_the_pool() {
    let mut node = node(Client::Geth);
    let hash = send(&mut node, &wallet(0), transfer(0)).unwrap();
    let orphaned = node.mine(second(1));
    node.mine(second(2));
    node.reorg(second(3), Reorg { depth: 2, blocks: 3, transactions: Returned::Pooled });
    assert_eq!(call(&mut node, "eth_blockNumber", json!([])).unwrap(), "0x3");
    assert_eq!(call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap(), Value::Null);
    assert_eq!(node.pool().slot(wallet(0).address(), 0).unwrap().hash, hash);
    assert_eq!((nonce(&mut node, wallet(0).address(), "latest"), nonce(&mut node, wallet(0).address(), "pending")), (0, 1));
    assert_eq!(call(&mut node, "eth_getBlockByHash", json!([orphaned, false])).unwrap()["number"], "0x1", "by hash it is there");

    let again = node.mine(second(4));
    let receipt = call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap();
    assert_eq!(receipt["blockHash"], json!(again));
    let blocks: Vec<(B256, bool)> = node.payloads().iter().map(|payload| (payload.block_hash, payload.is_canonical)).collect();
    assert_eq!(blocks, [(orphaned, false), (again, true)]);
}

#[test]
fn a_reorg_may_mine_the_same_again_or_lose_it() {
    for (transactions, canonical) in [(Returned::Mined, 1), (Returned::Lost, 0)] {
        let mut node = node(Client::Geth);
        send(&mut node, &wallet(0), transfer(0)).unwrap();
        let before = node.mine(second(1));
        let after = node.reorg(second(2), Reorg { depth: 9, blocks: 1, transactions });
        assert_ne!(before, after, "another block with the same transactions");
        assert_eq!((node.mined().len(), node.pool().len()), (canonical, 0), "{transactions:?}");
        assert_eq!(node.payloads().len(), 1 + canonical);
    }
}

#[test]
fn somebody_else_can_use_a_nonce() {
    let mut node = node(Client::Geth);
    let (from, to) = (wallet(0).address(), Address::repeat_byte(0x22));
    send(&mut node, &wallet(0), transfer(0)).unwrap();
    let next = node.impersonate(second(1), from, to, U256::from(5), None);
    let instead = node.impersonate(second(1), from, to, U256::from(6), Some(0));
    node.mine(second(2));
    let mined: Vec<B256> = node.mined().values().map(|payload| payload.hash).collect();
    assert_eq!(mined, [instead, next]);
    assert_eq!(call(&mut node, "eth_getTransactionByHash", json!([next])).unwrap()["from"], json!(from));
    assert_eq!(node.state().balance(to), U256::from(11));
}

#[test]
fn the_methods_that_a_handshake_asks_answer() {
    let mut node = node(Client::Reth);
    assert_eq!(call(&mut node, "eth_chainId", json!([])).unwrap(), "0x7a69");
    assert_eq!(call(&mut node, "net_version", json!([])).unwrap(), "31337");
    assert_eq!(call(&mut node, "web3_clientVersion", json!([])).unwrap(), "reth/simulated");
    assert_eq!(call(&mut node, "eth_syncing", json!([])).unwrap(), false);
    assert_eq!(call(&mut node, "eth_gasPrice", json!([])).unwrap(), "0x77359400");
    let unknown = call(&mut node, "eth_novelty", json!([])).unwrap_err();
    assert_eq!(unknown, RpcError::new(-32601, "the method eth_novelty does not exist/is not available"));
    assert_eq!(call(&mut node, "eth_getBalance", json!([])).unwrap_err().code, -32602);
}
