//! The programs of docs/clients.md, run as they stand there.

use std::path::Path;
use std::process::Command;

use alloy_primitives::U256;
use alloy_provider::network::TransactionBuilder;
use alloy_provider::{Provider, ProviderBuilder, WsConnect};
use alloy_rpc_types_eth::TransactionRequest;

use super::matrix;
use super::stage::{Kind, Stage};
use crate::support::gateway::{run, words};
use crate::support::parts::{self, Part};
use crate::support::soon;

const PAGE: &str = include_str!("../../../docs/clients.md");
/// The service of the page.
const URL: &str = "ws://127.0.0.1:8545/dev";
const HTTP_URL: &str = "http://127.0.0.1:8545/dev";

/// The first program below a heading of the second level.
fn program(heading: &str) -> &'static str {
    programs(heading)[0]
}

/// The programs below a heading of the second level.
fn programs(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1).collect()
}

/// One of the programs that repeat a payment under its key: one transaction comes of it.
async fn pays_once(test: &str, place: usize, part: Part, command: impl FnOnce(&Path, &str) -> Command) {
    let Some(stage) = Stage::start(test, Kind::Anvil, &[part]).await else { return };
    let text = programs("Never pay twice")[place];
    assert!(text.contains(HTTP_URL), "{text}");
    let command = command(stage.folder.path(), &text.replace(HTTP_URL, &stage.gateway.url("http")));
    let output = soon(test, tokio::task::spawn_blocking(|| run(command))).await.unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let [hash] = stage.mined().await[..] else { panic!("not one transaction: {}", words(&output)) };
    assert!(words(&output).contains(&hash.to_string()), "{hash}: {}", words(&output));
}

/// Runs a program that sends one transaction and prints its hash.
async fn sends_one(test: &str, heading: &str, part: Part, command: impl FnOnce(&Path, &str) -> Command) {
    let Some(stage) = Stage::start(test, Kind::Anvil, &[part]).await else { return };
    let text = program(heading);
    assert!(text.contains(URL), "{text}");
    let command = command(stage.folder.path(), &text.replace(URL, &stage.gateway.url("ws")));
    let output = soon(test, tokio::task::spawn_blocking(|| run(command))).await.unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let [hash] = stage.mined().await[..] else { panic!("not one transaction: {}", words(&output)) };
    assert!(words(&output).contains(&hash.to_string()), "{hash}: {}", words(&output));
}

fn node(folder: &Path, text: &str) -> Command {
    std::os::unix::fs::symlink(parts::folder().join("node/node_modules"), folder.join("node_modules")).unwrap();
    std::fs::write(folder.join("program.mjs"), text).unwrap();
    let mut command = Command::new("node");
    command.arg(folder.join("program.mjs"));
    command
}

fn python(folder: &Path, text: &str) -> Command {
    std::fs::write(folder.join("program.py"), text).unwrap();
    let mut command = Command::new(parts::python());
    command.arg(folder.join("program.py"));
    command
}

/// With the imports that editors add, in the module of the client that is pinned.
fn go(folder: &Path, text: &str) -> Command {
    let module = folder.join("module");
    std::fs::create_dir(&module).unwrap();
    for file in ["go.mod", "go.sum"] {
        std::fs::copy(parts::client("ethclient").join(file), module.join(file)).unwrap();
    }
    let imports = ["common", "ethclient", "accounts/abi/bind/v2"].map(|name| format!("\"github.com/ethereum/go-ethereum/{name}\"\n"));
    let main = format!(
        "package main\nimport (\"context\"\n\"fmt\"\n{})\nfunc work() error {{\n{text}\nreturn nil\n}}\n\
         func main() {{ if err := work(); err != nil {{ panic(err) }} }}\n",
        imports.concat()
    );
    std::fs::write(module.join("main.go"), main).unwrap();
    let mut command = Command::new("go");
    command.args(["run", "."]).current_dir(module).envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=readonly")]);
    command
}

fn shell(_: &Path, text: &str) -> Command {
    let path = format!("{}:{}", parts::folder().join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", text]).env("PATH", path);
    command
}

#[test]
fn the_page_names_errors_as_the_clients_do() {
    let clients = [("ethers", matrix::ETHERS), ("viem", matrix::VIEM), ("web3.js", matrix::WEB3_JS), ("web3.py", matrix::WEB3_PY)];
    for (client, names) in clients {
        let row = PAGE.lines().rfind(|line| line.starts_with(&format!("| {client} | "))).unwrap();
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").skip(2).map(|cell| cell.trim().trim_matches('`')).collect();
        assert_eq!(cells.len(), 4, "{row}");
        for (cell, name) in cells.into_iter().zip(names) {
            assert!(name.split(" of ").any(|part| part == cell), "{client}: {cell} and {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_ethers_pays_once() {
    pays_once("the_program_for_ethers_pays_once", 0, Part::Node, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_viem_pays_once() {
    pays_once("the_program_for_viem_pays_once", 1, Part::Node, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_web3_py_pays_once() {
    pays_once("the_program_for_web3_py_pays_once", 2, Part::Python, python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_ethers_runs() {
    sends_one("the_program_for_ethers_runs", "ethers", Part::Node, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_viem_runs() {
    sends_one("the_program_for_viem_runs", "viem", Part::Node, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_web3_js_runs() {
    sends_one("the_program_for_web3_js_runs", "web3.js", Part::Node, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_web3_py_runs() {
    sends_one("the_program_for_web3_py_runs", "web3.py", Part::Python, python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_go_ethereum_runs() {
    sends_one("the_program_for_go_ethereum_runs", "go-ethereum", Part::Go, go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_cast_runs() {
    sends_one("the_program_for_cast_runs", "cast", Part::Node, shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_for_alloy_runs() {
    let own: String = include_str!("page.rs").lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    assert!(own.contains(program("alloy")), "the page's program is not the one below");
    let Some(stage) = Stage::start("the_program_for_alloy_runs", Kind::Anvil, &[]).await else { return };
    // On the heap: the provider's futures are large.
    soon("alloy", Box::pin(alloy(&stage.gateway.url("ws")))).await.unwrap();
    assert_eq!(stage.mined().await.len(), 1);
}

async fn alloy(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let provider = ProviderBuilder::new().disable_recommended_fillers().connect_ws(WsConnect::new(url)).await?;
    let from = provider.get_accounts().await?[0];
    let payment = TransactionRequest::default().with_from(from).with_to(from).with_value(U256::ONE);
    let sent = provider.send_transaction(payment).await?;
    let (hash, receipt) = (*sent.tx_hash(), sent.get_receipt().await?);
    println!("{hash} {:?}", receipt.block_number);
    Ok(())
}
