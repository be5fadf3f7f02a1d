//! `sluice journal`, and a journal under faults.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, Output};

use alloy_primitives::B256;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use sluice_load_tests::client::Client;

use crate::support::anvil::parse;
use crate::support::gateway::{Gateway, run, sluice, words};
use crate::support::world::{World, transfer};
use crate::support::{eventually, journal, soon};

/// Runs `sluice journal` off the runtime.
async fn command(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = std::iter::once("journal").chain(arguments.iter().copied()).map(str::to_owned).collect();
    let running = tokio::task::spawn_blocking(move || run(sluice(&arguments.iter().map(String::as_str).collect::<Vec<_>>())));
    soon("a command", running).await.unwrap()
}

async fn done(arguments: &[&str]) -> String {
    let output = command(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", words(&output));
    String::from_utf8(output.stdout).unwrap()
}

async fn refused(arguments: &[&str], why: &str) {
    let output = command(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", words(&output));
    assert!(words(&output).contains(why), "{arguments:?}: {}", words(&output));
}

fn read(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn number(path: &Path, sql: &str) -> i64 {
    read(path).query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn send(client: &Client, from: alloy_primitives::Address) -> B256 {
    parse(&soon("an answer", client.request("eth_sendTransaction", transfer(from, 1))).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_and_exports_beside_a_gateway_under_load_and_a_restore_opens_every_account_in_reconcile() {
    let test = "backups_and_exports_beside_a_gateway_under_load_and_a_restore_opens_every_account_in_reconcile";
    let Some(mut world) = World::start(test).await else { return };
    world.extra.environment = "reconcile_blocks = 2\naccount = { queue_deadline = \"10m\" }".into();
    let accounts = world.accounts(2).await;
    let mut gateway = world.gateway().await;
    let file = world.configuration();
    let backup = |number: usize| world.folder.path().join(format!("backup-{number}.db"));
    let client = gateway.connect().await;
    let sends: Vec<_> = (0..200).map(|n| client.start("eth_sendTransaction", transfer(accounts[n % 2], n as u64 + 1))).collect();
    let load = tokio::spawn(futures_util::future::join_all(sends));
    // What a node has was on record before: no copy is empty.
    eventually("the first sends", || async { (world.node.sent_count() >= 10).then_some(()) }).await;
    let mut exports = Vec::new();
    for taken in 0..3 {
        done(&["backup", &file, backup(taken).to_str().unwrap()]).await;
        exports.push(done(&["export", &file]).await);
    }
    // What writes is refused beside the gateway, and says who is in the way.
    let holder = format!("is used by another process (pid {})", gateway.process.id());
    let (first, pid) = (backup(0), holder.as_str());
    for arguments in [
        vec!["restore", &file, first.to_str().unwrap()],
        vec!["prune", &file, "--older-than", "90d"],
        vec!["init", &file],
        vec!["forget-chain", &file, "dev"],
    ] {
        refused(&arguments, pid).await;
    }
    refused(&["backup", &file, first.to_str().unwrap()], "is there already").await;
    let told: Vec<B256> = soon("the answers", load).await.unwrap().into_iter().map(|answer| parse(&answer.unwrap())).collect();
    for hash in &told {
        world.mined(*hash).await;
    }
    assert_eq!(world.anvil.mined().await.len(), 200, "once each");
    // Each copy is whole: no attempt without its slot, transaction and event, and the account's slots without a hole.
    for taken in 0..3 {
        let path = backup(taken);
        let check: String = read(&path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        assert!(number(&path, "SELECT count(*) FROM attempts") >= 10);
        let lonely = "SELECT count(*) FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM slots s WHERE s.payload = a.hash)
                      OR NOT EXISTS (SELECT 1 FROM events e WHERE e.hash = a.hash)";
        assert_eq!(number(&path, lonely), 0);
        assert_eq!(
            number(
                &path,
                "SELECT count(*) FROM accounts c WHERE (SELECT coalesce(max(nonce) + 1, 0) - count(*) FROM slots s
                                  WHERE s.address = c.address) <> 0"
            ),
            0
        );
    }
    // Exports: one object a line, nothing twice, no signed bytes.
    exports.push(done(&["export", &file]).await);
    for export in &exports {
        assert!(!export.contains("\"raw\":\"0x"), "signed bytes");
        let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let attempts: HashSet<&str> =
            lines.iter().filter(|line| line["type"] == "attempt").map(|line| line["hash"].as_str().unwrap()).collect();
        let slots = lines.iter().filter(|line| line["type"] == "slot").count();
        assert_eq!(slots, attempts.len());
    }
    let count = |kind: &str| exports[3].lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count();
    assert_eq!((count("account"), count("transaction"), count("attempt")), (2, 200, 200));
    let with_bytes = done(&["export", &file, "--with-bytes"]).await;
    for sent in world.node.sent() {
        assert!(with_bytes.contains(&sent.raw), "the signed bytes were asked for");
        assert!(!exports[3].contains(&sent.raw));
    }
    let inspected: Value = serde_json::from_str(&done(&["inspect", &file, "--json"]).await).unwrap();
    assert_eq!((&inspected["version"], &inspected["transactions"], &inspected["queued"]), (&json!(4), &json!(200), &json!(0)));
    let slots: Value = serde_json::from_str(&done(&["inspect", &file, "--account", &accounts[0].to_string(), "--json"]).await).unwrap();
    let nonces: Vec<u64> = slots.as_array().unwrap().iter().map(|slot| slot["nonce"].as_u64().unwrap()).collect();
    assert_eq!(nonces, (0..100).rev().collect::<Vec<_>>());

    gateway.process.kill();
    let before = number(&world.journal(), "SELECT count(*) FROM attempts");
    let said = done(&["restore", &file, first.to_str().unwrap()]).await;
    let aside = said.lines().find_map(|line| line.strip_prefix("kept aside: ")).unwrap();
    assert_eq!(
        Connection::open(aside).unwrap().query_row("SELECT count(*) FROM attempts", [], |row| row.get::<_, i64>(0)).unwrap(),
        before
    );
    assert_eq!(number(&world.journal(), "SELECT count(*) FROM attempts"), number(&first, "SELECT count(*) FROM attempts"));
    assert_eq!(number(&world.journal(), "SELECT count(*) FROM accounts WHERE reconcile IS NOT NULL"), 2, "{said}");
    let inspected: Value = serde_json::from_str(&done(&["inspect", &file, "--json"]).await).unwrap();
    for account in inspected["accounts"].as_array().unwrap() {
        assert!(account["paused"].as_str().unwrap().contains("restored from a backup"), "{account}");
    }

    // It sends nothing new until the chain has settled, and goes on behind what the backup does not know.
    let gateway = world.listening().await;
    let client = gateway.connect().await;
    for account in &accounts {
        let refused = soon("an answer", client.request("eth_sendTransaction", transfer(*account, 7))).await.unwrap_err();
        assert_eq!(refused.reason(), Some("account_paused"), "{refused}");
    }
    assert_eq!(world.anvil.mined().await.len(), 200);
    for account in &accounts {
        let again = || async {
            world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
            client.request("eth_sendTransaction", transfer(*account, 8)).await.ok().map(|hash| parse::<B256>(&hash))
        };
        let hash = eventually("the account to go on", again).await;
        world.mined(hash).await;
    }
    let expected: BTreeMap<_, _> = accounts.iter().map(|account| (*account, (0..101).collect::<Vec<u64>>())).collect();
    assert_eq!(world.anvil.nonces().await, expected, "nothing doubled, no hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_keeps_the_next_nonces_and_what_is_not_final() {
    let Some(mut world) = World::start("pruning_keeps_the_next_nonces_and_what_is_not_final").await else { return };
    world.extra.environment = "confirmations = 2".into();
    let accounts = world.accounts(2).await;
    let mut gateway = world.gateway().await;
    let file = world.configuration();
    let client = gateway.connect().await;
    let mut keyed = transfer(accounts[0], 7);
    keyed[0]["idempotencyKey"] = json!("pruned");
    world.mined(parse(&soon("an answer", client.request("eth_sendTransaction", keyed.clone())).await.unwrap())).await;
    for _ in 0..3 {
        world.mined(send(&client, accounts[0]).await).await;
    }
    let cursor = client.request("sluice_getCursor", json!([{ "from": accounts[0] }])).await.unwrap();
    // Deep enough for those; this one is not.
    world.anvil.call("anvil_mine", json!(["0x5"])).await.unwrap();
    let confirmed = || async { (number(&world.journal(), "SELECT count(*) FROM slots WHERE done = 1") == 4).then_some(()) };
    eventually("the first four to be final", confirmed).await;
    let young = send(&client, accounts[1]).await;
    world.mined(young).await;
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());

    let output = command(&["prune", &file]).await;
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    let output = command(&["prune", &file, "--keep", "0", "--keys-older-than", "29d"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(done(&["prune", &file, "--older-than", "90d"]).await.starts_with("0 transactions"));
    assert!(done(&["prune", &file, "--older-than", "0s", "--vacuum"]).await.starts_with("4 transactions"));
    assert_eq!(number(&world.journal(), "SELECT count(*) FROM attempts"), 1, "the young one");

    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let error = client.subscribe_by("sluice_subscribe", json!(["transactions", { "from": accounts[0], "after": cursor }])).await;
    let error = error.err().unwrap();
    assert_eq!(error.reason(), Some("invalid_cursor"), "{error}");
    assert!(error.to_string().contains("pruned"), "{error}");
    // The key still protects from a second payment, and nobody is told that nothing was mined.
    for method in ["eth_sendTransaction", "sluice_sendTransaction"] {
        let error = soon("an answer", client.request(method, keyed.clone())).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Some(-32001), Some("forgotten")), "{error}");
    }
    for account in &accounts {
        world.mined(send(&client, *account).await).await;
    }
    let expected = BTreeMap::from([(accounts[0], (0..5).collect::<Vec<u64>>()), (accounts[1], vec![0, 1])]);
    assert_eq!(world.anvil.nonces().await, expected);
}

/// I9, from outside: the journal has another owner of the account on record, as another replica would write it.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_lost_sends_nothing_more_and_the_others_go_on() {
    let Some(world) = World::start("an_account_that_is_lost_sends_nothing_more_and_the_others_go_on").await else { return };
    let accounts = world.accounts(2).await;
    let (lost, kept) = (accounts[0], accounts[1]);
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    for account in &accounts {
        world.mined(send(&client, *account).await).await;
    }
    let thief = Connection::open(world.journal()).unwrap();
    thief.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    thief.execute("UPDATE accounts SET epoch = epoch + 1 WHERE address = ?1", [lost.as_slice()]).unwrap();
    for _ in 0..2 {
        let refused = soon("an answer", client.request("eth_sendTransaction", transfer(lost, 1))).await.unwrap_err();
        assert_eq!(refused.reason(), Some("internal"), "{refused}");
    }
    assert_eq!(gateway.metric("sluice_alarms_total{environment=\"dev\",kind=\"account_lost\"}").await, 1.0);
    world.mined(send(&client, kept).await).await;
    assert_eq!(world.node.sent_count(), 3, "nothing more of the lost one");
    assert_eq!(number(&world.journal(), "SELECT count(*) FROM attempts"), 3);
    // A restart begins a tenure of its own.
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());
    let gateway = world.gateway().await;
    world.mined(send(&gateway.connect().await, lost).await).await;
    assert_eq!(world.anvil.nonces().await, BTreeMap::from([(lost, vec![0, 1]), (kept, vec![0, 1])]));
}

/// Lets no file of the process grow beyond this: what is written beyond it fails, as on a disk without room.
fn limit_files(process: u32, bytes: &str) {
    let limited = Command::new("prlimit").args(["--pid", &process.to_string(), &format!("--fsize={bytes}:")]).status().unwrap();
    assert!(limited.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_sends_are_refused_what_is_on_record_goes_on_and_nothing_is_lost_or_doubled() {
    let test = "without_room_sends_are_refused_what_is_on_record_goes_on_and_nothing_is_lost_or_doubled";
    let Some(world) = World::start_with(test, &["--no-mining"]).await else { return };
    let account = world.accounts(1).await[0];
    let log = world.folder.path().join("gateway.log");
    let mut gateway = Gateway::start(sluice(&["serve", &world.configuration()]), "payments", &log).await.ready().await;
    let client = gateway.connect().await;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(send(&client, account).await);
    }
    let suffixes = ["", "-wal"].map(|suffix| format!("{}{suffix}", world.journal().display()));
    let largest = suffixes.iter().map(|file| std::fs::metadata(file).unwrap().len()).max().unwrap();
    assert!(std::fs::metadata(&log).unwrap().len() + 65_536 < largest, "room for the log");
    limit_files(gateway.process.id(), &(largest + 8192).to_string());

    let error = loop {
        match soon("an answer", client.request("eth_sendTransaction", transfer(account, 7))).await {
            Ok(hash) => told.push(parse(&hash)),
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), error.reason()), (Some(-32002), Some("journal_unavailable")), "{error}");
    let (status, page) =
        eventually("it to be told", || async { Some(gateway.admin("readyz").await).filter(|(status, _)| *status == 503) }).await;
    assert!(page.contains("the journal cannot write"), "{status}: {page}");
    let again = soon("an answer", client.request("eth_sendTransaction", transfer(account, 8))).await.unwrap_err();
    assert_eq!(again.reason(), Some("journal_unavailable"), "{again}");
    // What is on record is mined meanwhile, and its receipts are read.
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    for hash in &told {
        let receipt =
            || async { client.request("eth_getTransactionReceipt", json!([hash])).await.ok().filter(|receipt| !receipt.is_null()) };
        eventually("a receipt", receipt).await;
    }
    assert!(gateway.process.ended().is_none());

    limit_files(gateway.process.id(), "unlimited");
    let ready = || async { (gateway.admin("readyz").await.0 == 200).then_some(()) };
    eventually("it to be ready again", ready).await;
    for _ in 0..3 {
        told.push(send(&client, account).await);
    }
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    let recorded = || async {
        let attempts = journal::attempts(&world.journal());
        let included = attempts.iter().all(|(_, state)| state == "included");
        (included && attempts.len() == told.len()).then(|| attempts.into_iter().map(|(hash, _)| hash).collect::<HashSet<_>>())
    };
    let recorded = eventually("every inclusion to be on record", recorded).await;
    assert_eq!(recorded, told.iter().copied().collect(), "what was told, and nothing else");
    let mined = world.anvil.mined().await;
    assert_eq!(mined.iter().map(|one| one.hash).collect::<HashSet<_>>(), recorded);
    assert_eq!(world.anvil.nonces().await[&account], (0..told.len() as u64).collect::<Vec<_>>(), "no hole, none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_journal_is_moved_away_sends_nothing_more_and_goes_on_once_it_is_back() {
    let test = "a_gateway_whose_journal_is_moved_away_sends_nothing_more_and_goes_on_once_it_is_back";
    let Some(world) = World::start(test).await else { return };
    let account = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.mined(send(&client, account).await).await;
    let sent = world.node.sent_count();
    let moved = world.folder.path().join("moved.db");
    std::fs::rename(world.journal(), &moved).unwrap();
    let told = soon("an answer or the end", client.request("eth_sendTransaction", transfer(account, 1))).await;
    assert!(told.is_err(), "{told:?}");
    assert_eq!(gateway.process.exit().await.code(), Some(1));
    assert_eq!(world.node.sent_count(), sent, "nothing was sent");
    let serving = sluice(&["serve", &world.configuration()]);
    let output = soon("the end", tokio::task::spawn_blocking(move || run(serving))).await.unwrap();
    assert!(words(&output).contains("bring the file back"), "{}", words(&output));
    std::fs::rename(&moved, world.journal()).unwrap();
    let gateway = world.gateway().await;
    world.mined(send(&gateway.connect().await, account).await).await;
    let nonces = world.anvil.nonces().await[&account].clone();
    assert_eq!(nonces, (0..nonces.len() as u64).collect::<Vec<_>>(), "no hole, none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_journal_is_gone_or_damaged_does_not_start_and_names_the_remedy() {
    let Some(world) = World::start("a_gateway_whose_journal_is_gone_or_damaged_does_not_start_and_names_the_remedy").await else { return };
    let account = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let file = world.configuration();
    let target = world.folder.path().join("backup.db");
    world.mined(send(&gateway.connect().await, account).await).await;
    done(&["backup", &file, target.to_str().unwrap()]).await;
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());
    let sent = world.node.sent_count();
    let whole = std::fs::read(world.journal()).unwrap();
    let serve = || async {
        let serving = sluice(&["serve", &file]);
        let output = soon("the end", tokio::task::spawn_blocking(move || run(serving))).await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains("sluice journal restore"), "{}", words(&output));
    };
    let mut damaged = whole.clone();
    damaged[4096..].fill(0xff);
    let mut header = whole.clone();
    header[..100].fill(0);
    for bytes in [&damaged[..], &header, &whole[..whole.len() / 2], &[]] {
        std::fs::write(world.journal(), bytes).unwrap();
        serve().await;
    }
    std::fs::remove_file(world.journal()).unwrap();
    serve().await;
    assert!(!world.journal().exists(), "no empty one was begun");
    assert_eq!(world.node.sent_count(), sent, "nothing was sent");
    done(&["restore", &file, target.to_str().unwrap()]).await;
    assert_eq!(number(&world.journal(), "SELECT count(*) FROM attempts"), 1);
    // An empty one is begun when it is asked for, and only where none is.
    refused(&["init", &file], "is there already").await;
    std::fs::remove_file(world.journal()).unwrap();
    done(&["init", &file]).await;
    let gateway = world.gateway().await;
    world.mined(send(&gateway.connect().await, account).await).await;
    assert_eq!(world.anvil.nonces().await[&account], [0, 1], "it begins where the chain is");
}
