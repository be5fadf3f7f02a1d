//! Accounts, Regions, and replicas.

use super::*;

const FAR: &str = "eu-west-1";

fn replicated() -> (Kms, Place, Place) {
    let settings = Settings { replica_regions: vec![FAR.into()], ..Settings::new(7, 1).with_tag("app", "payments") };
    let (home, far) = (settings.home(), Place::new(&settings.account, FAR));
    (Kms::new(settings), home, far)
}

#[test]
fn each_account_in_each_region_has_its_own_keys() {
    let (home, other) = (Settings::new(7, 2).home(), Place::new("444455556666", FAR));
    let mut kms = Kms::new(Settings { further: vec![other.clone()], ..Settings::new(7, 2) });
    let ids = |kms: &mut Kms, from: &Place| -> Vec<String> {
        let page = call_at(kms, from, 0, "ListKeys", json!({})).unwrap();
        page["Keys"].as_array().unwrap().iter().map(|key| key["KeyArn"].as_str().unwrap().to_owned()).collect()
    };
    let (mine, theirs) = (ids(&mut kms, &home), ids(&mut kms, &other));
    assert_eq!((mine.len(), theirs.len()), (2, 2));
    assert!(theirs.iter().all(|arn| arn.starts_with("arn:aws:kms:eu-west-1:444455556666:key/")));
    assert_eq!(kms.keys()[2].address(), Wallet::new(7, 2).address());
    // Nothing is in the same account elsewhere, and an ARN of another Region is none here.
    let elsewhere = Place::new(&home.account, "ap-south-1");
    assert!(ids(&mut kms, &elsewhere).is_empty());
    let refusal = call_at(&mut kms, &home, 0, "Sign", sign_body(&theirs[0], B256::ZERO)).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("NotFoundException", "Invalid arn eu-west-1"));
}

#[test]
fn another_account_signs_by_arn_and_manages_nothing() {
    let mut kms = kms();
    let (guest, key) = (Place::new("444455556666", "us-east-1"), kms.keys()[0].clone());
    for operation in ["Sign", "GetPublicKey", "DescribeKey"] {
        assert!(call_at(&mut kms, &guest, 0, operation, sign_body(&key.arn, B256::ZERO)).is_ok(), "{operation}");
    }
    call(&mut kms, "CreateAlias", json!({ "AliasName": "alias/hot", "TargetKeyId": key.arn })).unwrap();
    let alias = "arn:aws:kms:us-east-1:111122223333:alias/hot";
    assert_eq!(call_at(&mut kms, &guest, 0, "Sign", sign_body(alias, B256::ZERO)).unwrap()["KeyId"], key.arn);
    // Without the account in the name it would be a key of its own.
    assert_eq!(call_at(&mut kms, &guest, 0, "Sign", sign_body(&key.id, B256::ZERO)).unwrap_err().code, "NotFoundException");
    for operation in ["DisableKey", "ListResourceTags", "ScheduleKeyDeletion"] {
        let refusal = call_at(&mut kms, &guest, 0, operation, json!({ "KeyId": key.arn })).unwrap_err();
        assert_eq!(refusal.code, "AccessDeniedException", "{operation}");
    }
}

#[test]
fn a_replica_has_the_id_and_the_material_of_its_primary_and_tags_of_its_own() {
    let (mut kms, home, far) = replicated();
    let (primary, replica) = (kms.keys()[0].clone(), kms.keys()[1].clone());
    assert!(primary.id.starts_with("mrk-") && primary.id == replica.id && replica.arn.contains(":eu-west-1:"));
    assert_eq!(primary.spki(), replica.spki());
    for (from, kind) in [(&home, "PRIMARY"), (&far, "REPLICA")] {
        let described = call_at(&mut kms, from, 0, "DescribeKey", json!({ "KeyId": primary.id })).unwrap();
        let configuration = &described["KeyMetadata"]["MultiRegionConfiguration"];
        assert_eq!((&configuration["MultiRegionKeyType"], &described["KeyMetadata"]["MultiRegion"]), (&json!(kind), &json!(true)));
        assert_eq!(configuration["PrimaryKey"], json!({ "Arn": primary.arn, "Region": "us-east-1" }));
        assert_eq!(configuration["ReplicaKeys"], json!([{ "Arn": replica.arn, "Region": FAR }]));
    }
    call_at(&mut kms, &home, 0, "DisableKey", json!({ "KeyId": primary.id })).unwrap();
    let signed = call_at(&mut kms, &far, 0, "Sign", sign_body(&replica.arn, B256::ZERO)).unwrap();
    assert!(verifies(&Wallet::new(7, 0), B256::ZERO, &signature(&signed)));
}

#[test]
fn a_new_replica_is_creating_for_a_while() {
    let (mut kms, home, _) = replicated();
    let id = kms.keys()[0].id.clone();
    let replicate = json!({ "KeyId": id, "ReplicaRegion": "ap-south-1", "Tags": [{ "TagKey": "a", "TagValue": "b" }] });
    let answer = call_at(&mut kms, &home, 10, "ReplicateKey", replicate.clone()).unwrap();
    assert_eq!(answer["ReplicaKeyMetadata"]["KeyState"], "Creating");
    assert_eq!(call_at(&mut kms, &home, 10, "ReplicateKey", replicate).unwrap_err().code, "AlreadyExistsException");
    let there = Place::new(&home.account, "ap-south-1");
    assert_eq!(call_at(&mut kms, &there, 11, "Sign", sign_body(&id, B256::ZERO)).unwrap_err().code, "KMSInvalidStateException");
    assert_eq!(state(&mut kms, &there, 12, &id), "Enabled");
    assert!(call_at(&mut kms, &there, 12, "Sign", sign_body(&id, B256::ZERO)).is_ok());
    // Only a primary is replicated.
    let again = json!({ "KeyId": id, "ReplicaRegion": "sa-east-1" });
    assert_eq!(call_at(&mut kms, &there, 12, "ReplicateKey", again).unwrap_err().code, "UnsupportedOperationException");
}

#[test]
fn a_primary_is_deleted_after_its_replicas() {
    let (mut kms, home, far) = replicated();
    let (id, day) = (kms.keys()[0].id.clone(), 86_400);
    let schedule = json!({ "KeyId": id, "PendingWindowInDays": 7 });
    call_at(&mut kms, &home, 0, "ScheduleKeyDeletion", schedule.clone()).unwrap();
    assert_eq!(state(&mut kms, &home, 100 * day, &id), "PendingReplicaDeletion");
    call_at(&mut kms, &far, 100 * day, "ScheduleKeyDeletion", schedule).unwrap();
    assert_eq!(state(&mut kms, &home, 107 * day, &id), "PendingDeletion");
    assert!(call_at(&mut kms, &home, 114 * day - 1, "DescribeKey", json!({ "KeyId": id })).is_ok());
    assert!(call_at(&mut kms, &home, 114 * day, "DescribeKey", json!({ "KeyId": id })).is_err());
}
