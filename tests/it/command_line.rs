//! The commands: what they say and how they end.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::anvil::{Anvil, parse};
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, run, sluice, words};
use crate::support::parts::{Part, have};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

/// Runs `sluice check --offline` on this text.
fn check(folder: &Path, text: &str) -> Output {
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    run(sluice(&["check", path.to_str().unwrap(), "--offline"]))
}

/// A good configuration, of a node and a KMS that nothing listens for.
fn good() -> String {
    let keys = Keys::Kms("http://127.0.0.1:9");
    Configuration { chain_id: 31337, node: "ws://127.0.0.1:9", keys, service: "payments", extra: &Extra::default() }.text()
}

#[test]
fn the_version_is_that_of_the_package() {
    let output = run(sluice(&["--version"]));
    assert!(output.status.success());
    assert_eq!(words(&output).trim(), format!("sluice {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [&[][..], &["nonsense"], &["serve"], &["check", "a", "--nonsense"], &["keys", "create"]] {
        assert_eq!(run(sluice(arguments)).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn check_says_every_error_at_once_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let checked = check(folder.path(), &good());
    assert_eq!(checked.status.code(), Some(0), "{}", words(&checked));
    let bad = good()
        .replace("chain_id = 31337", "chain_id = 31337\nanswer_after = \"2\"\nconfirmation = 3")
        .replace("configurations = [\"kms\"]", "configurations = [\"kmss\"]")
        .replace("ws://127.0.0.1:9", "ftp://127.0.0.1:1");
    let bad = check(folder.path(), &bad);
    assert_eq!(bad.status.code(), Some(2), "{}", words(&bad));
    for place in
        ["environment.dev.answer_after", "environment.dev.confirmation", "service.payments.configurations", "environment.dev.nodes"]
    {
        assert!(words(&bad).contains(place), "{place} is not named:\n{}", words(&bad));
    }
    assert_eq!(check(folder.path(), "[server").status.code(), Some(2));
    assert_eq!(run(sluice(&["check", folder.path().join("none.toml").to_str().unwrap()])).status.code(), Some(2));
}

#[test]
fn the_environment_overrides_the_file_and_unknown_names_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sluice.toml");
    std::fs::write(&path, good()).unwrap();
    let with = |name: &str, value: &str| {
        let mut command = sluice(&["check", path.to_str().unwrap(), "--offline"]);
        command.env(name, value);
        run(command)
    };
    assert_eq!(with("SLUICE__SERVER__LISTEN", "127.0.0.1:1234").status.code(), Some(0));
    assert_eq!(with("SLUICE_SERVICE_HOST", "10.0.0.1").status.code(), Some(0), "Kubernetes injects such names");
    for (name, value) in
        [("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "many"), ("SLUICE__SERVER__LISTNE", "127.0.0.1:1"), ("SLUICE__NONSENSE", "1")]
    {
        let output = with(name, value);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(words(&output).contains(name), "{}", words(&output));
    }
}

#[test]
fn other_addresses_than_loopback_need_a_token_and_tls() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    for table in ["server", "admin"] {
        let open = |more: &str| {
            good().replace(&format!("[{table}]\nlisten = \"127.0.0.1:0\""), &format!("[{table}]\nlisten = \"0.0.0.0:0\"\n{more}"))
        };
        for more in ["", "plaintext = true", "token_file = \"token\""] {
            let text = open(more);
            let output = check(folder.path(), &text);
            assert_eq!(output.status.code(), Some(2), "{table} with {more:?}");
            assert!(words(&output).contains(&format!("{table}.")), "{}", words(&output));
            // The same file does not serve.
            let serve = run(sluice(&["serve", folder.path().join("sluice.toml").to_str().unwrap()]));
            assert_eq!(serve.status.code(), Some(2), "{}", words(&serve));
        }
        let output = check(folder.path(), &open("token_file = \"token\"\nplaintext = true"));
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    }
}

#[test]
fn a_system_without_ca_certificates_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, good()).unwrap();
    let mut command = sluice(&["serve", file.to_str().unwrap()]);
    let nothing = folder.path().join("nothing");
    command.env("SSL_CERT_FILE", &nothing).env("SSL_CERT_DIR", &nothing);
    let output = run(command);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("this system has no CA certificates"), "{}", words(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_proves_node_chain_and_keys() {
    let Some(world) = World::start("check_proves_node_chain_and_keys").await else { return };
    let file = world.configuration();
    let checked = |more: Vec<(&'static str, &'static str)>| {
        let mut command = sluice(&["check", &file]);
        command.envs(more);
        soon("check", tokio::task::spawn_blocking(|| run(command)))
    };
    let none = checked(vec![]).await.unwrap();
    assert_eq!(none.status.code(), Some(1), "no key yet: {}", words(&none));
    let address = world.accounts(1).await[0];
    let good = checked(vec![]).await.unwrap();
    assert_eq!(good.status.code(), Some(0), "{}", words(&good));
    assert!(words(&good).contains(&address.to_string()), "{}", words(&good));
    assert!(!world.journal().exists(), "check leaves nothing behind");
    let no_token = checked(vec![("SLUICE__SERVER__TOKEN_FILE", "no-such-token")]).await.unwrap();
    assert!(no_token.status.code() == Some(1) && words(&no_token).contains("no-such-token"), "{}", words(&no_token));
    let other_chain = checked(vec![("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "1")]).await.unwrap();
    assert_eq!(other_chain.status.code(), Some(1), "{}", words(&other_chain));
    assert!(words(&other_chain).contains("31337"), "{}", words(&other_chain));
    let no_kms = checked(vec![("SLUICE__CONFIGURATION__KMS__ENDPOINT", "http://127.0.0.1:1")]).await.unwrap();
    assert_eq!(no_kms.status.code(), Some(1), "{}", words(&no_kms));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_created_with_spec_tags_and_alias_and_listed() {
    let Some(world) = World::start("keys_are_created_with_spec_tags_and_alias_and_listed").await else { return };
    let file = world.configuration();
    let create = sluice(&["keys", "create", &file, "--tag", "app=payments", "--tag", "team=blue", "--alias", "first", "--json"]);
    let output = run(create);
    assert!(output.status.success(), "{}", words(&output));
    let key: Value = serde_json::from_slice(&output.stdout).unwrap();
    let described = world.kms.call("DescribeKey", json!({ "KeyId": "alias/first" })).await;
    assert_eq!(described["KeyMetadata"]["Arn"], key["arn"]);
    assert_eq!(described["KeyMetadata"]["KeySpec"], "ECC_SECG_P256K1");
    assert_eq!(described["KeyMetadata"]["KeyUsage"], "SIGN_VERIFY");
    let tags = world.kms.call("ListResourceTags", json!({ "KeyId": key["arn"] })).await;
    for (name, value) in [("app", "payments"), ("team", "blue")] {
        assert!(tags["Tags"].as_array().unwrap().contains(&json!({ "TagKey": name, "TagValue": value })), "{tags}");
    }
    // A key without the tag of the service is not its key.
    let other = run(sluice(&["keys", "create", &file, "--tag", "app=other"]));
    assert!(other.status.success(), "{}", words(&other));
    let listed = run(sluice(&["keys", "list", &file, "--json"]));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["address"].as_str().unwrap().to_lowercase(), key["address"]);
    assert_eq!((&listed[0]["arns"], &listed[0]["aliases"]), (&json!([key["arn"]]), &json!(["alias/first"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_the_well_known_addresses_of_a_development_node_only() {
    let test = "dev_serves_the_well_known_addresses_of_a_development_node_only";
    if !have(test, &[Part::Node]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let anvil = Anvil::start(folder.path(), &[]).await;
    let node = format!("ws://{}", anvil.address);
    let dev = sluice(&["dev", "--node", &node, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let gateway = Gateway::start(dev, "dev", &folder.path().join("dev.log")).await.ready().await;
    let accounts = gateway.call("eth_accounts", json!([])).await.unwrap();
    assert_eq!(accounts.as_array().unwrap().len(), 10);
    // The first address of the mnemonic that every development node prints.
    let first = parse(&json!("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
    let hash = soon("an answer", gateway.call("eth_sendTransaction", transfer(first, 1))).await.unwrap();
    eventually("a receipt", || anvil.receipt(parse(&hash))).await;
    let mined = anvil.mined().await;
    assert_eq!(mined.iter().map(|one| (one.from, one.hash)).collect::<Vec<_>>(), [(first, parse(&hash))]);
    let refused = run(sluice(&["dev", "--node", &node, "--chain-id", "1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]));
    assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
}
