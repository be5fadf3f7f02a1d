use std::sync::{Arc, Mutex};

use alloy_primitives::address;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use k256::SecretKey;
use k256::pkcs8::DecodePrivateKey;
use serde_json::{Value, json};

use super::*;
use crate::signing::aws_kms::tests::{Answer, Server, base64, fails, key_arn, serve};
use crate::signing::testing::{signing_key, spki};

/// A KMS with one key for import, and what goes wrong with it.
#[derive(Debug)]
struct Place {
    origin: &'static str,
    /// Of the imported key; none: nothing was imported.
    public_key: Option<Vec<u8>>,
    /// The operation that fails, with what.
    fails: Option<(&'static str, Answer)>,
    /// DescribeKey calls that do not find the key yet.
    lag: usize,
}

async fn place(place: Place) -> (Server, Arc<Mutex<Place>>) {
    let rsa = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    let (public, rsa) = (base64(public.as_ref()), OaepPrivateDecryptingKey::new(rsa).unwrap());
    let place = Arc::new(Mutex::new(place));
    let held = place.clone();
    let server = serve(move |operation, request, number| {
        let mut place = held.lock().unwrap();
        if let Some((failing, answer)) = &place.fails
            && *failing == operation
        {
            return answer.clone();
        }
        match operation {
            "CreateKey" => (200, json!({ "KeyMetadata": metadata(&place) })),
            "DescribeKey" if number < place.lag => fails("NotFoundException", "not yet"),
            "DescribeKey" => (200, json!({ "KeyMetadata": metadata(&place) })),
            "GetParametersForImport" => (200, json!({ "KeyId": key_arn("k1"), "PublicKey": public, "ImportToken": base64(b"token") })),
            "ImportKeyMaterial" => {
                let wrapped = aws_smithy_types::base64::decode(request["EncryptedKeyMaterial"].as_str().unwrap()).unwrap();
                let mut plain = vec![0; rsa.min_output_size()];
                let plain = rsa.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped, &mut plain, None).unwrap();
                place.public_key = Some(spki(&SigningKey::from(SecretKey::from_pkcs8_der(plain).unwrap())));
                (200, json!({}))
            }
            "GetPublicKey" => (200, json!({ "PublicKey": base64(place.public_key.as_ref().unwrap()) })),
            "CreateAlias" => (200, json!({})),
            _ => panic!("{operation}"),
        }
    })
    .await;
    (server, place)
}

fn metadata(place: &Place) -> Value {
    let state = if place.public_key.is_some() { "Enabled" } else { "PendingImport" };
    json!({
        "KeyId": "k1", "Arn": key_arn("k1"), "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "KeyState": state,
        "Origin": place.origin,
    })
}

const EMPTY: Place = Place { origin: "EXTERNAL", public_key: None, fails: None, lag: 0 };

fn new() -> Import {
    Import::Create { tags: BTreeMap::from([("app".to_owned(), "payments".to_owned())]), description: None, multi_region: true }
}

fn material() -> Material {
    Material::of(signing_key(1))
}

async fn failed(with: Place, target: &Import) -> (ImportError, Server) {
    let (server, _) = place(with).await;
    (server.kms.import(&material(), target, Some("one")).await.unwrap_err(), server)
}

#[tokio::test]
async fn a_key_is_made_filled_and_compared_before_it_is_named() {
    let (server, place) = place(Place { lag: 1, ..EMPTY }).await;
    let key = server.kms.import(&material(), &new(), Some("one")).await.unwrap();
    assert_eq!((key.arn.to_string(), key.aliases), (key_arn("k1"), vec!["alias/one".to_owned()]));
    assert_eq!(place.lock().unwrap().public_key.as_deref(), Some(&*spki(&signing_key(1))), "KMS holds the keystore's key");
    let created = server.request("CreateKey");
    let expected = json!({
        "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "Origin": "EXTERNAL", "MultiRegion": true,
        "Description": format!("{}, imported by sluice", material().address()),
        "Tags": [{ "TagKey": "app", "TagValue": "payments" }],
    });
    assert_eq!(created, expected);
    let wanted = server.request("GetParametersForImport");
    assert_eq!((&wanted["WrappingAlgorithm"], &wanted["WrappingKeySpec"]), (&json!("RSAES_OAEP_SHA_256"), &json!("RSA_4096")));
    let handed = server.request("ImportKeyMaterial");
    assert_eq!((&handed["ExpirationModel"], &handed["ImportToken"]), (&json!("KEY_MATERIAL_DOES_NOT_EXPIRE"), &json!(base64(b"token"))));
    assert!(!handed.to_string().contains(&base64(&signing_key(1).to_bytes())));
}

#[tokio::test]
async fn a_failure_says_what_is_there() {
    let denied = || fails("AccessDeniedException", "not authorized");
    let (error, server) = failed(Place { fails: Some(("CreateKey", denied())), ..EMPTY }, &new()).await;
    assert!(matches!(error, ImportError::Nothing(_)), "{error}");
    assert_eq!(server.count("CreateKey"), 1);
    // The same of credentials for which there may be others by now.
    let expired = fails("ExpiredTokenException", "expired");
    let (mut server, _) = place(Place { fails: Some(("CreateKey", expired)), ..EMPTY }).await;
    server.kms.renewing = Some(server.kms.credentials.renew());
    let error = server.kms.import(&material(), &new(), Some("one")).await.unwrap_err();
    assert!(matches!(&error, ImportError::Nothing(error) if error.class == SignClass::Transient), "{error}");
    // An answer that says nothing about whether there is a key.
    let lost = (500, json!({ "__type": "KMSInternalException" }));
    let (error, server) = failed(Place { fails: Some(("CreateKey", lost)), ..EMPTY }, &new()).await;
    assert!(
        matches!(&error, ImportError::Unknown { description, .. } if description.contains(&material().address().to_string())),
        "{error}"
    );
    assert_eq!(server.count("CreateKey"), 1, "asked again it could make two");
    for operation in ["DescribeKey", "GetParametersForImport", "ImportKeyMaterial", "GetPublicKey"] {
        let (error, server) = failed(Place { fails: Some((operation, denied())), ..EMPTY }, &new()).await;
        assert!(matches!(&error, ImportError::Half { arn, .. } if *arn.0 == key_arn("k1")), "{operation}: {error}");
        assert!(error.to_string().contains(&key_arn("k1")), "{error}");
        assert_eq!(server.count("CreateAlias"), 0, "{operation}");
    }
    let taken = fails("AlreadyExistsException", "taken");
    let (error, _) = failed(Place { fails: Some(("CreateAlias", taken)), ..EMPTY }, &new()).await;
    assert!(matches!(&error, ImportError::Unnamed { address, .. } if *address == material().address()), "{error}");
}

#[tokio::test]
async fn an_import_goes_on_where_it_ended() {
    let (server, place) = place(EMPTY).await;
    let resume = Import::Resume("k1".to_owned());
    server.kms.import(&material(), &resume, None).await.unwrap();
    assert_eq!((server.count("CreateKey"), server.count("ImportKeyMaterial")), (0, 1));
    // The answer to ImportKeyMaterial may have been lost: what the key holds is looked at, and not handed over again.
    server.kms.import(&material(), &resume, None).await.unwrap();
    assert_eq!((server.count("ImportKeyMaterial"), server.count("GetPublicKey")), (1, 2));
    place.lock().unwrap().public_key = Some(spki(&signing_key(2)));
    let error = server.kms.import(&material(), &resume, Some("one")).await.unwrap_err();
    assert!(matches!(error, ImportError::Foreign { .. }), "{error}");
    assert_eq!(server.count("CreateAlias"), 0);
}

#[tokio::test]
async fn a_key_that_makes_its_own_material_takes_none() {
    let (error, server) = failed(Place { origin: "AWS_KMS", ..EMPTY }, &Import::Resume("k1".to_owned())).await;
    assert!(matches!(&error, ImportError::Nothing(_)) && error.to_string().contains("its origin is AWS_KMS"), "{error}");
    assert_eq!(server.count("ImportKeyMaterial"), 0);
}

#[tokio::test]
async fn the_material_of_a_keystore_file_shows_its_address_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, keystore::tests::PBKDF2).unwrap();
    let material = Material::open(&file, Secret::new("testpassword".to_owned())).await.unwrap();
    assert_eq!(material.address(), address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b"));
    assert!(!format!("{material:?}").contains("7a28b5ba"), "{material:?}");
    assert!(Material::open(&file, Secret::new("wrong".to_owned())).await.is_err());
}
