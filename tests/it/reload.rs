//! SIGHUP: the configuration is read again by the running process, as a whole or not at all.

use std::path::Path;
use std::sync::Arc;

use ::http::Method;
use alloy_primitives::B256;
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::CertifiedKey;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::http;
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::anvil::parse;
use crate::support::soon;
use crate::support::world::{World, service, transfer};

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;

/// Writes a new self-signed certificate and its key, and says which it is.
fn certificate(folder: &Path, name: &str) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), cert.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// A TLS connection to somebody who has one of these certificates.
async fn secure(address: std::net::SocketAddr, certificates: &[&CertificateDer<'static>]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates {
        roots.add((*certificate).clone()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
    soon("a TLS handshake", connecting).await.unwrap()
}

async fn upgrade(stream: TlsStream<TcpStream>) -> WebSocketStream<TlsStream<TcpStream>> {
    // On the heap: the handshake is a large future.
    let upgrading = Box::pin(tokio_tungstenite::client_async("wss://localhost/payments", stream));
    soon("a handshake", upgrading).await.unwrap().0
}

fn presented(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn ask(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> Value {
    socket.send(Message::text(CALL)).await.unwrap();
    loop {
        if let Message::Text(text) = soon("an answer", socket.next()).await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_and_the_old_connection_goes_on() {
    let Some(mut world) = World::start("a_new_certificate_is_served_and_the_old_connection_goes_on").await else { return };
    world.accounts(1).await;
    let folder = world.folder.path().to_owned();
    let (old, old_admin) = (certificate(&folder, "server"), certificate(&folder, "admin"));
    world.extra.server = "tls = { certificate = \"server.pem\", key = \"server.key\" }".into();
    world.extra.admin = "tls = { certificate = \"admin.pem\", key = \"admin.key\" }".into();
    let mut gateway = world.listening().await;
    let stream = secure(gateway.listen, &[&old]).await;
    let mut socket = upgrade(stream).await;
    assert_eq!(ask(&mut socket).await["result"], "0x7a69");

    let (new, new_admin) = (certificate(&folder, "server"), certificate(&folder, "admin"));
    assert_eq!(presented(&secure(gateway.listen, &[&old, &new]).await), old, "not before it is told");
    gateway.process.hang_up();
    gateway.process.until("the configuration to be read", |log| async move { log.contains("is in force").then_some(()) }).await;
    assert_eq!(presented(&secure(gateway.listen, &[&old, &new]).await), new);
    assert_eq!(presented(&secure(gateway.admin, &[&old_admin, &new_admin]).await), new_admin);
    for told in [r#""server_certificate":"changed""#, r#""admin_certificate":"changed""#] {
        assert!(gateway.process.log().contains(told), "{told}");
    }
    let stream = secure(gateway.listen, &[&new]).await;
    let mut anew = upgrade(stream).await;
    assert_eq!(ask(&mut anew).await["result"], "0x7a69");
    assert_eq!(ask(&mut socket).await["result"], "0x7a69", "the old connection goes on");

    // A key that does not belong to the certificate is refused, and the one before is served.
    certificate(&folder, "other");
    std::fs::copy(folder.join("other.key"), folder.join("server.key")).unwrap();
    gateway.process.hang_up();
    gateway.process.until("the refusal", |log| async move { log.contains("the one before goes on").then_some(()) }).await;
    assert_eq!(presented(&secure(gateway.listen, &[&old, &new]).await), new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_needed_and_the_old_socket_goes_on() {
    let Some(mut world) = World::start("a_new_token_is_needed_and_the_old_socket_goes_on").await else { return };
    world.accounts(1).await;
    let file = world.folder.path().join("token");
    std::fs::write(&file, "old-s3cret\n").unwrap();
    world.extra.server = "token_file = \"token\"".into();
    let mut gateway = world.gateway().await;
    let (old, new) = (("authorization", "Bearer old-s3cret"), ("authorization", "Bearer new-s3cret"));
    let socket = soon("a handshake", Client::connect(&gateway.url("ws"), &[old])).await.unwrap();
    assert_eq!(gateway.reload().await.0, "applied");
    assert_eq!(gateway.status().await["configuration"]["lastReload"]["server"], json!({ "token": "unchanged", "certificate": null }));
    // As `mv` replaces it: another file of this name.
    let beside = world.folder.path().join("token.new");
    std::fs::write(&beside, "new-s3cret\n").unwrap();
    std::fs::rename(&beside, &file).unwrap();
    assert_eq!(gateway.reload().await.0, "applied");
    let last = gateway.status().await["configuration"]["lastReload"].clone();
    assert_eq!((&last["server"]["token"], &last["admin"]["token"]), (&json!("changed"), &json!(null)));
    assert!(gateway.process.log().contains(r#""server_token":"changed""#));
    for (token, answer) in [(old, 401), (new, 200)] {
        let headers = [token, ("content-type", "application/json")];
        assert_eq!(http::send(Method::POST, &gateway.url("http"), &headers, CALL).await.unwrap().0, answer);
        match (answer, soon("a handshake", Client::connect(&gateway.url("ws"), &[token])).await) {
            (200, Ok(client)) => assert_eq!(client.request("eth_chainId", json!([])).await.unwrap(), "0x7a69"),
            (401, Err(ClientError::Status(401))) => {}
            (_, other) => panic!("{:?}", other.err()),
        }
    }
    assert_eq!(socket.request("eth_chainId", json!([])).await.unwrap(), "0x7a69");
    let page = gateway.status().await.to_string();
    assert!(!gateway.process.log().contains("s3cret") && !page.contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_added_and_one_is_removed_while_its_transactions_are_followed() {
    let test = "a_service_is_added_and_one_is_removed_while_its_transactions_are_followed";
    let Some(mut world) = World::start_with(test, &["--no-mining"]).await else { return };
    let account = world.accounts(1).await[0];
    let payroll = world.accounts_of("payroll", 1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
    let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(account, 1)).await.unwrap());
    assert!(matches!(Client::connect(&format!("ws://{}/payroll", gateway.listen), &[]).await, Err(ClientError::Status(404))));

    // Signed and not answered yet when the service goes.
    world.slow_signs(1_000);
    let late = client.start("eth_sendTransaction", transfer(account, 2));
    crate::support::eventually("a Sign", || async { (world.kms_proxy.stats().digests.len() == 2).then_some(()) }).await;
    world.service = "payroll".into();
    world.configuration();
    assert_eq!(gateway.reload().await, ("applied".to_owned(), Vec::new()));
    let error = client.request("eth_sendTransaction", transfer(account, 3)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some(-32002), Some("service_removed")));
    let second: B256 = parse(&soon("the answer", late).await.unwrap());
    world.slow_signs(0);
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let block = soon("a receipt", receipts.next()).await.unwrap();
        seen.extend(block.as_array().unwrap().iter().map(|receipt| parse::<B256>(&receipt["transactionHash"])));
        world.anvil.call("evm_mine", json!([])).await.unwrap();
    }
    assert_eq!(seen, [hash, second], "its streams go on");
    assert!(matches!(Client::connect(&gateway.url("ws"), &[]).await, Err(ClientError::Status(404))));

    let added = gateway.connect_to("payroll").await;
    assert_eq!(added.request("eth_accounts", json!([])).await.unwrap(), json!([payroll]));
    let hash: B256 = parse(&added.request("eth_sendTransaction", transfer(payroll, 1)).await.unwrap());
    world.anvil.call("evm_mine", json!([])).await.unwrap();
    world.mined(hash).await;
    assert_eq!(gateway.status().await["services"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retagged_key_changes_its_service_and_keeps_its_nonces() {
    let Some(mut world) = World::start("a_retagged_key_changes_its_service_and_keeps_its_nonces").await else { return };
    let account = world.accounts(1).await[0];
    world.accounts_of("payroll", 1).await;
    world.extra.service = service("payroll", "dev", "payroll");
    let mut gateway = world.gateway().await;
    let (payments, payroll) = (gateway.connect().await, gateway.connect_to("payroll").await);
    for value in 0..2 {
        let hash: B256 = parse(&payments.request("eth_sendTransaction", transfer(account, value)).await.unwrap());
        world.mined(hash).await;
    }
    let keys = world.kms.call("ListKeys", json!({})).await;
    for key in keys["Keys"].as_array().unwrap() {
        let tags = json!([{ "TagKey": "app", "TagValue": "payroll" }]);
        world.kms.call("TagResource", json!({ "KeyId": key["KeyId"], "Tags": tags })).await;
    }
    let before = world.kms_proxy.stats().calls_of("GetPublicKey");
    assert!(payments.request("eth_accounts", json!([])).await.unwrap().as_array().unwrap().len() == 1, "not before it is told");
    assert_eq!(gateway.reload().await.0, "applied");
    assert_eq!(world.kms_proxy.stats().calls_of("GetPublicKey"), before, "public keys are on record for life");
    assert_eq!(payments.request("eth_accounts", json!([])).await.unwrap(), json!([]));
    let error = payments.request("eth_sendTransaction", transfer(account, 9)).await.unwrap_err();
    assert_eq!(error.reason(), Some("unknown_account"), "by the connection that used it a moment ago");
    let stream = json!(["transactions", { "from": account }]);
    let error = payments.request("sluice_subscribe", stream.clone()).await.unwrap_err();
    assert_eq!(error.reason(), Some("unknown_account"), "nor is it one that streams can be asked for");
    assert!(payroll.request("sluice_subscribe", stream).await.unwrap().is_string(), "as it is by a connection of its new service");
    assert_eq!(payroll.request("eth_accounts", json!([])).await.unwrap().as_array().unwrap().len(), 2);
    let hash: B256 = parse(&payroll.request("eth_sendTransaction", transfer(account, 3)).await.unwrap());
    world.mined(hash).await;
    assert_eq!(world.anvil.nonces().await[&account], [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_changes_nothing_and_every_error_is_told() {
    let Some(world) = World::start("a_wrong_file_changes_nothing_and_every_error_is_told").await else { return };
    let account = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    let good = std::fs::read_to_string(world.configuration()).unwrap();
    let file = world.folder.path().join("sluice.toml");
    let wrong =
        good.replace("chain_id = 31337", "chain_id = \"many\"").replace("configurations = [\"kms\"]", "configurations = [\"kmss\"]");
    // A right part beside the wrong ones is not applied either.
    std::fs::write(&file, wrong.replace("[server]", "[server]\nmax_batch_items = 1")).unwrap();
    let (outcome, errors) = gateway.reload().await;
    assert_eq!(outcome, "refused");
    for key in ["environment.dev.chain_id", "service.payments.configurations[0]"] {
        assert!(errors.iter().any(|error| error.starts_with(key)), "{key}: {errors:?}");
        assert!(gateway.process.log().contains(key));
    }
    for broken in ["[server", ""] {
        std::fs::write(&file, broken).unwrap();
        assert_eq!(gateway.reload().await.0, "refused", "{broken:?}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(gateway.reload().await.0, "refused");
    // A token that is not there, and a key store that refuses.
    std::fs::write(&file, good.replace("[server]", "[server]\ntoken_file = \"none\"")).unwrap();
    let (outcome, errors) = gateway.reload().await;
    assert!(outcome == "refused" && errors[0].contains("none"), "{errors:?}");
    std::fs::write(&file, &good).unwrap();
    let denied = KmsAnswer::Error { status: 400, code: "AccessDeniedException".into(), message: "no".into() };
    world.kms_proxy.set_faults([KmsFault { operation: Some("ListKeys".into()), count: u64::MAX, answer: denied }]);
    let (outcome, errors) = gateway.reload().await;
    assert!(outcome == "refused" && errors[0].contains("payments"), "{errors:?}");
    world.kms_proxy.set_faults([]);
    // The keys of the first service are found, one of them disabled; the second service names one that is not there.
    let keys = world.kms.call("ListKeys", json!({})).await["Keys"].clone();
    world.kms.call("DisableKey", json!({ "KeyId": keys[0]["KeyId"] })).await;
    let missing = service("payroll", "dev", "payroll")
        .replace("tag = { app = \"payroll\" }", "ids = [\"arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000000\"]");
    std::fs::write(&file, format!("{good}{missing}")).unwrap();
    let (outcome, errors) = gateway.reload().await;
    assert!(outcome == "refused" && errors[0].contains("payroll"), "{errors:?}");
    assert_eq!(client.request("eth_accounts", json!([])).await.unwrap(), json!([account]), "the key's state was not read");
    world.kms.call("EnableKey", json!({ "KeyId": keys[0]["KeyId"] })).await;
    std::fs::write(&file, &good).unwrap();

    assert!(client.batch(&[("eth_chainId", json!([])), ("eth_chainId", json!([]))]).await.unwrap().iter().all(Result::is_ok));
    let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(account, 1)).await.unwrap());
    world.mined(hash).await;
    let page = gateway.status().await;
    assert_eq!(page["configuration"]["reloads"], json!({ "applied": 0, "refused": 7 }));
    assert_eq!(gateway.reload().await, ("applied".to_owned(), Vec::new()), "once it is right again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    let Some(mut world) = World::start("what_needs_a_restart_is_named_and_the_rest_is_in_force").await else { return };
    let account = world.accounts(1).await[0];
    let mut gateway = world.gateway().await;
    let client = gateway.connect().await;
    world.extra.environment = "confirmations = 3".into();
    world.extra.server = "origins = [\"https://app.example.org\"]\nmax_batch_items = 1".into();
    world.extra.tail = "[log]\nlevel = \"sluice_gateway=debug\"\n".into();
    world.configuration();
    assert!(!gateway.process.log().contains("\"DEBUG\""));
    assert_eq!(gateway.reload().await.0, "applied");
    assert_eq!(gateway.status().await["configuration"]["needsRestart"], json!(["environment.dev.confirmations"]));
    assert!(gateway.process.log().contains("environment.dev.confirmations"));
    let headers = [("content-type", "application/json"), ("origin", "https://app.example.org")];
    assert_eq!(http::send(Method::POST, &gateway.url("http"), &headers, CALL).await.unwrap().0, 200);
    let refused = client.batch(&[("eth_chainId", json!([])), ("eth_chainId", json!([]))]).await;
    assert!(refused.is_err() || refused.unwrap().iter().any(Result::is_err), "the live connection goes by the new limit");
    let hash: B256 = parse(&client.request("eth_sendTransaction", transfer(account, 1)).await.unwrap());
    world.mined(hash).await;
    // What a passing fault of the key store is told at.
    world.kms_proxy.set_faults([KmsFault { operation: Some("ListKeys".into()), count: 1, answer: KmsAnswer::throttled() }]);
    assert_eq!(gateway.reload().await.0, "applied");
    assert!(gateway.process.log().contains("\"DEBUG\""), "the level of the log");
    // A service over an environment that does not run, alone: there would be nothing to serve.
    let good = std::fs::read_to_string(world.configuration()).unwrap();
    let moved = good.replace("\"dev\"", "\"main\"");
    std::fs::write(world.folder.path().join("sluice.toml"), moved).unwrap();
    let (outcome, errors) = gateway.reload().await;
    // The service stays on what runs, since it is one that runs.
    assert_eq!((outcome.as_str(), errors.is_empty()), ("applied", true), "{errors:?}");
    let named = json!(["environment.dev (removed)", "environment.main (added)", "service.payments.environment"]);
    assert_eq!(gateway.status().await["configuration"]["needsRestart"], named);
    std::fs::write(
        world.folder.path().join("sluice.toml"),
        good.replace("\"dev\"", "\"main\"").replace("name = \"payments\"", "name = \"new\""),
    )
    .unwrap();
    let (outcome, errors) = gateway.reload().await;
    assert!(outcome == "refused" && errors[0].contains("service.new.environment"), "{errors:?}");
    assert_eq!(client.request("eth_chainId", json!([])).await.unwrap(), "0x7a69");
    // As it was: nothing needs a restart any more.
    world.extra = Default::default();
    world.configuration();
    assert_eq!(gateway.reload().await.0, "applied");
    assert_eq!(gateway.status().await["configuration"]["needsRestart"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_in_the_middle_of_sends_lose_and_double_nothing() {
    let Some(mut world) = World::start("reloads_in_the_middle_of_sends_lose_and_double_nothing").await else { return };
    let accounts = world.accounts(2).await;
    let mut gateway = world.gateway().await;
    let client = Arc::new(gateway.connect().await);
    let mut told = Vec::<B256>::new();
    for round in 0..8u64 {
        world.slow_signs(30);
        let sends: Vec<_> =
            (0..20).map(|i| client.start("eth_sendTransaction", transfer(accounts[i % 2], round * 100 + i as u64))).collect();
        // Another limit each time, so that there is something to exchange.
        world.extra.server = format!("max_batch_items = {}", 100 + round);
        world.configuration();
        assert_eq!(gateway.reload().await.0, "applied");
        for send in sends {
            told.push(parse(&soon("an answer", send).await.unwrap()));
        }
    }
    for hash in &told {
        world.mined(*hash).await;
    }
    let nonces = world.anvil.nonces().await;
    for account in &accounts {
        assert_eq!(nonces[account], (0..80).collect::<Vec<_>>());
    }
    assert_eq!(gateway.status().await["configuration"]["reloads"], json!({ "applied": 8, "refused": 0 }));
}
