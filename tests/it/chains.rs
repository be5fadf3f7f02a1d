//! Whose chain it is: a development chain that was started anew is told by name, never guessed around.

use alloy_primitives::B256;
use serde_json::{Value, json};

use crate::errors::leaks_nothing;
use crate::support::anvil::{Anvil, parse};
use crate::support::eventually;
use crate::support::gateway::{run, sluice, words};
use crate::support::world::{World, transfer};

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_started_anew_is_told_by_name_until_it_is_forgotten() {
    let test = "a_chain_that_was_started_anew_is_told_by_name_until_it_is_forgotten";
    let Some(mut world) = World::start(test).await else { return };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    for value in 0..3 {
        let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(accounts[0], value)).await.unwrap());
        world.mined(hash).await;
    }

    // The same port and chain id, another block 0.
    let port = world.anvil.address.port();
    let folder = world.folder.path().to_owned();
    world.anvil.stop();
    world.anvil = Anvil::start_at(&folder, port, &["--timestamp", "1700000000"]).await;
    world.anvil.fund(accounts[0], 10).await;
    let error = eventually("the other chain to be noticed", || async {
        let error = client.request("eth_sendTransaction", transfer(accounts[0], 9)).await.unwrap_err();
        (error.reason() == Some("chain_mismatch")).then_some(error)
    })
    .await;
    assert!(error.to_string().contains("forget-chain"), "the error says what to do: {error}");
    leaks_nothing(&world, &error);
    let (status, why) = gateway.admin("readyz").await;
    assert_eq!(status, 503, "{why}");
    assert!(!why.contains(&world.node.address().port().to_string()), "anybody may read it: {why}");

    // Nor after a restart.
    gateway.process.kill();
    drop(gateway);
    let mut gateway = world.listening().await;
    let error = eventually("the other chain to be noticed", || async {
        let error = gateway.call("eth_sendTransaction", transfer(accounts[0], 9)).await.unwrap_err();
        (error.reason() == Some("chain_mismatch")).then_some(error)
    })
    .await;
    assert_eq!(error.reason(), Some("chain_mismatch"));
    let file = world.configuration();
    let used = run(sluice(&["journal", "forget-chain", &file, "dev"]));
    assert_eq!(used.status.code(), Some(1), "not while a gateway uses the journal: {}", words(&used));
    gateway.process.kill();
    drop(gateway);

    assert_eq!(run(sluice(&["journal", "forget-chain", &file, "nonsense"])).status.code(), Some(2));
    let forgotten = run(sluice(&["journal", "forget-chain", &file, "dev"]));
    assert!(forgotten.status.success() && words(&forgotten).contains("3 attempts"), "{}", words(&forgotten));
    let gateway = world.gateway().await;
    let hash: B256 = parse(&gateway.call("eth_sendTransaction", transfer(accounts[0], 9)).await.unwrap());
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0], "from the new chain's own start");
    assert_eq!(world.kms_proxy.stats().calls_of("GetPublicKey"), 1, "public keys stay");
    let inspected = run(sluice(&["journal", "inspect", &file, "--json"]));
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!((&inspected["keys"], &inspected["accounts"][0]["nextNonce"]), (&json!(1), &json!(1)), "{inspected}");
}
