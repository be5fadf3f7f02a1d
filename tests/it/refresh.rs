//! Keys are found again while the gateway runs: by its interval, by SIGHUP and by an operator; and a start that does not wait for them.

use std::collections::BTreeSet;
use std::time::Instant;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault};
use sluice_load_tests::random::Delays;
use sluice_load_tests::sim_kms::{self, SimKms};

use crate::support::anvil::parse;
use crate::support::configuration::{Configuration, Keys};
use crate::support::gateway::{Gateway, run, sluice, words};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

async fn accounts(client: &Client) -> BTreeSet<Address> {
    let listed = client.request("eth_accounts", json!([])).await.unwrap();
    listed.as_array().unwrap().iter().map(parse).collect()
}

/// Waits until exactly these addresses can sign.
async fn until_accounts(client: &Client, wanted: &[Address]) {
    let wanted: BTreeSet<Address> = wanted.iter().copied().collect();
    eventually("eth_accounts to change", || async { (accounts(client).await == wanted).then_some(()) }).await;
}

async fn send(client: &Client, from: Address, value: u64) -> Result<B256, String> {
    match client.request("eth_sendTransaction", transfer(from, value)).await {
        Ok(hash) => Ok(parse(&hash)),
        Err(ClientError::Rpc { data, .. }) => Err(data["reason"].as_str().unwrap_or_default().to_owned()),
        Err(other) => panic!("{other:?}"),
    }
}

/// Key ids by address, of the keys that the configuration selects now.
async fn key_of(world: &World, address: Address) -> String {
    let mut command = sluice(&["keys", "list", &world.configuration(), "--json"]);
    command.env("SLUICE__CONFIGURATION__KMS__ENDPOINT", format!("http://{}", world.kms.address));
    let output = soon("keys list", tokio::task::spawn_blocking(|| run(command))).await.unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", words(&output)));
    let entry = listed.as_array().unwrap().iter().find(|entry| parse::<Address>(&entry["address"]) == address);
    entry.unwrap()["arns"][0].as_str().unwrap().to_owned()
}

/// `sluice keys refresh`, of this gateway: whether it worked, and what it says.
async fn refresh(world: &World, gateway: &Gateway) -> (bool, Value) {
    let mut command = sluice(&["keys", "refresh", &world.configuration(), "--json"]);
    command.env("SLUICE__ADMIN__LISTEN", gateway.admin.to_string());
    let output = soon("keys refresh", tokio::task::spawn_blocking(|| run(command))).await.unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", words(&output)));
    (output.status.success(), answer["services"][0].clone())
}

fn listings_fail() -> KmsFault {
    let answer = KmsAnswer::Error { status: 500, code: "KMSInternalException".into(), message: "scripted".into() };
    KmsFault { operation: Some("ListKeys".into()), count: u64::MAX, answer }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_and_retagged_keys_come_and_go_by_the_interval() {
    let Some(mut world) = World::start("new_and_retagged_keys_come_and_go_by_the_interval").await else { return };
    world.extra.configuration = "refresh = \"1s\"".into();
    let first = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let socket = gateway.connect().await;
    assert_eq!(accounts(&socket).await, [first].into());
    let second = world.accounts(1).await[0];
    until_accounts(&socket, &[first, second]).await;
    let hash = send(&socket, second, 1).await.unwrap();
    world.mined(hash).await;

    // It leaves while a transaction of it is being signed: that one is finished, new ones are refused.
    let key = key_of(&world, second).await;
    world.kms_proxy.set_limit(1);
    let under_way = socket.start("eth_sendTransaction", transfer(second, 2));
    eventually("the Sign to be asked for", || async { (world.kms_proxy.stats().calls_of("Sign") >= 2).then_some(()) }).await;
    world.kms.call("UntagResource", json!({ "KeyId": key, "TagKeys": ["app"] })).await;
    until_accounts(&socket, &[first]).await;
    assert_eq!(send(&socket, second, 3).await, Err("unknown_account".to_owned()));
    world.kms_proxy.set_limit(u64::MAX);
    let hash: B256 = parse(&soon("the answer", under_way).await.unwrap());
    world.mined(hash).await;
    let hash = send(&socket, first, 4).await.unwrap();
    world.mined(hash).await;
    let refreshes =
        async |outcome: &str| gateway.metric(&format!("sluice_key_refreshes_total{{outcome=\"{outcome}\",service=\"payments\"}}")).await;
    let (ok, failed) = (refreshes("ok").await, refreshes("failed").await);
    assert!(ok >= 2.0 && failed == 0.0, "one found the new key, another one that it lost its tag: {ok} worked, {failed} failed");
    assert_eq!(gateway.metric("sluice_key_changes_total{change=\"added\",service=\"payments\"}").await, 1.0);
    assert_eq!(gateway.metric("sluice_key_changes_total{change=\"removed\",service=\"payments\"}").await, 1.0);
    assert_eq!(gateway.metric("sluice_keys{configuration=\"kms\",state=\"enabled\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_again_when_an_operator_wants_it() {
    let Some(mut world) = World::start("keys_are_found_again_when_an_operator_wants_it").await else { return };
    world.extra.configuration = "refresh = \"0s\"\nwarm_connections = 0".into();
    let first = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let socket = gateway.connect().await;
    let second = world.accounts(1).await[0];
    let (worked, told) = refresh(&world, &gateway).await;
    assert!(worked && told["added"] == json!([second]) && told["keys"] == 2 && told["error"].is_null(), "{told}");
    assert_eq!(accounts(&socket).await, [first, second].into());

    let key = key_of(&world, second).await;
    world.kms.call("DisableKey", json!({ "KeyId": key })).await;
    let (_, told) = refresh(&world, &gateway).await;
    assert_eq!(told["changed"], json!([{ "address": second, "state": "disabled" }]));
    assert_eq!(accounts(&socket).await, [first].into());
    assert_eq!(send(&socket, second, 1).await, Err("key_unavailable".to_owned()));
    assert_eq!(gateway.metric("sluice_keys{configuration=\"kms\",state=\"disabled\"}").await, 1.0);
    world.kms.call("EnableKey", json!({ "KeyId": key })).await;
    assert!(refresh(&world, &gateway).await.0);
    let hash = send(&socket, second, 1).await.unwrap();
    world.mined(hash).await;

    let third = world.accounts(1).await[0];
    assert_eq!(gateway.reload().await.0, "applied");
    assert_eq!(accounts(&socket).await, [first, second, third].into(), "SIGHUP finds them too, and the socket stays");

    // One that fails leaves everything as it is.
    let fourth = world.accounts(1).await[0];
    world.kms_proxy.set_faults([listings_fail()]);
    let (worked, told) = refresh(&world, &gateway).await;
    assert!(!worked && told["error"].as_str().unwrap().contains("ListKeys") && told["keys"] == 3, "{told}");
    assert_eq!(accounts(&socket).await, [first, second, third].into());
    assert_eq!(gateway.metric("sluice_key_refreshes_total{outcome=\"failed\",service=\"payments\"}").await, 1.0);
    let shown = gateway.status().await["services"][0]["keyRefresh"].clone();
    assert!(shown["at"].is_string() && shown["error"].as_str().unwrap().contains("ListKeys"), "{shown}");
    let hash = send(&socket, third, 1).await.unwrap();
    world.mined(hash).await;
    world.kms_proxy.set_faults([]);
    assert!(refresh(&world, &gateway).await.0);
    assert_eq!(accounts(&socket).await, [first, second, third, fourth].into());
    assert_eq!(gateway.status().await["services"][0]["keyRefresh"]["error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_serves_what_was_found_last_and_checks_it_later() {
    let Some(mut world) = World::start("a_restart_serves_what_was_found_last_and_checks_it_later").await else { return };
    world.extra.configuration = "refresh = \"0s\"\nwarm_connections = 0".into();
    let keys = world.accounts(2).await;
    let (first, second) = (keys[0], keys[1]);
    let mut gateway = world.gateway().await;
    eventually("what was found to be on record", || async {
        let journal = rusqlite::Connection::open(world.journal()).unwrap();
        let complete: i64 = journal.query_row("SELECT count(*) FROM discoveries WHERE complete = 1", [], |row| row.get(0)).unwrap();
        (complete == 1).then_some(())
    })
    .await;
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());

    // Listings are down, and meanwhile a key was disabled and another one made.
    let key = key_of(&world, first).await;
    world.kms.call("DisableKey", json!({ "KeyId": key })).await;
    let third = world.accounts(1).await[0];
    world.kms_proxy.reset();
    world.kms_proxy.set_faults([listings_fail()]);
    let mut gateway = world.gateway().await;
    let socket = gateway.connect().await;
    assert_eq!(accounts(&socket).await, [first, second].into());
    let hash = send(&socket, second, 1).await.unwrap();
    world.mined(hash).await;
    let seen = world.kms_proxy.stats();
    assert_eq!((seen.calls_of("GetPublicKey"), seen.calls_of("DescribeKey")), (0, 0));
    let status = gateway.status().await["services"][0]["keyRefresh"]["at"].clone();
    assert_eq!(status, Value::Null, "nobody has checked yet");
    gateway.process.until("the check to fail", |log| async move { log.contains("the keys were not refreshed").then_some(()) }).await;

    // Checked as soon as that can be, although the interval is off: what is disabled is out of use.
    world.kms_proxy.set_faults([]);
    until_accounts(&socket, &[second, third]).await;
    assert_eq!(send(&socket, first, 1).await, Err("key_unavailable".to_owned()));
    assert!(gateway.status().await["services"][0]["keyRefresh"]["at"].is_string());
    assert_eq!(world.kms_proxy.stats().calls_of("GetPublicKey"), 1, "of the new one");
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());

    // Another selection is not taken from the record.
    let other = world.accounts_of("other", 1).await[0];
    world.extra.service = "[[service]]\nname = \"other\"\nenvironment = \"dev\"\nconfigurations = [\"kms\"]\n".to_owned()
        + "keys = { tag = { app = \"other\" } }\n";
    let gateway = world.gateway().await;
    let listed = accounts(&gateway.connect_to("other").await).await;
    assert_eq!(listed, [other].into());
}

/// Finds many keys cold, and serves them warm, and says how long both took: `SLUICE_TEST_KEYS=10000`, best of a release build.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_found_once_and_recalled() {
    let Some(mut world) = World::start("many_keys_are_found_once_and_recalled").await else { return };
    world.extra.configuration = "warm_connections = 0".into();
    let count: u64 = std::env::var("SLUICE_TEST_KEYS").ok().map_or(1_200, |text| text.parse().unwrap());
    let settings = sim_kms::Settings::new(7, count).with_tag("app", "payments");
    let kms = SimKms::new(sim_kms::Settings { delays: Delays { p50: 20, p99: 20, max: 20 }, ..settings });
    let listener = kms.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (url, node) = (listener.url(), world.node.url());
    let configuration = Configuration { chain_id: 31337, node: &node, keys: Keys::Kms(&url), service: "payments", extra: &world.extra };
    let path = configuration.write(world.folder.path());
    let start = async |log: &str| {
        let began = Instant::now();
        let gateway = Gateway::start(sluice(&["serve", path.to_str().unwrap()]), "payments", &world.folder.path().join(log)).await;
        let listed = accounts(&gateway.connect().await).await;
        (gateway, listed.len() as u64, began.elapsed())
    };
    let calls = |operation: &str| kms.with(|kms, _| kms.calls_of(operation));
    let (mut gateway, found, cold) = start("cold.log").await;
    assert_eq!(found, count);
    for operation in ["DescribeKey", "ListResourceTags", "GetPublicKey"] {
        assert_eq!(calls(operation), count, "{operation}");
    }
    // At once: what was found may not be on record yet.
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());
    let (gateway, recalled, warm) = start("warm.log").await;
    assert_eq!(recalled, count);
    let log = std::fs::read_to_string(world.folder.path().join("warm.log")).unwrap();
    assert!(log.contains("the keys are those that were found last"), "{log}");
    eprintln!("{count} keys at 20 ms: cold {cold:?}, warm {warm:?}");
    eventually("the keys to be checked", || async {
        let shown = gateway.status().await["services"][0]["keyRefresh"]["at"].clone();
        shown.is_string().then_some(())
    })
    .await;
    assert_eq!((calls("DescribeKey"), calls("GetPublicKey")), (2 * count, count));
}
