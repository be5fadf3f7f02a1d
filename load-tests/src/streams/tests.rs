//! Views that are told what a node without a gap tells, and what it never would.

use std::time::Duration;

use alloy_primitives::{Address, Bytes, Log, U256};
use serde_json::json;

use super::*;
use crate::sim_node::{Client, Node, Reorg, Returned, Settings};

const NOW: Duration = Duration::from_secs(1);

/// A node with a few blocks, and an account that has logs emitted.
fn node() -> (Node, Address) {
    let account = Address::repeat_byte(0xaa);
    let mut node = Node::new(Settings::new(Client::Geth, 31_337, 7).with_balance(U256::from(10).pow(U256::from(20)), [account]));
    for _ in 0..3 {
        node.mine(NOW);
    }
    (node, account)
}

/// A block with so many logs.
fn mine(node: &mut Node, account: Address, logs: u8) -> B256 {
    let logs: Vec<Log> = (0..logs).map(|n| Log::new_unchecked(Address::repeat_byte(1), vec![B256::repeat_byte(n)], Bytes::new())).collect();
    node.emit(NOW, account, &logs);
    node.mine(NOW)
}

fn reorg(node: &mut Node, depth: u64, blocks: u64) {
    node.reorg(NOW, Reorg { depth, blocks, transactions: Returned::Lost });
}

/// The canonical blocks from number 4 on.
fn newest(node: &Node) -> Vec<B256> {
    node.chain().canonical().skip(4).map(|block| block.hash).collect()
}

#[test]
fn heads_that_are_missing_doubled_out_of_order_or_invented_are_found() {
    let (mut node, account) = node();
    let begin = HeadView::new(&node);
    for _ in 0..3 {
        mine(&mut node, account, 0);
    }
    let old = newest(&node);
    reorg(&mut node, 2, 3);
    let new = newest(&node);
    let told = |blocks: &[B256]| {
        let mut view = begin.clone();
        blocks.iter().try_for_each(|block| view.told(&node, &node.header(*block).unwrap_or_default())).and_then(|()| view.complete(&node))
    };
    let whole = [&old[..], &new[1..]].concat();
    assert_eq!(told(&whole), Ok(()));
    assert_eq!(told(&new), Ok(()), "who was away does not see what came and went meanwhile");
    assert!(told(&[old[0], old[2]]).unwrap_err().contains("missing"));
    assert!(told(&[old[1], old[0]]).unwrap_err().contains("missing"));
    assert!(told(&[&old[..], &new[2..]].concat()).unwrap_err().contains("missing"), "the first block of a branch");
    assert!(told(&[old[0], old[0]]).unwrap_err().contains("twice"));
    assert!(told(&[&whole[..], &[old[1]]].concat()).unwrap_err().contains("twice"));
    assert!(told(&old).unwrap_err().contains("ends with"));
    assert!(told(&[B256::ZERO]).unwrap_err().contains("gap"));
    // The same on a stream that says what is taken back.
    let told = |blocks: &[(B256, bool)]| {
        let mut view = HeadView::behind(&node, old[0]).explicit();
        let told = |(block, is_removed): &(B256, bool)| {
            let mut head = node.header(*block).unwrap();
            if *is_removed {
                head["removed"] = json!(true);
            }
            view.told(&node, &head)
        };
        blocks.iter().try_for_each(told).and_then(|()| view.complete(&node))
    };
    let (added, branch) = ([(old[1], false), (old[2], false)], [(new[1], false), (new[2], false), (new[3], false)]);
    let taken_back = [(old[2], true), (old[1], true)];
    assert_eq!(told(&[&added[..], &taken_back, &branch].concat()), Ok(()));
    assert!(told(&[&added[..], &branch].concat()).unwrap_err().contains("not taken back"));
    assert!(told(&[&added[..], &taken_back[..1], &branch].concat()).unwrap_err().contains("not taken back"));
    assert!(told(&[&added[..], &taken_back[1..], &branch].concat()).unwrap_err().contains("the newest is"));
    let mut lie = node.header(old[0]).unwrap();
    lie["gasUsed"] = json!("0x1");
    assert!(begin.clone().told(&node, &lie).unwrap_err().contains("another"));
    lie["hash"] = json!(B256::repeat_byte(9));
    assert!(begin.clone().told(&node, &lie).unwrap_err().contains("no block"));
}

#[test]
fn logs_that_are_missing_doubled_out_of_order_or_not_taken_back_are_found() {
    let (mut node, account) = node();
    let begin = LogView::new(&node, json!({ "address": Address::repeat_byte(1) }));
    let logs = |node: &Node, block: B256, is_removed: bool| node.logs_of(block, &json!({}), is_removed).unwrap();
    let blocks: Vec<B256> = [2, 0, 3].into_iter().map(|count| mine(&mut node, account, count)).collect();
    let (one, three) = (logs(&node, blocks[0], false), logs(&node, blocks[2], false));
    let taken_back = logs(&node, blocks[2], true);
    reorg(&mut node, 1, 1);
    let four = mine(&mut node, account, 1);
    let four = logs(&node, four, false);
    let told = |parts: &[&[Value]]| {
        let mut view = begin.clone();
        parts.concat().iter().try_for_each(|log| view.told(&node, log)).and_then(|()| view.complete(&node))
    };
    assert_eq!(told(&[&one, &three, &taken_back, &four]), Ok(()));
    assert_eq!(told(&[&one, &four]), Ok(()), "who was away does not see what came and went meanwhile");
    for (parts, why) in [
        (&[&one[1..]][..], "next was"),
        (&[&one[..1], &three], "missing before"),
        (&[&three[..]], "missing before"),
        (&[&one, &three[1..]], "next was"),
        (&[&one, &one], "more logs"),
        (&[&one, &three, &four], "missing before"),
        (&[&one, &three, &taken_back[1..], &four], "next was"),
        (&[&one, &three, &taken_back[..2], &four], "by halves"),
        (&[&one, &three[..2], &taken_back[1..], &four], "the newest are 2"),
        (&[&one, &three, &taken_back, &three], "twice"),
        (&[&one, &taken_back], "the newest are"),
        (&[&taken_back[..]], "not told"),
        (&[&one, &three], "end with"),
        (&[&one, &[Value::Null]], "gap"),
    ] {
        let verdict = told(parts).unwrap_err();
        assert!(verdict.contains(why), "{why}: {verdict}");
    }
    reorg(&mut node, 5, 1);
    let five = mine(&mut node, account, 1);
    let mut view = begin.clone();
    let verdict = [&one[..], &logs(&node, five, false)].concat().iter().try_for_each(|log| view.told(&node, log));
    assert!(verdict.unwrap_err().contains("not taken back"));
}

#[test]
fn who_came_back_may_be_told_that_logs_are_taken_back_from_before_it_began() {
    let (mut node, account) = node();
    let one = mine(&mut node, account, 2);
    let begin = LogView::new(&node, json!({}));
    reorg(&mut node, 1, 1);
    let taken_back = node.logs_of(one, &json!({}), true).unwrap();
    let told = |mut view: LogView| taken_back.iter().try_for_each(|log| view.told(&node, log)).and_then(|()| view.complete(&node));
    assert!(told(begin.clone()).unwrap_err().contains("not told"));
    let mut back = begin;
    back.come_back();
    assert_eq!(told(back), Ok(()));
}

#[test]
fn receipts_that_are_missing_doubled_or_of_another_block_are_found() {
    let (mut node, account) = node();
    let hash = node.emit(NOW, account, &[]);
    let orphaned = node.mine(NOW);
    node.reorg(NOW, Reorg { depth: 1, blocks: 1, transactions: Returned::Mined });
    let (old, new) = (node.receipt(orphaned, hash).unwrap(), node.receipt(node.chain().head().hash, hash).unwrap());
    let told = |parts: &[&[&Value]]| {
        let mut view = ReceiptView::default();
        parts.iter().try_for_each(|receipts| view.told(&node, &json!(receipts))).and_then(|()| view.complete(&node, &[hash]))
    };
    assert_eq!(told(&[&[&old], &[&new]]), Ok(()));
    assert_eq!(told(&[&[&new]]), Ok(()));
    assert!(told(&[&[&old]]).unwrap_err().contains("told was"));
    assert!(told(&[]).unwrap_err().contains("told was"));
    assert!(told(&[&[&new], &[&new]]).unwrap_err().contains("twice"));
    let mut lie = new.clone();
    lie["status"] = json!("0x0");
    assert!(told(&[&[&lie]]).unwrap_err().contains("another"));
    assert!(ReceiptView::default().told(&node, &Value::Null).unwrap_err().contains("gap"));
}

#[test]
fn lives_with_events_that_are_missing_doubled_or_out_of_order_are_found() {
    let (mut node, account) = node();
    let hash = node.emit(NOW, account, &[]);
    let orphaned = node.mine(NOW);
    node.reorg(NOW, Reorg { depth: 1, blocks: 1, transactions: Returned::Mined });
    let event = |cursor: u64, state: &str, block: Option<B256>| {
        let receipt = block.filter(|_| state == "included").and_then(|block| node.receipt(block, hash));
        let block = block.map(|block| json!({ "hash": block }));
        json!({ "cursor": cursor.to_string(), "hash": hash, "state": state, "block": block, "receipt": receipt })
    };
    let new = Some(node.chain().head().hash);
    let (committed, broadcast, gone) = (event(1, "committed", None), event(2, "broadcast", None), event(4, "orphaned", None));
    let (once, again, confirmed) = (event(3, "included", Some(orphaned)), event(5, "included", new), event(6, "confirmed", new));
    let told = |events: &[&Value]| {
        let mut view = LifeView::default();
        events.iter().try_for_each(|event| view.told(&node, event)).and_then(|()| view.complete(&node, &[hash]))
    };
    assert_eq!(told(&[&committed, &broadcast, &once, &gone, &again, &confirmed]), Ok(()));
    assert_eq!(told(&[&committed, &once, &again]), Ok(()), "it moved between two looks");
    assert!(told(&[&committed, &committed]).unwrap_err().contains("twice"));
    assert!(told(&[&committed, &broadcast, &once]).unwrap_err().contains("told was"));
    assert!(told(&[&committed, &broadcast, &confirmed]).unwrap_err().contains("behind"));
    assert!(told(&[&committed, &once, &confirmed]).unwrap_err().contains("behind"));
    assert!(told(&[&broadcast]).unwrap_err().contains("behind"));
    assert!(told(&[&committed, &gone]).unwrap_err().contains("behind"));
    assert!(told(&[&committed, &again, &event(7, "included", new)]).unwrap_err().contains("behind"));
    let mut lie = again.clone();
    lie["receipt"]["status"] = json!("0x0");
    assert!(told(&[&committed, &lie]).unwrap_err().contains("another receipt"));
    assert!(told(&[&Value::Null]).unwrap_err().contains("no cursor"));
}
