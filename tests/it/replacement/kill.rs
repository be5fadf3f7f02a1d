//! The process ends in the middle of a bump.

use std::collections::BTreeSet;

use serde_json::json;
use sluice_load_tests::node_proxy::{RawAnswer, RawFault};

use super::{SOON, lose_the_next, payment, send, shown};
use crate::support::anvil::parse;
use crate::support::eventually;
use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_with_a_bump_in_flight_doubles_nothing() {
    let Some(mut world) = World::start("a_kill_with_a_bump_in_flight_doubles_nothing").await else { return };
    world.extra.environment = SOON.into();
    let from = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    lose_the_next(&world);
    let stuck = send(&client, payment(from)).await;
    world.node.set_faults([RawFault { count: u64::MAX, answer: RawAnswer::Lose }]);
    // The bump is on record and on its way, and nobody hears of it.
    eventually("the bump", || async {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let sent: BTreeSet<String> = world.node.sent().into_iter().map(|sent| sent.raw).collect();
        (sent.len() >= 2).then_some(())
    })
    .await;
    gateway.process.kill();
    drop(gateway);
    world.node.set_faults([]);
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let life = shown(&client, &stuck.to_string(), "included").await;
    let attempts = life["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{life}");
    assert_eq!(life["hash"], attempts[1]["hash"], "the payload on record is sent after the restart, not the older one");
    assert_eq!(world.anvil.nonces().await[&from], [0]);
    let sent: Vec<_> = world.node.sent().iter().filter_map(|sent| sent.decode()).map(|sent| sent.hash).collect();
    assert!(sent.iter().all(|hash| [stuck, parse(&attempts[1]["hash"])].contains(hash)), "nothing else was signed");
    // What comes next is the next nonce.
    let next = send(&client, payment(from)).await;
    world.mined(next).await;
    assert_eq!(world.anvil.nonces().await[&from], [0, 1]);
}
