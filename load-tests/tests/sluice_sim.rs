//! The program `sluice-sim`: a KMS and a node of one seed, as processes.
// Tests may panic, and so may what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sluice_load_tests::client::Client;
use sluice_load_tests::http;

/// A running simulator; killed when dropped.
struct Simulator {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Simulator {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-sim"));
        let mut child = command.args(arguments).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// The URL at the end of the first line.
    fn url(&mut self) -> String {
        self.line().rsplit(' ').next().unwrap().to_owned()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_node_and_a_kms_of_one_seed_know_the_same_keys() {
    let mut kms = Simulator::start(&["kms", "--seed", "7", "--keys", "1", "--tag", "app=payments", "--delays", "1,2,3"]);
    let mut node = Simulator::start(&[
        "node",
        "--seed",
        "7",
        "--keys",
        "1",
        "--client",
        "besu",
        "--block-time",
        "20ms",
        "--chain-id",
        "5",
        "--gas-limit",
        "40000000",
        "--pool",
        "open",
    ]);
    let (kms_url, node_url) = (kms.url(), node.url());
    let line = kms.line();
    let (address, arn) = line.split_once(' ').unwrap();

    let headers = [("x-amz-target", "TrentService.ListResourceTags")];
    let body = json!({ "KeyId": arn }).to_string();
    let (status, tags) = http::send(::http::Method::POST, &format!("{kms_url}/"), &headers, body).await.unwrap();
    let tags: Value = serde_json::from_slice(&tags).unwrap();
    assert_eq!((status, &tags["Tags"]), (200, &json!([{ "TagKey": "app", "TagValue": "payments" }])));

    let client = Client::connect(&node_url, &[]).await.unwrap();
    let mut heads = client.subscribe(json!(["newHeads"])).await.unwrap();
    assert_eq!(heads.next().await.unwrap()["gasLimit"], "0x2625a00");
    assert_eq!(client.request("eth_chainId", json!([])).await.unwrap(), "0x5");
    assert_eq!(client.request("web3_clientVersion", json!([])).await.unwrap(), "besu/simulated");
    assert_eq!(client.request("eth_getBalance", json!([address, "latest"])).await.unwrap(), "0x3635c9adc5dea00000");
}

#[tokio::test]
async fn a_kms_of_many_keys_places_and_credentials_is_there_and_can_be_steered() {
    let mut kms = Simulator::start(&[
        "kms",
        "--keys",
        "5000",
        "--region",
        "eu-west-1",
        "--place",
        "444455556666/us-east-1",
        "--replica",
        "eu-central-1",
        "--quotas",
        "aws",
        "--quota",
        "Sign=30,3",
        "--access-key",
        "AKIA:secret",
        "--access-key",
        "ASIA:secret:444455556666:token",
        "--delays",
        "aws",
        "--creating",
        "5s",
        "--bare-alias",
        "alias/aws/ebs",
    ]);
    let url = kms.url();
    assert!(kms.line().contains(" arn:aws:kms:eu-west-1:111122223333:key/mrk-"));
    let post = async |target: &str| {
        let (status, body) = http::send(::http::Method::POST, &url, &[("x-amz-target", target)], "{}").await.unwrap();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let (status, refusal) = post("TrentService.ListKeys").await;
    assert_eq!((status, &refusal["__type"]), (400, &json!("MissingAuthenticationTokenException")));
    let (_, quotas) = post("Simulator.Quotas").await;
    assert_eq!(quotas["Quotas"]["Sign"], json!({ "perSecond": 30, "burst": 3 }));
    assert_eq!(quotas["Quotas"]["ListKeys"], json!({ "perSecond": 500, "burst": 50 }));
}

#[test]
fn what_is_not_understood_is_told_with_the_usage() {
    let cases = [
        (vec![], "is no simulator"),
        (vec!["node", "--client", "parity"], "parity is no client that is simulated"),
        (vec!["node", "--pool", "deep"], "--pool deep is not understood"),
        (vec!["node", "--tag", "a=b"], "--tag a=b is not understood"),
        (vec!["kms", "--delays", "3,2,1"], "--delays takes three rising numbers of milliseconds, not 3,2,1"),
        (vec!["node", "--block-time", "2m"], "--block-time takes a time such as 1s or 250ms, not 2m"),
        (vec!["kms", "--quota", "Sign"], "--quota takes OPERATION=RATE, not Sign"),
        (vec!["kms", "--access-key", "AKIA"], "--access-key takes ID:SECRET, not AKIA"),
        (vec!["kms", "--place", "444455556666"], "--place takes ACCOUNT/REGION, not 444455556666"),
        (vec!["kms", "--client", "geth"], "--client geth is not understood"),
        (vec!["kms", "--listen", "0.0.0.0:0"], "--listen takes a loopback address only"),
        (vec!["kms", "--seed"], "--seed wants a value"),
    ];
    for (arguments, words) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice-sim")).args(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text.contains(words) && text.contains("usage: sluice-sim node"), "{arguments:?}: {text}");
    }
}
