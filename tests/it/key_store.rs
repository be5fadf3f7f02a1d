//! What a key store does to those who send: keys that are disabled and come back, quotas that are used up.

use alloy_primitives::B256;
use serde_json::json;
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault};

use crate::support::anvil::parse;
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

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
    let Some(world) = World::start("a_quota_that_is_used_up_costs_clients_time_alone").await else { return };
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
