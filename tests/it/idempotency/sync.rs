//! EIP-7966 on nodes that have it and on nodes that have not.

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope, TypedTransaction};
use alloy_eips::Encodable2718 as _;
use alloy_primitives::{Address, B256, Signature, TxKind, U256, hex};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use super::{data, told};
use crate::support::anvil::parse;
use crate::support::gateway::{Gateway, sluice};
use crate::support::geth::{CHAIN_ID, Geth};
use crate::support::parts::{Part, have};
use crate::support::soon;
use crate::support::world::{World, transfer};

struct Foreign(SigningKey);

impl Foreign {
    fn new() -> Self {
        Self(SigningKey::from_slice(&[0x77; 32]).unwrap())
    }

    fn address(&self) -> Address {
        Address::from_public_key(self.0.verifying_key())
    }

    /// A payment that nobody but its sender signed.
    fn raw(&self, chain_id: u64, nonce: u64) -> (Value, B256) {
        let transaction = TypedTransaction::Eip1559(TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(self.address()),
            value: U256::ONE,
            ..TxEip1559::default()
        });
        let (signature, parity) = self.0.sign_prehash_recoverable(transaction.signature_hash().as_slice()).unwrap();
        let envelope: TxEnvelope = transaction.into_signed(Signature::from_signature_and_parity(signature, parity.is_y_odd())).into();
        (json!(format!("0x{}", hex::encode(envelope.encoded_2718()))), *envelope.tx_hash())
    }
}

async fn ask(client: &Client, method: &str, params: Value) -> Result<Value, ClientError> {
    soon("an answer", client.request(method, params)).await
}

/// Both methods, for a managed sender and for another one.
async fn receipts_are_answered(client: &Client, chain_id: u64, from: Address, foreign: &Foreign) {
    let mut payment = transfer(from, 1);
    payment.as_array_mut().unwrap().push(json!(60_000));
    let receipt = ask(client, "eth_sendTransactionSync", payment).await.unwrap();
    assert_eq!((parse::<Address>(&receipt["from"]), &receipt["status"]), (from, &json!("0x1")));
    let (raw, hash) = foreign.raw(chain_id, 0);
    let receipt = ask(client, "eth_sendRawTransactionSync", json!([raw, "0xea60"])).await.unwrap();
    assert_eq!((parse::<B256>(&receipt["transactionHash"]), &receipt["status"]), (hash, &json!("0x1")));
    let signed = json!([{ "from": from, "to": from, "value": "0x2", "gas": "0x5208", "nonce": "0x1",
        "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x3b9aca00" }]);
    let signed = ask(client, "eth_signTransaction", signed).await.unwrap();
    let receipt = ask(client, "eth_sendRawTransactionSync", json!([signed["raw"]])).await.unwrap();
    assert_eq!(receipt["transactionHash"], signed["tx"]["hash"]);
    let (gone, _) = foreign.raw(chain_id + 1, 1);
    assert!(ask(client, "eth_sendRawTransactionSync", json!([gone])).await.is_err(), "the node's own refusal");
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_methods_answer_with_receipts_on_anvil() {
    let Some(world) = World::start("sync_methods_answer_with_receipts_on_anvil").await else { return };
    let account = world.accounts(1).await[0];
    let foreign = Foreign::new();
    world.anvil.fund(foreign.address(), 10).await;
    let gateway = world.gateway().await;
    receipts_are_answered(&gateway.connect().await, 31337, account, &foreign).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_methods_answer_with_receipts_on_geth() {
    if !have("sync_methods_answer_with_receipts_on_geth", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let (node, chain_id) = (format!("ws://{}", geth.address), CHAIN_ID.to_string());
    let address = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let dev = sluice(&[&["dev", "--node", &node, "--chain-id", &chain_id, "--accounts", "1"], &address[..]].concat());
    let gateway = Gateway::start(dev, "dev", &folder.path().join("dev.log")).await.ready().await;
    let client = gateway.connect().await;
    let from: Address = parse(&client.request("eth_accounts", json!([])).await.unwrap()[0]);
    let foreign = Foreign::new();
    geth.fund(&[from, foreign.address()], 1_000).await;
    receipts_are_answered(&client, CHAIN_ID, from, &foreign).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_does_not_come_in_time_is_told_as_the_eip_says() {
    let test = "a_receipt_that_does_not_come_in_time_is_told_as_the_eip_says";
    let Some(mut world) = World::start_with(test, &["--no-mining"]).await else { return };
    world.extra.environment = "sync_timeout = \"200ms\"\nsync_timeout_max = \"400ms\"".into();
    let account = world.accounts(1).await[0];
    let foreign = Foreign::new();
    world.anvil.fund(foreign.address(), 10).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let (raw, hash) = foreign.raw(31337, 0);
    // Without a time-out, with 0, and with one beyond the bound: all end.
    let late = ask(&client, "eth_sendRawTransactionSync", json!([raw])).await.unwrap_err();
    assert_eq!((late.code(), data(&late)), (Some(4), &json!(hash)));
    let mut payment = transfer(account, 1);
    payment.as_array_mut().unwrap().push(json!(3_600_000));
    let late = ask(&client, "eth_sendTransactionSync", payment).await.unwrap_err();
    assert_eq!(late.code(), Some(4));
    let ours: B256 = parse(data(&late));
    assert!(late.to_string().contains("wasn't processed in 400ms"), "{late}");
    let error = ask(&client, "eth_sendTransactionSync", json!([{ "from": account, "to": account }, "soon"])).await.unwrap_err();
    assert_eq!(told(&error), (-32602, "invalid_params"));
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    world.mined(hash).await;
    world.mined(ours).await;
}
