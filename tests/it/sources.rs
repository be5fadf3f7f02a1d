//! More than one source of keys: accounts, Regions, roles, and credentials that come and go.

use std::path::Path;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use serde_json::json;
use sluice_load_tests::kms_proxy::KmsProxy;
use sluice_load_tests::sim_kms::{AccessKey, KeyState, Place, Settings, SimKms};
use sluice_load_tests::sim_node::{self, SimNode};
use tokio_util::task::AbortOnDropHandle;

use crate::support::gateway::{Gateway, printed, sluice};
use crate::support::kms::Kms;
use crate::support::parts::{Part, have};
use crate::support::sts::{Sts, access_keys};
use crate::support::world::transfer;
use crate::support::{ANYWHERE, soon};

const SEED: u64 = 23;
const HOME: &str = "111122223333";
const OTHER: &str = "444455556666";
const HOUR: Duration = Duration::from_secs(3600);
const STATIC: &str = "access_key_id = { env = \"TEST_ACCESS_KEY_ID\" }\nsecret_access_key = { env = \"TEST_SECRET_ACCESS_KEY\" }";

/// A configuration's table.
fn source(name: &str, region: &str, endpoint: &str, lines: &str) -> String {
    format!(
        "[[configuration]]\nname = \"{name}\"\nprovider = \"aws_kms\"\nregion = \"{region}\"\nendpoint = \"{endpoint}\"\n\
         sign_deadline = \"1m\"\n{lines}\n"
    )
}

/// Writes a file with these sources, all of one service, and says where it is.
fn file(folder: &Path, node: &str, sources: &[String], names: &[&str], keys: &str) -> String {
    let text = format!(
        "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\njournal.path = \"sluice.db\"\n[[environment]]\nname = \"dev\"\n\
         chain_id = 31337\nnodes = [{{ url = \"{node}\" }}]\nconfirmations = 1\n{}[[service]]\nname = \"payments\"\nenvironment = \"dev\"\n\
         configurations = {names:?}\n{keys}\n",
        sources.concat()
    );
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A node that mines, with ether for these: its URL, and what keeps it there.
async fn node(accounts: Vec<Address>) -> (String, impl Sized) {
    let ether = U256::from(1_000_000_000_000_000_000_u64);
    let node = SimNode::new(sim_node::Settings::new(sim_node::Client::Geth, 31337, SEED).with_balance(ether, accounts));
    let listener = node.listen(ANYWHERE).await.unwrap();
    let blocks = tokio::spawn(async move { node.run_blocks(Duration::from_millis(200)).await });
    (listener.url(), (listener, AbortOnDropHandle::new(blocks)))
}

/// The address of the first key.
fn first(kms: &SimKms) -> Address {
    kms.with(|kms, _| kms.keys()[0].address())
}

async fn pay(gateway: &Gateway, from: Address, value: u64) {
    soon("an answer", gateway.call("eth_sendTransaction", transfer(from, value))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_at_the_emulator_and_kms_sees_its_credentials() {
    if !have("a_role_is_assumed_at_the_emulator_and_kms_sees_its_credentials", &[Part::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let aws = Kms::start_with(folder.path(), "kms,sts").await;
    let proxy = KmsProxy::start(aws.address).await.unwrap();
    let lines = format!(
        "{STATIC}\nsts_endpoint = \"http://{}\"\nrole_arn = \"arn:aws:iam::000000000000:role/signer\"\nexternal_id = \"our-customer\"",
        aws.address
    );
    let path = file(folder.path(), "ws://127.0.0.1:9", &[source("kms", "us-east-1", &proxy.url(), &lines)], &["kms"], "");
    let created = printed(&["keys", "create", &path, "--json"]).await;
    assert!(created["arn"].as_str().unwrap().contains(":000000000000:"), "{created}");
    let seen: Vec<String> = proxy.stats().access_keys.into_keys().collect();
    assert!(matches!(seen.as_slice(), [one] if one.starts_with("ASIA")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_and_a_web_identity_are_asked_for_as_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let sts = Sts::start(OTHER, HOUR).await;
    let kms = SimKms::new(Settings { access_keys: access_keys(OTHER), ..Settings::new(SEED, 0) });
    let listener = kms.listen(ANYWHERE).await.unwrap();
    std::fs::write(folder.path().join("token"), "the-web-token\n").unwrap();
    let role = format!("sts_endpoint = \"{}\"\nrole_arn = \"arn:aws:iam::{OTHER}:role/signer\"", sts.url);
    for lines in [
        format!("{STATIC}\n{role}\nexternal_id = \"our-customer\"\nsession_name = \"blue\""),
        format!("{role}\nweb_identity_token_file = \"token\""),
    ] {
        let path = file(folder.path(), "ws://127.0.0.1:9", &[source("kms", "us-east-1", &listener.url(), &lines)], &["kms"], "");
        let created = printed(&["keys", "create", &path, "--json"]).await;
        // KMS checks signature and token, and says whose they are.
        assert!(created["arn"].as_str().unwrap().contains(OTHER), "{created}");
    }
    let asked = sts.asked();
    let [assumed, web] = asked.as_slice() else { panic!("{asked:?}") };
    for part in ["Action=AssumeRole&", "ExternalId=our-customer", "RoleSessionName=blue", "444455556666%3Arole%2Fsigner"] {
        assert!(assumed.contains(part), "{part}: {assumed}");
    }
    for part in ["Action=AssumeRoleWithWebIdentity&", "WebIdentityToken=the-web-token", "RoleSessionName=sluice"] {
        assert!(web.contains(part), "{part}: {web}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_few_seconds_are_renewed_while_signs_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let sts = Sts::start(HOME, Duration::from_secs(8)).await;
    let kms = SimKms::new(Settings { access_keys: access_keys(HOME), ..Settings::new(SEED, 1) });
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let proxy = KmsProxy::start(listener.address()).await.unwrap();
    let (node, _running) = node(vec![first(&kms)]).await;
    let path = file(folder.path(), &node, &[source("kms", "us-east-1", &proxy.url(), "")], &["kms"], "");
    let mut command = sluice(&["serve", &path]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/credentials", sts.url));
    let gateway = Gateway::start(command, "payments", &folder.path().join("gateway.log")).await.ready().await;
    let mut value = 0;
    soon("Signs by three credentials", async {
        while proxy.stats().access_keys.len() < 3 {
            value += 1;
            pay(&gateway, first(&kms), value).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(sts.asked().len() >= 3 && sts.asked().iter().all(|asked| asked == "container"), "{:?}", sts.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_join_one_key_and_one_that_is_down_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let kms = SimKms::new(Settings { replica_regions: vec!["eu-west-1".into()], ..Settings::new(SEED, 1) });
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let address = first(&kms);
    let (node, _running) = node(vec![address]).await;
    let sources = [source("us", "us-east-1", &listener.url(), STATIC), source("eu", "eu-west-1", &listener.url(), STATIC)];
    let path = file(folder.path(), &node, &sources, &["us", "eu"], "");
    let mut gateway = Gateway::start(sluice(&["serve", &path]), "payments", &folder.path().join("gateway.log")).await.ready().await;
    assert_eq!(gateway.call("eth_accounts", json!([])).await.unwrap().as_array().unwrap().len(), 1, "one address");
    let listed = printed(&["keys", "list", &path, "--json"]).await;
    assert_eq!((&listed[0]["configurations"], listed[0]["arns"].as_array().unwrap().len()), (&json!(["eu", "us"]), 2), "{listed}");
    pay(&gateway, address, 1).await;
    let arns = kms.with(|kms, _| kms.keys().iter().map(|key| key.arn.clone()).collect::<Vec<_>>());
    assert_eq!(kms.with(|kms, _| kms.signed().last().unwrap().arn.clone()), arns[0]);
    kms.with(|kms, _| kms.set_key_state(&arns[0], KeyState::Disabled)).unwrap();
    assert_eq!(gateway.reload().await, ("applied".to_owned(), Vec::new()));
    pay(&gateway, address, 2).await;
    assert_eq!(kms.with(|kms, _| kms.signed().last().unwrap().arn.clone()), arns[1], "the replica of the other Region");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_account_counts_against_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let sts = Sts::start(HOME, HOUR).await;
    let further = vec![Place::new(OTHER, "us-east-1")];
    let access_keys = vec![AccessKey::new("test", "test", HOME)];
    let kms = SimKms::new(Settings { further, access_keys, ..Settings::new(SEED, 1) });
    let (arn, address) = kms.with(|kms, _| {
        let key = kms.keys().iter().find(|key| key.place.account == OTHER).unwrap();
        (key.arn.clone(), key.address())
    });
    let listener = kms.listen(ANYWHERE).await.unwrap();
    let (node, _running) = node(vec![address]).await;
    let lines = format!("{STATIC}\nsts_endpoint = \"{}\"", sts.url);
    let keys = format!("keys = {{ ids = [\"{arn}\"] }}");
    let path = file(folder.path(), &node, &[source("kms", "us-east-1", &listener.url(), &lines)], &["kms"], &keys);
    let gateway = Gateway::start(sluice(&["serve", &path]), "payments", &folder.path().join("gateway.log")).await.ready().await;
    pay(&gateway, address, 1).await;
    assert_eq!(kms.with(|kms, _| kms.signed().last().unwrap().arn.clone()), arn);
    let usage = kms.with(|kms, _| kms.usage());
    assert!(usage.iter().any(|(place, of, usage)| place.account == HOME && of == "Sign" && usage.admitted == 1), "{usage:?}");
    assert!(sts.asked().iter().all(|form| form.contains("Action=GetCallerIdentity")) && sts.asked().len() == 1, "{:?}", sts.asked());
}
