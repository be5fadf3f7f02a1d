use alloy_primitives::address;

use super::*;
use crate::signing::signature::finish;

/// The PBKDF2 test vector of the Web3 Secret Storage Definition: password `testpassword`.
pub(in crate::signing) const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,"dklen":32,
"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
/// The same secret and password, written by Python's eth-keyfile.
const SCRYPT: &str = include_str!("fixtures/scrypt.json");
const OF_BOTH: Address = address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b");

fn local(path: &Path, password: &str) -> Local {
    Local { keystore: path.to_owned(), password: Secret::new(password.to_owned()) }
}

async fn refused(path: &Path, password: &str) -> KeyStoreError {
    LocalKeys::open(&local(path, password)).await.unwrap_err()
}

#[tokio::test]
async fn files_of_both_kinds_are_decrypted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("UTC--pbkdf2"), PBKDF2).unwrap();
    std::fs::write(directory.path().join("scrypt.json"), SCRYPT).unwrap();
    std::fs::write(directory.path().join(".hidden"), "not a keystore").unwrap();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    let keys = LocalKeys::open(&local(directory.path(), "testpassword")).await.unwrap();
    assert_eq!(keys.keys.keys().collect::<Vec<_>>(), [&OF_BOTH]);
    let shown = format!("{keys:?}");
    assert!(shown.contains("0x008a") && !shown.contains("7a28b5ba"), "{shown}");
}

#[tokio::test]
async fn a_file_that_cannot_be_decrypted_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("one");
    std::fs::write(&file, PBKDF2).unwrap();
    let wrong = refused(&file, "hunter2hunter2").await;
    assert_eq!(wrong.class, SignClass::Configuration);
    assert!(wrong.detail.contains("/one: ") && !wrong.detail.contains("hunter2"), "{}", wrong.detail);

    std::fs::write(&file, "{}").unwrap();
    assert!(refused(&file, "testpassword").await.detail.contains("/one: "));
    // An initialisation vector that is too short makes the decoder panic.
    std::fs::write(&file, PBKDF2.replace("6087dab2f9fdbbfaddc31a909735c1e6", "6087")).unwrap();
    assert!(refused(&file, "testpassword").await.detail.ends_with("/one: a keystore file is malformed"));
    assert!(refused(&directory.path().join("nothing"), "testpassword").await.detail.contains("/nothing: "));
}

#[tokio::test]
async fn the_development_keys_are_the_well_known_ones_and_sign() {
    let keys = LocalKeys::development(2).unwrap();
    let (first, second) = (address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"), address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"));
    let found = keys.discover(&KeySelection::All).await.unwrap();
    let mut expected = [first, second].map(arn).to_vec();
    expected.sort();
    assert_eq!(found.iter().map(|key| key.arn.clone()).collect::<Vec<_>>(), expected);

    let named = keys.discover(&KeySelection::Ids(vec![first.to_string()])).await.unwrap().remove(0).arn;
    assert_eq!(&*named.0, "local:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    let pinned = PinnedKey::from_spki(named.clone(), &keys.public_key(&named).await.unwrap()).unwrap();
    assert_eq!(pinned.address(), first);
    let digest = B256::repeat_byte(5);
    let signature = finish(&keys.sign_digest(&named, digest).await.unwrap(), digest, &pinned).unwrap();
    assert_eq!(signature.recover_address_from_prehash(&digest).unwrap(), first);
    keys.probe(&named).await.unwrap();
}

#[tokio::test]
async fn what_local_keys_cannot_do_is_a_configuration_error() {
    let keys = LocalKeys::development(1).unwrap();
    for selection in [
        KeySelection::Tags(BTreeMap::from([("app".to_owned(), "payments".to_owned())])),
        KeySelection::Ids(vec!["alias/one".to_owned()]),
        KeySelection::Ids(vec![Address::ZERO.to_string()]),
    ] {
        assert_eq!(keys.discover(&selection).await.unwrap_err().class, SignClass::Configuration, "{selection:?}");
    }
    for unknown in [arn(Address::ZERO), KeyArn("arn:aws:kms:…".into())] {
        assert_eq!(keys.sign_digest(&unknown, B256::ZERO).await.unwrap_err().class, SignClass::Configuration);
        assert_eq!(keys.probe(&unknown).await.unwrap_err().class, SignClass::Configuration);
    }
}
