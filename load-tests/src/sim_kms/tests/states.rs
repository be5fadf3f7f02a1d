//! States of keys, and the operations that change them.

use super::*;

fn at(kms: &mut Kms, second: u64, operation: &str, body: Value) -> Result<Value, KmsError> {
    let home = kms.home.clone();
    call_at(kms, &home, second, operation, body)
}

#[test]
fn disabling_and_enabling_are_seen_by_the_next_sign() {
    let mut kms = kms();
    let key = json!({ "KeyId": kms.keys()[0].id });
    let arn = kms.keys()[0].arn.clone();
    call(&mut kms, "DisableKey", key.clone()).unwrap();
    let refusal = call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.message), ("DisabledException", format!("{arn} is disabled.")));
    assert!(call(&mut kms, "GetPublicKey", key.clone()).is_ok());
    call(&mut kms, "EnableKey", key).unwrap();
    assert!(call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).is_ok());
}

#[test]
fn a_key_is_deleted_once_its_window_has_passed_unless_that_is_cancelled() {
    let (mut kms, day) = (kms(), 86_400);
    let arn = kms.keys()[0].arn.clone();
    let key = json!({ "KeyId": arn });
    let schedule = json!({ "KeyId": arn, "PendingWindowInDays": 7 });
    assert_eq!(refused(&mut kms, "ScheduleKeyDeletion", json!({ "KeyId": arn, "PendingWindowInDays": 6 })), "ValidationException");
    let answer = at(&mut kms, 0, "ScheduleKeyDeletion", schedule.clone()).unwrap();
    assert_eq!((&answer["KeyState"], &answer["DeletionDate"]), (&json!("PendingDeletion"), &json!((1_767_225_600 + 7 * day) as f64)));
    for operation in ["EnableKey", "DisableKey", "ScheduleKeyDeletion"] {
        assert_eq!(refused(&mut kms, operation, key.clone()), "KMSInvalidStateException");
    }
    assert_eq!(refused(&mut kms, "Sign", sign_body(&arn, B256::ZERO)), "KMSInvalidStateException");
    at(&mut kms, day, "CancelKeyDeletion", key.clone()).unwrap();
    assert_eq!(at(&mut kms, 8 * day, "DescribeKey", key.clone()).unwrap()["KeyMetadata"]["KeyState"], "Disabled");
    assert_eq!(at(&mut kms, 8 * day, "CancelKeyDeletion", key.clone()).unwrap_err().code, "KMSInvalidStateException");
    at(&mut kms, 8 * day, "CreateAlias", json!({ "AliasName": "alias/a", "TargetKeyId": arn })).unwrap();
    at(&mut kms, 8 * day, "ScheduleKeyDeletion", schedule).unwrap();
    assert!(at(&mut kms, 15 * day - 1, "DescribeKey", key.clone()).is_ok());
    assert_eq!(at(&mut kms, 15 * day, "DescribeKey", key).unwrap_err().code, "NotFoundException");
    assert_eq!(at(&mut kms, 15 * day, "ListKeys", json!({})).unwrap()["Keys"].as_array().unwrap().len(), 1);
    assert_eq!(at(&mut kms, 15 * day, "ListAliases", json!({})).unwrap()["Aliases"], json!([]));
}

#[test]
fn every_state_that_is_not_enabled_refuses_to_sign() {
    let mut kms = kms();
    let arn = kms.keys()[0].arn.clone();
    use KeyState::{Creating, PendingDeletion, PendingImport, PendingReplicaDeletion, Unavailable, Updating};
    for state in [Creating, PendingDeletion, PendingImport, PendingReplicaDeletion, Unavailable, Updating] {
        kms.set_key_state(&arn, state).unwrap();
        assert_eq!(refused(&mut kms, "Sign", sign_body(&arn, B256::ZERO)), "KMSInvalidStateException", "{state:?}");
    }
}

#[test]
fn a_dry_run_says_that_it_would_have_succeeded_and_signs_nothing() {
    let mut kms = kms();
    let arn = kms.keys()[0].arn.clone();
    let mut body = sign_body(&arn, B256::ZERO);
    body["DryRun"] = json!(true);
    let answer = call(&mut kms, "Sign", body.clone()).unwrap_err();
    assert_eq!((answer.status, answer.code.as_str(), kms.signed().len()), (412, "DryRunOperationException", 0));
    kms.set_key_state(&arn, KeyState::Disabled).unwrap();
    assert_eq!(refused(&mut kms, "Sign", body), "DisabledException");
}

#[test]
fn verify_takes_its_own_signatures_and_no_others() {
    let mut kms = kms();
    let arn = kms.keys()[0].arn.clone();
    let mut verify = sign_body(&arn, B256::ZERO);
    for _ in 0..8 {
        verify["Signature"] = call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap()["Signature"].clone();
        assert_eq!(call(&mut kms, "Verify", verify.clone()).unwrap()["SignatureValid"], true);
    }
    verify["KeyId"] = json!(kms.keys()[1].arn);
    assert_eq!(refused(&mut kms, "Verify", verify), "KMSInvalidSignatureException");
    // A message that is not hashed yet.
    let raw = json!({ "KeyId": arn, "Message": BASE64.encode(b"abc"), "SigningAlgorithm": "ECDSA_SHA_256" });
    let signed = signature(&call(&mut kms, "Sign", raw).unwrap());
    let digest = "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
    assert!(verifies(&Wallet::new(7, 0), digest, &signed));
}

#[test]
fn tags_come_and_go() {
    let mut kms = kms();
    let arn = kms.keys()[0].arn.clone();
    let tag = |name: &str| json!({ "TagKey": name, "TagValue": "x" });
    call(&mut kms, "TagResource", json!({ "KeyId": arn, "Tags": [tag("b"), tag("c")] })).unwrap();
    call(&mut kms, "UntagResource", json!({ "KeyId": arn, "TagKeys": ["app", "c"] })).unwrap();
    let page = call(&mut kms, "ListResourceTags", json!({ "KeyId": arn })).unwrap();
    assert_eq!((&page["Tags"], &page["Truncated"]), (&json!([tag("b")]), &json!(false)));
    assert_eq!(refused(&mut kms, "TagResource", json!({ "KeyId": arn, "Tags": [tag("d"), tag("d")] })), "TagException");
    let many: Vec<Value> = (0..50).map(|n| tag(&n.to_string())).collect();
    assert_eq!(refused(&mut kms, "TagResource", json!({ "KeyId": arn, "Tags": many })), "LimitExceededException");
}

#[test]
fn aliases_can_be_moved_and_taken_away() {
    let mut kms = kms();
    let arns: Vec<String> = kms.keys().iter().map(|key| key.arn.clone()).collect();
    let alias = |target: &str| json!({ "AliasName": "alias/hot", "TargetKeyId": target });
    assert_eq!(refused(&mut kms, "UpdateAlias", alias(&arns[0])), "NotFoundException");
    call(&mut kms, "CreateAlias", alias(&arns[0])).unwrap();
    assert_eq!(refused(&mut kms, "CreateAlias", alias(&arns[0])), "AlreadyExistsException");
    call(&mut kms, "UpdateAlias", alias(&arns[1])).unwrap();
    assert_eq!(call(&mut kms, "Sign", sign_body("alias/hot", B256::ZERO)).unwrap()["KeyId"], arns[1]);
    call(&mut kms, "DeleteAlias", json!({ "AliasName": "alias/hot" })).unwrap();
    assert_eq!(refused(&mut kms, "Sign", sign_body("alias/hot", B256::ZERO)), "NotFoundException");
    assert_eq!(refused(&mut kms, "CreateAlias", json!({ "AliasName": "hot", "TargetKeyId": arns[0] })), "ValidationException");
}
