//! Several services in one process: their own keys, chains and limits; what operators see of them.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::http;

use crate::support::anvil::{Anvil, parse};
use crate::support::gateway::Gateway;
use crate::support::world::{World, environment, service, transfer};
use crate::support::{eventually, journal, soon};

fn addresses(value: &Value) -> BTreeSet<Address> {
    value.as_array().unwrap().iter().map(parse).collect()
}

/// One call over HTTP by any path; status and body.
async fn post(gateway: &Gateway, path: &str, method: &str, params: Value) -> (u16, Value) {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let (status, body) = http::post_json(&format!("http://{}{path}", gateway.listen), &request).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_one_service_are_used_through_no_other() {
    let Some(mut world) = World::start("keys_of_one_service_are_used_through_no_other").await else { return };
    let (payments, payroll) = (world.accounts(1).await[0], world.accounts_of("payroll", 1).await[0]);
    world.extra.service = service("payroll", "dev", "payroll");
    let gateway = world.gateway().await;
    let clients = [gateway.connect().await, gateway.connect_to("payroll").await];
    for (client, own, other) in [(&clients[0], payments, payroll), (&clients[1], payroll, payments)] {
        assert_eq!(addresses(&client.request("eth_accounts", json!([])).await.unwrap()), [own].into());
        let typed = json!({ "types": { "EIP712Domain": [], "A": [] }, "primaryType": "A", "domain": {}, "message": {} });
        let full = json!([{ "from": other, "to": other, "value": "0x1", "gas": "0x5208", "gasPrice": "0x77359400", "nonce": "0x0" }]);
        for (method, params) in [
            ("eth_sendTransaction", transfer(other, 1)),
            ("eth_signTransaction", full),
            ("eth_sign", json!([other, "0x01"])),
            ("personal_sign", json!(["0x01", other])),
            ("eth_signTypedData_v4", json!([other, typed])),
        ] {
            let error = soon(method, client.request(method, params)).await.unwrap_err();
            assert_eq!(error.reason(), Some("unknown_account"), "{method}: {error}");
        }
    }
    assert_eq!(world.kms_proxy.stats().calls_of("Sign"), 0);
    assert!(journal::attempts(&world.journal()).is_empty());

    // `/` is neither: a payment must not leave from a service that nobody named.
    let (status, body) = post(&gateway, "/", "eth_sendTransaction", transfer(payments, 1)).await;
    assert_eq!((status, &body["paths"]), (404, &json!(["/payments", "/payroll"])), "{body}");
    for (client, own) in [(&clients[0], payments), (&clients[1], payroll)] {
        let mut receipts = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
        let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(own, 1)).await.unwrap());
        let block = soon("a receipt", receipts.next()).await.unwrap();
        assert_eq!(block.as_array().unwrap().len(), 1, "its own alone: {block}");
        assert_eq!(parse::<B256>(&block[0]["transactionHash"]), hash);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_two_environments_send_to_their_own_chain() {
    let Some(mut world) = World::start("services_of_two_environments_send_to_their_own_chain").await else { return };
    let side = Anvil::start(world.folder.path(), &["--chain-id", "1337"]).await;
    let account = world.accounts(1).await[0];
    side.fund(account, 1_000).await;
    world.extra.environment = environment("side", 1337, &format!("ws://{}", side.address));
    // The same key on both chains: two accounts, each with nonces of its own.
    world.extra.service = service("side", "side", "payments");
    world.extra.server = "default_service = \"side\"".into();
    let gateway = world.gateway().await;
    eventually("the other chain to be ready", || async { (gateway.admin("readyz/side").await.0 == 200).then_some(()) }).await;
    let clients = [gateway.connect().await, gateway.connect_to("side").await];
    let mut told: Vec<Vec<B256>> = Vec::new();
    for (client, chain_id, count) in [(&clients[0], "0x7a69", 3), (&clients[1], "0x539", 2)] {
        assert_eq!(client.request("eth_chainId", json!([])).await.unwrap(), chain_id);
        let mut hashes = Vec::new();
        for value in 0..count {
            hashes.push(parse(&soon("an answer", client.request("eth_sendTransaction", transfer(account, value))).await.unwrap()));
        }
        told.push(hashes);
    }
    for (anvil, hashes) in [(&world.anvil, &told[0]), (&side, &told[1])] {
        for hash in hashes {
            eventually("a receipt", || anvil.receipt(*hash)).await;
        }
        let mined: Vec<(u64, B256)> = anvil.mined().await.iter().map(|one| (one.nonce, one.hash)).collect();
        assert_eq!(mined, (0..).zip(hashes.iter().copied()).collect::<Vec<_>>());
    }
    let (status, body) = post(&gateway, "/", "eth_chainId", json!([])).await;
    assert_eq!((status, &body["result"]), (200, &json!("0x539")), "/ is the one that is named");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_has_its_limits() {
    let Some(mut world) = World::start("each_service_has_its_limits").await else { return };
    world.accounts(1).await;
    world.extra.server = "max_batch_items = 3".into();
    let limits = "limits = { max_connections = 1, max_batch_items = 2, max_requests_per_second = 1 }\n";
    world.extra.service = service("other", "dev", "payments") + limits;
    let gateway = world.gateway().await;
    let client = gateway.connect_to("other").await;
    let refused = sluice_load_tests::client::Client::connect(&format!("ws://{}/other", gateway.listen), &[]).await;
    assert!(matches!(refused, Err(sluice_load_tests::client::ClientError::Status(503))));
    let items = |count| vec![("eth_chainId", json!([])); count];
    assert!(gateway.connect().await.batch(&items(3)).await.unwrap().iter().all(Result::is_ok), "the server's");
    let mut reasons = BTreeSet::new();
    // A minute's calls: only a machine that takes a minute for them would see none refused.
    for _ in 0..60 {
        if let Err(error) = client.request("eth_chainId", json!([])).await {
            assert_eq!(error.code(), Some(-32005));
            reasons.insert(error.reason().unwrap().to_owned());
        }
    }
    assert_eq!(reasons, ["rate_limited".to_owned()].into());
    let (_, body) = post(&gateway, "/other", "eth_chainId", json!([])).await;
    let batch = vec![json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }); 3];
    let (_, answer) = http::post_json(&format!("http://{}/other", gateway.listen), &json!(batch)).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer[0]["error"]["data"]["reason"], "limit_exceeded", "{answer} {body}");
    let page = gateway.status().await;
    assert_eq!(page["services"][1]["limits"]["maxRequestsPerSecond"], 1);
    assert_eq!(page["services"][1]["connections"], 1);
    assert_eq!(page["services"][0]["limits"]["maxBatchItems"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_services_keys_nodes_and_journal_without_secrets() {
    let Some(mut world) = World::start("status_shows_services_keys_nodes_and_journal_without_secrets").await else { return };
    let accounts = world.accounts(2).await;
    world.extra.server = "public_url = \"https://signer.example.org/eth/\"".into();
    world.extra.environment = environment("side", 1337, "ws://user:s3cret-of-the-node@127.0.0.1:1/s3cret-path");
    world.extra.service = service("side", "side", "payments");
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(accounts[0], 1)).await.unwrap());
    world.mined(hash).await;
    let page = eventually("a head of one node and an error of the other", || async {
        let page = gateway.status().await;
        let (near, far) = (&page["environments"][0], &page["environments"][1]);
        let seen = near["head"]["number"] == 1 && near["endpoints"][0]["head"] == 1 && far["endpoints"][0]["lastError"].is_object();
        seen.then_some(page)
    })
    .await;
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert!(page["uptimeSeconds"].is_u64() && page["configuration"]["loadedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(page["configuration"]["lastReload"], Value::Null);
    let service = &page["services"][0];
    assert_eq!(service["rpc"], "https://signer.example.org/eth/payments");
    assert_eq!(service["wss"], "wss://signer.example.org/eth/payments");
    assert_eq!((&service["ready"], &service["default"], &service["connections"]), (&json!(true), &json!(false), &json!(1)));
    assert_eq!(addresses(&service["keys"]["enabled"]), accounts.iter().copied().collect());
    let (near, far) = (&page["environments"][0], &page["environments"][1]);
    assert_eq!((&near["chainId"], &near["ready"], &far["ready"]), (&json!(31337), &json!(true), &json!(false)));
    let endpoint = &near["endpoints"][0];
    assert_eq!((&endpoint["up"], &endpoint["chainId"]), (&json!(true), &json!(31337)));
    assert!(endpoint["headAgeSeconds"].is_u64() && near["head"]["ageSeconds"].is_u64(), "{near}");
    assert_eq!((&far["endpoints"][0]["up"], &far["endpoints"][0]["chainId"]), (&json!(false), &Value::Null));
    assert_eq!(page["services"][1]["ready"], false);
    assert!(page["services"][1]["reason"].is_string());
    let on_record = &page["journal"];
    assert_eq!((&on_record["engine"], &on_record["writable"], &on_record["reason"]), (&json!("sqlite"), &json!(true), &Value::Null));
    assert!(on_record["bytes"].as_u64().unwrap() > 0 && on_record["newestPosition"].as_i64().unwrap() > 0, "{on_record}");
    assert_eq!(on_record["path"], world.journal().to_str().unwrap());

    let mut shown = BTreeSet::new();
    members(&page, "", &mut shown);
    // States are those of the last reading.
    let disabled = key_of(&world, accounts[0]).await;
    world.kms.call("DisableKey", json!({ "KeyId": disabled })).await;
    let deleted = key_of(&world, accounts[1]).await;
    world.kms.call("ScheduleKeyDeletion", json!({ "KeyId": deleted, "PendingWindowInDays": 7 })).await;
    assert_eq!(gateway.reload().await.0, "applied");
    let page = gateway.status().await;
    assert_eq!(page["services"][0]["keys"], json!({ "disabled": [checksum(accounts[0])], "pending_deletion": [checksum(accounts[1])] }));
    assert_eq!((&page["services"][0]["ready"], &page["services"][0]["reason"]), (&json!(false), &json!("no key can sign")));
    let (status, why) = gateway.admin("readyz").await;
    assert_eq!(status, 503, "{why}");
    members(&page, "", &mut shown);
    // What is null now is documented by what is in it.
    let documented = documented();
    shown.retain(|path| !documented.iter().any(|member| member.starts_with(&format!("{path}."))));
    assert_eq!(shown, documented);
    let (text, log) = (page.to_string() + &why, gateway.process.log());
    assert!(!text.contains("s3cret") && !log.contains("s3cret"), "{text}");
}

/// The members of a page by their paths. An object whose names are data, not members, is one member.
fn members(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) if path != "services[].keys" => {
            let dot = if path.is_empty() { "" } else { "." };
            entries.iter().for_each(|(name, value)| members(value, &format!("{path}{dot}{name}"), found));
        }
        Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
            items.iter().for_each(|item| members(item, &format!("{path}[]"), found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

/// What docs/operations.md lists.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/operations.md");
    let section = page.split("\n## Status\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    rows.flat_map(|cell| cell.split('`').filter(|word| !word.starts_with(", ") && !word.is_empty())).map(str::to_owned).collect()
}

/// As /status writes it.
fn checksum(address: Address) -> Value {
    json!(address)
}

/// The key id of an address, by its public key.
async fn key_of(world: &World, address: Address) -> String {
    let listed = crate::support::gateway::run(crate::support::gateway::sluice(&["keys", "list", &world.configuration(), "--json"]));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let entry = listed.as_array().unwrap().iter().find(|entry| parse::<Address>(&entry["address"]) == address);
    entry.unwrap()["arns"][0].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_ready_when_one_service_is_and_the_journal_can_write() {
    let Some(mut world) = World::start("a_gateway_is_ready_when_one_service_is_and_the_journal_can_write").await else { return };
    world.accounts(1).await;
    world.extra.environment = environment("side", 1337, "ws://127.0.0.1:1");
    world.extra.service = service("side", "side", "payments");
    let gateway = world.gateway().await;
    assert_eq!(gateway.admin("readyz/payments").await.0, 200);
    let (status, why) = gateway.admin("readyz/side").await;
    assert!(status == 503 && why.contains("no node"), "{status} {why}");
    assert_eq!(gateway.admin("readyz").await.0, 200, "one is enough");
    assert_eq!(gateway.admin("readyz/nonsense").await.0, 404);

    // Another process holds the file: nothing can be committed, whatever the journal's thread thinks of itself.
    let thief = rusqlite::Connection::open(world.journal()).unwrap();
    thief.busy_timeout(crate::support::PATIENCE).unwrap();
    thief.execute_batch("BEGIN IMMEDIATE").unwrap();
    for path in ["readyz", "readyz/payments"] {
        let why = eventually("the journal to be found stuck", || async {
            let (status, why) = gateway.admin(path).await;
            (status == 503).then_some(why)
        })
        .await;
        assert!(why.contains("journal"), "{why}");
    }
    assert_eq!(gateway.status().await["journal"]["writable"], false);
    assert_eq!(gateway.admin("livez").await.0, 200, "that is no reason to end it");
    thief.execute_batch("ROLLBACK").unwrap();
    for path in ["readyz", "readyz/payments"] {
        eventually("the journal to write again", || async { (gateway.admin(path).await.0 == 200).then_some(()) }).await;
    }
}
