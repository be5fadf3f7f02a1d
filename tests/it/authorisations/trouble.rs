//! What can go wrong with a slot that is lent: refused payloads, reorgs, borrowers that leave, nodes that keep one transaction.

use sluice_load_tests::node_proxy::RawFault;

use super::*;
use crate::support::geth::{self, Geth};
use crate::support::parts::{Part, have};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_authorisation_can_be_sent_again_by_an_authority_without_funds() {
    let Some(pair) = Pair::start("a_refused_authorisation_can_be_sent_again_by_an_authority_without_funds").await else { return };
    pair.world.anvil.fund(pair.authority, 0).await;
    let mut gateway = pair.gateway().await;
    let client = gateway.connect().await;
    let little = json!([{ "from": pair.sponsor, "to": pair.sponsor, "gas": "0x4e20", "authorizationList": [authorised(0)] }]);
    assert_eq!(told(send(&client, little).await).0, "refused");
    pair.mine(1).await;
    pair.automine(false).await;
    let hash = eventually("the slot to be lent again", || async { send(&client, pair.sponsored(0)).await.ok() }).await;
    // After a restart the slot is the newer payload's, not the refused one's.
    gateway.process.kill();
    let gateway = pair.gateway().await;
    let client = gateway.connect().await;
    assert_eq!(pending(&client, pair.authority).await, 1);
    pair.automine(true).await;
    pair.mine(1).await;
    pair.world.mined(hash).await;
    eventually("the nonce to be used", || async { (pair.chain_nonce(pair.authority).await == 1).then_some(()) }).await;
    assert_eq!(pair.nonces(pair.sponsor).await, [0], "the refused bytes are never sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_borrower_that_is_gone_holds_nobody_up() {
    let Some(pair) = Pair::start("a_borrower_that_is_gone_holds_nobody_up").await else { return };
    // Longer than the test waits for anything.
    let gateway = pair.gateway_with(r#"account = { queue_deadline = "10m" }"#).await;
    pair.automine(false).await;
    let client = gateway.connect().await;
    let below = send(&client, transfer(pair.authority, 1)).await.unwrap();
    let leaving = gateway.connect().await;
    let waiting = leaving.start("eth_sendTransaction", pair.sponsored(1));
    // An answer on the same connection: the request has arrived.
    soon("a count", leaving.request("eth_chainId", json!([]))).await.unwrap();
    drop((waiting, leaving));
    let next = send(&client, transfer(pair.authority, 2)).await.unwrap();
    pair.automine(true).await;
    pair.mine(1).await;
    pair.world.mined(below).await;
    pair.world.mined(next).await;
    assert_eq!(pair.nonces(pair.authority).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reorg_nothing_is_sent_above_an_authorisation_that_is_not_used_again() {
    let Some(pair) = Pair::start("after_a_reorg_nothing_is_sent_above_an_authorisation_that_is_not_used_again").await else { return };
    // Nothing goes out again by the clock.
    let gateway = pair.gateway_with(r#"rebroadcast = "10m""#).await;
    let client = gateway.connect().await;
    let sponsored = send(&client, pair.sponsored(0)).await.unwrap();
    pair.world.mined(sponsored).await;
    let own = send(&client, transfer(pair.authority, 1)).await.unwrap();
    // Seen by the gateway too, not only by the node.
    eventually("both inclusions", || async {
        let told = soon("a transaction", client.request("sluice_getTransaction", json!([own]))).await.unwrap();
        (told["state"] == "included").then_some(())
    })
    .await;
    let before = pair.world.node.sent().len();
    pair.world.anvil.call("anvil_reorg", json!([2, []])).await.unwrap();
    pair.mine(1).await;
    pair.world.mined(own).await;
    let order: Vec<(Address, u64)> = pair.world.node.sent()[before..]
        .iter()
        .map(|sent| {
            let transaction = sent.decode().unwrap();
            (transaction.from, transaction.nonce)
        })
        .collect();
    assert_eq!(order, [(pair.sponsor, 0), (pair.authority, 1)], "the payload below first, and each once");
    assert_eq!((pair.nonces(pair.sponsor).await, pair.nonces(pair.authority).await), (vec![0], vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_a_refused_filler_paused_goes_on_when_it_can() {
    let Some(pair) = Pair::start("an_account_that_a_refused_filler_paused_goes_on_when_it_can").await else { return };
    let gateway = pair.gateway_with(r#"hold = "5s""#).await;
    let client = gateway.connect().await;
    pair.world.node.set_faults([RawFault::refuses(u64::MAX, "insufficient funds for gas * price + value")]);
    // Held bytes above a slot that is refused: it is filled, and the filler is refused as well.
    let first = client.start("eth_sendTransaction", transfer(pair.authority, 1));
    let whole = json!([{ "from": pair.authority, "to": pair.authority, "value": "0x1", "gas": "0x5208", "nonce": "0x1",
        "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1" }]);
    soon("an answer", client.request("eth_signTransaction", whole)).await.unwrap();
    assert!(soon("an answer", first).await.is_err());
    eventually("the pause", || async {
        pair.mine(1).await;
        matches!(send(&client, transfer(pair.authority, 1)).await, Err(ClientError::Rpc { data, .. }) if data["reason"] == "account_paused")
            .then_some(())
    })
    .await;
    pair.world.node.set_faults([]);
    // When the hold is over, nothing is to be filled any more.
    let hash = eventually("the account to go on", || async { send(&client, transfer(pair.authority, 1)).await.ok() }).await;
    pair.world.mined(hash).await;
    let nonces = pair.nonces(pair.authority).await;
    assert_eq!(nonces, (0..nonces.len() as u64).collect::<Vec<_>>(), "no hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_account_sends_as_fast_as_geth_keeps_its_transactions() {
    if !have("a_delegated_account_sends_as_fast_as_geth_keeps_its_transactions", &[Part::Go]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let geth = Geth::start(folder.path()).await;
    let [sponsor, authority] = [0x41, 0x42].map(|byte| Address::from_public_key(key(byte).verifying_key()));
    geth.fund(&[sponsor, authority], 10).await;
    // geth answers a hash for what its pool refuses; nothing goes out again by the clock, so every send has to find room.
    let node = format!("ws://{}", geth.address);
    let gateway = gateway(folder.path(), &node, geth::CHAIN_ID, r#"rebroadcast = "10m""#).await;
    let client = gateway.connect().await;
    let list = [authorised_on(geth::CHAIN_ID, 0)];
    let sponsored = json!([{ "from": sponsor, "to": sponsor, "gas": GAS, "authorizationList": list }]);
    let hash = send(&client, sponsored).await.unwrap();
    eventually("a receipt", || geth.receipt(hash)).await;
    let sends: Vec<_> = (0..4).map(|value| client.start("eth_sendTransaction", transfer(authority, value))).collect();
    for answer in sends {
        let hash = parse(&soon("an answer", answer).await.unwrap());
        eventually("a receipt", || geth.receipt(hash)).await;
    }
    let code = geth.call("eth_getCode", json!([authority, "latest"])).await.unwrap();
    assert!(code.as_str().unwrap().starts_with("0xef0100"), "the account is delegated: {code}");
}
