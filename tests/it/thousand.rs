//! The sentence by which the main job is done: 1,000 transactions from 10 KMS addresses over one WebSocket.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use alloy_primitives::{Address, B256};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use crate::support::anvil::parse;
use crate::support::world::{World, transfer};
use crate::support::{eventually, journal, soon};

const ACCOUNTS: usize = 10;
const TRANSACTIONS: usize = 1_000;

/// Sends them all at once, pipelined. Each has a value of its own: payloads of two accounts would have one digest otherwise.
fn send_all(client: &Client, accounts: &[Address]) -> FuturesUnordered<impl Future<Output = Result<Value, ClientError>> + use<>> {
    (0..TRANSACTIONS).map(|i| client.start("eth_sendTransaction", transfer(accounts[i % ACCOUNTS], i as u64))).collect()
}

/// A world in which no Sign and no request is given up, however slow the KMS emulator is: each Sign that had no answer in time is
/// asked again. The next nonce that is to be answered is among few, so that its turn comes soon.
async fn patient(test: &str) -> Option<World> {
    let mut world = World::start(test).await?;
    world.extra.configuration = "sign_deadline = \"10m\"".into();
    world.extra.environment = "account = { queue_deadline = \"1h\", sign_window = 16 }".into();
    Some(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_transactions_from_ten_kms_addresses() {
    let Some(mut world) = patient("thousand_transactions_from_ten_kms_addresses").await else { return };
    // A second Sign that is let go may end before it comes to KMS: with none, both count the same.
    world.extra.configuration.push_str("\nsign_hedge = false");
    let accounts = world.accounts(ACCOUNTS).await;
    world.slow_signs(20);
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let listed = client.request("eth_accounts", json!([])).await.unwrap();
    let listed: BTreeSet<Address> = listed.as_array().unwrap().iter().map(parse).collect();
    assert_eq!(listed, accounts.iter().copied().collect());

    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let mut sends = send_all(&client, &accounts);
    let mut told = HashSet::<B256>::new();
    while let Some(answer) = soon("an answer", sends.next()).await {
        assert!(told.insert(parse(&answer.unwrap())), "a hash was told twice");
    }
    assert_eq!(told.len(), TRANSACTIONS);

    let mut received = HashSet::<B256>::new();
    while received.len() < TRANSACTIONS {
        let block = soon("a receipt", receipts.next()).await.expect("the stream ended");
        for receipt in block.as_array().expect("receipts come in arrays, as from geth") {
            assert_eq!(receipt["status"], "0x1");
            assert!(received.insert(parse(&receipt["transactionHash"])), "a receipt came twice: {receipt}");
        }
    }
    assert_eq!(received, told, "receipts of exactly these");

    let mined = world.anvil.nonces().await;
    let expected: BTreeMap<Address, Vec<u64>> =
        accounts.iter().map(|account| (*account, (0..(TRANSACTIONS / ACCOUNTS) as u64).collect())).collect();
    assert_eq!(mined, expected, "everything is mined, in order, and nothing else");

    // What anvil lost while the test put its pool right (unstick.rs) comes again later: the same bytes, never others.
    let mut arrived = BTreeMap::<Address, Vec<u64>>::new();
    let mut payloads = HashMap::<(Address, u64), B256>::new();
    for sent in world.node.sent() {
        let transaction = sent.decode().unwrap();
        let slot = (transaction.from, transaction.nonce);
        match payloads.insert(slot, transaction.hash) {
            None => arrived.entry(transaction.from).or_default().push(transaction.nonce),
            Some(before) => assert_eq!(before, transaction.hash, "another payload for {slot:?}"),
        }
    }
    assert!(arrived == expected, "the node got each account's nonces in order: {arrived:?}");

    let kms = world.kms_proxy.stats();
    assert_eq!(kms.digests.len(), TRANSACTIONS);
    // The emulator now and then drops a connection; a Sign that is asked again for that is counted apart (I4).
    assert_eq!(kms.calls_of("Sign"), TRANSACTIONS as u64 + gateway.more_signs().await);
    assert_eq!(kms.calls_of("GetPublicKey"), ACCOUNTS as u64);
    assert_eq!(kms.keys.len(), ACCOUNTS);
    assert!(kms.max_in_flight() >= 8, "at least 8 Signs of one address in flight, not {}", kms.max_in_flight());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_in_the_middle_loses_and_doubles_nothing() {
    let Some(world) = patient("sigkill_in_the_middle_loses_and_doubles_nothing").await else { return };
    let accounts = world.accounts(ACCOUNTS).await;
    world.slow_signs(20);
    // However slowly the client reads: at the kill not all are signed. What waits at the limit is asked again and again; of 700 at most
    // 16 for each account lie above one that waits, so that 400 can be told.
    world.kms_proxy.set_limit(700);
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut sends = send_all(&client, &accounts);
    let mut told = HashSet::<B256>::new();
    while told.len() < 400 {
        let answer = soon("an answer", sends.next()).await.unwrap();
        told.insert(parse(&answer.unwrap()));
    }
    gateway.process.kill();
    world.kms_proxy.set_limit(u64::MAX);
    // What was on its way to the client was told as well.
    while let Some(answer) = soon("the end of the connection", sends.next()).await {
        match answer {
            Ok(hash) => drop(told.insert(parse(&hash))),
            Err(ClientError::Connection(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    drop(gateway);
    let on_record = journal::attempts(&world.journal());
    assert!((400..=700).contains(&on_record.len()), "killed in the middle: {} are on record", on_record.len());

    let _gateway = world.gateway().await;
    let wanted: HashSet<B256> = eventually("every attempt to be mined", || async {
        let attempts = journal::attempts(&world.journal());
        let done = attempts.iter().all(|(_, state)| state == "included" || state == "confirmed");
        done.then(|| attempts.into_iter().map(|(hash, _)| hash).collect())
    })
    .await;
    assert_eq!(wanted, on_record.iter().map(|(hash, _)| *hash).collect(), "nothing was sent again, so nothing new is on record");
    assert!(told.is_subset(&wanted), "every hash that was told is on record");

    let mined = world.anvil.mined().await;
    assert_eq!(mined.len(), wanted.len(), "mined once each");
    assert_eq!(mined.iter().map(|one| one.hash).collect::<HashSet<_>>(), wanted, "exactly these");
    for (account, nonces) in world.anvil.nonces().await {
        assert!(accounts.contains(&account));
        assert_eq!(nonces, (0..nonces.len() as u64).collect::<Vec<_>>(), "no hole in the chain of {account}");
    }
    for sent in world.node.sent() {
        assert!(wanted.contains(&sent.decode().unwrap().hash), "bytes left the process that are not on record");
    }
    assert_eq!(world.kms_proxy.stats().calls_of("GetPublicKey"), ACCOUNTS as u64, "public keys are kept on disk");
}
