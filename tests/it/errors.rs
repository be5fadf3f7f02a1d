//! Every way in which a send can fail: the JSON-RPC error that a client gets, and that the account goes on afterwards.

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault};
use sluice_load_tests::node_proxy::{RawAnswer, RawFault};

use crate::support::anvil::parse;
use crate::support::world::{World, transfer};
use crate::support::{eventually, journal, soon};

async fn send(client: &Client, from: Address, value: u64) -> Result<Value, ClientError> {
    soon("an answer", client.request("eth_sendTransaction", transfer(from, value))).await
}

/// What clients match on.
fn told(error: &ClientError) -> (i64, String) {
    (error.code().unwrap_or_default(), error.reason().unwrap_or_default().to_owned())
}

fn data(error: &ClientError) -> &Value {
    match error {
        ClientError::Rpc { data, .. } => data,
        other => panic!("{other}"),
    }
}

fn message(error: &ClientError) -> &str {
    match error {
        ClientError::Rpc { message, .. } => message,
        other => panic!("{other}"),
    }
}

/// Nothing of this process or its surroundings is in what a client is told.
pub(crate) fn leaks_nothing(world: &World, error: &ClientError) {
    let text = error.to_string();
    let secrets =
        [world.kms_proxy.address().port().to_string(), world.node.address().port().to_string(), world.folder.path().display().to_string()];
    for secret in secrets.iter().map(String::as_str).chain(["arn:aws", "TEST_SECRET", "src/", "panicked"]) {
        assert!(!text.contains(secret), "{text} tells {secret}");
    }
}

/// The account sends and gets this nonce.
async fn goes_on(world: &World, client: &Client, from: Address, nonce: u64) {
    let hash: B256 = parse(&send(client, from, 77).await.unwrap());
    world.mined(hash).await;
    let mined = world.anvil.nonces().await;
    assert_eq!(mined[&from], (0..=nonce).collect::<Vec<_>>(), "the account's chain has no hole");
}

/// The key store is asked again, by a probe, before it is asked to sign again.
async fn signs_again(client: &Client, from: Address) {
    eventually("the key to sign again", || async { client.request("personal_sign", json!(["0x00", from])).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_sender_is_told_in_geths_words() {
    let Some(world) = World::start("an_unknown_sender_is_told_in_geths_words").await else { return };
    world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let stranger = Address::repeat_byte(0x42);
    let error = send(&client, stranger, 1).await.unwrap_err();
    assert_eq!((told(&error), message(&error)), ((-32000, "unknown_account".into()), "unknown account"));
    for (method, params) in [
        ("eth_sign", json!([stranger, "0x00"])),
        ("personal_sign", json!(["0x00", stranger])),
        ("eth_signTransaction", json!([{ "from": stranger, "to": stranger, "gas": "0x5208", "gasPrice": "0x77359400", "nonce": "0x0" }])),
    ] {
        let error = client.request(method, params).await.unwrap_err();
        assert_eq!(told(&error), (-32000, "unknown_account".into()), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_money_is_told_before_a_nonce_exists() {
    let Some(world) = World::start("too_little_money_is_told_before_a_nonce_exists").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut params = transfer(accounts[0], 0);
    params[0]["value"] = json!(format!("{:#x}", 2_000 * 10u128.pow(18)));
    // With the gas given, it is our answer; without, the node's estimate may be the first to say so.
    params[0]["gas"] = json!("0x5208");
    let error = client.request("eth_sendTransaction", params).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "insufficient_funds".into()));
    let words = message(&error);
    assert!(words.starts_with("insufficient funds for gas * price + value: balance 1000000000000000000000, tx cost "), "{words}");
    assert!(words.contains(", overshot "), "{words}");
    assert_eq!(world.kms_proxy.stats().calls_of("Sign"), 0);
    goes_on(&world, &client, accounts[0], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_included_is_reserved_against_the_balance() {
    let Some(world) = World::start_with("what_is_not_included_is_reserved_against_the_balance", &["--no-mining"]).await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut params = transfer(accounts[0], 0);
    params[0]["value"] = json!(format!("{:#x}", 600 * 10u128.pow(18)));
    params[0]["gas"] = json!("0x5208");
    soon("the first", client.request("eth_sendTransaction", params.clone())).await.unwrap();
    let error = soon("the second", client.request("eth_sendTransaction", params)).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "insufficient_funds".into()));
    assert!(message(&error).contains("queued cost"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_is_told_and_comes_back() {
    let Some(mut world) = World::start("a_node_that_is_down_is_told_and_comes_back").await else { return };
    world.extra.environment = "node_deadline = \"2s\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    goes_on(&world, &client, accounts[0], 0).await;
    world.node.refuse(true);
    world.node.cut();
    let error = eventually("the loss to be noticed", || async {
        let error = client.request("eth_blockNumber", json!([])).await.err()?;
        (error.reason() == Some("node_unavailable")).then_some(error)
    })
    .await;
    assert_eq!(told(&error), (-32002, "node_unavailable".into()));
    leaks_nothing(&world, &error);
    let error = send(&client, accounts[0], 2).await.unwrap_err();
    assert_eq!(told(&error), (-32002, "node_unavailable".into()), "gas cannot be estimated");
    leaks_nothing(&world, &error);
    assert_eq!(gateway.admin("readyz").await.0, 503);
    assert_eq!(gateway.admin("livez").await.0, 200);
    world.node.refuse(false);
    eventually("the node to be back", || async { client.request("eth_blockNumber", json!([])).await.ok() }).await;
    goes_on(&world, &client, accounts[0], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_store_that_is_down_is_told_and_leaves_no_hole() {
    let Some(mut world) = World::start("a_key_store_that_is_down_is_told_and_leaves_no_hole").await else { return };
    world.extra.configuration = "sign_deadline = \"1s\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let down = KmsAnswer::Error { status: 500, code: "KMSInternalException".into(), message: "arn:aws:kms:a-secret".into() };
    for answer in [down, KmsAnswer::Cut] {
        world.kms_proxy.set_faults([KmsFault::signs(u64::MAX, answer)]);
        let sends: Vec<_> = (0..3).map(|i| client.start("eth_sendTransaction", transfer(accounts[0], i))).collect();
        for send in sends {
            let error = soon("an answer", send).await.unwrap_err();
            assert_eq!(told(&error), (-32002, "key_store_unavailable".into()));
            leaks_nothing(&world, &error);
        }
        world.kms_proxy.set_faults([]);
        signs_again(&client, accounts[0]).await;
    }
    assert!(journal::attempts(&world.journal()).is_empty() && world.node.sent().is_empty(), "nothing was promised, nothing left");
    goes_on(&world, &client, accounts[0], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_fault_of_the_key_store_is_not_seen_by_clients() {
    let Some(world) = World::start("a_passing_fault_of_the_key_store_is_not_seen_by_clients").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let internal = KmsAnswer::Error { status: 500, code: "KMSInternalException".into(), message: String::new() };
    world
        .kms_proxy
        .set_faults([KmsAnswer::throttled(), KmsAnswer::Cut, internal, KmsAnswer::OtherDigest].map(|answer| KmsFault::signs(1, answer)));
    let sends: Vec<_> = (0..10).map(|i| client.start("eth_sendTransaction", transfer(accounts[0], i))).collect();
    for send in sends {
        world.mined(parse(&soon("an answer", send).await.unwrap())).await;
    }
    assert_eq!(world.anvil.nonces().await[&accounts[0]], (0..10).collect::<Vec<_>>());
    let stats = world.kms_proxy.stats();
    // The emulator has faults of its own now and then.
    let retries = gateway.metric("sluice_sign_retries_total").await as u64;
    assert!(retries >= 4, "each fault costs one more Sign");
    assert_eq!((stats.faults, stats.calls_of("Sign"), stats.digests.len()), (4, 10 + retries, 10), "of the same digest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_store_that_throttles_is_told_as_such() {
    let Some(mut world) = World::start("a_key_store_that_throttles_is_told_as_such").await else { return };
    world.extra.configuration = "sign_deadline = \"4s\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.kms_proxy.set_faults([KmsFault::signs(u64::MAX, KmsAnswer::throttled())]);
    let error = send(&client, accounts[0], 1).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "key_store_throttled".into()));
    assert!(data(&error)["retryAfterMs"].is_u64(), "{error}");
    leaks_nothing(&world, &error);
    world.kms_proxy.set_faults([]);
    goes_on(&world, &client, accounts[0], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_account_has_no_turn_to_sign_is_told_as_throttled() {
    let Some(mut world) = World::start("a_request_whose_account_has_no_turn_to_sign_is_told_as_throttled").await else { return };
    world.extra.configuration = "sign_window = 1".into();
    world.extra.environment = "account = { queue_deadline = \"300ms\", sign_window = 1 }".into();
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.slow_signs(2_000);
    let message = client.start("personal_sign", json!(["0x00", accounts[1]]));
    eventually("the first Sign", || async { (world.kms_proxy.stats().calls_of("Sign") == 1).then_some(()) }).await;
    let first = client.start("eth_sendTransaction", transfer(accounts[0], 1));
    eventually("the wish for a signature", || async { (gateway.metric("sluice_signs_waiting").await == 1.0).then_some(()) }).await;
    let error = send(&client, accounts[0], 2).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "key_store_throttled".into()), "what it waited for had no turn itself");
    world.slow_signs(0);
    soon("an answer", message).await.unwrap();
    world.mined(parse(&soon("an answer", first).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_sign_and_a_refusal_of_credentials_are_told_apart() {
    let Some(mut world) = World::start("a_key_that_cannot_sign_and_a_refusal_of_credentials_are_told_apart").await else { return };
    world.extra.configuration = "sign_deadline = \"1s\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for (status, code, reason) in [
        (400, "DisabledException", "key_unavailable"),
        (400, "KMSInvalidStateException", "key_unavailable"),
        (400, "NotFoundException", "key_unavailable"),
        (400, "AccessDeniedException", "key_store_denied"),
        (403, "UnrecognizedClientException", "key_store_denied"),
    ] {
        let answer = KmsAnswer::Error { status, code: code.into(), message: "arn:aws:kms:a-secret".into() };
        world.kms_proxy.set_faults([KmsFault::signs(u64::MAX, answer)]);
        let error = send(&client, accounts[0], 1).await.unwrap_err();
        assert_eq!(told(&error), (-32002, reason.into()), "{code}");
        leaks_nothing(&world, &error);
        // While the breaker is open nothing is asked, and the reason is the same.
        let signs = world.kms_proxy.stats().calls_of("Sign");
        let error = client.request("personal_sign", json!(["0x00", accounts[0]])).await.unwrap_err();
        assert_eq!((told(&error), world.kms_proxy.stats().calls_of("Sign")), ((-32002, reason.into()), signs), "{code}");
        world.kms_proxy.set_faults([]);
        signs_again(&client, accounts[0]).await;
    }
    goes_on(&world, &client, accounts[0], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_over_something_else_is_never_used() {
    let Some(mut world) = World::start("a_signature_over_something_else_is_never_used").await else { return };
    world.extra.configuration = "sign_deadline = \"1s\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.kms_proxy.set_faults([KmsFault::signs(u64::MAX, KmsAnswer::OtherDigest)]);
    let error = send(&client, accounts[0], 1).await.unwrap_err();
    assert_eq!(told(&error), (-32002, "key_store_unavailable".into()));
    let error = client.request("personal_sign", json!(["0x00", accounts[0]])).await.unwrap_err();
    assert_eq!(told(&error), (-32002, "key_store_unavailable".into()));
    assert!(journal::attempts(&world.journal()).is_empty() && world.node.sent().is_empty());
    world.kms_proxy.set_faults([]);
    goes_on(&world, &client, accounts[0], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_transaction_is_told_with_its_hash_and_leaves_no_hole() {
    let Some(world) = World::start("a_refused_transaction_is_told_with_its_hash_and_leaves_no_hole").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let words = "Insufficient funds for gas * price + value";
    world.node.set_faults([RawFault { count: 1, answer: RawAnswer::Refuse { code: -32003, message: words.into() } }]);
    let error = send(&client, accounts[0], 1).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "refused".into()));
    assert!(message(&error).to_lowercase().contains("insufficient funds"), "the node's reason is told: {error}");
    let refused: B256 = parse(&data(&error)["hash"]);
    let life = client.request("sluice_getTransaction", json!([refused])).await.unwrap();
    assert_eq!((&data(&error)["id"], &data(&error)["state"]), (&life["id"], &json!("refused")), "{error}");
    assert_eq!(journal::attempts(&world.journal()), [(refused, "refused".to_owned())], "on record before it is told");
    goes_on(&world, &client, accounts[0], 0).await;
    assert!(world.anvil.mined().await.iter().all(|mined| mined.hash != refused));
    let sent: Vec<B256> = world.node.sent().iter().map(|sent| sent.decode().unwrap().hash).collect();
    assert_eq!(sent.iter().filter(|hash| **hash == refused).count(), 1, "refused bytes are never sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_answered_with_the_hash() {
    let Some(mut world) = World::start("an_answer_that_is_lost_is_answered_with_the_hash").await else { return };
    world.extra.environment = "answer_after = \"100ms\"\nnode_deadline = \"1s\"\nrebroadcast = \"1s\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for answer in [RawAnswer::Swallow, RawAnswer::Lose, RawAnswer::Lie { code: -32099, message: "the moon is full".into() }] {
        world.node.set_faults([RawFault { count: 1, answer }]);
        let hash: B256 = parse(&send(&client, accounts[0], 1).await.unwrap());
        world.mined(hash).await;
    }
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_at_once_and_the_rest_is_mined() {
    let Some(mut world) = World::start("a_full_queue_is_told_at_once_and_the_rest_is_mined").await else { return };
    world.extra.environment = "account = { queue = 4, sign_window = 1 }".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.slow_signs(300);
    let sends: Vec<_> = (0..20).map(|i| client.start("eth_sendTransaction", transfer(accounts[0], i))).collect();
    let (mut hashes, mut full) = (Vec::<B256>::new(), 0);
    for send in sends {
        match soon("an answer", send).await {
            Ok(hash) => hashes.push(parse(&hash)),
            Err(error) => {
                assert_eq!(told(&error), (-32005, "queue_full".into()));
                assert!(data(&error)["retryAfterMs"].is_u64(), "{error}");
                full += 1;
            }
        }
    }
    assert!(full > 0 && hashes.len() >= 4, "{full} full, {} answered", hashes.len());
    for hash in &hashes {
        world.mined(*hash).await;
    }
    assert_eq!(world.anvil.nonces().await[&accounts[0]], (0..hashes.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_deadline_and_a_gap_are_told_before_a_nonce_exists() {
    let Some(mut world) = World::start("a_passed_deadline_and_a_gap_are_told_before_a_nonce_exists").await else { return };
    world.extra.environment = "account = { queue_deadline = \"500ms\", sign_window = 1, sign_ahead = 1, broadcast_window = 1 }".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut params = transfer(accounts[0], 1);
    params[0]["nonce"] = json!("0x7");
    let error = soon("an answer", client.request("eth_sendTransaction", params)).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "nonce_gap".into()));
    world.slow_signs(2_000);
    let first = client.start("eth_sendTransaction", transfer(accounts[0], 1));
    eventually("the first Sign", || async { (world.kms_proxy.stats().calls_of("Sign") == 1).then_some(()) }).await;
    let error = send(&client, accounts[0], 2).await.unwrap_err();
    assert_eq!(told(&error), (-32002, "key_store_unavailable".into()), "it waited for nothing else");
    world.slow_signs(0);
    world.mined(parse(&soon("an answer", first).await.unwrap())).await;
    // One that is sent and not mined, one that is committed and not sent: there is no room for a third.
    world.anvil.call("evm_setAutomine", json!([false])).await.unwrap();
    for value in [3, 4] {
        send(&client, accounts[0], value).await.unwrap();
    }
    let error = send(&client, accounts[0], 5).await.unwrap_err();
    assert_eq!(told(&error), (-32005, "queue_deadline".into()));
    world.anvil.call("evm_setAutomine", json!([true])).await.unwrap();
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    goes_on(&world, &client, accounts[0], 3).await;
}
