//! All that an unmodified ethers does with keys in KMS, over HTTP, WebSocket and TLS.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::gateway::words;
use crate::support::world::World;
use crate::support::{parts, soon};

/// Runs tests/clients/ethers_kms.mjs to its end.
async fn ethers(url: String, authority: Option<String>) {
    let mut command = Command::new("node");
    command.arg(parts::client("ethers_kms.mjs")).arg(url).stdin(Stdio::null());
    if let Some(authority) = authority {
        command.env("NODE_EXTRA_CA_CERTS", authority);
    }
    let output = soon("ethers", tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    assert!(words(&output).ends_with("done\n"), "{}", words(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_over_http() {
    let Some(world) = World::start("ethers_over_http").await else { return };
    world.accounts(2).await;
    let gateway = world.gateway().await;
    ethers(gateway.url("http"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_over_websocket() {
    let Some(world) = World::start("ethers_over_websocket").await else { return };
    world.accounts(2).await;
    let gateway = world.gateway().await;
    ethers(gateway.url("ws"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_over_https_and_wss() {
    let Some(mut world) = World::start("ethers_over_https_and_wss").await else { return };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (world.folder.path().join("tls.pem"), world.folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    world.extra.server = "tls = { certificate = \"tls.pem\", key = \"tls.key\" }".into();
    world.accounts(2).await;
    let gateway = world.gateway().await;
    for scheme in ["https", "wss"] {
        ethers(gateway.url(scheme), Some(certificate.to_str().unwrap().into())).await;
    }
    // Without the certificate nobody gets in: ethers did check it.
    let plain = gateway.call("eth_chainId", json!([])).await;
    assert!(plain.is_err(), "plain HTTP on a port with TLS");
}
