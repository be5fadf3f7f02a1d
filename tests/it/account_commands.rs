//! What operators do to an account: pause, resume, resync, and what becomes of one whose journal was restored.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Output;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::node_proxy::NodeProxy;

use crate::support::anvil::{parse, quantity};
use crate::support::gateway::{Gateway, run, sluice, words};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

/// `sluice account …` with the world's configuration, at the gateway's listener if one runs.
async fn account(world: &World, gateway: Option<&Gateway>, arguments: &[&str]) -> Output {
    let configuration = world.configuration();
    let mut all = vec!["account", arguments[0], configuration.as_str()];
    all.extend(&arguments[1..]);
    let mut command = sluice(&all);
    if let Some(gateway) = gateway {
        command.env("SLUICE__ADMIN__LISTEN", gateway.admin.to_string());
    }
    soon("sluice account", tokio::task::spawn_blocking(|| run(command))).await.unwrap()
}

async fn done(world: &World, gateway: Option<&Gateway>, arguments: &[&str]) -> Value {
    let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = account(world, gateway, &all).await;
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn shown(world: &World, gateway: Option<&Gateway>, address: Address) -> Value {
    done(world, gateway, &["list", &address.to_string()]).await["accounts"][0].clone()
}

async fn send(client: &Client, from: Address, value: u64) -> Result<B256, ClientError> {
    soon("an answer", client.request("eth_sendTransaction", transfer(from, value))).await.map(|hash| parse(&hash))
}

/// The message of a refusal with `account_paused`.
async fn refusal(client: &Client, from: Address) -> String {
    let refused = send(client, from, 99).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Some(-32002), Some("account_paused")), "{refused}");
    refused.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_account_refuses_new_sends_and_finishes_what_has_a_nonce() {
    let Some(mut world) = World::start("a_paused_account_refuses_new_sends_and_finishes_what_has_a_nonce").await else { return };
    world.extra.environment = "account = { sign_window = 4 }".into();
    let from = world.accounts(1).await[0];
    let address = from.to_string();
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    // However long the command takes: what follows is not signed before it is done.
    world.kms_proxy.set_limit(6);
    let asked: Vec<_> = (0..30).map(|value| client.start("eth_sendTransaction", transfer(from, value))).collect();
    eventually("a Sign to wait", || async { (world.kms_proxy.stats().digests.len() > 6).then_some(()) }).await;
    let paused = done(&world, Some(&gateway), &["pause", &address, "--reason", "a test wants it"]).await;
    world.kms_proxy.set_limit(u64::MAX);
    assert_eq!(paused["pauses"], json!([{ "by": "operator", "reason": "a test wants it" }]));
    let (mut hashes, mut refused) = (BTreeSet::new(), 0);
    for answer in asked {
        match soon("an answer", answer).await {
            Ok(hash) => assert!(hashes.insert(parse::<B256>(&hash)), "one hash twice"),
            Err(error) => {
                assert_eq!(error.reason(), Some("account_paused"), "{error}");
                assert!(error.to_string().contains("a test wants it"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && hashes.len() > 6, "{} sent, {refused} refused", hashes.len());
    for hash in &hashes {
        world.mined(*hash).await;
    }
    assert_eq!(world.anvil.nonces().await[&from], (0..hashes.len() as u64).collect::<Vec<_>>(), "no gap, nothing else");
    assert!(refusal(&client, from).await.contains("the account is paused: a test wants it"));

    // It survives a restart, and a gateway that is down.
    gateway.process.kill();
    let mut gateway = world.gateway().await;
    assert!(refusal(&gateway.connect().await, from).await.contains("a test wants it"));
    assert_eq!(shown(&world, Some(&gateway), from).await["pauses"][0]["by"], "operator");
    assert_eq!(gateway.metric(&format!("sluice_account_paused{{account=\"{from}\",environment=\"dev\"}}")).await, 1.0);
    let resumed = done(&world, Some(&gateway), &["resume", &address]).await;
    assert_eq!((&resumed["lifted"], &resumed["slotTaken"]), (&json!(["operator"]), &json!(false)));
    let hash = send(&gateway.connect().await, from, 1).await.unwrap();
    world.mined(hash).await;

    gateway.process.kill();
    let resync = account(&world, None, &["resync", &address]).await;
    assert!(resync.status.code() == Some(1) && words(&resync).contains("no gateway runs"), "{}", words(&resync));
    done(&world, None, &["pause", &address, "--environment", "dev", "--reason", "while it is down"]).await;
    assert_eq!(shown(&world, None, from).await["pauses"][0]["reason"], "while it is down");
    let stranger = account(&world, None, &["pause", &Address::repeat_byte(1).to_string()]).await;
    assert!(stranger.status.code() == Some(1) && words(&stranger).contains("is not on record"), "{}", words(&stranger));
    for wrong in [&["pause", address.as_str(), "--environment", "other"][..], &["pause", address.as_str(), "--reason", ""]] {
        assert_eq!(account(&world, None, wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    let mut gateway = world.gateway().await;
    assert!(refusal(&gateway.connect().await, from).await.contains("while it is down"));
    gateway.process.kill();
    assert_eq!(done(&world, None, &["resume", &address]).await["lifted"], json!(["operator"]));
    let gateway = world.gateway().await;
    let hash = send(&gateway.connect().await, from, 1).await.unwrap();
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&from].len(), hashes.len() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_paused_before_its_first_transaction_starts_where_the_chain_is() {
    let Some(world) = World::start("an_account_that_is_paused_before_its_first_transaction_starts_where_the_chain_is").await else {
        return;
    };
    let from = world.accounts(1).await[0];
    world.anvil.call("anvil_setNonce", json!([from, "0x29"])).await.unwrap();
    let mut gateway = world.gateway().await;
    done(&world, Some(&gateway), &["pause", &from.to_string()]).await;
    gateway.process.kill();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    refusal(&client, from).await;
    done(&world, Some(&gateway), &["resume", &from.to_string()]).await;
    let hash = send(&client, from, 1).await.unwrap();
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&from], [41]);
    let unknown = account(&world, Some(&gateway), &["pause", &Address::repeat_byte(1).to_string()]).await;
    assert!(unknown.status.code() == Some(1) && words(&unknown).contains("is no account of environment dev"), "{}", words(&unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_under_load_loses_and_doubles_nothing() {
    let Some(mut world) = World::start("a_resync_under_load_loses_and_doubles_nothing").await else { return };
    world.extra.environment = "account = { sign_window = 4 }".into();
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.kms_proxy.set_limit(12);
    let asked: Vec<_> = (0..60).map(|value| client.start("eth_sendTransaction", transfer(from, value))).collect();
    for round in 1..=3 {
        // Each resync begins while Signs wait, and ends when they are answered.
        eventually("a Sign to wait", || async { (world.kms_proxy.stats().digests.len() > 12 * round).then_some(()) }).await;
        let begun = || gateway.process.log().matches("wants the account opened again").count() == round;
        let answered = async {
            eventually("the resync to begin", || async { begun().then_some(()) }).await;
            world.kms_proxy.set_limit(12 * (round as u64 + 1));
        };
        let resync = ["resync", &from.to_string()];
        let (resynced, ()) = tokio::join!(done(&world, Some(&gateway), &resync), answered);
        let endpoint = &resynced["endpoints"][0];
        assert_eq!((&resynced["slotTaken"], &endpoint["error"]), (&json!({ "before": false, "now": false }), &Value::Null));
        assert!(endpoint["latest"].as_u64() <= resynced["nextNonce"].as_u64(), "{resynced}");
    }
    world.kms_proxy.set_limit(u64::MAX);
    let mut hashes = BTreeSet::new();
    for answer in asked {
        assert!(hashes.insert(parse::<B256>(&soon("an answer", answer).await.unwrap())), "one hash twice");
    }
    for hash in &hashes {
        world.mined(*hash).await;
    }
    let mined: BTreeSet<B256> = world.anvil.mined().await.into_iter().filter(|one| one.from == from).map(|one| one.hash).collect();
    assert_eq!(mined, hashes);
    assert_eq!(world.anvil.nonces().await[&from], (0..60).collect::<Vec<_>>());
    // A Sign that had no answer is asked again, and counted apart.
    let retries = gateway.metric("sluice_sign_retries_total").await as u64;
    assert_eq!(world.kms_proxy.stats().calls_of("Sign"), 60 + retries, "nothing was signed again");
    let requests = format!("sluice_account_requests_total{{account=\"{from}\",environment=\"dev\"}}");
    assert_eq!(gateway.metric(&requests).await, 60.0, "counted once each");
}

/// `sluice journal WORD FILE PATH`, which must work.
async fn journal(world: &World, word: &str, path: &Path) {
    let command = sluice(&["journal", word, &world.configuration(), path.to_str().unwrap()]);
    let output = soon("sluice journal", tokio::task::spawn_blocking(|| run(command))).await.unwrap();
    assert!(output.status.success(), "{}", words(&output));
}

/// A gateway over two nodes: the world's, and this proxy before the same chain.
async fn over_two(world: &World, other: &NodeProxy, log: &str) -> Gateway {
    let mut command = sluice(&["serve", &world.configuration()]);
    let nodes = format!("[{{ url = \"{}\" }}, {{ url = \"{}\" }}]", world.node.url(), other.url());
    command.env("SLUICE__ENVIRONMENT__DEV__NODES", nodes);
    Gateway::start(command, "payments", &world.folder.path().join(log)).await.ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_journal_sends_nothing_before_the_chain_has_settled_on_every_node() {
    let test = "a_restored_journal_sends_nothing_before_the_chain_has_settled_on_every_node";
    let Some(mut world) = World::start_with(test, &["--no-mining"]).await else { return };
    world.extra.environment = "reconcile_blocks = 3".into();
    let from = world.accounts(1).await[0];
    let other = NodeProxy::start(world.anvil.address).await.unwrap();
    let mut gateway = over_two(&world, &other, "first.log").await;
    let client = gateway.connect().await;
    let mut told = Vec::new();
    // The backup is taken in the middle of a row of transactions.
    let asked: Vec<_> = (0..8).map(|value| client.start("eth_sendTransaction", transfer(from, value))).collect();
    let backup = world.folder.path().join("backup.db");
    for (at, answer) in asked.into_iter().enumerate() {
        told.push(parse::<B256>(&soon("an answer", answer).await.unwrap()));
        if at == 3 {
            journal(&world, "backup", &backup).await;
        }
    }
    for value in 8..12 {
        told.push(send(&client, from, value).await.unwrap());
    }
    gateway.process.kill();
    journal(&world, "restore", &backup).await;
    let sent = (world.node.sent_count(), other.sent_count());

    let gateway = over_two(&world, &other, "second.log").await;
    let client = gateway.connect().await;
    let refused = refusal(&client, from).await;
    assert!(refused.contains("the journal was restored"), "{refused}");
    // What the pools have is no settled chain, however many heads go by without it.
    other.refuse(true);
    other.cut();
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    for hash in &told {
        world.mined(*hash).await;
    }
    // Nor is one that a node does not speak of.
    for _ in 0..5 {
        world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    }
    eventually("the transactions of the backup to be included", || async {
        let account = shown(&world, Some(&gateway), from).await;
        (account["unmined"] == 0).then_some(account)
    })
    .await;
    refusal(&client, from).await;
    assert_eq!((world.node.sent_count(), other.sent_count()), sent, "nothing was sent");
    other.refuse(false);
    eventually("the account to go on", || async {
        world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
        (shown(&world, Some(&gateway), from).await["pauses"] == json!([])).then_some(())
    })
    .await;
    assert_eq!((world.node.sent_count(), other.sent_count()), sent, "there was nothing to be sent again");
    let next = send(&client, from, 12).await.unwrap();
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    world.mined(next).await;
    told.push(next);
    let mined: Vec<B256> = world.anvil.mined().await.into_iter().filter(|one| one.from == from).map(|one| one.hash).collect();
    assert_eq!(mined.iter().collect::<BTreeSet<_>>(), told.iter().collect::<BTreeSet<_>>(), "everything that was told, and nothing else");
    assert_eq!(world.anvil.nonces().await[&from], (0..13).collect::<Vec<_>>());
    let alarms = async |kind: &str| gateway.metric(&format!("sluice_alarms_total{{environment=\"dev\",kind=\"{kind}\"}}")).await;
    assert_eq!(alarms("journal_behind").await, 1.0, "the chain was ahead of the backup");
    assert_eq!(alarms("foreign_nonce").await, 0.0, "and nobody else used the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_a_restored_record_and_not_mined_goes_out_again_as_the_same_bytes() {
    let test = "what_is_on_a_restored_record_and_not_mined_goes_out_again_as_the_same_bytes";
    let Some(mut world) = World::start_with(test, &["--no-mining"]).await else { return };
    world.extra.environment = "reconcile_blocks = 2".into();
    let from = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut told = Vec::new();
    for value in 0..3 {
        told.push(send(&client, from, value).await.unwrap());
    }
    let backup = world.folder.path().join("backup.db");
    journal(&world, "backup", &backup).await;
    gateway.process.kill();
    journal(&world, "restore", &backup).await;
    world.anvil.call("anvil_dropAllTransactions", json!([])).await.unwrap();
    let sent = world.node.sent_count();

    let mut gateway = world.gateway().await;
    refusal(&gateway.connect().await, from).await;
    assert_eq!(world.node.sent_count(), sent);
    // It survives a restart: the count begins anew.
    gateway.process.kill();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    refusal(&client, from).await;
    eventually("the bytes on record", || async {
        world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
        (world.node.sent_count() == sent + 3).then_some(())
    })
    .await;
    eventually("the account to go on", || async {
        world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
        (shown(&world, Some(&gateway), from).await["pauses"] == json!([])).then_some(())
    })
    .await;
    told.push(send(&client, from, 3).await.unwrap());
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    for hash in &told {
        world.mined(*hash).await;
    }
    assert_eq!(world.anvil.nonces().await[&from], [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_releases_a_restored_account() {
    let Some(world) = World::start("an_operator_releases_a_restored_account").await else { return };
    let from = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    send(&client, from, 1).await.unwrap();
    let backup = world.folder.path().join("backup.db");
    journal(&world, "backup", &backup).await;
    let unknown = send(&client, from, 2).await.unwrap();
    world.mined(unknown).await;
    gateway.process.kill();
    journal(&world, "restore", &backup).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    refusal(&client, from).await;
    let pending = soon("a count", client.request("eth_getTransactionCount", json!([from, "pending"]))).await.unwrap();
    assert_eq!(quantity(&pending), 2, "the chain's, which is ahead of the record");
    assert_eq!(done(&world, Some(&gateway), &["resume", &from.to_string()]).await["lifted"], json!(["reconcile"]));
    // No block had to come: the chain's nonce is read before one is handed out.
    let next = send(&client, from, 3).await.unwrap();
    world.mined(next).await;
    assert_eq!(world.anvil.nonces().await[&from], [0, 1, 2]);
}

/// Puts what another journal has of this nonce into the gateway's own, behind its back.
fn smuggle(world: &World, from: &Path, nonce: u64) {
    let journal = rusqlite::Connection::open(world.journal()).unwrap();
    journal.execute("ATTACH ?1 AS other", [from.to_str().unwrap()]).unwrap();
    let rows = journal.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         INSERT INTO main.transactions SELECT * FROM other.transactions
             WHERE id IN (SELECT transaction_id FROM other.attempts WHERE nonce = {nonce});
         CREATE TEMP TABLE moved AS SELECT * FROM other.attempts WHERE nonce = {nonce};
         UPDATE moved SET position = 1000000;
         INSERT INTO main.attempts SELECT * FROM moved;
         INSERT INTO main.slots SELECT * FROM other.slots WHERE nonce = {nonce};
         COMMIT;"
    ));
    rows.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_reads_a_taken_slot_again_and_the_account_goes_on() {
    let test = "a_resync_reads_a_taken_slot_again_and_the_account_goes_on";
    let Some(world) = World::start_with(test, &["--no-mining"]).await else { return };
    let from = world.accounts(1).await[0];
    let address = from.to_string();
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let first = send(&client, from, 0).await.unwrap();
    let (before, after) = (world.folder.path().join("before.db"), world.folder.path().join("after.db"));
    journal(&world, "backup", &before).await;
    let taken = send(&client, from, 1).await.unwrap();
    journal(&world, "backup", &after).await;
    gateway.process.kill();
    world.anvil.call("anvil_dropAllTransactions", json!([])).await.unwrap();
    for end in ["-wal", "-shm"] {
        let file = format!("{}{end}", world.journal().display());
        let removed = std::fs::remove_file(&file);
        assert!(removed.as_ref().map_or_else(|error| error.kind() == ErrorKind::NotFound, |()| true), "{file}: {removed:?}");
    }
    std::fs::copy(&before, world.journal()).unwrap();

    // The gateway is at nonce 1 and does not know that its journal has a payload there.
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let pending = soon("a count", client.request("eth_getTransactionCount", json!([from, "pending"]))).await.unwrap();
    assert_eq!(quantity(&pending), 1);
    smuggle(&world, &after, 1);
    let lost = send(&client, from, 2).await.unwrap_err();
    assert_eq!(lost.reason(), Some("journal_unavailable"), "{lost}");
    assert!(refusal(&client, from).await.contains("another payload for a slot"));
    assert_eq!(shown(&world, Some(&gateway), from).await["slotTaken"], true);
    let resumed = done(&world, Some(&gateway), &["resume", &address]).await;
    assert_eq!((&resumed["lifted"], &resumed["slotTaken"]), (&json!([]), &json!(true)), "a resume does not help");

    let resynced = done(&world, Some(&gateway), &["resync", &address]).await;
    assert_eq!(resynced["slotTaken"], json!({ "before": true, "now": false }));
    assert_eq!((&resynced["nextNonce"], &resynced["unmined"]), (&json!(2), &json!(2)));
    let next = send(&client, from, 2).await.unwrap();
    for hash in [first, taken, next] {
        eventually("a receipt", || async {
            world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
            world.anvil.receipt(hash).await
        })
        .await;
    }
    let mined: Vec<B256> = world.anvil.mined().await.into_iter().filter(|one| one.from == from).map(|one| one.hash).collect();
    assert_eq!(mined, [first, taken, next], "what was told before is what was mined");
}
