//! What goes wrong by plan, beyond the plain ones.

use super::super::{OutOfRange, Scalar};
use super::*;

fn with(kms: &mut Kms, operation: &str, fault: Fault, body: Value) -> Value {
    kms.set_faults(Faults::default().then(operation, 1, fault));
    call(kms, operation, body).unwrap()
}

fn bytes(answer: &Value) -> Vec<u8> {
    BASE64.decode(answer["Signature"].as_str().unwrap().as_bytes()).unwrap()
}

#[test]
fn s_is_low_or_the_signer_is_another_where_a_fault_says_so() {
    let mut kms = kms();
    let (key, digest) = (kms.keys()[0].clone(), keccak256("a digest"));
    let wallet = key.wallet().unwrap();
    for _ in 0..20 {
        let low = signature(&with(&mut kms, "Sign", Fault::LowS, sign_body(&key.arn, digest)));
        assert!(!is_high(&low) && verifies(wallet, digest, &low));
    }
    let answer = with(&mut kms, "Sign", Fault::OtherSigner, sign_body(&key.arn, digest));
    assert_eq!(answer["KeyId"], key.arn);
    assert!(!verifies(wallet, digest, &signature(&answer)));
    assert!(!verifies(&Wallet::new(7, 1), digest, &signature(&answer)));
}

#[test]
fn malformed_and_impossible_signatures_are_read_by_nobody() {
    let mut kms = kms();
    let key = kms.keys()[0].arn.clone();
    let mut distinct = std::collections::BTreeSet::new();
    for n in 0..50_u8 {
        let malformed = bytes(&with(&mut kms, "Sign", Fault::MalformedDer, sign_body(&key, keccak256([n]))));
        assert!(Signature::from_der(&malformed).is_err());
        distinct.insert((malformed[0], malformed[1] > 0x80));
    }
    assert_eq!(distinct.len(), 3, "SEQUENCE, SET, and a long length: {distinct:?}");
    for scalar in [Scalar::R, Scalar::S] {
        for value in [OutOfRange::Zero, OutOfRange::Order, OutOfRange::Above] {
            let fault = Fault::OutOfRange { scalar, value };
            let told = serde_json::to_value(&fault).unwrap();
            assert_eq!(serde_json::from_value::<Fault>(told).unwrap(), fault);
            assert!(Signature::from_der(&bytes(&with(&mut kms, "Sign", fault, sign_body(&key, B256::ZERO)))).is_err());
        }
    }
}

#[test]
fn an_alias_that_is_moved_signs_with_the_next_key_and_names_it() {
    let mut kms = kms();
    let arns: Vec<String> = kms.keys().iter().map(|key| key.arn.clone()).collect();
    call(&mut kms, "CreateAlias", json!({ "AliasName": "alias/hot", "TargetKeyId": arns[0] })).unwrap();
    assert_eq!(call(&mut kms, "Sign", sign_body("alias/hot", B256::ZERO)).unwrap()["KeyId"], arns[0]);
    assert_eq!(with(&mut kms, "Sign", Fault::AliasMoved, sign_body("alias/hot", B256::ZERO))["KeyId"], arns[1]);
    assert_eq!(call(&mut kms, "Sign", sign_body("alias/hot", B256::ZERO)).unwrap()["KeyId"], arns[1]);
    assert_eq!(with(&mut kms, "Sign", Fault::AliasMoved, sign_body(&arns[0], B256::ZERO))["KeyId"], arns[0]);
}

#[test]
fn a_new_key_that_lags_is_found_later() {
    let mut kms = kms();
    let home = Settings::new(7, 2).home();
    kms.set_faults(Faults::default().then("CreateKey", 1, Fault::Lag { milliseconds: 3_000 }));
    let created = json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY" });
    let arn = call(&mut kms, "CreateKey", created).unwrap()["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    assert_eq!(refused(&mut kms, "DescribeKey", json!({ "KeyId": arn })), "NotFoundException");
    assert_eq!(call(&mut kms, "ListKeys", json!({})).unwrap()["Keys"].as_array().unwrap().len(), 2);
    call_at(&mut kms, &home, 3, "Sign", sign_body(&arn, B256::ZERO)).unwrap();
    assert_eq!(call(&mut kms, "ListKeys", json!({})).unwrap()["Keys"].as_array().unwrap().len(), 3);
}

#[test]
fn a_page_can_be_short_or_lead_back_to_itself() {
    let mut kms = Kms::new(Settings::new(7, 5));
    let page = with(&mut kms, "ListKeys", Fault::ShortPage { items: 2 }, json!({}));
    assert_eq!((page["Keys"].as_array().unwrap().len(), &page["Truncated"], &page["NextMarker"]), (2, &json!(true), &json!("2")));
    let page = with(&mut kms, "ListKeys", Fault::RepeatedMarker, json!({ "Marker": "2" }));
    assert_eq!((&page["Truncated"], &page["NextMarker"]), (&json!(true), &json!("2")));
}

#[tokio::test]
async fn a_torn_answer_is_an_error_and_a_slow_one_arrives_whole() {
    let kms = SimKms::new(Settings::new(7, 1));
    let listener = kms.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let faults = Faults::default().then("ListKeys", 1, Fault::Torn).then("ListKeys", 1, Fault::Slow { milliseconds: 50 });
    kms.with(|kms, _| kms.set_faults(faults));
    assert!(post(listener.address(), "TrentService.ListKeys", json!({})).await.is_err());
    let (status, body) = post(listener.address(), "TrentService.ListKeys", json!({})).await.unwrap();
    assert_eq!((status, body["Keys"].as_array().unwrap().len()), (200, 1));
    assert_eq!(kms.with(|kms, _| kms.calls_of("ListKeys")), 2);
}
