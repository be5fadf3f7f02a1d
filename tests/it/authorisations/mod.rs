//! EIP-7702 authorisations of one managed account in a transaction of another one. The keys are in keystore files, so that the test
//! can sign authorisations with them.

mod trouble;

use std::path::Path;

use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, B256, Signature, U256};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use crate::support::anvil::{parse, quantity};
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

const PASSWORD: &str = "correct horse";
/// The keys `[0x41; 32]` and `[0x42; 32]`, written by Python's eth-account with that password.
const SPONSOR: &str = r#"{"address":"a267E4f15c979289993a95E22cA9cDf077B708Ba","crypto":{"cipher":"aes-128-ctr",
"cipherparams":{"iv":"8c915119c7102f0d3a41a386e2745485"},
"ciphertext":"fefab40d822f6f9cf7b7a54d90965193f0bbb474bca77513e4506400679e0e77","kdf":"scrypt","kdfparams":{"dklen":32,"n":4,
"r":8,"p":1,"salt":"e37bb9c29c749f8da965ad47ced41e86"},
"mac":"ab01d9e3f3b4bd36ff5e6a2d4e1d6771f461d3adf6550d79a8290dd279b504b6"},"version":3,"id":"00000000-0000-4000-8000-000000000041"}"#;
const AUTHORITY: &str = r#"{"address":"17c5185167401eD00cF5F5b2fc97D9BBfDb7D025","crypto":{"cipher":"aes-128-ctr",
"cipherparams":{"iv":"9f59df629f0ef53f8a21c1837cdd3999"},
"ciphertext":"06968bcbd22c95f9e6876d91c70f96ad177631e5d129d58d2718ffd906debbed","kdf":"scrypt","kdfparams":{"dklen":32,"n":4,
"r":8,"p":1,"salt":"057f96959663ab52b2a98827b484f4d3"},
"mac":"d1d2b57c81fec047e829927f33898b5205622fbc8ec1239118fc50ad9215a160"},"version":3,"id":"00000000-0000-4000-8000-000000000042"}"#;
/// Enough for any payload of these tests.
const GAS: &str = "0x186a0";

/// Two managed accounts: one sends, the other one authorises.
struct Pair {
    world: World,
    sponsor: Address,
    authority: Address,
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_slice(&[byte; 32]).unwrap()
}

impl Pair {
    async fn start(test: &str) -> Option<Self> {
        let world = World::start(test).await?;
        let [sponsor, authority] = [0x41, 0x42].map(|byte| Address::from_public_key(key(byte).verifying_key()));
        world.anvil.fund(sponsor, 10).await;
        world.anvil.fund(authority, 10).await;
        Some(Self { world, sponsor, authority })
    }

    async fn gateway(&self) -> Gateway {
        self.gateway_with("confirmations = 2").await
    }

    /// With these lines for the environment.
    async fn gateway_with(&self, lines: &str) -> Gateway {
        gateway(self.world.folder.path(), &self.world.node.url(), 31337, lines).await
    }

    /// The parameters of a transaction of the sponsor with an authorisation of the authority.
    fn sponsored(&self, nonce: u64) -> Value {
        json!([{ "from": self.sponsor, "to": self.sponsor, "gas": GAS, "authorizationList": [authorised(nonce)] }])
    }

    async fn chain_nonce(&self, address: Address) -> u64 {
        quantity(&self.world.anvil.call("eth_getTransactionCount", json!([address, "latest"])).await.unwrap())
    }

    async fn nonces(&self, address: Address) -> Vec<u64> {
        self.world.anvil.nonces().await.remove(&address).unwrap_or_default()
    }

    async fn mine(&self, blocks: u64) {
        self.world.anvil.call("anvil_mine", json!([format!("{blocks:#x}")])).await.unwrap();
    }

    async fn automine(&self, on: bool) {
        self.world.anvil.call("evm_setAutomine", json!([on])).await.unwrap();
    }
}

/// A gateway over the two keys.
async fn gateway(folder: &Path, node: &str, chain_id: u64, lines: &str) -> Gateway {
    let keystore = folder.join("keystore");
    std::fs::create_dir_all(&keystore).unwrap();
    std::fs::write(keystore.join("sponsor"), SPONSOR).unwrap();
    std::fs::write(keystore.join("authority"), AUTHORITY).unwrap();
    let keys = Keys::Keystore(&keystore, "TEST_PASSWORD");
    let configuration = Configuration { chain_id, node, keys, service: "payments", extra: &Extra::environment(lines) };
    let mut command = sluice(&["serve", configuration.write(folder).to_str().unwrap()]);
    command.env("TEST_PASSWORD", PASSWORD);
    Gateway::start(command, "payments", &folder.join("gateway.log")).await.ready().await
}

/// Signed by the authority's key.
fn authorised(nonce: u64) -> SignedAuthorization {
    authorised_on(31337, nonce)
}

fn authorised_on(chain_id: u64, nonce: u64) -> SignedAuthorization {
    let authorisation = Authorization { chain_id: U256::from(chain_id), address: Address::repeat_byte(9), nonce };
    let (signature, parity) = key(0x42).sign_prehash_recoverable(authorisation.signature_hash().as_slice()).unwrap();
    authorisation.into_signed(Signature::from_signature_and_parity(signature, parity.is_y_odd()))
}

async fn send(client: &Client, params: Value) -> Result<B256, ClientError> {
    soon("an answer", client.request("eth_sendTransaction", params)).await.map(|hash| parse(&hash))
}

async fn pending(client: &Client, address: Address) -> u64 {
    quantity(&soon("a count", client.request("eth_getTransactionCount", json!([address, "pending"]))).await.unwrap())
}

fn told(result: Result<B256, ClientError>) -> (Value, String) {
    match result {
        Err(ClientError::Rpc { message, data, .. }) => (data["reason"].clone(), message),
        other => panic!("an error was expected: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorisation_takes_a_slot_of_the_account_that_gave_it() {
    let Some(pair) = Pair::start("an_authorisation_takes_a_slot_of_the_account_that_gave_it").await else { return };
    let gateway = pair.gateway().await;
    let client = gateway.connect().await;
    // Nonce 1 of the authority is above its next one: the transaction waits until nonce 0 is mined.
    let waiting = client.start("eth_sendTransaction", pair.sponsored(1));
    assert_eq!(pending(&client, pair.authority).await, 0);
    let first = send(&client, transfer(pair.authority, 1)).await.unwrap();
    let hash: B256 = parse(&soon("an answer", waiting).await.unwrap());
    assert_eq!(pair.world.mined(hash).await["type"], "0x4");
    pair.world.mined(first).await;
    assert_eq!((pair.chain_nonce(pair.authority).await, pending(&client, pair.authority).await), (2, 2));
    let code = pair.world.anvil.call("eth_getCode", json!([pair.authority, "latest"])).await.unwrap();
    assert!(code.as_str().unwrap().starts_with("0xef0100"), "the authorisation was taken: {code}");

    let next = send(&client, transfer(pair.authority, 2)).await.unwrap();
    pair.world.mined(next).await;
    assert_eq!(pair.nonces(pair.authority).await, [0, 2]);
    assert_eq!(pair.nonces(pair.sponsor).await, [0]);
    // What is used up, and what is not an order that the chain can take, is refused before a nonce exists.
    let (reason, words) = told(send(&client, pair.sponsored(1)).await);
    assert_eq!(reason, "nonce_too_low");
    assert!(words.starts_with(&format!("authorisation by {}: nonce too low", pair.authority)), "{words}");
    let reversed = json!([{ "from": pair.sponsor, "to": pair.sponsor, "gas": GAS, "authorizationList": [authorised(4), authorised(3)] }]);
    assert_eq!(told(send(&client, reversed).await).0, "invalid_transaction");
    assert_eq!(pending(&client, pair.sponsor).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_slot_is_held_until_its_payload_is_mined_across_a_restart() {
    let Some(pair) = Pair::start("a_lent_slot_is_held_until_its_payload_is_mined_across_a_restart").await else { return };
    let mut gateway = pair.gateway().await;
    pair.automine(false).await;
    let client = gateway.connect().await;
    let hash = send(&client, pair.sponsored(0)).await.unwrap();
    let held = json!([{ "from": pair.authority, "to": pair.authority, "gas": GAS, "nonce": "0x0" }]);
    assert_eq!(told(send(&client, held.clone()).await).0, "nonce_held");
    assert_eq!(told(send(&client, pair.sponsored(0)).await).0, "nonce_held");
    gateway.process.kill();

    let gateway = pair.gateway().await;
    let client = gateway.connect().await;
    assert_eq!(told(send(&client, held).await).0, "nonce_held");
    assert_eq!(pending(&client, pair.authority).await, 1);
    // It gets the nonce above, and is not sent before what is below is mined.
    let above = client.start("eth_sendTransaction", transfer(pair.authority, 1));
    let above: B256 = parse(&soon("an answer", above).await.unwrap());
    let known = pair.world.anvil.call("eth_getTransactionByHash", json!([above])).await.unwrap();
    assert!(known.is_null(), "sent before the authorisation below it: {known}");
    pair.automine(true).await;
    pair.mine(1).await;
    pair.world.mined(hash).await;
    pair.mine(1).await;
    pair.world.mined(above).await;
    assert_eq!((pair.nonces(pair.sponsor).await, pair.nonces(pair.authority).await), (vec![0], vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_payload_gives_the_lent_slot_back() {
    let Some(pair) = Pair::start("a_refused_payload_gives_the_lent_slot_back").await else { return };
    let gateway = pair.gateway().await;
    let client = gateway.connect().await;
    let little = json!([{ "from": pair.sponsor, "to": pair.sponsor, "gas": "0x4e20", "authorizationList": [authorised(0)] }]);
    let (reason, words) = told(send(&client, little).await);
    assert_eq!(reason, "refused", "{words}");
    pair.mine(1).await;
    // Open again: the next transaction of the authority takes it, as a replacement that is on record.
    eventually("the slot to open", || async { (pending(&client, pair.authority).await == 0).then_some(()) }).await;
    let hash = send(&client, transfer(pair.authority, 1)).await.unwrap();
    pair.world.mined(hash).await;
    let hash = send(&client, transfer(pair.sponsor, 1)).await.unwrap();
    pair.world.mined(hash).await;
    assert_eq!((pair.nonces(pair.sponsor).await, pair.nonces(pair.authority).await), (vec![0], vec![0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_authorisation_the_chain_skipped_opens_again() {
    let Some(pair) = Pair::start("a_slot_whose_authorisation_the_chain_skipped_opens_again").await else { return };
    let gateway = pair.gateway().await;
    let client = gateway.connect().await;
    let first = send(&client, transfer(pair.authority, 1)).await.unwrap();
    pair.world.mined(first).await;
    pair.automine(false).await;
    let hash = send(&client, pair.sponsored(1)).await.unwrap();
    // As after a reorg that took the transaction below away: the authorisation is out of turn when it is executed.
    pair.world.anvil.call("anvil_setNonce", json!([pair.authority, "0x0"])).await.unwrap();
    pair.automine(true).await;
    pair.mine(1).await;
    assert_eq!(pair.world.mined(hash).await["status"], "0x1");
    assert_eq!(pair.chain_nonce(pair.authority).await, 0);
    pair.world.anvil.call("anvil_setNonce", json!([pair.authority, "0x1"])).await.unwrap();
    assert_eq!(pending(&client, pair.authority).await, 2, "the payload is not final yet");
    pair.mine(3).await;
    eventually("the slot to open", || async {
        pair.mine(1).await;
        (pending(&client, pair.authority).await == 1).then_some(())
    })
    .await;
    let next = send(&client, transfer(pair.authority, 2)).await.unwrap();
    pair.world.mined(next).await;
    assert_eq!(pair.nonces(pair.authority).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_with_authorisations_enter_the_same_table() {
    use alloy_consensus::{SignableTransaction as _, TxEip7702, TxEnvelope};
    use alloy_eips::Encodable2718 as _;

    let Some(pair) = Pair::start("raw_bytes_with_authorisations_enter_the_same_table").await else { return };
    let gateway = pair.gateway().await;
    let client = gateway.connect().await;
    let raw = |nonce: u64, list: Vec<SignedAuthorization>| {
        let transaction = TxEip7702 {
            chain_id: 31337,
            nonce,
            gas_limit: 200_000,
            max_fee_per_gas: 2_000_000_000,
            max_priority_fee_per_gas: 1,
            to: pair.sponsor,
            authorization_list: list,
            ..TxEip7702::default()
        };
        let (signature, parity) = key(0x41).sign_prehash_recoverable(transaction.signature_hash().as_slice()).unwrap();
        let signature = Signature::from_signature_and_parity(signature, parity.is_y_odd());
        json!([alloy_primitives::Bytes::from(TxEnvelope::from(transaction.into_signed(signature)).encoded_2718())])
    };
    let hash = soon("an answer", client.request("eth_sendRawTransaction", raw(0, vec![authorised(0)]))).await.unwrap();
    pair.world.mined(parse(&hash)).await;
    assert_eq!((pending(&client, pair.sponsor).await, pending(&client, pair.authority).await), (1, 1));
    let next = send(&client, transfer(pair.authority, 2)).await.unwrap();
    pair.world.mined(next).await;
    assert_eq!(pair.nonces(pair.authority).await, [1]);
    let again = soon("an answer", client.request("eth_sendRawTransaction", raw(1, vec![authorised(0)]))).await;
    assert_eq!(told(again.map(|hash| parse(&hash))).0, "nonce_too_low");
}
