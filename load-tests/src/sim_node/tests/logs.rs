//! Logs in receipts, headers, answers and subscriptions.

use alloy_primitives::{Bloom, BloomInput, Log};

use super::*;
use crate::sim_node::{EMITTER, Outgoing, Reorg, Returned, emitting};

fn address(byte: u8) -> Address {
    Address::repeat_byte(byte)
}

fn topic(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}

fn log(from: u8, topics: &[u8]) -> Log {
    Log::new_unchecked(address(from), topics.iter().map(|byte| topic(*byte)).collect(), vec![from, 0, 7].into())
}

/// Puts a call that emits these into the pool.
fn emit(node: &mut Node, logs: &[Log]) -> B256 {
    node.emit(second(1), wallet(0).address(), logs)
}

/// Tells what connection 1 was told of logs: block, index and whether it is removed.
fn told(node: &mut Node) -> Vec<(B256, u64, bool)> {
    let messages = node.take_deliveries().into_iter().filter_map(|delivery| match delivery.what {
        Outgoing::Text(text) => serde_json::from_str::<Value>(&text).ok(),
        _ => None,
    });
    let logs = messages.filter(|message| message["params"]["result"]["logIndex"].is_string());
    logs.map(|message| {
        let log = &message["params"]["result"];
        (serde_json::from_value(log["blockHash"].clone()).unwrap(), quantity(&log["logIndex"]), log["removed"].as_bool().unwrap())
    })
    .collect()
}

fn subscribe(node: &mut Node, filter: &Value) {
    let connection = node.connect();
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["logs", filter] });
    node.receive(second(1), connection, &request.to_string());
    node.take_deliveries();
}

#[test]
fn a_call_emits_the_logs_of_its_data_in_receipts_blooms_and_answers() {
    let mut node = node(Client::Geth);
    let plain = send(&mut node, &wallet(1), transfer(0)).unwrap();
    let first = emit(&mut node, &[log(1, &[]), log(2, &[1, 2, 3, 4])]);
    let other = emit(&mut node, &[log(3, &[5])]);
    let block = node.mine(second(2));
    let mut receipt = |hash: B256| call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap();
    let (plain, first, other) = (receipt(plain), receipt(first), receipt(other));
    assert_eq!((&plain["logs"], &plain["logsBloom"]), (&json!([]), &json!(Bloom::ZERO)));
    assert_eq!((&first["status"], first["logs"].as_array().unwrap().len()), (&json!("0x1"), 2));
    let second = &first["logs"][1];
    assert_eq!((&second["address"], &second["data"]), (&json!(address(2)), &json!("0x020007")));
    assert_eq!(second["topics"], json!([topic(1), topic(2), topic(3), topic(4)]));
    assert_eq!(
        (&second["transactionHash"], &second["blockHash"], &second["removed"]),
        (&first["transactionHash"], &json!(block), &json!(false))
    );
    assert_eq!([&first["logs"][0]["logIndex"], &second["logIndex"], &other["logs"][0]["logIndex"]], ["0x0", "0x1", "0x2"]);

    let header = &node.chain().head().header;
    let has = |bytes: &[u8]| header.logs_bloom.contains_input(BloomInput::Raw(bytes));
    assert!([1, 2, 3].iter().all(|byte| has(address(*byte).as_slice())) && [1, 4, 5].iter().all(|byte| has(topic(*byte).as_slice())));
    assert!(!has(address(9).as_slice()));
    let all = [first["logs"].as_array().unwrap().clone(), other["logs"].as_array().unwrap().clone()].concat();
    assert_eq!(call(&mut node, "eth_getLogs", json!([{ "blockHash": block }])).unwrap(), json!(all));
    assert_eq!(node.logs_of(block, &json!({ "address": address(3) }), false).unwrap(), [all[2].clone()]);
}

#[test]
fn call_data_that_is_no_list_of_logs_reverts() {
    let mut node = node(Client::Geth);
    // Logs whose data costs less than they do.
    let cheap = vec![Log::default(); 3];
    let request = |input: Bytes| json!([{ "to": EMITTER, "input": input }]);
    let estimate = call(&mut node, "eth_estimateGas", request(emitting(&cheap))).unwrap();
    let five = emitting(&[log(1, &[1, 2, 3, 4, 5])]);
    for input in [Bytes::from_static(b"\x01"), five, [&emitting(&[])[..], b"\x00"].concat().into()] {
        assert_eq!(call(&mut node, "eth_estimateGas", request(input)).unwrap_err().code, 3);
    }
    // What is estimated is enough, one less is not.
    for (nonce, gas_limit, status) in [(0, quantity(&estimate), "0x1"), (1, quantity(&estimate) - 1, "0x0")] {
        let emitter = TxEip1559 { to: TxKind::Call(EMITTER), input: emitting(&cheap), gas_limit, value: U256::ZERO, ..transfer(nonce) };
        let hash = send(&mut node, &wallet(0), emitter).unwrap();
        node.mine(second(2));
        let receipt = call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap();
        assert_eq!((&receipt["status"], receipt["logs"].as_array().unwrap().is_empty()), (&json!(status), status == "0x0"));
    }
}

#[test]
fn filters_are_those_of_the_client() {
    // A log of address 1 with the topics 7 and 8.
    let cases = [
        (json!({}), true, true),
        (json!({ "address": address(1) }), true, true),
        (json!({ "address": [address(2), address(1)], "topics": [topic(7)] }), true, true),
        (json!({ "address": [address(2)] }), false, false),
        (json!({ "topics": [[topic(9), topic(7)], topic(8)] }), true, true),
        (json!({ "topics": [topic(8)] }), false, false),
        (json!({ "topics": [null, topic(8)] }), true, true),
        (json!({ "topics": [[], [null, topic(9)]] }), true, true),
        (json!({ "topics": [null, null, topic(8)] }), false, false),
        // A position that any topic meets, and none behind it that names one: here they differ.
        (json!({ "topics": [topic(7), null, null] }), false, true),
        (json!({ "topics": [null, null, []] }), false, true),
    ];
    for (client, is_reths) in [(Client::Geth, false), (Client::Besu, false), (Client::Reth, true), (Client::Anvil, true)] {
        let mut node = node(client);
        emit(&mut node, &[log(1, &[7, 8])]);
        node.mine(second(2));
        for (filter, geths, reths) in &cases {
            let found = call(&mut node, "eth_getLogs", json!([filter])).unwrap();
            let expected = if is_reths { *reths } else { *geths };
            assert_eq!(!found.as_array().unwrap().is_empty(), expected, "{client:?} {filter}");
        }
    }
}

#[test]
fn logs_are_asked_for_by_range_and_by_block() {
    let mut node = node(Client::Geth);
    let blocks: Vec<B256> = (1..=4)
        .map(|n| {
            emit(&mut node, &[log(n, &[])]);
            node.mine(second(u64::from(n)))
        })
        .collect();
    let mut found = |filter: Value| {
        let logs = call(&mut node, "eth_getLogs", json!([filter]))?;
        Ok::<_, RpcError>(logs.as_array().unwrap().iter().map(|log| quantity(&log["blockNumber"])).collect::<Vec<_>>())
    };
    assert_eq!(found(json!({ "fromBlock": "0x2", "toBlock": "0x3" })).unwrap(), [2, 3]);
    assert_eq!(found(json!({ "fromBlock": "earliest", "toBlock": "0x99" })).unwrap(), [1, 2, 3, 4]);
    assert_eq!(found(json!({})).unwrap(), [4], "the latest one");
    assert_eq!(found(json!({ "blockHash": blocks[1] })).unwrap(), [2]);
    assert_eq!(found(json!({ "fromBlock": "0x3", "toBlock": "0x2" })).unwrap_err().message, "invalid block range params");
    assert_eq!(found(json!({ "blockHash": B256::ZERO })).unwrap_err(), RpcError::new(-32000, "unknown block"));
    assert!(found(json!({ "blockHash": blocks[1], "toBlock": "0x2" })).unwrap_err().message.contains("cannot specify both"));
    assert_eq!(found(json!({ "topics": [null, null, null, null, null] })).unwrap_err(), RpcError::new(-32602, "exceed max topics"));
    assert_eq!(found(json!({ "address": "0x12" })).unwrap_err().code, -32602);
}

#[test]
fn a_reorg_takes_logs_back_newest_first_before_those_of_the_new_blocks() {
    let mut node = node(Client::Geth);
    subscribe(&mut node, &json!({ "address": [address(1), address(3)] }));
    emit(&mut node, &[log(1, &[]), log(2, &[]), log(1, &[9])]);
    let one = node.mine(second(2));
    emit(&mut node, &[log(3, &[])]);
    let two = node.mine(second(3));
    assert_eq!(told(&mut node), [(one, 0, false), (one, 2, false), (two, 0, false)]);
    let again = node.reorg(second(4), Reorg { depth: 2, blocks: 1, transactions: Returned::Mined });
    let taken_back = [(two, 0, true), (one, 2, true), (one, 0, true)];
    assert_eq!(told(&mut node), [&taken_back[..], &[(again, 0, false), (again, 2, false), (again, 3, false)]].concat());
    assert_eq!(
        call(&mut node, "eth_getLogs", json!([{ "blockHash": one }])).unwrap().as_array().unwrap().len(),
        3,
        "by hash they are there"
    );
    assert_eq!(node.logs_of(one, &json!({}), true).unwrap()[0]["logIndex"], "0x2");
}

#[test]
fn anvil_neither_takes_logs_back_nor_tells_those_of_orphaned_blocks() {
    let mut node = node(Client::Anvil);
    subscribe(&mut node, &Value::Null);
    emit(&mut node, &[log(1, &[])]);
    let one = node.mine(second(2));
    let again = node.reorg(second(4), Reorg { depth: 1, blocks: 1, transactions: Returned::Mined });
    assert_eq!(told(&mut node), [(one, 0, false), (again, 0, false)]);
    assert_eq!(call(&mut node, "eth_getLogs", json!([{ "blockHash": one }])).unwrap_err(), RpcError::new(-32000, "unknown block"));
}

#[test]
fn another_process_can_have_logs_emitted() {
    let mut node = node(Client::Geth);
    let logs = json!([{ "address": address(1), "topics": [topic(7)], "data": "0x01" }]);
    let hash = call(&mut node, "sim_emit", json!([wallet(0).address(), logs])).unwrap();
    call(&mut node, "sim_mine", json!([])).unwrap();
    let receipt = call(&mut node, "eth_getTransactionReceipt", json!([hash])).unwrap();
    assert_eq!((&receipt["logs"][0]["topics"], &receipt["to"]), (&json!([topic(7)]), &json!(EMITTER)));
}
