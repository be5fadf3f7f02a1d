//! The proxies that other tests rely on, against the real parts and without the gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sluice_load_tests::client::Client;
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault, KmsProxy};
use sluice_load_tests::node_proxy::{NodeProxy, RawAnswer, RawFault};

use crate::support::anvil::Anvil;
use crate::support::eventually;
use crate::support::kms::{Kms, call_at};
use crate::support::parts::{Part, have};

/// The signed example in the text of EIP-155: its sender has nothing on our chain.
const RAW: &str = concat!(
    "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a0",
    "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a0",
    "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
);

async fn kms(folder: &Path) -> (Kms, KmsProxy, String) {
    let kms = Kms::start(folder).await;
    let key = kms.call("CreateKey", json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY" })).await;
    let proxy = KmsProxy::start(kms.address).await.unwrap();
    (kms, proxy, key["KeyMetadata"]["Arn"].as_str().unwrap().into())
}

fn sign(proxy: SocketAddr, key: &str, digest: &str) -> impl Future<Output = Result<serde_json::Value, String>> + use<> {
    let body = json!({ "KeyId": key, "Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256" });
    async move { call_at(proxy, "Sign", body).await }
}

/// 32 bytes in base64 that begin with `i`.
fn digest(i: usize) -> String {
    format!("{i:04}{}=", "A".repeat(39))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kms_proxy_counts_and_holds_signs() {
    if !have("the_kms_proxy_counts_and_holds_signs", &[Part::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_kms, proxy, key) = kms(folder.path()).await;
    proxy.set_hold(Duration::from_millis(200));
    let signs = join_all((0..12).map(|i| sign(proxy.address(), &key, &digest(i % 6)))).await;
    for signed in signs {
        assert_eq!(signed.unwrap()["KeyId"], key);
    }
    call_at(proxy.address(), "GetPublicKey", json!({ "KeyId": key })).await.unwrap();
    let stats = proxy.stats();
    assert_eq!(stats.calls_of("Sign"), 12);
    assert_eq!(stats.calls_of("GetPublicKey"), 1);
    assert_eq!(stats.digests.len(), 6);
    assert_eq!(stats.keys[&key].signs, 12);
    assert_eq!(stats.keys[&key].in_flight, 0);
    assert!(stats.max_in_flight() > 1, "held Signs overlap");
    proxy.reset();
    assert_eq!(proxy.stats().calls_of("Sign"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kms_proxy_answers_faults_by_script() {
    if !have("the_kms_proxy_answers_faults_by_script", &[Part::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (kms, proxy, key) = kms(folder.path()).await;
    proxy.set_faults([
        KmsFault::signs(1, KmsAnswer::throttled()),
        KmsFault::signs(1, KmsAnswer::Cut),
        KmsFault::signs(1, KmsAnswer::OtherDigest),
    ]);
    let throttled = sign(proxy.address(), &key, &digest(1)).await.unwrap_err();
    assert!(throttled.starts_with("400") && throttled.contains("ThrottlingException"), "{throttled}");
    let cut = sign(proxy.address(), &key, &digest(1)).await.unwrap_err();
    assert!(!cut.contains("__type"), "{cut}");
    let other = sign(proxy.address(), &key, &digest(1)).await.unwrap();
    let good = sign(proxy.address(), &key, &digest(1)).await.unwrap();
    for (signature, valid) in [(other, false), (good, true)] {
        let body = json!({ "KeyId": key, "Message": digest(1), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256",
                           "Signature": signature["Signature"] });
        let verified = call_at(kms.address, "Verify", body).await.is_ok_and(|answer| answer["SignatureValid"] == true);
        assert_eq!(verified, valid);
    }
    assert_eq!(proxy.stats().faults, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_kms_proxy_counts_digests_and_not_how_often_they_are_asked() {
    if !have("a_limit_of_the_kms_proxy_counts_digests_and_not_how_often_they_are_asked", &[Part::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_kms, proxy, key) = kms(folder.path()).await;
    proxy.set_limit(1);
    sign(proxy.address(), &key, &digest(1)).await.unwrap();
    let beyond = tokio::spawn(sign(proxy.address(), &key, &digest(2)));
    eventually("the second digest", || async { (proxy.stats().digests.len() == 2).then_some(()) }).await;
    for _ in 0..2 {
        sign(proxy.address(), &key, &digest(1)).await.unwrap();
    }
    assert!(!beyond.is_finished(), "it waits");
    proxy.set_limit(2);
    beyond.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sign_that_was_given_up_is_not_passed_on_to_a_slow_endpoint() {
    // Takes every connection and never answers.
    let mute = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = KmsProxy::start(mute.local_addr().unwrap()).await.unwrap();
    let (count, taken) = tokio::sync::watch::channel(0);
    let mute = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = mute.accept().await {
            held.push(stream);
            count.send_replace(held.len());
        }
    });
    let in_flight = async |wanted: u64| {
        eventually("so many Signs", || async {
            let stats = proxy.stats();
            (stats.keys.get("key").map_or(0, |key| key.in_flight) == wanted).then_some(())
        })
        .await;
    };
    let sign = |i| tokio::spawn(sign(proxy.address(), "key", &digest(i)));
    let first: Vec<_> = (0..16).map(sign).collect();
    eventually("the first to be passed on", || async { (*taken.borrow() == 16).then_some(()) }).await;
    let more: Vec<_> = (16..20).map(sign).collect();
    in_flight(20).await;
    more.iter().for_each(tokio::task::JoinHandle::abort);
    in_flight(16).await;
    first.iter().for_each(tokio::task::JoinHandle::abort);
    in_flight(0).await;
    assert_eq!(*taken.borrow(), 16);
    mute.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_proxy_records_and_answers_by_script() {
    if !have("the_node_proxy_records_and_answers_by_script", &[Part::Node]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let anvil = Anvil::start(folder.path(), &[]).await;
    let proxy = NodeProxy::start(anvil.address).await.unwrap();
    let client = Client::connect(&proxy.url(), &[]).await.unwrap();
    assert_eq!(client.request("eth_chainId", json!([])).await.unwrap(), "0x7a69");

    let own = client.request("eth_sendRawTransaction", json!([RAW])).await.unwrap_err();
    assert!(own.to_string().contains("Insufficient funds"), "anvil's own words pass: {own}");
    let words = |message: &str| message.to_owned();
    proxy.set_faults([
        RawFault { count: 1, answer: RawAnswer::Refuse { code: -32000, message: words("refused") } },
        RawFault { count: 1, answer: RawAnswer::Lie { code: -32001, message: words("a lie") } },
        RawFault { count: 1, answer: RawAnswer::Swallow },
        RawFault { count: 1, answer: RawAnswer::Lose },
    ]);
    let refused = client.request("eth_sendRawTransaction", json!([RAW])).await.unwrap_err();
    assert_eq!(refused.code(), Some(-32000));
    let lied = client.request("eth_sendRawTransaction", json!([RAW])).await.unwrap_err();
    assert_eq!(lied.code(), Some(-32001));
    let swallowed = client.start("eth_sendRawTransaction", json!([RAW]));
    let lost = client.start("eth_sendRawTransaction", json!([RAW]));
    let batch = client.batch(&[("eth_blockNumber", json!([])), ("eth_sendRawTransaction", json!([RAW]))]).await.unwrap();
    assert!(batch[0].is_ok() && batch[1].is_err());
    let forwarded: Vec<bool> = proxy.sent().iter().map(|sent| sent.forwarded).collect();
    assert_eq!(forwarded, [true, false, true, true, false, true]);
    assert!(proxy.sent().iter().all(|sent| sent.raw == RAW && sent.connection == 1));

    proxy.refuse(true);
    proxy.cut();
    assert!(swallowed.await.is_err() && lost.await.is_err());
    assert!(Client::connect(&proxy.url(), &[]).await.is_err());
    eventually("the connection to end", || async { (proxy.connections() == (1, 0)).then_some(()) }).await;
    proxy.refuse(false);
    let again = Client::connect(&proxy.url(), &[]).await.unwrap();
    assert_eq!(again.request("net_version", json!([])).await.unwrap(), "31337");
    assert_eq!(proxy.address().ip(), Ipv4Addr::LOCALHOST);
}
