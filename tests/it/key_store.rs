//! What a key store does to those who send: keys that are disabled and come back, quotas that are used up.

use alloy_primitives::{B256, U256};
use serde_json::json;
use sluice_load_tests::faults::Faults;
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault};
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, SimNode};

use crate::support::anvil::parse;
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::{World, transfer};
use crate::support::{ANYWHERE, eventually, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_comes_back_by_itself_when_it_is_enabled() {
    let Some(world) = World::start("a_disabled_key_comes_back_by_itself_when_it_is_enabled").await else { return };
    let account = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(account, 0)).await.unwrap());
    world.mined(hash).await;
    let key = world.kms.call("ListKeys", json!({})).await["Keys"][0]["KeyId"].clone();
    world.kms.call("DisableKey", json!({ "KeyId": key })).await;
    let error = soon("an answer", client.request("eth_sendTransaction", transfer(account, 1))).await.unwrap_err();
    assert!(error.to_string().contains("key_unavailable"), "{error}");
    // Closed from here on: the key store is asked for its state and not to sign.
    let calls = |operation: &str| world.kms_proxy.stats().calls_of(operation);
    let (signs, described) = (calls("Sign"), calls("DescribeKey"));
    eventually("it to be probed", || async { (calls("DescribeKey") > described).then_some(()) }).await;
    let error = client.request("eth_sendTransaction", transfer(account, 1)).await.unwrap_err();
    assert!(error.to_string().contains("key_unavailable"), "{error}");
    assert_eq!(calls("Sign"), signs);
    assert_eq!(gateway.metric("sluice_sign_breakers_open{configuration=\"kms\"}").await, 1.0);

    world.kms.call("EnableKey", json!({ "KeyId": key })).await;
    let hash =
        eventually("the key to sign again", || async { client.request("eth_sendTransaction", transfer(account, 2)).await.ok() }).await;
    world.mined(parse(&hash)).await;
    assert_eq!(world.anvil.nonces().await[&account], [0, 1], "no hole");
    assert_eq!(gateway.metric("sluice_sign_breakers_open{configuration=\"kms\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_costs_clients_time_alone() {
    const SENDS: u64 = 40;
    const THROTTLED: u64 = 30;
    let Some(mut world) = World::start("a_quota_that_is_used_up_costs_clients_time_alone").await else { return };
    // A second Sign that is let go may end before it comes to KMS: with none, both count the same.
    world.extra.configuration = "sign_hedge = false".into();
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.kms_proxy.set_faults([KmsFault::signs(THROTTLED, KmsAnswer::throttled())]);
    let sends: Vec<_> = (0..SENDS).map(|i| client.start("eth_sendTransaction", transfer(accounts[i as usize % 2], i))).collect();
    for send in sends {
        world.mined(parse(&soon("an answer", send).await.unwrap())).await;
    }
    for account in &accounts {
        assert_eq!(world.anvil.nonces().await[account], (0..SENDS / 2).collect::<Vec<_>>());
    }
    let ended = |outcome: &str| {
        let name = format!("sluice_signs_total{{configuration=\"kms\",outcome=\"{outcome}\"}}");
        let gateway = &gateway;
        async move { gateway.metric(&name).await as u64 }
    };
    let (ok, throttled) = (ended("ok").await, ended("throttled").await);
    assert_eq!((ok, throttled), (SENDS, THROTTLED));
    // Signs less retries and hedges are the signatures that were asked for.
    assert_eq!(world.kms_proxy.stats().calls_of("Sign") - gateway.more_signs().await, SENDS);
}

/// A key store that answers one Sign of many late.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_that_takes_long_is_asked_a_second_time_and_its_transaction_is_there_once() {
    // From as many answers on it is known what is long.
    const MESSAGES: u64 = 100;
    let kms = SimKms::new(sim_kms::Settings::new(7, 1).with_tag("app", "payments"));
    let account = kms.with(|kms, _| kms.keys()[0].address());
    let node =
        SimNode::new(sim_node::Settings::new(sim_node::Client::Geth, 31337, 7).with_balance(U256::from(10).pow(U256::from(18)), [account]));
    let (keys, endpoint) = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (keys_url, url, extra) = (keys.url(), endpoint.url(), Extra::default());
    Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys_url), service: "payments", extra: &extra }.write(folder.path());
    let file = folder.path().join("sluice.toml");
    let log = folder.path().join("gateway.log");
    let gateway = Gateway::start(sluice(&["serve", file.to_str().unwrap()]), "payments", &log).await.ready().await;
    let client = gateway.connect().await;
    let messages: Vec<_> = (0..MESSAGES).map(|n| client.start("personal_sign", json!([format!("{n:#06x}"), account]))).collect();
    for message in messages {
        soon("a signature", message).await.unwrap();
    }
    assert_eq!(gateway.more_signs().await, 0);

    // Longer than the Sign has in all.
    kms.with(|kms, _| kms.set_faults(Faults::default().then("Sign", 1, sim_kms::Fault::Late { milliseconds: 60_000 })));
    let hash: B256 = parse(&soon("the hash", client.request("eth_sendTransaction", transfer(account, 1))).await.unwrap());
    let hedges = async |outcome: &str| gateway.metric(&format!("sluice_sign_hedges_total{{outcome=\"{outcome}\"}}")).await;
    assert_eq!((hedges("won").await, hedges("lost").await, hedges("failed").await), (1.0, 0.0, 0.0));
    assert_eq!(gateway.metric("sluice_sign_retries_total").await, 0.0);
    assert_eq!(kms.with(|kms, _| kms.calls_of("Sign")), MESSAGES + 2);
    let ended = async |outcome: &str| gateway.metric(&format!("sluice_signs_total{{configuration=\"kms\",outcome=\"{outcome}\"}}")).await;
    assert_eq!((ended("ok").await, ended("dropped").await), (MESSAGES as f64 + 1.0, 1.0));
    eventually("it to be mined", || {
        node.mine();
        let mined = node.with(|node, _| node.mined().into_values().map(|one| one.hash).collect::<Vec<_>>());
        async move { (!mined.is_empty()).then_some(mined) }
    })
    .await
    .iter()
    .for_each(|mined| assert_eq!(*mined, hash));
}
