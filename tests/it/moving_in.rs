//! `sluice keys import` and `sluice keys replicate`: an address moves into KMS, and into a second Region.

use std::path::Path;
use std::process::Output;

use alloy_primitives::{Address, address};
use serde_json::json;
use sluice_load_tests::faults::Faults;
use sluice_load_tests::sim_kms::{Fault, KeyState, KmsError, Settings, SimKms};

use crate::support::ANYWHERE;
use crate::support::gateway::{parsed, run, sluice, words};
use crate::support::kms::Kms;
use crate::support::parts::{Part, have};

/// The password is `testpassword`.
const KEYSTORE: &str = include_str!("../../src/signing/keystore/fixtures/scrypt.json");
const OWNER: Address = address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
/// The private key in it.
const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";

/// A file with a configuration in each of two Regions, a keystore and its password.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str, region: &str| {
            format!(
                "[[configuration]]\nname = \"{name}\"\nprovider = \"aws_kms\"\nregion = \"{region}\"\nendpoint = \"{endpoint}\"\n\
                 access_key_id = {{ env = \"TEST_ACCESS_KEY_ID\" }}\nsecret_access_key = {{ env = \"TEST_SECRET_ACCESS_KEY\" }}\n"
            )
        };
        let text = format!(
            "journal.path = \"sluice.db\"\n[[environment]]\nname = \"dev\"\nchain_id = 31337\nnodes = [{{ url = \"ws://127.0.0.1:9\" }}]\n\
             {}{}[[service]]\nname = \"payments\"\nenvironment = \"dev\"\nconfigurations = [\"us\", \"eu\"]\n\
             keys = {{ tag = {{ app = \"payments\" }} }}\n",
            source("us", "us-east-1"),
            source("eu", "eu-west-1")
        );
        std::fs::write(folder.path().join("sluice.toml"), text).unwrap();
        std::fs::write(folder.path().join("key"), KEYSTORE).unwrap();
        std::fs::write(folder.path().join("password"), "testpassword\n").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    async fn run(&self, command: &str, more: &[&str]) -> Output {
        let file = self.path("sluice.toml");
        let mut child = sluice(&["keys", command, &file]);
        child.args(more).env("TEST_PASSWORD", "testpassword");
        let output = tokio::task::spawn_blocking(move || run(child)).await.unwrap();
        for leak in [SECRET, "testpassword"] {
            assert!(!words(&output).contains(leak), "{}", words(&output));
        }
        output
    }

    async fn import(&self, more: &[&str]) -> Output {
        let (key, password) = (self.path("key"), self.path("password"));
        self.run("import", &[&[key.as_str(), "--password-file", &password, "--json"], more].concat()).await
    }
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", words(output));
    words(output)
}

fn nothing_else_is_there(folder: &Path) {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["key", "password", "sluice.toml"], "the plain key never touches the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_moves_into_kms_and_into_a_second_region() {
    let kms = SimKms::new(Settings::new(3, 0));
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let desk = Desk::new(&listener.url());
    let tags = ["--configuration", "us", "--multi-region", "--alias", "treasury", "--tag", "app=payments"];
    let key = parsed(&desk.import(&tags).await);
    assert_eq!((&key["address"], &key["aliases"]), (&json!(OWNER), &json!(["alias/treasury"])));
    let arn = key["arn"].as_str().unwrap();
    assert_eq!(kms.with(|kms, _| (kms.key(arn).unwrap().address(), kms.key(arn).unwrap().state)), (OWNER, KeyState::Enabled));
    nothing_else_is_there(desk.folder.path());

    // AWS copies no imported material: the replica is there, waits for it, and the command says so.
    let waits = desk.run("replicate", &["alias/treasury", "eu-west-1", "--configuration", "us"]).await;
    let replica = arn.replace("us-east-1", "eu-west-1");
    assert!(refused(&waits).contains(&format!("--configuration eu --key-id {replica}")), "{}", words(&waits));
    let filled = parsed(&desk.import(&["--configuration", "eu", "--key-id", &replica]).await);
    assert_eq!((&filled["address"], &filled["arn"]), (&json!(OWNER), &json!(replica)));
    // Said again, it finds that all is done.
    let whole = parsed(&desk.run("replicate", &[arn, "eu-west-1", "--configuration", "us", "--json"]).await);
    assert_eq!(whole, json!({ "address": OWNER, "arn": replica }));
    assert!(refused(&desk.run("replicate", &[&replica, "us-east-1", "--configuration", "eu"]).await).contains("is a replica itself"));
    let listed = parsed(&desk.run("list", &["--json"]).await);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["arns"]), (1, &json!([replica, arn])), "{listed}: sorted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_kms_made_is_replicated_and_works_at_once() {
    let kms = SimKms::new(Settings { replica_regions: vec!["ap-south-1".into()], ..Settings::new(5, 1) }.with_tag("app", "payments"));
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let desk = Desk::new(&listener.url());
    let (arn, address) = kms.with(|kms, _| (kms.keys()[0].arn.clone(), kms.keys()[0].address()));
    let replica = parsed(&desk.run("replicate", &[&arn, "eu-west-1", "--configuration", "us", "--json"]).await);
    assert_eq!(replica, json!({ "address": address, "arn": arn.replace("us-east-1", "eu-west-1") }));
    let copied = kms.with(|kms, _| kms.key(replica["arn"].as_str().unwrap()).unwrap().clone());
    assert_eq!((copied.state, copied.tags["app"].as_str()), (KeyState::Enabled, "payments"), "a service that goes by tags finds it");
    let nowhere = desk.run("replicate", &[&arn, "sa-east-1", "--configuration", "us"]).await;
    assert_eq!(nowhere.status.code(), Some(2), "the endpoint of that Region is not known: {}", words(&nowhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_ends_half_way_says_what_there_is_and_goes_on() {
    let kms = SimKms::new(Settings::new(4, 0));
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let desk = Desk::new(&listener.url());
    let denied = || Fault::Error(KmsError::new("AccessDeniedException", "not authorized"));
    std::fs::write(desk.folder.path().join("wrong"), "nonsense\n").unwrap();
    let wrong = desk.run("import", &[&desk.path("key"), "--password-file", &desk.path("wrong"), "--configuration", "us"]).await;
    assert!(refused(&wrong).contains("/key: "), "{}", words(&wrong));
    assert_eq!(kms.with(|kms, _| kms.keys().len()), 0, "what is wrong here makes nothing there");

    kms.with(|kms, _| kms.set_faults(Faults::default().then("GetParametersForImport", 1, denied())));
    let half = refused(&desk.import(&["--configuration", "us", "--tag", "app=payments"]).await);
    let arn = kms.with(|kms, _| kms.keys()[0].arn.clone());
    assert!(half.contains(&format!("--key-id {arn}")) && half.contains("schedule-key-deletion --region us-east-1"), "{half}");
    // The answer is lost once KMS has the material; the variable works as the file does.
    kms.with(|kms, _| kms.set_faults(Faults::default().then("ImportKeyMaterial", 1, Fault::CutAfter)));
    let arguments = [desk.path("key"), "--password-env".into(), "TEST_PASSWORD".into(), "--key-id".into(), arn.clone()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--configuration", "us", "--json"]).collect();
    assert_eq!(parsed(&desk.run("import", &arguments).await)["address"], json!(OWNER));
    assert_eq!(kms.with(|kms, _| kms.keys().len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_that_others_wrote_takes_the_key_too() {
    if !have("the_emulator_that_others_wrote_takes_the_key_too", &[Part::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kms = Kms::start(folder.path()).await;
    let desk = Desk::new(&format!("http://{}", kms.address));
    let key = parsed(&desk.import(&["--configuration", "us", "--tag", "app=payments", "--description", "moved"]).await);
    assert_eq!(key["address"], json!(OWNER));
    let described = kms.call("DescribeKey", json!({ "KeyId": key["arn"] })).await;
    let metadata = &described["KeyMetadata"];
    assert_eq!(
        (&metadata["Origin"], &metadata["KeyState"], &metadata["Description"]),
        (&json!("EXTERNAL"), &json!("Enabled"), &json!("moved"))
    );
}
