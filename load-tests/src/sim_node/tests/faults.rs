//! Each fault does what it says.

use super::*;
use crate::faults::{ANY, Faults};
use crate::random::Delays;
use crate::sim_node::{Delivery, Fault, Outgoing, Verdict};

const SEND: &str = "eth_sendRawTransaction";

/// Sends one transfer over connection 1 and answers what the connection gets.
fn over_wire(node: &mut Node, number: u64) -> Vec<Delivery> {
    let (raw, _) = signed(&wallet(0), transfer(number));
    node.receive(Duration::ZERO, 1, &frame(number, &raw));
    node.take_deliveries()
}

fn connected(faults: Faults<Fault>) -> Node {
    let mut node = node(Client::Geth);
    assert_eq!(node.connect(), 1);
    node.set_faults(faults);
    node
}

fn faulty(fault: Fault) -> Node {
    connected(Faults::default().then(SEND, 1, fault))
}

fn text(delivery: &Delivery) -> Value {
    let Outgoing::Text(text) = &delivery.what else { panic!("cut") };
    serde_json::from_str(text).unwrap()
}

fn hash(number: u64) -> B256 {
    signed(&wallet(0), transfer(number)).1
}

#[test]
fn a_lost_answer_leaves_the_bytes_and_a_lost_request_does_not() {
    let mut node = faulty(Fault::DropAnswer);
    assert_eq!(over_wire(&mut node, 0), []);
    assert_eq!(node.pool().len(), 1);
    let arrival = &node.arrivals()[0];
    assert_eq!((&arrival.verdict, &arrival.told), (&Some(Verdict::Hash(hash(0))), &None));

    let mut node = faulty(Fault::DropRequest);
    assert_eq!(over_wire(&mut node, 0), []);
    assert!(node.pool().is_empty());
    assert_eq!(node.arrivals()[0].transaction.unwrap().hash, hash(0), "what never reached the node is on record all the same");
    assert_eq!((&node.arrivals()[0].verdict, &node.arrivals()[0].fault), (&None, &Some(Fault::DropRequest)));
}

#[test]
fn a_late_answer_comes_at_its_time() {
    let mut node = faulty(Fault::Late { milliseconds: 1_500 });
    let late = over_wire(&mut node, 0);
    assert_eq!((late[0].at, &text(&late[0])["result"]), (Duration::from_millis(1_500), &json!(hash(0))));
    node.set_delays(Delays::fixed(20));
    assert_eq!(over_wire(&mut node, 1)[0].at, Duration::from_millis(20));
}

#[test]
fn a_refusal_keeps_nothing_and_a_lie_keeps_the_bytes() {
    let (code, message) = (-32000, "insufficient funds for gas * price + value".to_owned());
    for (fault, pooled) in [(Fault::Refuse { code, message: message.clone() }, 0), (Fault::Lie { code, message: message.clone() }, 1)] {
        let mut node = faulty(fault);
        let answer = text(&over_wire(&mut node, 0)[0]);
        assert_eq!(answer["error"], json!({ "code": code, "message": message }));
        assert_eq!(node.pool().len(), pooled);
        assert_eq!(node.arrivals()[0].told, Some(Verdict::Error(RpcError::new(code, message.clone()))));
    }
}

#[test]
fn another_hash_is_answered_for_bytes_that_are_kept() {
    let mut node = faulty(Fault::OtherHash);
    assert_ne!(text(&over_wire(&mut node, 0)[0])["result"], json!(hash(0)));
    assert_eq!(node.pool().len(), 1);
}

#[test]
fn a_forgotten_pool_has_answered_with_the_hash() {
    let mut node = faulty(Fault::ForgetPool);
    assert_eq!(text(&over_wire(&mut node, 0)[0])["result"], json!(hash(0)));
    assert!(node.pool().is_empty());
}

#[test]
fn a_connection_is_cut_before_or_after_the_node_has_the_bytes() {
    for (fault, pooled) in [(Fault::CutBefore, 0), (Fault::CutAfter, 1)] {
        let mut node = faulty(fault);
        let cut = over_wire(&mut node, 0);
        assert_eq!(cut, [Delivery { connection: 1, at: Duration::ZERO, what: Outgoing::Cut }]);
        assert_eq!(node.pool().len(), pooled);
    }
}

#[test]
fn an_overtaken_frame_is_pooled_after_the_one_behind_it() {
    let mut node = faulty(Fault::Overtaken);
    assert_eq!(over_wire(&mut node, 0), []);
    let answers = over_wire(&mut node, 1);
    assert_eq!(answers.iter().map(|answer| text(answer)["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 0]);
    let mut entries: Vec<_> = node.pool().entries().collect();
    entries.sort_by_key(|entry| entry.arrival);
    assert_eq!(entries.iter().map(|entry| entry.transaction.nonce()).collect::<Vec<_>>(), [1, 0]);

    let mut last = faulty(Fault::Overtaken);
    over_wire(&mut last, 0);
    last.mine(second(1));
    assert_eq!(last.mined().len(), 1, "the next block is the last chance");
}

#[test]
fn a_batch_keeps_its_order_and_shares_its_fate() {
    let batch = |node: &mut Node| {
        let frames: Vec<Value> =
            (0..3).map(|nonce| serde_json::from_str(&frame(nonce, &signed(&wallet(0), transfer(nonce)).0)).unwrap()).collect();
        node.receive(Duration::ZERO, 1, &Value::from(frames).to_string());
        node.take_deliveries()
    };
    let mut node = faulty(Fault::Overtaken);
    let answers = text(&batch(&mut node)[0]);
    assert_eq!(answers.as_array().unwrap().iter().map(|one| one["result"].clone()).collect::<Vec<_>>(), [0, 1, 2].map(|n| json!(hash(n))));
    let mut lost = connected(Faults::default().then("eth_chainId", 1, Fault::DropAnswer).then(SEND, 1, Fault::DropAnswer));
    assert_eq!(batch(&mut lost), []);
    assert_eq!(lost.pool().len(), 3);
}

#[test]
fn a_stale_answer_is_the_one_of_some_blocks_ago() {
    let mut node = connected(Faults::default().then(ANY, 1, Fault::Stale { blocks: 1 }));
    send(&mut node, &wallet(0), transfer(0)).unwrap();
    node.mine(second(1));
    let question = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_getTransactionCount", "params": [wallet(0).address(), "pending"] });
    for expected in ["0x0", "0x1"] {
        node.receive(second(1), 1, &question.to_string());
        assert_eq!(text(&node.take_deliveries()[0])["result"], expected);
    }
}

#[test]
fn chances_follow_the_seed() {
    let drawn = |seed| {
        let mut node = Node::new(Settings { seed, ..settings(Client::Geth) });
        node.connect();
        node.set_faults(Faults::default().sometimes(SEND, 5_000, Fault::DropAnswer));
        (0..40).map(|number| over_wire(&mut node, number).is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    let lost = drawn(1).into_iter().filter(|is_lost| *is_lost).count();
    assert!((8..32).contains(&lost), "{lost}");
}

#[test]
fn subscribers_are_told_of_heads_and_transactions_until_the_node_falls_silent() {
    let mut node = connected(Faults::default());
    node.set_delays(Delays::fixed(30));
    for (id, kind) in ["newHeads", "newPendingTransactions", "logs"].into_iter().enumerate() {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": "eth_subscribe", "params": [kind] });
        node.receive(Duration::ZERO, 1, &request.to_string());
    }
    let ids: Vec<String> = node.take_deliveries().iter().map(|answer| text(answer)["result"].as_str().unwrap().to_owned()).collect();
    send(&mut node, &wallet(0), transfer(0)).unwrap();
    let head = node.mine(Duration::from_millis(10));
    let told = node.take_deliveries();
    assert!(told.iter().all(|told| told.at == Duration::from_millis(30)), "not before the answers that name the subscriptions");
    let results: Vec<(Value, Value)> =
        told.iter().map(text).map(|told| (told["params"]["subscription"].clone(), told["params"]["result"].clone())).collect();
    assert_eq!(results[0], (json!(ids[1]), json!(hash(0))));
    assert_eq!((&results[1].0, &results[1].1["hash"]), (&json!(ids[0]), &json!(head)));
    assert_eq!(results.len(), 2);

    node.set_announcing(false);
    node.mine(second(1));
    assert_eq!(node.take_deliveries(), []);
    node.set_announcing(true);
    let end = json!({ "jsonrpc": "2.0", "id": 9, "method": "eth_unsubscribe", "params": [ids[0]] });
    node.receive(second(2), 1, &end.to_string());
    node.mine(second(2));
    let last = node.take_deliveries();
    assert_eq!((last.len(), &text(&last[0])["result"]), (1, &json!(true)));
}
