//! The same seed and the same calls give the same bytes.

use super::*;
use crate::faults::{ANY, Faults};
use crate::random::{Delays, Random};
use crate::sim_node::{Fault, Reorg, Returned};

/// Everything that two connections get in many steps, drawn by a seed of their own.
fn transcript(seed: u64, client: Client) -> String {
    let mut node = Node::new(Settings { seed, delays: Delays { p50: 5, p99: 50, max: 100 }, ..settings(client) });
    node.set_faults(
        Faults::default()
            .sometimes("eth_sendRawTransaction", 500, Fault::DropAnswer)
            .sometimes("eth_sendRawTransaction", 500, Fault::Overtaken)
            .sometimes("eth_sendRawTransaction", 300, Fault::OtherHash)
            .sometimes("eth_sendRawTransaction", 100, Fault::ForgetPool)
            .sometimes(ANY, 300, Fault::Late { milliseconds: 400 })
            .sometimes("eth_getTransactionCount", 1_000, Fault::Stale { blocks: 2 }),
    );
    let mut steps = Random::new(99, "steps");
    let mut text = String::new();
    for connection in [node.connect(), node.connect()] {
        let subscribe = json!({ "jsonrpc": "2.0", "id": 0, "method": "eth_subscribe", "params": ["newHeads"] });
        node.receive(Duration::ZERO, connection, &subscribe.to_string());
    }
    for step in 0..150 {
        let now = Duration::from_millis(50 * step);
        let (sender, connection) = (wallet(steps.below(3)), 1 + steps.below(2));
        let count = json!({ "jsonrpc": "2.0", "id": step, "method": "eth_getTransactionCount", "params": [sender.address(), "pending"] });
        match steps.below(10) {
            0 => drop(node.mine(now)),
            1 if step % 7 == 0 => drop(node.reorg(now, Reorg { depth: 2, blocks: 2, transactions: Returned::Pooled })),
            2 => node.receive(now, connection, &count.to_string()),
            _ => {
                let next = node.pool().next_nonce(node.state(), sender.address());
                let (raw, _) = signed(&sender, TxEip1559 { value: U256::from(step), ..transfer(next) });
                node.receive(now, connection, &frame(step, &raw));
            }
        }
        text.push_str(&format!("{:?}\n", node.take_deliveries()));
    }
    format!("{text}{:?}\n{:?}", node.payloads(), node.arrivals())
}

#[test]
fn the_same_seed_gives_the_same_transcript_and_another_one_does_not() {
    for client in [Client::Geth, Client::Anvil] {
        let first = transcript(1, client);
        assert!(first.len() > 20_000 && first == transcript(1, client));
        assert_ne!(first, transcript(2, client));
    }
    assert_ne!(transcript(1, Client::Geth), transcript(1, Client::Besu));
}

#[test]
fn the_genesis_hash_belongs_to_seed_and_chain() {
    let genesis = |seed, chain_id| Node::new(Settings::new(Client::Geth, chain_id, seed)).chain().head().hash;
    assert_eq!(genesis(1, 5), genesis(1, 5));
    assert_ne!(genesis(1, 5), genesis(2, 5));
    assert_ne!(genesis(1, 5), genesis(1, 6));
}
