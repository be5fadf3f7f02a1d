//! Limits of pages, aliases of AWS, and many keys.

use super::*;

#[test]
fn limits_are_those_of_aws() {
    let mut kms = Kms::new(Settings::new(7, 1_200));
    let keys = |kms: &mut Kms, body: Value| call(kms, "ListKeys", body).map(|page| page["Keys"].as_array().unwrap().len());
    assert_eq!(keys(&mut kms, json!({})), Ok(100));
    assert_eq!(keys(&mut kms, json!({ "Limit": 1_000 })), Ok(1_000));
    assert_eq!(keys(&mut kms, json!({ "Limit": 1_000, "Marker": "1000" })), Ok(200));
    let too_many = keys(&mut kms, json!({ "Limit": 1_001 })).unwrap_err();
    assert_eq!(
        too_many.message,
        "1 validation error detected: Value '1001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 1000"
    );
    let id = kms.keys()[0].id.clone();
    for (operation, most) in [("ListKeys", 1_000), ("ListAliases", 100), ("ListResourceTags", 50)] {
        let body = |limit: u64| json!({ "KeyId": id, "Limit": limit });
        assert!(call(&mut kms, operation, body(most)).is_ok());
        assert_eq!(refused(&mut kms, operation, body(most + 1)), "ValidationException");
        assert_eq!(refused(&mut kms, operation, body(0)), "ValidationException");
    }
    assert_eq!(refused(&mut kms, "ListKeys", json!({ "Marker": "x" })), "InvalidMarkerException");
    for n in 0..60 {
        call(&mut kms, "CreateAlias", json!({ "AliasName": format!("alias/{n}"), "TargetKeyId": id })).unwrap();
    }
    let page = call(&mut kms, "ListAliases", json!({})).unwrap();
    assert_eq!((page["Aliases"].as_array().unwrap().len(), &page["Truncated"]), (50, &json!(true)));
}

#[test]
fn an_alias_of_aws_has_no_target() {
    let mut kms = Kms::new(Settings { bare_aliases: vec!["alias/aws/ebs".into()], ..Settings::new(7, 1) });
    let page = call(&mut kms, "ListAliases", json!({})).unwrap();
    let expected = json!([{ "AliasName": "alias/aws/ebs", "AliasArn": "arn:aws:kms:us-east-1:111122223333:alias/aws/ebs" }]);
    assert_eq!(page["Aliases"], expected);
    assert_eq!(refused(&mut kms, "Sign", sign_body("alias/aws/ebs", B256::ZERO)), "NotFoundException");
}

/// Ten thousand public keys would take a second of arithmetic and more; nobody has asked for them yet.
#[test]
fn ten_thousand_keys_are_there_without_their_arithmetic() {
    let mut kms = Kms::new(Settings::new(7, 10_000).with_tag("app", "payments"));
    assert_eq!(kms.keys().len(), 10_000);
    let key = kms.keys()[9_999].clone();
    let tags = call(&mut kms, "ListResourceTags", json!({ "KeyId": key.arn })).unwrap();
    assert_eq!(tags["Tags"][0]["TagValue"], "payments");
    assert_eq!(key.address(), Wallet::new(7, 9_999).address());
}
