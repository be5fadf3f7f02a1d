//! Keys, signatures, faults, and the server; the rest is beside this file.

mod faults;
mod import;
mod listings;
mod places;
mod quotas;
mod signatures;
mod states;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use alloy_primitives::{B256, keccak256};
use data_encoding::BASE64;
use k256::ecdsa::Signature;
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use serde_json::{Value, json};

use super::{Delivery, Fault, KeyState, Kms, KmsError, Place, Reply, ReplyBody, Settings, SimKms};
use crate::faults::{ANY, Faults};
use crate::http;
use crate::random::Delays;
use crate::wallet::Wallet;

fn kms() -> Kms {
    Kms::new(Settings::new(7, 2).with_tag("app", "payments"))
}

/// A call at the beginning, from where the keys are.
fn call(kms: &mut Kms, operation: &str, body: Value) -> Result<Value, KmsError> {
    let home = kms.home.clone();
    call_at(kms, &home, 0, operation, body)
}

/// The code of the refusal.
fn refused(kms: &mut Kms, operation: &str, body: Value) -> String {
    call(kms, operation, body).unwrap_err().code
}

/// A call at this second of the clock, from this place.
fn call_at(kms: &mut Kms, from: &Place, second: u64, operation: &str, body: Value) -> Result<Value, KmsError> {
    match kms.call_from(from, Duration::from_secs(second), operation, &body).body {
        ReplyBody::Ok(answer) => Ok(answer),
        ReplyBody::Error(error) => Err(error),
        ReplyBody::Cut => panic!("cut"),
    }
}

fn state(kms: &mut Kms, from: &Place, second: u64, key: &str) -> String {
    let described = call_at(kms, from, second, "DescribeKey", json!({ "KeyId": key })).unwrap();
    described["KeyMetadata"]["KeyState"].as_str().unwrap().to_owned()
}

fn sign_body(key: &str, digest: B256) -> Value {
    json!({ "KeyId": key, "Message": BASE64.encode(digest.as_slice()), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256" })
}

fn signature(answer: &Value) -> Signature {
    Signature::from_der(&BASE64.decode(answer["Signature"].as_str().unwrap().as_bytes()).unwrap()).unwrap()
}

fn verifies(wallet: &Wallet, digest: B256, signature: &Signature) -> bool {
    let low = signature.normalize_s().unwrap_or(*signature);
    wallet.key().verifying_key().verify_prehash(digest.as_slice(), &low).is_ok()
}

fn is_high(signature: &Signature) -> bool {
    signature.normalize_s().is_some()
}

#[test]
fn signatures_verify_differ_and_have_a_high_s_half_the_time() {
    let mut kms = kms();
    let (key, digest) = (kms.keys()[1].clone(), keccak256("a digest"));
    let signatures: Vec<Signature> = (0..100)
        .map(|_| {
            let answer = call(&mut kms, "Sign", sign_body(&key.id, digest)).unwrap();
            assert_eq!(answer["KeyId"], key.arn);
            signature(&answer)
        })
        .collect();
    assert!(signatures.iter().all(|signature| verifies(&Wallet::new(7, 1), digest, signature)));
    let distinct: std::collections::BTreeSet<Vec<u8>> = signatures.iter().map(|signature| signature.to_vec()).collect();
    assert_eq!(distinct.len(), 100);
    let high = signatures.iter().filter(|signature| is_high(signature)).count();
    assert!((30..70).contains(&high), "{high}");
    assert_eq!((kms.signed().len(), kms.signed()[99].digest, kms.calls_of("Sign")), (100, digest, 100));
}

#[test]
fn a_public_key_is_spki_of_88_bytes_with_both_identifiers() {
    let mut kms = kms();
    let key = kms.keys()[0].clone();
    let answer = call(&mut kms, "GetPublicKey", json!({ "KeyId": key.arn })).unwrap();
    let spki = BASE64.decode(answer["PublicKey"].as_str().unwrap().as_bytes()).unwrap();
    let head = "3056301006072a8648ce3d020106052b8104000a034200";
    assert_eq!((spki.len(), alloy_primitives::hex::encode(&spki[..23])), (88, head.to_owned()));
    let address = keccak256(&spki[24..]);
    assert_eq!(address.as_slice()[12..], *key.address().as_slice());
}

#[test]
fn listings_are_paged_and_name_keys_aliases_and_tags() {
    let mut kms = Kms::new(Settings::new(7, 5).with_tag("app", "payments"));
    let (mut seen, mut marker) = (Vec::new(), Value::Null);
    loop {
        let page = call(&mut kms, "ListKeys", json!({ "Limit": 2, "Marker": marker })).unwrap();
        seen.extend(page["Keys"].as_array().unwrap().iter().map(|key| key["KeyArn"].as_str().unwrap().to_owned()));
        marker = page.get("NextMarker").cloned().unwrap_or_default();
        assert_eq!(page["Truncated"], !marker.is_null());
        if marker.is_null() {
            break;
        }
    }
    assert_eq!(seen, kms.keys().iter().map(|key| key.arn.clone()).collect::<Vec<_>>());
    let tags = call(&mut kms, "ListResourceTags", json!({ "KeyId": seen[3] })).unwrap();
    assert_eq!(tags["Tags"], json!([{ "TagKey": "app", "TagValue": "payments" }]));
    let created = json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "Tags": [{ "TagKey": "a", "TagValue": "b" }] });
    let created = call(&mut kms, "CreateKey", created).unwrap()["KeyMetadata"].take();
    assert_eq!(kms.keys()[5].tags, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    call(&mut kms, "CreateAlias", json!({ "AliasName": "alias/hot", "TargetKeyId": created["Arn"] })).unwrap();
    let aliases = call(&mut kms, "ListAliases", json!({})).unwrap();
    assert_eq!(aliases["Aliases"][0]["TargetKeyId"], created["KeyId"]);
    let described = call(&mut kms, "DescribeKey", json!({ "KeyId": "alias/hot" })).unwrap();
    assert_eq!(described["KeyMetadata"], created);
    let alias_arn = aliases["Aliases"][0]["AliasArn"].as_str().unwrap();
    assert_eq!(alias_arn, "arn:aws:kms:us-east-1:111122223333:alias/hot");
    assert_eq!(call(&mut kms, "DescribeKey", json!({ "KeyId": alias_arn })).unwrap()["KeyMetadata"], created);
    assert_eq!(call(&mut kms, "DescribeKey", json!({ "KeyId": "no" })).unwrap_err().code, "NotFoundException");
}

#[test]
fn a_key_that_is_not_enabled_does_not_sign_and_says_why() {
    let mut kms = kms();
    let arn = kms.keys()[0].arn.clone();
    let states = [
        (KeyState::Disabled, "DisabledException"),
        (KeyState::PendingDeletion, "KMSInvalidStateException"),
        (KeyState::Creating, "KMSInvalidStateException"),
    ];
    for (state, code) in states {
        kms.set_key_state(&arn, state).unwrap();
        assert_eq!(call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap_err().code, code);
        let described = call(&mut kms, "DescribeKey", json!({ "KeyId": arn })).unwrap();
        assert_eq!(described["KeyMetadata"]["KeyState"], json!(state));
    }
    kms.set_key_state(&arn, KeyState::Enabled).unwrap();
    call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap();
    let short = json!({ "KeyId": arn, "Message": "AAAA", "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256" });
    assert_eq!(call(&mut kms, "Sign", short).unwrap_err().code, "ValidationException");
}

#[test]
fn each_fault_does_what_it_says() {
    let mut kms = kms();
    let (key, digest) = (kms.keys()[0].clone(), keccak256("a digest"));
    let mut one = |fault: Fault| {
        kms.set_faults(Faults::default().then("Sign", 1, fault));
        let before = kms.signed().len();
        let reply = kms.call(Duration::ZERO, "Sign", &sign_body(&key.arn, digest));
        (reply, kms.signed().len() - before)
    };
    let cut = || Reply { after: Duration::ZERO, body: ReplyBody::Cut, delivery: Delivery::Whole };
    let (reply, signs) = one(Fault::Error(KmsError::throttled()));
    assert_eq!(
        (reply, signs),
        (Reply { after: Duration::ZERO, body: ReplyBody::Error(KmsError::throttled()), delivery: Delivery::Whole }, 0)
    );
    assert_eq!(one(Fault::CutBefore), (cut(), 0));
    assert_eq!(one(Fault::CutAfter), (cut(), 1));
    assert_eq!(one(Fault::Late { milliseconds: 900 }).0.after, Duration::from_millis(900));
    let answer = |reply: Reply| match reply.body {
        ReplyBody::Ok(answer) => answer,
        other => panic!("{other:?}"),
    };
    for _ in 0..20 {
        let high = signature(&answer(one(Fault::HighS).0));
        assert!(is_high(&high) && verifies(key.wallet().unwrap(), digest, &high));
    }
    let other = signature(&answer(one(Fault::OtherDigest).0));
    assert!(!verifies(key.wallet().unwrap(), digest, &other) && verifies(key.wallet().unwrap(), keccak256(digest), &other));
    assert_ne!(answer(one(Fault::OtherKey).0)["KeyId"], key.arn);
}

/// All answers of many calls.
fn transcript(seed: u64) -> String {
    let mut kms = Kms::new(Settings { delays: Delays { p50: 10, p99: 60, max: 1_000 }, ..Settings::new(seed, 3) });
    kms.set_faults(Faults::default().sometimes("Sign", 1_000, Fault::Error(KmsError::internal())).sometimes(ANY, 500, Fault::CutAfter));
    let keys: Vec<String> = kms.keys().iter().map(|key| key.arn.clone()).collect();
    let sign = |n: usize| sign_body(&keys[n % 3], keccak256(n.to_string()));
    (0..60).map(|n| format!("{:?}\n", kms.call(Duration::from_millis(n as u64), "Sign", &sign(n)))).collect()
}

#[test]
fn the_same_seed_gives_the_same_transcript_and_another_one_does_not() {
    assert_eq!(transcript(1), transcript(1));
    assert_ne!(transcript(1), transcript(2));
}

async fn post(address: SocketAddr, target: &str, body: Value) -> Result<(u16, Value), String> {
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
    let (status, body) = http::send(::http::Method::POST, &format!("http://{address}/"), &headers, body.to_string()).await?;
    Ok((status, serde_json::from_slice(&body).unwrap()))
}

#[tokio::test]
async fn over_tcp_it_answers_in_the_protocol_of_aws_and_can_be_steered() {
    let kms = SimKms::new(Settings::new(7, 1));
    let listener = kms.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.address();
    let arn = kms.with(|kms, _| kms.keys()[0].arn.clone());
    let (status, signed) = post(address, "TrentService.Sign", sign_body(&arn, B256::ZERO)).await.unwrap();
    assert_eq!((status, &signed["KeyId"]), (200, &json!(arn)));

    let error = json!({ "kind": "error", "status": 503, "code": "ServiceUnavailable", "message": "later" });
    let script = json!([{ "of": "Sign", "count": 1, "fault": error }, { "of": "*", "count": 1, "fault": { "kind": "cutBefore" } }]);
    post(address, "Simulator.SetFaults", json!({ "script": script })).await.unwrap();
    let (status, body) = post(address, "TrentService.Sign", sign_body(&arn, B256::ZERO)).await.unwrap();
    assert_eq!((status, body), (503, json!({ "__type": "ServiceUnavailable", "message": "later" })));
    assert!(post(address, "TrentService.ListKeys", json!({})).await.is_err());
    post(address, "Simulator.SetKeyState", json!({ "KeyId": arn, "KeyState": "Disabled" })).await.unwrap();
    let (status, body) = post(address, "TrentService.Sign", sign_body(&arn, B256::ZERO)).await.unwrap();
    assert_eq!((status, &body["__type"]), (400, &json!("DisabledException")));
    let (_, signs) = post(address, "Simulator.Signed", json!({})).await.unwrap();
    assert_eq!(signs["Signed"].as_array().unwrap().len(), 1);
    assert_eq!(post(address, "Simulator.Calls", json!({})).await.unwrap().1, json!({ "Sign": 3, "ListKeys": 1 }));
}

#[tokio::test(start_paused = true)]
async fn delays_pass_in_virtual_time() {
    let kms = SimKms::new(Settings { delays: Delays::fixed(250), ..Settings::new(7, 1) });
    let begin = tokio::time::Instant::now();
    kms.call("ListKeys", &json!({})).await.unwrap().unwrap();
    assert_eq!(begin.elapsed(), Duration::from_millis(250));
}
