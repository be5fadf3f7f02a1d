//! What goes wrong with streams: heads that are left out, doubled, out of order or not true, stalls, half-open connections.

use super::*;
use crate::announcements::{HEADS, HeadFault};
use crate::faults::Faults;
use crate::sim_node::{Delivery, Outgoing};

/// A node with a subscription to heads on connection 1.
fn subscribed() -> Node {
    let mut node = node(Client::Geth);
    let connection = node.connect();
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"] });
    node.receive(Duration::ZERO, connection, &request.to_string());
    node.take_deliveries();
    node
}

fn heads(deliveries: &[Delivery]) -> Vec<B256> {
    let messages = deliveries.iter().filter_map(|delivery| match &delivery.what {
        Outgoing::Text(text) => serde_json::from_str::<Value>(text).ok(),
        _ => None,
    });
    messages.filter_map(|message| serde_json::from_value(message["params"]["result"]["hash"].clone()).ok()).collect()
}

#[test]
fn heads_go_wrong_by_plan_for_all_who_subscribe() {
    let mut node = subscribed();
    let faults = json!({ "script": [{ "of": HEADS, "count": 1, "fault": { "kind": "twice" } }, { "of": HEADS, "count": 1, "fault": { "kind": "behindNext" } }] });
    call(&mut node, "sim_setHeadFaults", json!([faults])).unwrap();
    let mined: Vec<B256> = (1..=3).map(|n| node.mine(second(n))).collect();
    assert_eq!(heads(&node.take_deliveries()), [mined[0], mined[0], mined[2], mined[1]]);
    node.set_head_faults(Faults::default().then(HEADS, 1, HeadFault::LeftOut).then(HEADS, 1, HeadFault::Invented));
    let mined: Vec<B256> = (4..=6).map(|n| node.mine(second(n))).collect();
    let told = heads(&node.take_deliveries());
    assert_eq!((told.len(), told[1]), (2, mined[2]));
    assert!(node.chain().hash(told[0]).is_none(), "there is no such block");
    node.set_head_faults(Faults::default().then(HEADS, 1, HeadFault::Older { heads: 3 }));
    node.mine(second(7));
    assert_eq!(heads(&node.take_deliveries()), [mined[0]]);
}

#[test]
fn a_stall_holds_everything_back_and_keeps_its_order() {
    let mut node = subscribed();
    call(&mut node, "sim_stall", json!([5_000])).unwrap();
    let first = node.mine(second(1));
    node.receive(second(2), 1, &json!({ "jsonrpc": "2.0", "id": 2, "method": "eth_blockNumber", "params": [] }).to_string());
    let held = node.take_deliveries();
    assert_eq!((held.iter().map(|delivery| delivery.at).collect::<Vec<_>>(), heads(&held)), (vec![second(5); 2], vec![first]));
    assert!(matches!(&held[1].what, Outgoing::Text(text) if text.contains(r#""result":"0x1""#)), "what was asked was done at once");
    node.mine(second(6));
    assert_eq!(node.take_deliveries()[0].at, second(6));
}

#[test]
fn connections_hang_that_were_there() {
    let mut node = subscribed();
    call(&mut node, "sim_hang", json!([])).unwrap();
    assert_eq!(node.connect(), 2);
    assert_eq!(node.take_deliveries(), [Delivery { connection: 1, at: Duration::ZERO, what: Outgoing::Hang }]);
}

#[test]
fn subscriptions_are_counted_by_kind() {
    let mut node = subscribed();
    let mut ask = |method: &str, params: Value| {
        node.receive(second(1), 1, &json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params }).to_string());
        let Outgoing::Text(text) = node.take_deliveries().remove(0).what else { panic!("no answer") };
        (serde_json::from_str::<Value>(&text).unwrap()["result"].clone(), ["newHeads", "logs"].map(|kind| node.subscriptions(kind)))
    };
    let (id, counts) = ask("eth_subscribe", json!(["logs", {}]));
    assert_eq!(counts, [(1, 1), (1, 1)]);
    assert_eq!(ask("eth_unsubscribe", json!([id])).1, [(1, 1), (1, 0)]);
}
