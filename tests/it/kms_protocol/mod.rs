//! The protocol of KMS as the real SDK sees it: one suite against the simulated KMS and against the emulator that others wrote.
//!
//! The suite answers with observations, each a name and what was seen. [`EXPECTED`] is what AWS documents, and the simulator has to
//! be like that in everything. The emulator is like that but for [`DIFFERENCES`]; docs/simulators.md explains each.

mod observations;
mod side;

use std::collections::BTreeMap;

use aws_sdk_kms::config::Credentials;
use sluice_load_tests::sim_kms::{AccessKey, Place, Settings, SimKms};

use self::observations::observe;
use self::side::{Side, code};
use crate::support::kms::Kms;
use crate::support::parts::{Part, have};

const ACCOUNT: &str = "111122223333";

/// What AWS documents.
const EXPECTED: &[(&str, &str)] = &[
    ("create", "Enabled ECC_SECG_P256K1 SIGN_VERIFY AWS_KMS"),
    ("describe", "Enabled"),
    ("describe unknown", "NotFoundException"),
    ("public key", "88 bytes of secp256k1"),
    ("sign", "valid, by the ARN"),
    ("sign many", "high and low"),
    ("sign twice", "differ"),
    ("sign message", "valid"),
    ("sign short digest", "ValidationException"),
    ("sign other algorithm", "InvalidKeyUsageException"),
    ("sign dry run", "DryRunOperationException"),
    ("sign by ARN of another Region", "NotFoundException"),
    ("verify", "valid"),
    ("verify other digest", "KMSInvalidSignatureException"),
    ("disabled", "Disabled"),
    ("disabled sign", "DisabledException"),
    ("disabled public key", "ok"),
    ("enabled sign", "ok"),
    ("alias sign", "by the ARN"),
    ("alias ARN sign", "by the ARN"),
    ("alias again", "AlreadyExistsException"),
    ("alias name", "ValidationException"),
    ("alias moved", "by the other ARN"),
    ("alias unknown", "NotFoundException"),
    ("alias deleted", "NotFoundException"),
    ("alias of AWS", "refused"),
    ("tags", "app=payments b=2"),
    ("tags gone", "b=2"),
    ("tags pages", "1 and a marker"),
    ("keys pages", "1 and a marker"),
    ("keys followed", "all"),
    ("keys limit", "ValidationException"),
    ("keys marker", "InvalidMarkerException"),
    ("aliases pages", "1 and a marker"),
    ("aliases limit", "ValidationException"),
    ("deletion window", "ValidationException"),
    ("deletion", "PendingDeletion"),
    ("deletion sign", "KMSInvalidStateException"),
    ("deletion enable", "KMSInvalidStateException"),
    ("deletion tag", "KMSInvalidStateException"),
    ("deletion listed", "listed"),
    ("deletion cancelled", "Disabled"),
    ("deletion cancelled again", "KMSInvalidStateException"),
    ("multi-Region", "PRIMARY with an mrk- id"),
    ("replica", "REPLICA Creating"),
    ("replica again", "AlreadyExistsException"),
    ("replica of plain key", "UnsupportedOperationException"),
    ("replica key", "the same"),
    ("replica sign", "valid, by its own ARN"),
    ("import pending", "PendingImport"),
    ("import public key before", "KMSInvalidStateException"),
    ("import of a made key", "UnsupportedOperationException"),
    ("import without ValidTo", "ValidationException"),
    ("import torn", "InvalidCiphertextException"),
    ("import forged token", "InvalidImportTokenException"),
    ("import no key", "IncorrectKeyMaterialException"),
    ("import RSAES_OAEP_SHA_256", "EXTERNAL Enabled, the address that it had"),
    ("import RSA_AES_KEY_WRAP_SHA_256", "EXTERNAL Enabled, the address that it had"),
    ("import token again", "ok"),
    ("import deleted", "PendingImport"),
    ("import other key", "IncorrectKeyMaterialException"),
];

/// What the emulator does otherwise.
const DIFFERENCES: &[(&str, &str)] = &[
    ("sign dry run", "ok"),
    ("alias of AWS", "ok"),
    ("tags pages", "all"),
    ("keys pages", "1 without a marker"),
    ("keys followed", "one page"),
    ("keys limit", "ok"),
    ("keys marker", "ok"),
    ("aliases pages", "all"),
    ("aliases limit", "ok"),
    ("deletion enable", "ok"),
    ("deletion tag", "ok"),
    ("deletion cancelled again", "ok"),
    ("replica", "REPLICA Enabled"),
    ("import token again", "InvalidImportTokenException"),
    ("import other key", "ok"),
];

fn table(rows: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    rows.iter().map(|(name, seen)| (*name, (*seen).to_owned())).collect()
}

/// A simulated KMS that checks signatures of requests, and somebody whom it knows.
async fn simulated() -> (SimKms, sluice_load_tests::listener::Listener, Side) {
    let settings = Settings {
        access_keys: vec![AccessKey::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ACCOUNT)],
        creating: std::time::Duration::from_millis(200),
        ..Settings::new(7, 0)
    };
    let kms = SimKms::new(settings);
    let listener = kms.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
    let side = Side { address: listener.address(), credentials };
    (kms, listener, side)
}

#[tokio::test]
async fn the_simulated_kms_is_as_aws_documents_it() {
    let (_kms, _listener, side) = simulated().await;
    assert_eq!(observe(&side).await, table(EXPECTED));
}

#[tokio::test]
async fn the_kms_emulator_differs_only_where_it_is_known_to() {
    if !have("the_kms_emulator_differs_only_where_it_is_known_to", &[Part::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kms = Kms::start(folder.path()).await;
    // An access key of 12 digits is the account to it.
    let side = Side { address: kms.address, credentials: Credentials::new(ACCOUNT, "any", None, None, "test") };
    let mut expected = table(EXPECTED);
    expected.extend(table(DIFFERENCES));
    assert_eq!(observe(&side).await, expected);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/simulators.md")).unwrap();
    for (name, seen) in DIFFERENCES {
        assert!(page.contains(&format!("| {name} | ")), "docs/simulators.md does not explain: {name}, {seen}");
    }
}

#[tokio::test]
async fn what_the_sdk_signs_with_wrong_credentials_is_refused_by_its_code() {
    let (_kms, _listener, side) = simulated().await;
    let list = async |id: &str, secret: &str, token: Option<&str>| {
        let credentials = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
        code(Side { credentials, ..side.clone() }.client("us-east-1").list_keys().send().await)
    };
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    assert_eq!(list("AKIDEXAMPLE", secret, None).await, "ok");
    assert_eq!(list("AKIDEXAMPLE", "wrong", None).await, "InvalidSignatureException");
    assert_eq!(list("AKIDOTHER", secret, None).await, "UnrecognizedClientException");
    assert_eq!(list("AKIDEXAMPLE", secret, Some("token")).await, "UnrecognizedClientException");
}

#[tokio::test]
async fn credentials_say_the_account_and_clients_the_region() {
    let (first, second) = (Place::new(ACCOUNT, "us-east-1"), Place::new("444455556666", "eu-west-1"));
    let access_keys = vec![AccessKey::new("AKIDONE", "one", &first.account), AccessKey::new("AKIDTWO", "two", &second.account)];
    let kms = SimKms::new(Settings { access_keys, further: vec![second.clone()], ..Settings::new(7, 2) });
    let listener = kms.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    for (id, secret, place) in [("AKIDONE", "one", first), ("AKIDTWO", "two", second)] {
        let credentials = Credentials::new(id, secret, None, None, "test");
        let client = Side { address: listener.address(), credentials }.client(&place.region);
        let keys = client.list_keys().send().await.unwrap();
        let head = place.arn("key/");
        assert_eq!(keys.keys().iter().filter(|key| key.key_arn().unwrap().starts_with(&head)).count(), 2);
    }
}
