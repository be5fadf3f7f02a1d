//! Before anvil, which takes a replacement for 1 wei more.

use std::time::Duration;

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::Decodable2718 as _;
use alloy_primitives::{Address, B256, U256, hex};
use serde_json::{Value, json};
use sluice_load_tests::client::Client;
use sluice_load_tests::node_proxy::{RawAnswer, RawFault};

use super::{SOON, call, lose_the_next, payment, send, shown, told};
use crate::support::anvil::{parse, quantity};
use crate::support::eventually;
use crate::support::world::World;

const GWEI: u64 = 1_000_000_000;

/// Mines empty blocks until the task of the test is done with them.
struct Blocks(tokio::task::JoinHandle<()>);

impl Blocks {
    async fn of(world: &World) -> Self {
        let url = format!("ws://{}", world.anvil.address);
        let client = Client::connect(&url, &[]).await.unwrap();
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                if client.request("evm_mine", json!([])).await.is_err() {
                    return;
                }
            }
        }))
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn fees(transaction: &Value) -> (u128, u128) {
    let wei = |name: &str| parse::<U256>(&transaction[name]).to::<u128>();
    (wei("maxFeePerGas"), wei("maxPriorityFeePerGas"))
}

/// A payment to itself at nonce 0, signed for the client and not sent.
async fn signed(client: &Client, from: Address) -> Value {
    let request = json!([{ "from": from, "to": from, "value": "0x1", "gas": "0x5208", "nonce": "0x0",
        "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x3b9aca00" }]);
    call(client, "eth_signTransaction", request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_pays_more_and_is_mined_once() {
    let Some(mut world) = World::start("what_is_stuck_pays_more_and_is_mined_once").await else { return };
    world.extra.environment = SOON.into();
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    lose_the_next(&world);
    let first = send(&client, payment(from)).await;
    let second = send(&client, payment(from)).await;
    let _blocks = Blocks::of(&world).await;
    world.mined(second).await;
    let life = shown(&client, &first.to_string(), "included").await;
    let attempts = life["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{life}");
    let mined: B256 = parse(&life["hash"]);
    assert_eq!((parse::<B256>(&attempts[0]["hash"]), &attempts[0]["replacedBy"]), (first, &attempts[1]["hash"]), "{life}");
    assert_eq!((&attempts[1]["replaces"], &attempts[1]["purpose"]), (&attempts[0]["hash"], &json!("request")));
    assert_eq!(world.anvil.nonces().await[&from], [0, 1]);
    let paid = world.anvil.call("eth_getBalance", json!([Address::repeat_byte(0x77), "latest"])).await.unwrap();
    assert_eq!(quantity(&paid), 10, "each payment once");
    assert_eq!(gateway.metric("sluice_replacements_total{environment=\"dev\",kind=\"bump\"}").await, 1.0);

    // A client that polls the first hash finds what was mined of it.
    assert_eq!(world.anvil.receipt(first).await, None);
    let receipt = call(&client, "eth_getTransactionReceipt", json!([first])).await.unwrap();
    assert_eq!((parse::<B256>(&receipt["transactionHash"]), &receipt["status"]), (mined, &json!("0x1")));
    let transaction = call(&client, "eth_getTransactionByHash", json!([first])).await.unwrap();
    assert_eq!((parse::<B256>(&transaction["hash"]), quantity(&transaction["nonce"])), (mined, 0));
    // By a tenth and a wei in both fields at least.
    let raw = world.node.sent().into_iter().find(|sent| sent.decode().is_some_and(|sent| sent.hash == first)).unwrap().raw;
    let was = TxEnvelope::decode_2718(&mut hex::decode(&raw).unwrap().as_slice()).unwrap();
    let (cap, tip) = (was.max_fee_per_gas(), was.max_priority_fee_per_gas().unwrap());
    let (new_cap, new_tip) = fees(&world.anvil.call("eth_getTransactionByHash", json!([mined])).await.unwrap());
    assert!(new_cap * 10 > cap * 11 && new_tip * 10 > tip * 11, "{new_cap} after {cap}, {new_tip} after {tip}");
    let old = world.anvil.call("eth_sendRawTransaction", json!([raw])).await.unwrap_err();
    assert!(old.to_string().contains("nonce too low"), "{old}");
    for unknown in [B256::repeat_byte(9), B256::ZERO] {
        assert_eq!(call(&client, "eth_getTransactionReceipt", json!([unknown])).await.unwrap(), Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_pool_is_sped_up_and_cancelled() {
    let Some(mut world) = World::start("what_waits_in_the_pool_is_sped_up_and_cancelled").await else { return };
    world.extra.environment = "superseded = \"own\"".into();
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.anvil.call("evm_setAutomine", json!([false])).await.unwrap();
    let (first, second) = (send(&client, payment(from)).await, send(&client, payment(from)).await);
    let pending = world.anvil.call("eth_getTransactionByHash", json!([first])).await.unwrap();
    let (cap, tip) = fees(&pending);

    let low = json!([{ "hash": first, "maxFeePerGas": format!("{:#x}", cap + 1) }]);
    let error = call(&client, "sluice_speedUpTransaction", low).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "invalid_transaction"));
    assert!(error.to_string().contains("is below the minimum"), "{error}");

    let faster = call(&client, "sluice_speedUpTransaction", json!([{ "hash": first }])).await.unwrap();
    let replacement: B256 = parse(&faster["hash"]);
    assert_eq!((parse::<B256>(&faster["replaced"]), quantity(&faster["nonce"])), (first, 0), "{faster}");
    let (new_cap, new_tip) = fees(&faster);
    assert!(new_cap * 10 > cap * 11 && new_tip * 10 > tip * 11, "{faster}");
    assert_eq!(fees(&world.anvil.call("eth_getTransactionByHash", json!([replacement])).await.unwrap()), (new_cap, new_tip));

    // By its id: the same transaction.
    let cancelled = call(&client, "sluice_cancelTransaction", json!([{ "hash": second }])).await.unwrap();
    let cancel: B256 = parse(&cancelled["hash"]);
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    assert_eq!((world.mined(replacement).await["status"].clone(), world.mined(cancel).await["to"].clone()), (json!("0x1"), json!(from)));
    let life = shown(&client, cancelled["id"].as_str().unwrap(), "cancelled").await;
    assert_eq!((parse::<B256>(&life["hash"]), &life["attempts"][1]["purpose"]), (cancel, &json!("cancel")), "{life}");
    let included = life["events"].as_array().unwrap().iter().find(|event| event["state"] == "included").unwrap();
    assert_eq!(included["purpose"], "cancel");
    let listed = call(&client, "sluice_listTransactions", json!([{ "state": "cancelled" }])).await.unwrap();
    assert_eq!((listed["transactions"].as_array().unwrap().len(), &listed["transactions"][0]["id"]), (1, &cancelled["id"]));
    let paid = world.anvil.call("eth_getBalance", json!([Address::repeat_byte(0x77), "latest"])).await.unwrap();
    assert_eq!(quantity(&paid), 5, "the first payment alone");
    // This environment says nothing of what was superseded, and a cancel is never told as the receipt of a payment.
    for superseded in [first, second] {
        assert_eq!(call(&client, "eth_getTransactionReceipt", json!([superseded])).await.unwrap(), Value::Null);
    }
    for (what, hash) in [("sluice_cancelTransaction", first), ("sluice_speedUpTransaction", second)] {
        let error = call(&client, what, json!([{ "hash": hash }])).await.unwrap_err();
        assert_eq!(told(&error), (-32000, "already_mined"), "{what}");
    }
    let error = call(&client, "sluice_cancelTransaction", json!([{ "hash": B256::repeat_byte(3) }])).await.unwrap_err();
    assert_eq!(told(&error), (-32001, "not_found"));
    let error = call(&client, "sluice_cancelTransaction", json!([{ "hash": first, "id": cancelled["id"] }])).await.unwrap_err();
    assert_eq!(told(&error), (-32602, "invalid_params"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_every_node_refuses_leaves_the_transaction_as_it_was() {
    let Some(world) = World::start("a_replacement_that_every_node_refuses_leaves_the_transaction_as_it_was").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.anvil.call("evm_setAutomine", json!([false])).await.unwrap();
    let hash = send(&client, payment(from)).await;
    world.node.set_faults([RawFault::refuses(1, "tx fee (9.99 ether) exceeds the configured cap (1.00 ether)")]);
    let error = call(&client, "sluice_speedUpTransaction", json!([{ "hash": hash }])).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "refused"));
    let next = send(&client, payment(from)).await;
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    world.mined(hash).await;
    world.mined(next).await;
    let life = shown(&client, &hash.to_string(), "included").await;
    assert_eq!((parse::<B256>(&life["hash"]), &life["attempts"][1]["state"]), (hash, &json!("refused")), "{life}");
    assert_eq!(world.anvil.nonces().await[&from], [0, 1], "the nonce was nobody else's meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_paid_too_little_for_the_node_is_raised_again() {
    let Some(world) = World::start("a_replacement_that_paid_too_little_for_the_node_is_raised_again").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    lose_the_next(&world);
    let hash = send(&client, payment(from)).await;
    world.node.set_faults([RawFault::refuses(1, "replacement transaction underpriced")]);
    let faster = call(&client, "sluice_speedUpTransaction", json!([{ "hash": hash }])).await.unwrap();
    let life = shown(&client, &hash.to_string(), "included").await;
    let attempts = life["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[1]["hash"], &attempts[2]["hash"]), (3, &faster["hash"], &life["hash"]), "{life}");
    let mined = world.anvil.call("eth_getTransactionByHash", json!([life["hash"]])).await.unwrap();
    assert!(fees(&mined).0 * 10 > fees(&faster).0 * 11, "from the highest price of the slot's payloads");
    assert_eq!(world.anvil.nonces().await[&from], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_a_client_holds_are_cancelled() {
    let Some(world) = World::start("bytes_that_a_client_holds_are_cancelled").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let signed = signed(&client, from).await;
    let held: B256 = parse(&signed["tx"]["hash"]);
    let after = send(&client, payment(from)).await;
    let error = call(&client, "sluice_speedUpTransaction", json!([{ "hash": held }])).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "not_replaceable"));
    let cancelled = call(&client, "sluice_cancelTransaction", json!([{ "hash": held }])).await.unwrap();
    world.mined(parse(&cancelled["hash"])).await;
    world.mined(after).await;
    shown(&client, &held.to_string(), "cancelled").await;
    assert_eq!(world.anvil.nonces().await[&from], [0, 1]);
    assert_eq!(call(&client, "eth_getTransactionReceipt", json!([held])).await.unwrap(), Value::Null, "no receipt of a cancel");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_bytes_are_refused_once_their_cancel_is_on_record() {
    let Some(world) = World::start_with("held_bytes_are_refused_once_their_cancel_is_on_record", &["--no-mining"]).await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let signed = signed(&client, from).await;
    let held: B256 = parse(&signed["tx"]["hash"]);
    call(&client, "sluice_cancelTransaction", json!([{ "hash": held }])).await.unwrap();
    for _ in 0..2 {
        let error = call(&client, "eth_sendRawTransaction", json!([signed["raw"]])).await.unwrap_err();
        assert_eq!(told(&error), (-32000, "nonce_held"), "a hash would promise that they are sent");
    }
    let transaction = call(&client, "sluice_getTransaction", json!([held])).await.unwrap();
    let of_held: Vec<_> = transaction["events"].as_array().unwrap().iter().filter(|event| event["hash"] == json!(held)).collect();
    assert_eq!(of_held.len(), 1, "held, and nothing since: {transaction}");
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    shown(&client, &held.to_string(), "cancelled").await;
    assert_eq!(world.anvil.nonces().await[&from], [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_ceiling_is_passed() {
    let Some(mut world) = World::start("no_ceiling_is_passed").await else { return };
    world.extra.environment = SOON.into();
    world.extra.service = "max_fee_per_gas = \"4 gwei\"\nmax_total_fee = 210000000000000".into();
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let with = |fees: Value| {
        let mut request = payment(from);
        request.as_object_mut().unwrap().extend(fees.as_object().unwrap().clone());
        json!([request])
    };
    for fees in [
        json!({ "gasPrice": format!("{:#x}", 4 * GWEI + 1) }),
        json!({ "maxFeePerGas": format!("{:#x}", 4 * GWEI + 1), "maxPriorityFeePerGas": "0x1" }),
        json!({ "gas": "0xffffff" }),
    ] {
        let error = call(&client, "eth_sendTransaction", with(fees.clone())).await.unwrap_err();
        assert_eq!(told(&error), (-32000, "fee_ceiling"), "{fees}");
    }
    let count = call(&client, "eth_getTransactionCount", json!([from, "pending"])).await.unwrap();
    assert_eq!(quantity(&count), 0, "no nonce was used");
    // A default comes down to the ceiling, while the chain takes it.
    let head = "sluice_head_number{environment=\"dev\"}";
    let hash = eventually("the new base fee", || async {
        // Each payment is a block, and makes the base fee lower again.
        world.anvil.call("anvil_setNextBlockBaseFeePerGas", json!([format!("{:#x}", 2 * GWEI)])).await.unwrap();
        world.anvil.call("evm_mine", json!([])).await.unwrap();
        let height = quantity(&world.anvil.call("eth_blockNumber", json!([])).await.unwrap());
        eventually("the gateway to have the block", || async { (gateway.metric(head).await >= height as f64).then_some(()) }).await;
        let hash = send(&client, payment(from)).await;
        let transaction = world.anvil.call("eth_getTransactionByHash", json!([hash])).await.unwrap();
        (fees(&transaction).0 == u128::from(4 * GWEI)).then_some(hash)
    })
    .await;
    world.mined(hash).await;
    // What is stuck at the ceiling is told, once, and not raised.
    lose_the_next(&world);
    let stuck = with(json!({ "maxFeePerGas": format!("{:#x}", 4 * GWEI), "maxPriorityFeePerGas": "0x3b9aca00" }));
    let stuck: B256 = parse(&call(&client, "eth_sendTransaction", stuck).await.unwrap());
    let _blocks = Blocks::of(&world).await;
    let alarm = "sluice_alarms_total{environment=\"dev\",kind=\"bump_stopped\"}";
    eventually("the alarm", || async { (gateway.metric(alarm).await == 1.0).then_some(()) }).await;
    let error = call(&client, "sluice_speedUpTransaction", json!([{ "hash": stuck }])).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "fee_ceiling"));
    let height = || async { quantity(&world.anvil.call("eth_blockNumber", json!([])).await.unwrap()) };
    let later = height().await + 8;
    eventually("more blocks", || async { (height().await >= later).then_some(()) }).await;
    assert_eq!(gateway.metric(alarm).await, 1.0);
    assert_eq!(gateway.metric("sluice_replacements_total{environment=\"dev\",kind=\"bump\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_free_chain_an_account_without_ether_sends() {
    let Some(mut world) = World::start_with(
        "on_a_free_chain_an_account_without_ether_sends",
        &["--block-base-fee-per-gas", "0", "--gas-price", "0", "--disable-min-priority-fee"],
    )
    .await
    else {
        return;
    };
    world.extra.environment = format!("fees = \"free\"\n{SOON}");
    let from = world.accounts(1).await[0];
    world.anvil.call("anvil_setBalance", json!([from, "0x0"])).await.unwrap();
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for request in [
        json!({ "from": from, "to": from }),
        json!({ "from": from, "to": from, "type": "0x0" }),
        json!({ "from": from, "to": from, "gasPrice": "0x0" }),
    ] {
        let hash = send(&client, request).await;
        assert_eq!(world.mined(hash).await["status"], "0x1");
        let transaction = world.anvil.call("eth_getTransactionByHash", json!([hash])).await.unwrap();
        assert_eq!(parse::<U256>(&transaction["gasPrice"]), U256::ZERO);
    }
    let error = call(&client, "eth_sendTransaction", json!([payment(from)])).await.unwrap_err();
    assert_eq!(told(&error), (-32000, "insufficient_funds"), "the value is still owed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_environment_pays_one_price() {
    let Some(mut world) = World::start("a_legacy_environment_pays_one_price").await else { return };
    world.extra.environment = format!("fees = \"legacy\"\n{SOON}");
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.anvil.call("evm_setAutomine", json!([false])).await.unwrap();
    let hash = send(&client, payment(from)).await;
    let transaction = world.anvil.call("eth_getTransactionByHash", json!([hash])).await.unwrap();
    assert_eq!((&transaction["type"], transaction.get("maxFeePerGas")), (&json!("0x0"), None));
    let price = parse::<U256>(&transaction["gasPrice"]);
    let faster = call(&client, "sluice_speedUpTransaction", json!([{ "hash": hash }])).await.unwrap();
    assert!(parse::<U256>(&faster["gasPrice"]) * U256::from(10) > price * U256::from(11), "{faster}");
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    world.mined(parse(&faster["hash"])).await;
    let dynamic = json!([{ "from": from, "to": from, "maxFeePerGas": "0x77359400" }]);
    assert_eq!(told(&call(&client, "eth_sendTransaction", dynamic).await.unwrap_err()), (-32000, "invalid_transaction"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_replaces_bytes_that_their_client_sent_is_sent_and_not_held() {
    let Some(world) = World::start("what_replaces_bytes_that_their_client_sent_is_sent_and_not_held").await else { return };
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let signed = signed(&client, from).await;
    lose_the_next(&world);
    let sent: B256 = parse(&call(&client, "eth_sendRawTransaction", json!([signed["raw"]])).await.unwrap());
    // Nobody hears of the replacement either: its state is what its record says.
    world.node.set_faults([RawFault { count: u64::MAX, answer: RawAnswer::Lose }]);
    let faster = call(&client, "sluice_speedUpTransaction", json!([{ "hash": sent }])).await.unwrap();
    let life = call(&client, "sluice_getTransaction", json!([sent])).await.unwrap();
    assert_eq!((&life["attempts"][1]["hash"], &life["attempts"][1]["state"]), (&faster["hash"], &json!("committed")), "{life}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_is_refused_while_an_earlier_send_is_in_doubt_is_raised() {
    let Some(mut world) = World::start("a_price_that_is_refused_while_an_earlier_send_is_in_doubt_is_raised").await else { return };
    world.extra.environment = format!("{SOON}\nnode_deadline = \"1s\"\nrebroadcast = \"1s\"");
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.node.set_faults([RawFault { count: 1, answer: RawAnswer::Lose }]);
    let mut cheap = payment(from);
    cheap["maxFeePerGas"] = json!("0x2");
    cheap["maxPriorityFeePerGas"] = json!("0x1");
    let hash = send(&client, cheap).await;
    eventually("the bump", || async {
        world.anvil.call("evm_mine", json!([])).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let life = call(&client, "sluice_getTransaction", json!([hash])).await.unwrap();
        (life["state"] == "included" && life["attempts"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    assert_eq!(world.anvil.nonces().await[&from], [0]);
}
