//! The plan with `cast` of Foundry, one process for each step. It has no batches and no subscriptions: it asks.

use std::process::{Command, Output};

use alloy_primitives::{B256, hex};
use serde_json::Value;

use super::report::{Batch, Errors, Failure, Log, Names, Plan, Report, Sent};
use super::stage::{Kind, Stage};
use crate::support::anvil::{parse, quantity};
use crate::support::gateway::{run as run_to_its_end, words};
use crate::support::parts::{self, Part};
use crate::support::soon;

const NAMES: Names<'_> = ["error code"; 5];

pub(super) async fn run(test: &str, node: Kind) {
    let Some(stage) = Stage::start(test, node, &[Part::Node]).await else { return };
    let plan = Plan::read();
    for scheme in ["http", "ws"] {
        report(&Cast { url: stage.gateway.url(scheme) }, &plan, &stage).await.check(&stage, &plan, NAMES).await;
    }
}

struct Cast {
    url: String,
}

impl Cast {
    async fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(parts::cast());
        let (name, rest) = arguments.split_first().unwrap();
        command.args([name, "--rpc-url", &self.url]).args(rest).env_remove("ETH_RPC_URL").env("NO_COLOR", "1");
        soon("cast", tokio::task::spawn_blocking(|| run_to_its_end(command))).await.unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", words(&output)))
    }

    /// `cast send` prints the receipt.
    async fn send(&self, from: &str, arguments: &[&str]) -> Value {
        self.json(&[&["send", "--unlocked", "--from", from, "--json"], arguments].concat()).await
    }

    /// What cast makes of a call that must fail.
    async fn failure(&self, arguments: &[&str]) -> Failure {
        let output = self.output(arguments).await;
        assert!(!output.status.success(), "{arguments:?}: {}", words(&output));
        let message = words(&output);
        let (name, rest) = message.split_once("error code").map(|(_, rest)| ("error code", rest)).unwrap_or_default();
        let data = message.split_once("data: ").and_then(|(_, data)| serde_json::from_str::<Value>(data.trim()).ok());
        Failure {
            name: name.into(),
            code: rest.trim().split_once(':').and_then(|(code, _)| code.parse().ok()),
            reason: data.and_then(|data| Some(data.get("reason")?.as_str()?.to_owned())),
            message,
        }
    }
}

async fn report(cast: &Cast, plan: &Plan, stage: &Stage) -> Report {
    let accounts = cast.json(&["rpc", "eth_accounts"]).await;
    let account = accounts[0].as_str().unwrap();
    let (recipient, stranger) = (plan.recipient.to_string(), plan.stranger.to_string());
    let first = cast.send(account, &[&recipient, "--value", &plan.value.to_string()]).await;
    let chain_id = cast.json(&["chain-id"]).await.as_u64().unwrap();
    let typed = plan.typed_data(chain_id).to_string();
    let signature = cast.json(&["rpc", "eth_signTypedData_v4", account, &typed]).await;

    let mut hashes = Vec::new();
    // cast gives every transaction a nonce of its own choice, by default the first that is not mined yet.
    let next = cast.json(&["nonce", "--block", "pending", account]).await.as_u64().unwrap();
    for place in 0..plan.batch {
        let (value, nonce) = (place.to_string(), (next + place).to_string());
        let small = ["--async", &recipient, "--value", &value, "--nonce", &nonce, "--gas-limit", "21000"];
        let output = cast.output(&[&["send", "--unlocked", "--from", account], &small[..]].concat()).await;
        hashes.push(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| panic!("{}", words(&output))));
    }
    let last = hashes.last().map(B256::to_string).unwrap();
    cast.json(&["receipt", "--json", &last]).await;

    let created = cast.send(account, &["--create", &plan.emitter.to_string()]).await;
    let contract = created["contractAddress"].as_str().unwrap();
    let call = cast.send(account, &[contract, &hex::encode_prefixed(plan.amount.to_be_bytes::<32>())]).await;
    let logs = cast.json(&["logs", "--json", "--address", contract, &plan.topic.to_string()]).await;
    let [log] = logs.as_array().unwrap().as_slice() else { panic!("{logs}") };
    let head = cast.json(&["block-number"]).await.as_u64().unwrap();

    let send = |from, value| ["send", "--unlocked", "--from", from, "--gas-limit", "21000", "--value", value, &recipient];
    let malformed: Vec<&str> = plan.malformed.params.iter().map(String::as_str).collect();
    let malformed = [&["rpc", plan.malformed.method.as_str()], malformed.as_slice()].concat();
    let report = Report {
        chain_id,
        accounts: accounts.as_array().unwrap().iter().map(parse).collect(),
        sent: Sent {
            hash: parse(&first["transactionHash"]),
            from: parse(&first["from"]),
            to: parse(&first["to"]),
            status: quantity(&first["status"]),
            block: quantity(&first["blockNumber"]),
        },
        typed: Some(parse(&signature)),
        // One after another, each with its answer: as good as a batch.
        batch: Batch { hashes, ordered: true },
        heads: vec![head],
        log: Log {
            hash: parse(&log["transactionHash"]),
            called: vec![parse(&call["transactionHash"])],
            contract: parse(&created["contractAddress"]),
            address: parse(&log["address"]),
            topics: log["topics"].as_array().unwrap().iter().map(parse).collect(),
            data: parse(&log["data"]),
        },
        errors: Errors {
            unknown_account: cast.failure(&send(&stranger, "0")).await,
            insufficient_funds: cast.failure(&send(account, "1000000ether")).await,
            reverted_estimate: cast.failure(&["estimate", "--from", account, contract]).await,
            unsupported_method: cast.failure(&["rpc", &plan.unsupported]).await,
            bad_params: cast.failure(&malformed).await,
        },
    };
    assert_eq!(report.chain_id, stage.chain_id);
    report
}
