//! `sluice keys list` and `sluice keys show`: what key store, nodes and journal say of a key.

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

use crate::support::anvil::{Anvil, parse};
use crate::support::gateway::{printed, run, sluice, words};
use crate::support::soon;
use crate::support::world::{World, environment, service, transfer};

/// The cells of what a command prints as a table; what it says beside it.
async fn table(arguments: &[&str]) -> (Vec<Vec<String>>, String) {
    let command = sluice(arguments);
    let output = soon("a command", tokio::task::spawn_blocking(|| run(command))).await.unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    // Columns are two spaces apart at least.
    let cells = |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
    (text.lines().map(cells).collect(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_with_balance_and_nonces_in_each_environment() {
    let Some(mut world) = World::start("keys_are_listed_with_balance_and_nonces_in_each_environment").await else { return };
    let side = Anvil::start(world.folder.path(), &["--chain-id", "1337"]).await;
    let (shared, other) = (world.accounts(1).await[0], world.accounts_of("payroll", 1).await[0]);
    side.call("anvil_setBalance", json!([shared, "0x16345785d8a0000"])).await.unwrap();
    world.extra.environment =
        environment("side", 1337, &format!("ws://{}", side.address)) + &environment("down", 1, "ws://user:s3cret@127.0.0.1:1/s3cret");
    world.extra.service =
        [service("side", "side", "payments"), service("payroll", "dev", "payroll"), service("far", "down", "payroll")].concat();
    let file = world.configuration();
    // Before there is a journal: all but the nonce by it is there.
    let listed = printed(&["keys", "list", &file, "--json"]).await;
    assert_eq!(listed[0]["environments"][0]["nonces"]["next"], Value::Null);

    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for value in 0..2 {
        let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(shared, value)).await.unwrap());
        world.mined(hash).await;
    }
    world.anvil.call("evm_setAutomine", json!([false])).await.unwrap();
    let _waiting: B256 = parse(&client.request("eth_sendTransaction", transfer(shared, 2)).await.unwrap());
    // Beside the gateway that uses the journal.
    let listed = printed(&["keys", "list", &file, "--json"]).await;
    let listed = listed.as_array().unwrap();
    let of = |address: Address| listed.iter().find(|entry| parse::<Address>(&entry["address"]) == address).unwrap();
    assert_eq!(listed.len(), 2, "each key once");
    let entry = of(shared);
    assert_eq!((&entry["state"], &entry["services"]), (&json!("enabled"), &json!(["payments", "side"])));
    assert_eq!((&entry["configurations"], &entry["arns"].as_array().unwrap().len()), (&json!(["kms"]), &1));
    let [dev, beside] = entry["environments"].as_array().unwrap().as_slice() else { panic!("{entry}") };
    assert_eq!((&dev["name"], &dev["chainId"], &dev["error"]), (&json!("dev"), &json!(31337), &Value::Null));
    assert_eq!(dev["nonces"], json!({ "latest": 2, "pending": 3, "next": 3 }));
    let balance: u128 = dev["balance"].as_str().unwrap().parse().unwrap();
    assert!(balance > 999 * 10u128.pow(18) && balance < 1_000 * 10u128.pow(18), "{balance}");
    assert_eq!((&beside["name"], &beside["balance"]), (&json!("side"), &json!("100000000000000000")));
    assert_eq!(beside["nonces"], json!({ "latest": 0, "pending": 0, "next": null }));
    let far = &of(other)["environments"][1];
    assert_eq!((&far["name"], &far["balance"], &far["nonces"]["latest"]), (&json!("down"), &Value::Null, &Value::Null));
    assert!(far["error"].as_str().unwrap().contains("ws://127.0.0.1:1"), "{far}");

    let (rows, notes) = table(&["keys", "list", &file]).await;
    assert!(notes.contains("\"down\" is unavailable") && !notes.contains("s3cret"), "{notes}");
    assert_eq!(rows[0][..7], ["ADDRESS", "STATE", "ENVIRONMENT", "BALANCE", "LATEST", "PENDING", "NEXT"]);
    assert_eq!(rows.len(), 5, "a row for each environment of each key: {rows:?}");
    let row = |address: Address, name: &str| rows.iter().find(|row| row[0] == address.to_string() && row[2] == name).unwrap();
    assert_eq!(row(shared, "dev")[4..7], ["2", "3", "3"]);
    assert_eq!(row(shared, "side")[3..8], ["0.1", "0", "0", "-", "payments side"]);
    assert_eq!(row(other, "down")[3..7], ["unavailable", "unavailable", "unavailable", "-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_shown_with_everything_that_is_known_of_it() {
    let Some(mut world) = World::start("one_key_is_shown_with_everything_that_is_known_of_it").await else { return };
    let account = world.accounts(1).await[0];
    let file = world.configuration();
    let created = run(sluice(&["keys", "create", &file, "--tag", "app=payments", "--tag", "team=blue", "--alias", "blue", "--json"]));
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let address: Address = parse(&created["address"]);
    let shown = printed(&["keys", "show", &file, &address.to_string(), "--json"]).await;
    assert_eq!(parse::<Address>(&shown["address"]), address);
    assert_eq!((&shown["aliases"], &shown["services"]), (&json!(["alias/blue"]), &json!(["payments"])));
    let holder = &shown["holders"][0];
    assert_eq!((&holder["arn"], &holder["configuration"], &holder["state"]), (&created["arn"], &json!("kms"), &json!("enabled")));
    assert_eq!(holder["tags"], json!({ "app": "payments", "team": "blue" }));
    assert_eq!(shown["environments"][0]["nonces"]["latest"], 0);
    let (rows, _) = table(&["keys", "show", &file, &format!("{account:#x}")]).await;
    let value = |name: &str| rows.iter().find(|row| row[0] == name).unwrap()[1].clone();
    assert_eq!((value("address"), value("state"), value("aliases")), (account.to_string(), "enabled".into(), "-".into()));
    assert!(value("arn").contains("configuration kms, enabled, app=payments"), "{}", value("arn"));
    assert!(value("environment").starts_with("dev (chain id 31337): balance 1000, nonces: latest 0"), "{}", value("environment"));

    // A key that no service selects, and what is no address.
    let other = world.accounts_of("other", 1).await[0];
    let unknown = run(sluice(&["keys", "show", &file, &other.to_string()]));
    assert_eq!(unknown.status.code(), Some(1), "{}", words(&unknown));
    assert_eq!(run(sluice(&["keys", "show", &file, "0x12"])).status.code(), Some(2));
    world.anvil.stop();
    let shown = printed(&["keys", "show", &file, &address.to_string(), "--json"]).await;
    assert!(shown["environments"][0]["error"].is_string(), "{shown}");
    assert_eq!(shown["state"], "enabled", "the key store is asked all the same");
}
