//! Key material that comes from outside.

use k256::SecretKey;
use k256::pkcs8::EncodePrivateKey;

use super::*;

const DAY: u64 = 86_400;

fn external(kms: &mut Kms) -> String {
    let body = json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "Origin": "EXTERNAL" });
    let created = call(kms, "CreateKey", body).unwrap();
    assert_eq!(created["KeyMetadata"]["KeyState"], "PendingImport");
    created["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

fn parameters(kms: &mut Kms, key: &str, algorithm: &str, spec: &str) -> Value {
    call(kms, "GetParametersForImport", json!({ "KeyId": key, "WrappingAlgorithm": algorithm, "WrappingKeySpec": spec })).unwrap()
}

fn pkcs8(wallet: &Wallet) -> Vec<u8> {
    SecretKey::from(wallet.key()).to_pkcs8_der().unwrap().as_bytes().to_vec()
}

/// Wraps as somebody does who moves a key in.
fn wrap(parameters: &Value, algorithm: &str, material: &[u8]) -> String {
    let public = BASE64.decode(parameters["PublicKey"].as_str().unwrap().as_bytes()).unwrap();
    let wrapped = super::super::wrap(&public, algorithm, [9; 32], material).unwrap();
    BASE64.encode(&wrapped)
}

fn import(parameters: &Value, wrapped: &str) -> Value {
    json!({
        "KeyId": parameters["KeyId"], "ImportToken": parameters["ImportToken"], "EncryptedKeyMaterial": wrapped,
        "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
    })
}

#[test]
fn an_imported_key_signs_for_the_address_that_it_had() {
    let wallet = Wallet::new(99, 0);
    for algorithm in ["RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256"] {
        for (spec, bits) in [("RSA_2048", 2_048), ("RSA_3072", 3_072), ("RSA_4096", 4_096)] {
            let mut kms = kms();
            let arn = external(&mut kms);
            assert_eq!(refused(&mut kms, "GetPublicKey", json!({ "KeyId": arn })), "KMSInvalidStateException");
            assert_eq!(refused(&mut kms, "Sign", sign_body(&arn, B256::ZERO)), "KMSInvalidStateException");
            let parameters = parameters(&mut kms, &arn, algorithm, spec);
            assert!(parameters["PublicKey"].as_str().unwrap().len() > bits / 6, "{spec}");
            assert_eq!(parameters["ParametersValidTo"], json!((1_767_225_600 + DAY) as f64));
            let wrapped = wrap(&parameters, algorithm, &pkcs8(&wallet));
            call(&mut kms, "ImportKeyMaterial", import(&parameters, &wrapped)).unwrap();
            assert_eq!(kms.key(&arn).unwrap().address(), wallet.address(), "{algorithm} {spec}");
            let signed = call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap();
            assert!(verifies(&wallet, B256::ZERO, &signature(&signed)));
            let described = call(&mut kms, "DescribeKey", json!({ "KeyId": arn })).unwrap()["KeyMetadata"].take();
            assert_eq!((&described["Origin"], &described["KeyState"]), (&json!("EXTERNAL"), &json!("Enabled")));
            assert_eq!(described["ExpirationModel"], "KEY_MATERIAL_DOES_NOT_EXPIRE");
        }
    }
}

#[test]
fn material_that_is_deleted_can_come_back_and_nothing_else_can_take_its_place() {
    let (mut kms, algorithm) = (kms(), "RSAES_OAEP_SHA_256");
    let arn = external(&mut kms);
    let parameters = parameters(&mut kms, &arn, algorithm, "RSA_2048");
    let (mine, other) = (Wallet::new(99, 0), Wallet::new(99, 1));
    let put =
        |kms: &mut Kms, wallet: &Wallet| call(kms, "ImportKeyMaterial", import(&parameters, &wrap(&parameters, algorithm, &pkcs8(wallet))));
    put(&mut kms, &mine).unwrap();
    call(&mut kms, "DeleteImportedKeyMaterial", json!({ "KeyId": arn })).unwrap();
    assert_eq!(refused(&mut kms, "Sign", sign_body(&arn, B256::ZERO)), "KMSInvalidStateException");
    assert_eq!(put(&mut kms, &other).unwrap_err().code, "IncorrectKeyMaterialException");
    put(&mut kms, &mine).unwrap();
    assert!(call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).is_ok());
    let made = kms.keys()[0].arn.clone();
    assert_eq!(refused(&mut kms, "DeleteImportedKeyMaterial", json!({ "KeyId": made })), "UnsupportedOperationException");
}

#[test]
fn every_flaw_of_an_import_has_its_own_code() {
    let (mut kms, algorithm) = (kms(), "RSA_AES_KEY_WRAP_SHA_256");
    let (arn, other) = (external(&mut kms), external(&mut kms));
    let parameters = parameters(&mut kms, &arn, algorithm, "RSA_3072");
    let wallet = Wallet::new(99, 0);
    let good = wrap(&parameters, algorithm, &pkcs8(&wallet));
    // Neither a private key nor one of this curve.
    let mut p384 = pkcs8(&wallet);
    let at = p384.windows(7).position(|bytes| bytes == [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a]).unwrap();
    p384[at + 6] = 0x22;
    for material in [vec![1, 2, 3], p384] {
        let wrapped = wrap(&parameters, algorithm, &material);
        assert_eq!(refused(&mut kms, "ImportKeyMaterial", import(&parameters, &wrapped)), "IncorrectKeyMaterialException");
    }
    let torn = BASE64.encode(&[7; 300]);
    assert_eq!(refused(&mut kms, "ImportKeyMaterial", import(&parameters, &torn)), "InvalidCiphertextException");
    let mut of_another = import(&parameters, &good);
    of_another["KeyId"] = json!(other);
    assert_eq!(refused(&mut kms, "ImportKeyMaterial", of_another), "InvalidImportTokenException");
    let mut forged = import(&parameters, &good);
    forged["ImportToken"] = json!(BASE64.encode(b"forged"));
    assert_eq!(refused(&mut kms, "ImportKeyMaterial", forged), "InvalidImportTokenException");
    let mut endless = import(&parameters, &good);
    endless["ExpirationModel"] = json!("KEY_MATERIAL_EXPIRES");
    assert_eq!(refused(&mut kms, "ImportKeyMaterial", endless), "ValidationException");
    let home = Settings::new(7, 2).home();
    let late = call_at(&mut kms, &home, DAY, "ImportKeyMaterial", import(&parameters, &good)).unwrap_err();
    assert_eq!(late.code, "ExpiredImportTokenException");
    call_at(&mut kms, &home, DAY - 1, "ImportKeyMaterial", import(&parameters, &good)).unwrap();
}

#[test]
fn material_expires_when_it_was_said_to() {
    let (mut kms, algorithm) = (kms(), "RSAES_OAEP_SHA_256");
    let arn = external(&mut kms);
    let parameters = parameters(&mut kms, &arn, algorithm, "RSA_2048");
    let mut body = import(&parameters, &wrap(&parameters, algorithm, &pkcs8(&Wallet::new(99, 0))));
    (body["ExpirationModel"], body["ValidTo"]) = (json!("KEY_MATERIAL_EXPIRES"), json!(1_767_225_600 + 100));
    call(&mut kms, "ImportKeyMaterial", body).unwrap();
    let home = Settings::new(7, 2).home();
    assert_eq!(state(&mut kms, &home, 99, &arn), "Enabled");
    assert_eq!(state(&mut kms, &home, 100, &arn), "PendingImport");
}

#[test]
fn a_replica_of_an_imported_key_takes_the_same_material_only() {
    let (mut kms, algorithm) = (kms(), "RSAES_OAEP_SHA_256");
    let body = json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "Origin": "EXTERNAL", "MultiRegion": true });
    let id = call(&mut kms, "CreateKey", body).unwrap()["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let wallet = Wallet::new(99, 0);
    let mine = parameters(&mut kms, &id, algorithm, "RSA_2048");
    call(&mut kms, "ImportKeyMaterial", import(&mine, &wrap(&mine, algorithm, &pkcs8(&wallet)))).unwrap();
    call(&mut kms, "ReplicateKey", json!({ "KeyId": id, "ReplicaRegion": "eu-west-1" })).unwrap();
    let far = Place::new("111122223333", "eu-west-1");
    assert_eq!(state(&mut kms, &far, 60, &id), "PendingImport");
    let ask = json!({ "KeyId": id, "WrappingAlgorithm": algorithm, "WrappingKeySpec": "RSA_2048" });
    let theirs = call_at(&mut kms, &far, 60, "GetParametersForImport", ask).unwrap();
    let other = import(&theirs, &wrap(&theirs, algorithm, &pkcs8(&Wallet::new(99, 1))));
    assert_eq!(call_at(&mut kms, &far, 60, "ImportKeyMaterial", other).unwrap_err().code, "IncorrectKeyMaterialException");
    let same = import(&theirs, &wrap(&theirs, algorithm, &pkcs8(&wallet)));
    call_at(&mut kms, &far, 60, "ImportKeyMaterial", same).unwrap();
    assert!(call_at(&mut kms, &far, 60, "Sign", sign_body(&id, B256::ZERO)).is_ok());
}
