//! Whose nonce it is: given ones, foreign use of a key, bytes that a client holds or signs elsewhere, reorgs, restarts.

use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Signature, U256, hex};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sluice_load_tests::client::Client;

use crate::support::anvil::{parse, quantity};
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::{World, transfer};
use crate::support::{eventually, journal, soon};

async fn send(client: &Client, from: Address, value: u64) -> B256 {
    parse(&soon("an answer", client.request("eth_sendTransaction", transfer(from, value))).await.unwrap())
}

/// The parameters of `eth_signTransaction`: everything is given.
fn whole(from: Address, nonce: u64) -> Value {
    json!([{ "from": from, "to": from, "value": "0x1", "gas": "0x5208", "nonce": format!("{nonce:#x}"),
        "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x3b9aca00" }])
}

async fn pending(client: &Client, address: Address) -> u64 {
    quantity(&soon("a count", client.request("eth_getTransactionCount", json!([address, "pending"]))).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphaned_transaction_is_sent_again_and_its_receipt_comes_again() {
    let Some(mut world) = World::start("an_orphaned_transaction_is_sent_again_and_its_receipt_comes_again").await else { return };
    world.extra.environment = "confirmations = 6".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let hash = send(&client, accounts[0], 1).await;
    let first = soon("the receipt", receipts.next()).await.unwrap();
    assert_eq!(parse::<B256>(&first[0]["transactionHash"]), hash);

    world.anvil.call("anvil_reorg", json!([1, []])).await.unwrap();
    let second = soon("the receipt of the other block", receipts.next()).await.unwrap();
    assert_eq!(parse::<B256>(&second[0]["transactionHash"]), hash, "the same bytes, not a second payment");
    assert_ne!(second[0]["blockHash"], first[0]["blockHash"]);
    let next = send(&client, accounts[0], 2).await;
    world.mined(next).await;
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_while_the_gateway_was_down_is_found_at_its_start() {
    let Some(world) = World::start("a_reorg_while_the_gateway_was_down_is_found_at_its_start").await else { return };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash = send(&client, accounts[0], 1).await;
    world.mined(hash).await;
    gateway.process.kill();
    world.anvil.call("anvil_reorg", json!([1, []])).await.unwrap();
    assert_eq!(world.anvil.receipt(hash).await, None, "the reorg took it out of the chain");
    let _gateway = world.gateway().await;
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_moved_to_another_block_while_the_gateway_was_down_is_told_as_orphaned() {
    let test = "a_transaction_that_moved_to_another_block_while_the_gateway_was_down_is_told_as_orphaned";
    let Some(world) = World::start(test).await else { return };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash = send(&client, accounts[0], 1).await;
    let states = || journal::events(&world.journal(), "payments").into_iter().map(|event| event.state).collect::<Vec<_>>();
    eventually("the inclusion", || async { (states().last()? == "included").then_some(()) }).await;
    gateway.process.kill();
    world.anvil.call("anvil_reorg", json!([1, []])).await.unwrap();
    let raw = world.node.sent().pop().unwrap().raw;
    world.anvil.call("eth_sendRawTransaction", json!([raw])).await.unwrap();
    world.mined(hash).await;
    let _gateway = world.gateway().await;
    eventually("the other inclusion", || async {
        states().ends_with(&["included".into(), "orphaned".into(), "included".into()]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_use_of_a_key_is_alarmed_and_nonces_go_on_where_the_chain_is() {
    let Some(world) = World::start("foreign_use_of_a_key_is_alarmed_and_nonces_go_on_where_the_chain_is").await else { return };
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash = send(&client, accounts[0], 1).await;
    world.mined(hash).await;
    // Somebody else, who has the key too, uses nonces 1 and 2.
    world.anvil.call("anvil_impersonateAccount", json!([accounts[0]])).await.unwrap();
    for _ in 0..2 {
        world.anvil.call("eth_sendTransaction", transfer(accounts[0], 5)).await.unwrap();
    }
    eventually("the alarm", || async {
        let (_, metrics) = gateway.admin("metrics").await;
        let alarms = "sluice_alarms_total{environment=\"dev\",kind=\"foreign_nonce\"} ";
        metrics.lines().any(|line| line.strip_prefix(alarms).is_some_and(|count| count != "0")).then_some(())
    })
    .await;
    let next = send(&client, accounts[0], 2).await;
    world.mined(next).await;
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0, 1, 2, 3]);
    assert_eq!(pending(&client, accounts[0]).await, 4);
}

/// The account began behind a payload of somebody else that was in the node's pool, and the pool lost it.
#[tokio::test(flavor = "multi_thread")]
async fn nonces_that_nothing_has_are_filled_once_the_chain_has_settled() {
    let test = "nonces_that_nothing_has_are_filled_once_the_chain_has_settled";
    let Some(mut world) = World::start_with(test, &["--no-mining"]).await else { return };
    world.extra.environment = "reconcile_blocks = 2".into();
    let account = world.accounts(1).await[0];
    world.anvil.call("anvil_impersonateAccount", json!([account])).await.unwrap();
    let mut foreign = Vec::new();
    for value in [5, 6] {
        foreign.push(world.anvil.call("eth_sendTransaction", transfer(account, value)).await.unwrap());
    }
    world.anvil.call("anvil_stopImpersonatingAccount", json!([account])).await.unwrap();
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let ours = send(&client, account, 1).await;
    for lost in foreign {
        world.anvil.call("anvil_dropTransaction", json!([lost])).await.unwrap();
    }
    // What is suspected is in memory only: a restart finds it again.
    drop(client);
    gateway.process.kill();
    let gateway = world.gateway().await;
    eventually("ours to be mined behind two fillers", || async {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
        let receipt = world.anvil.call("eth_getTransactionReceipt", json!([ours])).await.unwrap();
        (!receipt.is_null()).then_some(())
    })
    .await;
    assert_eq!(world.anvil.nonces().await[&account], [0, 1, 2]);
    let (_, metrics) = gateway.admin("metrics").await;
    let alarm = "sluice_alarms_total{environment=\"dev\",kind=\"nonce_missing\"} ";
    assert!(metrics.lines().any(|line| line.strip_prefix(alarm).is_some_and(|count| count != "0")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_rows_starts_where_the_chain_is() {
    let Some(world) = World::start("an_account_without_rows_starts_where_the_chain_is").await else { return };
    let accounts = world.accounts(1).await;
    world.anvil.call("anvil_setNonce", json!([accounts[0], "0x29"])).await.unwrap();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    assert_eq!(pending(&client, accounts[0]).await, 41);
    let hash = send(&client, accounts[0], 1).await;
    assert_eq!(world.mined(hash).await["status"], "0x1");
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [41]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_a_client_holds_keep_their_slot_until_it_sends_them() {
    let Some(world) = World::start("bytes_that_a_client_holds_keep_their_slot_until_it_sends_them").await else { return };
    let accounts = world.accounts(1).await;
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let signed = soon("a signature", client.request("eth_signTransaction", whole(accounts[0], 0))).await.unwrap();
    assert_eq!(parse::<Address>(&signed["tx"]["to"]), accounts[0]);
    assert_eq!((pending(&client, accounts[0]).await, world.node.sent_count()), (1, 0));
    let held = soon("a refusal", client.request("eth_signTransaction", whole(accounts[0], 0))).await.unwrap_err();
    assert_eq!((held.code(), held.reason()), (Some(-32000), Some("nonce_held")));

    // The hold outlives a restart.
    gateway.process.kill();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    assert_eq!((pending(&client, accounts[0]).await, world.node.sent_count()), (1, 0));
    let hash: B256 = parse(&soon("the send", client.request("eth_sendRawTransaction", json!([signed["raw"]]))).await.unwrap());
    assert_eq!(parse::<B256>(&signed["tx"]["hash"]), hash);
    world.mined(hash).await;
    let again = soon("a refusal", client.request("eth_sendRawTransaction", json!([signed["raw"]]))).await.unwrap_err();
    assert_eq!((again.code(), again.reason()), (Some(-32000), Some("nonce_held")));
    let next = send(&client, accounts[0], 2).await;
    world.mined(next).await;
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_over_leaves_its_slot_to_the_next_request_or_to_a_filler() {
    let Some(mut world) = World::start("a_hold_that_is_over_leaves_its_slot_to_the_next_request_or_to_a_filler").await else { return };
    world.extra.environment = "hold = \"1s\"".into();
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    // Nothing above: the next request takes the slot.
    soon("a signature", client.request("eth_signTransaction", whole(accounts[0], 0))).await.unwrap();
    eventually("the end of the hold", || async { (pending(&client, accounts[0]).await == 0).then_some(()) }).await;
    let hash = send(&client, accounts[0], 1).await;
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&accounts[0]], [0]);
    // Something above and nobody waits: a filler closes the slot, and what was above is mined.
    soon("a signature", client.request("eth_signTransaction", whole(accounts[1], 0))).await.unwrap();
    let above = send(&client, accounts[1], 1).await;
    world.mined(above).await;
    assert_eq!(world.anvil.nonces().await[&accounts[1]], [0, 1]);
    let (_, metrics) = gateway.admin("metrics").await;
    assert!(metrics.contains("sluice_fillers_total{environment=\"dev\"} 1"), "one filler");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_of_a_managed_sender_enter_the_same_table() {
    let Some(mut world) = World::start("raw_bytes_of_a_managed_sender_enter_the_same_table").await else { return };
    world.extra.service = "sign_transaction_result = \"raw\"".into();
    let accounts = world.accounts(1).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let raw = soon("a signature", client.request("eth_signTransaction", whole(accounts[0], 0))).await.unwrap();
    assert!(raw.is_string(), "sign_transaction_result = raw");
    let hash: B256 = parse(&soon("the send", client.request("eth_sendRawTransaction", json!([raw]))).await.unwrap());
    world.mined(hash).await;
    // Held until the gateway has seen the block, and used up from then on.
    eventually("the nonce to be used up", || async {
        let used = client.request("eth_signTransaction", whole(accounts[0], 0)).await.unwrap_err();
        assert_eq!(used.code(), Some(-32000));
        (used.reason() == Some("nonce_too_low")).then_some(())
    })
    .await;
    // Bytes of a stranger pass through to the node, and so does the node's own answer to nonsense.
    let refused = soon("the node's answer", client.request("eth_sendRawTransaction", json!(["0x1234"]))).await.unwrap_err();
    let direct = world.anvil.call("eth_sendRawTransaction", json!(["0x1234"])).await.unwrap_err();
    assert_eq!(refused.to_string(), direct.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_before_its_sign_takes_its_request_back() {
    let Some(mut world) = World::start("a_client_that_goes_away_before_its_sign_takes_its_request_back").await else { return };
    world.extra.environment = "account = { sign_window = 1 }".into();
    let accounts = world.accounts(1).await;
    world.slow_signs(300);
    let gateway = world.gateway().await;
    let (leaving, staying) = (gateway.connect().await, gateway.connect().await);
    let first = leaving.start("eth_sendTransaction", transfer(accounts[0], 1));
    eventually("the first Sign", || async { (world.kms_proxy.stats().calls_of("Sign") == 1).then_some(()) }).await;
    let second = leaving.start("eth_sendTransaction", transfer(accounts[0], 2));
    // An answer on the same connection: the second request has arrived.
    soon("a count", leaving.request("eth_chainId", json!([]))).await.unwrap();
    drop((first, second, leaving));
    let hash = send(&staying, accounts[0], 3).await;
    world.mined(hash).await;
    let mined = world.anvil.nonces().await[&accounts[0]].len();
    // The one whose Sign was under way runs on; the one that waited is gone.
    assert_eq!((mined, world.kms_proxy.stats().calls_of("Sign")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorisation_by_the_sender_uses_up_the_nonce_after_its_own() {
    let Some(world) = World::start("an_authorisation_by_the_sender_uses_up_the_nonce_after_its_own").await else { return };
    // `sluice dev` has a key that the test has as well, so that it can sign an authorisation.
    let node = format!("ws://{}", world.anvil.address);
    let log = world.folder.path().join("dev.log");
    let command = sluice(&["dev", "--node", &node, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let gateway = Gateway::start(command, "dev", &log).await.ready().await;
    let client = gateway.connect().await;
    let key = SigningKey::from_slice(&hex::decode("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap()).unwrap();
    let sender = Address::from_public_key(key.verifying_key());
    world.anvil.fund(sender, 10).await;
    let authorisation = Authorization { chain_id: U256::from(31337), address: Address::repeat_byte(9), nonce: 1 };
    let (signature, parity) = key.sign_prehash_recoverable(authorisation.signature_hash().as_slice()).unwrap();
    let signed = authorisation.into_signed(Signature::from_signature_and_parity(signature, parity.is_y_odd()));

    let request = json!([{ "from": sender, "to": sender, "authorizationList": [signed] }]);
    let hash: B256 = parse(&soon("an answer", client.request("eth_sendTransaction", request)).await.unwrap());
    assert_eq!(world.mined(hash).await["type"], "0x4");
    assert_eq!(pending(&client, sender).await, 2);
    let count = world.anvil.call("eth_getTransactionCount", json!([sender, "latest"])).await.unwrap();
    assert_eq!(quantity(&count), 2, "the chain counts the authorisation as well");
    let next = send(&client, sender, 2).await;
    world.mined(next).await;
    assert_eq!(world.anvil.nonces().await[&sender], [0, 2]);
}
