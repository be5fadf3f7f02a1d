//! The backends of examples/: their connections are cut in the middle of messages, their processes are killed, and every payout is made
//! once and followed to its end.

use std::path::{Path, PathBuf};
use std::process::Command;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

use crate::support::anvil::{parse, quantity};
use crate::support::cutter::Cutter;
use crate::support::gateway::{run, words};
use crate::support::process::Process;
use crate::support::world::World;
use crate::support::{parts, soon};

const PAYOUTS: usize = 20;
/// Bytes of the gateway after which a connection is cut. All payouts together are about 60 kB of events.
const BUDGETS: &[u64] = &[2_500, 5_000, 7_500, 10_000, 10_000];

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

fn finished(command: Command) {
    let output = run(command);
    assert!(output.status.success(), "{}", words(&output));
}

/// Runs the backend that `build` has made, in a world whose blocks come once a second.
async fn pays_everything_once(test: &str, build: impl FnOnce(&Path) -> Vec<PathBuf> + Send + 'static) {
    let Some(mut world) = World::start_with(test, &["--block-time", "1"]).await else { return };
    world.extra.environment = "confirmations = 2".into();
    let from = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let cutter = Cutter::start(gateway.listen, BUDGETS).await;
    let folder = world.folder.path().to_path_buf();
    let program = soon("a build", tokio::task::spawn_blocking(move || build(&folder))).await.unwrap();
    let (url, file) = (format!("ws://{}/payments", cutter.address), world.folder.path().join("payouts.json"));
    let recipient = Address::repeat_byte(0xaa);
    let payouts: Vec<Value> = (1..=PAYOUTS)
        .map(|place| json!({ "reference": format!("invoice {place}"), "to": recipient, "value": format!("{place:#x}") }))
        .collect();
    std::fs::write(&file, json!({ "from": from, "payouts": payouts }).to_string()).unwrap();
    let start = |log: &str| {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).arg(&url).arg(&file);
        Process::start(&mut command, &world.folder.path().join(log))
    };

    let mut first = start("backend-1.log");
    let some = || async { (included(&file) >= PAYOUTS / 4).then_some(()) };
    first.until("some inclusions", |_| some()).await;
    first.kill();
    let mut second = start("backend-2.log");
    let ended = second.exit().await;
    assert!(ended.success(), "{}", second.log());
    // The connection that was open at the kill may not have come to its end.
    assert!(cutter.cuts() + 1 >= BUDGETS.len(), "cut {} times", cutter.cuts());

    let state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let mined = world.anvil.mined().await;
    assert_eq!(mined.len(), PAYOUTS, "nothing is paid twice");
    for (payout, given) in state["payouts"].as_array().unwrap().iter().zip(&payouts) {
        assert_eq!((&payout["reference"], &payout["value"], &payout["to"]), (&given["reference"], &given["value"], &given["to"]));
        let mut history: Vec<&str> = payout["history"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        // A node may mine what it takes before it says that it took it.
        let all = history.len();
        history.retain(|state| *state != "broadcast");
        assert!(history == ["committed", "included", "confirmed"] && all <= 4, "{payout}");
        let hash: B256 = parse(&payout["hash"]);
        let nonce = payout["nonce"].as_u64().unwrap();
        assert!(mined.iter().any(|one| (one.from, one.nonce, one.hash) == (from, nonce, hash)), "{payout}");
        let transaction = world.anvil.call("eth_getTransactionByHash", json!([hash])).await.unwrap();
        assert_eq!(quantity(&transaction["value"]), quantity(&payout["value"]), "{payout}");
    }
}

/// Payouts that the file knows to be included.
fn included(file: &Path) -> usize {
    let state: Value = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let included = |payout: &&Value| payout["history"].as_array().is_some_and(|history| history.contains(&json!("included")));
    state["payouts"].as_array().map_or(0, |payouts| payouts.iter().filter(included).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_in_typescript_pays_everything_once() {
    pays_everything_once("the_backend_in_typescript_pays_everything_once", |folder| {
        let project = folder.join("typescript");
        std::fs::create_dir(&project).unwrap();
        for file in ["backend.ts", "package.json", "tsconfig.json"] {
            std::fs::copy(example("typescript").join(file), project.join(file)).unwrap();
        }
        std::os::unix::fs::symlink(parts::folder().join("node/node_modules"), project.join("node_modules")).unwrap();
        let mut compiler = Command::new("node");
        compiler.arg(project.join("node_modules/typescript/bin/tsc")).current_dir(&project);
        finished(compiler);
        vec!["node".into(), project.join("build/backend.js")]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_in_python_pays_everything_once() {
    pays_everything_once("the_backend_in_python_pays_everything_once", |_| vec![parts::python(), example("python/backend.py")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_in_rust_pays_everything_once() {
    pays_everything_once("the_backend_in_rust_pays_everything_once", |_| {
        // Nothing is left to do where all targets were built; with --test alone cargo has left the examples out.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--workspace", "--example", "backend", "--locked"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        finished(cargo);
        let tests = std::env::current_exe().unwrap();
        vec![tests.parent().unwrap().parent().unwrap().join("examples/backend")]
    })
    .await;
}
