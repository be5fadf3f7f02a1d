//! Every client before every node. The clients in Rust and the one on the command line are in files of their own.

use std::process::Command;

use super::report::{Names, Plan, Report};
use super::stage::{Kind, Stage};
use super::{alloy, cast};
use crate::support::parts::{self, Part};
use crate::support::process::Process;
use crate::support::soon;

/// Runs a client's program over HTTP and over WebSocket, and checks what it reports.
async fn program(test: &str, node: Kind, part: Part, command: impl Fn(&str) -> Command, names: Names<'_>) {
    let Some(stage) = Stage::start(test, node, &[part]).await else { return };
    for scheme in ["http", "ws"] {
        let log = stage.folder.path().join(format!("{scheme}.log"));
        let mut process = Process::start(&mut command(&stage.gateway.url(scheme)), &log);
        let ended = soon(test, process.exit()).await;
        assert!(ended.success(), "{scheme}: {}", process.log());
        let said = process.log();
        let line = said.lines().last().unwrap_or_default();
        let report: Report = serde_json::from_str(line).unwrap_or_else(|error| panic!("{scheme}: {error}: {said}"));
        report.check(&stage, &Plan::read(), names).await;
    }
}

fn node(script: &'static str) -> impl Fn(&str) -> Command {
    move |url| {
        let mut command = Command::new("node");
        command.arg(parts::client(script)).arg(url);
        command
    }
}

fn python(url: &str) -> Command {
    let mut command = Command::new(parts::python());
    command.arg(parts::client("web3_py.py")).arg(url);
    command
}

fn ethclient(url: &str) -> Command {
    let mut command = Command::new(parts::ethclient());
    command.arg(url).arg(parts::client("plan.json"));
    command
}

pub(super) const ETHERS: Names<'_> = ["UNKNOWN_ERROR", "INSUFFICIENT_FUNDS", "CALL_EXCEPTION", "UNSUPPORTED_OPERATION", "UNKNOWN_ERROR"];
pub(super) const VIEM: Names<'_> = [
    "TransactionExecutionError of InvalidInputRpcError",
    "TransactionExecutionError of InsufficientFundsError",
    "EstimateGasExecutionError of ExecutionRevertedError",
    "MethodNotFoundRpcError of RpcRequestError",
    "InvalidParamsRpcError of RpcRequestError",
];
pub(super) const WEB3_JS: Names<'_> = [
    "InvalidResponseError",
    "InvalidResponseError",
    "ContractExecutionError of Eip838ExecutionError",
    "InvalidResponseError",
    "InvalidResponseError",
];
pub(super) const WEB3_PY: Names<'_> = ["Web3RPCError", "Web3RPCError", "ContractLogicError", "MethodUnavailable", "Web3RPCError"];
const ETHCLIENT: Names<'_> = ["*rpc.jsonError"; 5];

#[tokio::test(flavor = "multi_thread")]
async fn ethers_on_anvil() {
    program("ethers_on_anvil", Kind::Anvil, Part::Node, node("ethers.mjs"), ETHERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_on_geth() {
    program("ethers_on_geth", Kind::Geth, Part::Node, node("ethers.mjs"), ETHERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viem_on_anvil() {
    program("viem_on_anvil", Kind::Anvil, Part::Node, node("viem.mjs"), VIEM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viem_on_geth() {
    program("viem_on_geth", Kind::Geth, Part::Node, node("viem.mjs"), VIEM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web3_js_on_anvil() {
    program("web3_js_on_anvil", Kind::Anvil, Part::Node, node("web3.mjs"), WEB3_JS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web3_js_on_geth() {
    program("web3_js_on_geth", Kind::Geth, Part::Node, node("web3.mjs"), WEB3_JS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web3_py_on_anvil() {
    program("web3_py_on_anvil", Kind::Anvil, Part::Python, python, WEB3_PY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web3_py_on_geth() {
    program("web3_py_on_geth", Kind::Geth, Part::Python, python, WEB3_PY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ethclient_on_anvil() {
    program("ethclient_on_anvil", Kind::Anvil, Part::Go, ethclient, ETHCLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ethclient_on_geth() {
    program("ethclient_on_geth", Kind::Geth, Part::Go, ethclient, ETHCLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alloy_on_anvil() {
    alloy::run("alloy_on_anvil", Kind::Anvil).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alloy_on_geth() {
    alloy::run("alloy_on_geth", Kind::Geth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cast_on_anvil() {
    cast::run("cast_on_anvil", Kind::Anvil).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cast_on_geth() {
    cast::run("cast_on_geth", Kind::Geth).await;
}
