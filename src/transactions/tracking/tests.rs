//! The tracker against a scripted node: blocks, receipts and their absence by table, answers held back by name.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::*;
use crate::node::testing::backend::{Asked, Backend, hash as text};
use crate::node::testing::{Running, ready, soon};

struct Ears(mpsc::UnboundedSender<Sighting>);

impl Audience for Ears {
    fn sighting(&self, _address: Address, sighting: Sighting) {
        self.0.send(sighting).ok();
    }

    fn receipts(&self, _receipts: Vec<Receipt>) {}
}

/// What the node has.
#[derive(Default)]
struct Chain {
    /// Transactions of blocks, by the byte of the block's hash; with the block's number.
    blocks: HashMap<u8, (u64, Vec<u8>)>,
    /// Where each transaction is: number and byte of its block, and whether it succeeded.
    receipts: HashMap<u8, (u64, u8, bool)>,
    /// Receipts whose next question is not answered.
    held: HashSet<u8>,
    /// The `finalized` block; an error without one.
    finalized: Option<(u64, u8)>,
    /// What a replay of a failed transaction answers; nothing without it.
    replay: Option<(&'static str, Value)>,
}

struct Bench {
    node: Backend,
    chain: Chain,
    parked: Vec<Asked>,
    tracker: Tracker,
    sightings: mpsc::UnboundedReceiver<Sighting>,
    _pool: Running,
}

fn hash(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}

impl Bench {
    /// With block 10 as the head. `confirmations` as in the configuration; 2 blocks count without finality.
    async fn start(confirmations: Confirmations) -> Self {
        let node = Backend::start().await;
        let pool = ready(&[&node]).await;
        let (ears, sightings) = mpsc::unbounded_channel();
        let tracker = Tracker::start(pool.pool.clone(), confirmations, 2, Arc::new(Ears(ears)), pool.stop.clone());
        let mut bench = Self { node, chain: Chain::default(), parked: Vec::new(), tracker, sightings, _pool: pool };
        bench.block(10, 10, &[]);
        bench
    }

    fn block(&mut self, number: u64, byte: u8, transactions: &[u8]) {
        self.chain.blocks.insert(byte, (number, transactions.to_vec()));
        for transaction in transactions {
            self.chain.receipts.insert(*transaction, (number, byte, true));
        }
    }

    /// A block on top with these transactions. The byte before the block's is its parent's.
    fn mine(&mut self, number: u64, byte: u8, transactions: &[u8]) {
        self.block(number, byte, transactions);
        self.node.announce((number, byte));
    }

    fn watch(&self, transaction: u8, look_up: bool) {
        let owner = Owner { address: Address::repeat_byte(7), service: Arc::from("payments"), principal: Arc::from("default") };
        self.tracker.watch(hash(transaction), owner, look_up);
    }

    /// The next sighting; questions of the tracker are answered meanwhile.
    async fn sighting(&mut self) -> Sighting {
        loop {
            tokio::select! {
                biased;
                sighting = self.sightings.recv() => return sighting.unwrap(),
                asked = self.node.asked() => self.answer(asked),
            }
        }
    }

    /// Until everything up to this head was told.
    async fn processed(&mut self, number: u64) {
        let mut processed = self.tracker.processed();
        loop {
            if processed.borrow_and_update().as_ref().is_some_and(|head| head.number == number) {
                return;
            }
            tokio::select! {
                biased;
                changed = processed.changed() => changed.unwrap(),
                asked = self.node.asked() => self.answer(asked),
            }
        }
    }

    /// Until a question is held back.
    async fn parked(&mut self) -> Asked {
        while self.parked.is_empty() {
            let asked = self.node.asked().await;
            self.answer(asked);
        }
        self.parked.remove(0)
    }

    fn answer(&mut self, asked: Asked) {
        let chain = &mut self.chain;
        let byte = |value: &Value| u8::from_str_radix(&value.as_str().unwrap()[2..4], 16).unwrap();
        let first = &asked.params[0];
        match asked.method.as_str() {
            "eth_getBlockByHash" => {
                let (number, transactions) = &chain.blocks[&byte(first)];
                let hashes: Vec<String> = transactions.iter().map(|byte| text(*byte)).collect();
                let parent = text(byte(first).wrapping_sub(1));
                asked.answer(json!({ "hash": first, "number": format!("{number:#x}"), "parentHash": parent, "transactions": hashes }));
            }
            "eth_getTransactionReceipt" if chain.held.remove(&byte(first)) => self.parked.push(asked),
            "eth_getTransactionReceipt" => {
                asked.answer(chain.receipts.get(&byte(first)).map_or(Value::Null, |(number, block, success)| {
                    json!({ "transactionHash": first, "blockHash": text(*block), "blockNumber": format!("{number:#x}"),
                    "transactionIndex": "0x0", "status": if *success { "0x1" } else { "0x0" } })
                }))
            }
            "eth_getBlockByNumber" if first != "finalized" => {
                let number = u64::from_str_radix(first.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
                let found = chain.blocks.iter().find(|(_, (other, _))| *other == number).map(|(byte, (_, transactions))| {
                    let hashes: Vec<String> = transactions.iter().map(|byte| text(*byte)).collect();
                    json!({ "hash": text(*byte), "number": first, "parentHash": text(byte.wrapping_sub(1)), "transactions": hashes })
                });
                asked.answer(found.unwrap_or(Value::Null));
            }
            "eth_getBlockByNumber" => match chain.finalized {
                Some((number, byte)) => asked.answer(json!({ "number": format!("{number:#x}"), "hash": text(byte) })),
                None => asked.error(-39001, "finalized block not found"),
            },
            "eth_getTransactionByHash" => asked.answer(json!({ "from": "0x01", "to": "0x02", "gas": "0x5208", "input": "0x" })),
            "eth_call" => {
                if let Some((message, data)) = &chain.replay {
                    let error = json!({ "code": 3, "message": message, "data": data });
                    assert_eq!(asked.params[1], "0xa", "on the block before");
                    asked.peer.text(json!({ "jsonrpc": "2.0", "id": asked.id, "error": error }));
                }
            }
            other => panic!("{other}"),
        }
    }

    fn nothing_told(&mut self) {
        assert!(self.sightings.try_recv().is_err());
    }
}

/// What a sighting says, in short.
fn short(sighting: &Sighting) -> (&'static str, u8, u64) {
    match sighting {
        Sighting::Included { hash, block, .. } => ("included", hash[0], block.number),
        Sighting::Orphaned { hash } => ("orphaned", hash[0], 0),
        Sighting::Confirmed { hash, block } => ("confirmed", hash[0], block.number),
        Sighting::Absent { hash } => ("absent", hash[0], 0),
    }
}

#[tokio::test]
async fn a_look_up_that_is_not_answered_delays_no_head() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    bench.chain.held.insert(0xa1);
    bench.watch(0xa1, true);
    let question = bench.parked().await;
    bench.watch(0xa2, false);
    bench.mine(11, 11, &[0xa2]);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa2, 11));
    bench.processed(11).await;
    question.answer(Value::Null);
    assert_eq!(short(&bench.sighting().await), ("absent", 0xa1, 0));
}

#[tokio::test]
async fn an_answer_from_before_the_inclusion_is_asked_again_and_orphans_nothing() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    bench.chain.held.insert(0xa1);
    bench.watch(0xa1, true);
    let question = bench.parked().await;
    bench.mine(11, 11, &[0xa1]);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 11));
    question.answer(Value::Null);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 11), "asked again, and found");
}

/// A client that comes back asks for its hashes before the account is open.
#[tokio::test]
async fn an_inclusion_that_a_client_observed_is_told_to_its_owner_before_it_is_confirmed() {
    let mut bench = Bench::start(Confirmations::Blocks(2)).await;
    bench.processed(10).await;
    bench.mine(11, 11, &[0xa1]);
    bench.processed(11).await;
    let tracker = bench.tracker.clone();
    let client = tokio::spawn(async move { tracker.observe(vec![hash(0xa1)]).await });
    let asked = bench.node.asked().await;
    bench.answer(asked);
    assert_eq!(client.await.unwrap().len(), 1);
    bench.chain.held.insert(0xa1);
    bench.watch(0xa1, true);
    let question = bench.parked().await;
    bench.mine(12, 12, &[]);
    bench.processed(12).await;
    bench.nothing_told();
    question.answer(json!({ "blockHash": text(11), "blockNumber": "0xb", "status": "0x1" }));
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 11));
    assert_eq!(short(&bench.sighting().await), ("confirmed", 0xa1, 11));
}

/// What is mined while the node is away is told in the order of the chain, and the blocks are asked for side by side.
#[tokio::test]
async fn what_was_mined_while_the_node_was_away_is_told_in_order() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    for transaction in [0xa1, 0xa2, 0xa3] {
        bench.watch(transaction, false);
    }
    for (number, transactions) in [(11, vec![0xa2]), (12, vec![]), (13, vec![0xa1]), (14, vec![0xa3]), (15, vec![])] {
        bench.block(number, number as u8, &transactions);
    }
    bench.node.script(|script| script.head = (15, 15));
    bench.node.disconnect();
    // All four that nobody announced, before any is answered.
    let mut asked = Vec::new();
    while asked.len() < 4 {
        let question = bench.node.asked().await;
        assert_eq!(question.method, "eth_getBlockByNumber", "{}", question.params);
        asked.push(question);
    }
    asked.into_iter().for_each(|question| bench.answer(question));
    for expected in [("included", 0xa2, 11), ("included", 0xa1, 13), ("included", 0xa3, 14)] {
        assert_eq!(short(&bench.sighting().await), expected);
    }
    bench.processed(15).await;
    bench.nothing_told();
}

/// A reorg between the announcement and the question: the numbers are another branch's by then.
#[tokio::test]
async fn blocks_of_another_branch_that_were_read_ahead_count_for_nothing() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    bench.watch(0xa1, false);
    for number in 11..=14 {
        bench.block(number, number as u8, if number == 12 { &[0xa1] } else { &[] });
    }
    bench.node.announce((14, 14));
    for _ in 0..3 {
        let question = bench.node.asked().await;
        let other = text(0xb0);
        question.answer(json!({ "hash": other, "number": question.params[0], "parentHash": other, "transactions": [text(0xa1)] }));
    }
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 12));
    bench.processed(14).await;
    bench.nothing_told();
}

#[tokio::test]
async fn after_a_gap_deeper_than_the_line_every_inclusion_is_looked_up_again() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    for transaction in [0xa1, 0xa2, 0xa3] {
        bench.watch(transaction, false);
    }
    bench.mine(11, 11, &[0xa1, 0xa2]);
    for transaction in [0xa1, 0xa2] {
        assert_eq!(short(&bench.sighting().await), ("included", transaction, 11));
    }
    bench.processed(11).await;
    // The chain goes on from below everything that is on record: one is in another block of it, one in none.
    bench.chain.receipts.clear();
    bench.chain.receipts.insert(0xa1, (4, 49, true));
    bench.mine(5, 50, &[]);
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(short(&bench.sighting().await));
    }
    told.sort_unstable();
    assert_eq!(told, [("absent", 0xa2, 0), ("absent", 0xa3, 0), ("included", 0xa1, 4), ("orphaned", 0xa2, 0)]);
    // It is included again by a block of the new chain.
    bench.mine(6, 51, &[0xa2]);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa2, 6));
    bench.nothing_told();
}

#[tokio::test]
async fn a_receipt_that_contradicts_the_line_is_asked_for_until_it_does_not() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    bench.watch(0xa1, false);
    bench.mine(11, 11, &[0xa1]);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 11));
    // A deep gap; the node that is asked still has the receipt of the block that is gone.
    bench.chain.held.insert(0xa1);
    bench.mine(7, 70, &[]);
    let question = bench.parked().await;
    bench.chain.held.insert(0xa1);
    question.answer(json!({ "blockHash": text(11), "blockNumber": "0xb", "status": "0x1" }));
    let again = bench.parked().await;
    bench.nothing_told();
    again.answer(Value::Null);
    assert_eq!(short(&bench.sighting().await), ("orphaned", 0xa1, 0));
    assert_eq!(short(&bench.sighting().await), ("absent", 0xa1, 0));
}

#[tokio::test]
async fn with_finalized_an_inclusion_is_confirmed_by_that_block_alone() {
    let mut bench = Bench::start(Confirmations::Finalized).await;
    bench.processed(10).await;
    bench.chain.finalized = Some((10, 10));
    bench.watch(0xa1, false);
    bench.mine(11, 11, &[0xa1]);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 11));
    for number in 12..15 {
        // One that is not of our chain counts for nothing.
        bench.chain.finalized = if number == 14 { Some((11, 99)) } else { Some((10, 10)) };
        bench.mine(number, u8::try_from(number).unwrap(), &[]);
        bench.processed(number).await;
    }
    bench.nothing_told();
    bench.chain.finalized = Some((11, 11));
    bench.mine(15, 15, &[]);
    assert_eq!(short(&bench.sighting().await), ("confirmed", 0xa1, 11));
}

#[tokio::test]
async fn where_the_nodes_have_no_finalized_block_depth_counts() {
    let mut bench = Bench::start(Confirmations::Finalized).await;
    bench.processed(10).await;
    bench.watch(0xa1, false);
    bench.mine(11, 11, &[0xa1]);
    assert_eq!(short(&bench.sighting().await), ("included", 0xa1, 11));
    bench.mine(12, 12, &[]);
    assert_eq!(short(&bench.sighting().await), ("confirmed", 0xa1, 11), "2 blocks, the including one counted");
}

#[tokio::test]
async fn a_failed_execution_is_told_with_its_reason() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    bench.chain.replay = Some(("execution reverted", json!("0xcf4791810000")));
    bench.watch(0xa1, false);
    bench.block(11, 11, &[0xa1]);
    bench.chain.receipts.insert(0xa1, (11, 11, false));
    bench.node.announce((11, 11));
    let Sighting::Included { success, reason, .. } = bench.sighting().await else { panic!("no inclusion") };
    assert_eq!((success, reason.as_deref()), (false, Some("error 0xcf479181")));
}

#[tokio::test]
async fn an_inclusion_is_told_without_a_reason_that_the_node_does_not_give() {
    let mut bench = Bench::start(Confirmations::Blocks(12)).await;
    bench.processed(10).await;
    bench.watch(0xa1, false);
    bench.watch(0xa2, false);
    bench.block(11, 11, &[0xa1, 0xa2]);
    bench.chain.receipts.insert(0xa1, (11, 11, false));
    bench.node.announce((11, 11));
    let Sighting::Included { hash, success, reason, .. } = bench.sighting().await else { panic!("no inclusion") };
    assert_eq!((hash[0], success, reason), (0xa1, false, None));
    assert_eq!(short(&bench.sighting().await), ("included", 0xa2, 11));
    soon(bench.processed(11)).await;
}
