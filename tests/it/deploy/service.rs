//! The systemd unit: judged by systemd's own tools, and its filter of system calls held against those that the gateway makes.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use alloy_primitives::B256;

use super::{configuration, deploy, longest_drain, read};
use crate::support::anvil::parse;
use crate::support::gateway::{Gateway, run, sluice, words};
use crate::support::parts::{has_tool, skip};
use crate::support::soon;
use crate::support::world::{World, transfer};

/// systemd's measure of what a service could do, from 0 (nothing) to 10, in tenths. What is left here: the network, and the host's
/// files to read.
const EXPOSURE: u32 = 15;

/// The settings of the unit, in order.
fn settings() -> Vec<(String, String)> {
    let unit = read("sluice.service");
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn setting(name: &str) -> String {
    settings().into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} is not set")).1
}

#[test]
fn systemd_accepts_the_unit() {
    if !has_tool("systemd_accepts_the_unit", "systemd-analyze") {
        return;
    }
    // With the binary that there is: systemd looks whether it can be executed.
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("sluice.service");
    std::fs::write(&unit, read("sluice.service").replace("/usr/local/bin/sluice", env!("CARGO_BIN_EXE_sluice"))).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit);
    let output = run(command);
    assert!(output.status.success() && words(&output).trim().is_empty(), "{}", words(&output));
}

#[test]
fn systemd_finds_little_that_the_service_could_do() {
    if !has_tool("systemd_finds_little_that_the_service_could_do", "systemd-analyze") {
        return;
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}")]).arg(deploy("sluice.service"));
    let output = run(command);
    assert!(output.status.success() && words(&output).contains("Overall exposure level"), "{}", words(&output));
}

#[test]
fn the_unit_fits_the_configuration_and_the_command_line() {
    let config = configuration();
    assert_eq!(setting("ExecStart"), "/usr/local/bin/sluice serve /etc/sluice/sluice.toml");
    let stop = Duration::from_secs(setting("TimeoutStopSec").parse().unwrap());
    assert!(stop > longest_drain(&config), "{stop:?}");
    assert_eq!(config.journal.path.parent().unwrap(), std::path::Path::new("/var/lib").join(setting("StateDirectory")));
    // Each variable is one that Sluice knows, and takes the place of the container's path.
    let variables: Vec<(String, String)> = settings()
        .into_iter()
        .filter(|(name, _)| name == "Environment")
        .map(|(_, value)| value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
        .collect();
    let credentials: Vec<String> = settings().into_iter().filter(|(name, _)| name == "LoadCredential").map(|(_, value)| value).collect();
    for (_, path) in &variables {
        let name = path.strip_prefix("%d/").unwrap();
        assert!(credentials.iter().any(|credential| credential.starts_with(&format!("{name}:/etc/sluice/"))), "{path}");
    }
    let placed = variables.into_iter().map(|(name, path)| (name, path.replace("%d", "/run/credentials/sluice.service")));
    let config = sluice_gateway::config::parse(&read("config/sluice.toml"), placed).unwrap();
    for token in [config.server.token_file, config.admin.token_file] {
        assert!(token.unwrap().starts_with("/run/credentials"));
    }
}

/// The names in a set of systemd's, sets within it resolved.
fn resolve(set: &str, names: &mut BTreeSet<String>) {
    let mut command = Command::new("systemd-analyze");
    command.args(["syscall-filter", "--no-pager", set]);
    let output = run(command);
    assert!(output.status.success(), "{}", words(&output));
    for line in String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::trim) {
        match line {
            _ if line.starts_with('#') || line.is_empty() => {}
            _ if line.starts_with('@') => resolve(line, names),
            name => _ = names.insert(name.to_owned()),
        }
    }
}

/// What the unit lets through: the first list allows, a list that begins with `~` takes away.
fn allowed() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for (_, value) in settings().into_iter().filter(|(name, _)| name == "SystemCallFilter") {
        let mut named = BTreeSet::new();
        for word in value.trim_start_matches('~').split(' ') {
            if word.starts_with('@') {
                resolve(word, &mut named);
            } else {
                named.insert(word.to_owned());
            }
        }
        if value.starts_with('~') {
            allowed.retain(|name| !named.contains(name));
        } else {
            allowed.extend(named);
        }
    }
    allowed
}

/// Under the unit, a call that is not let through fails: every call that a whole life of the gateway makes must be one that is.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_makes_only_system_calls_that_the_unit_allows() {
    const TEST: &str = "the_gateway_makes_only_system_calls_that_the_unit_allows";
    if !["systemd-analyze", "strace", "setpriv"].iter().all(|tool| has_tool(TEST, tool)) {
        return;
    }
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|output| output.status.success()) {
        return skip(TEST, "strace may not trace here");
    }
    let Some(world) = World::start(TEST).await else { return };
    let accounts = world.accounts(2).await;
    let folder = world.folder.path();
    let (trace, binary, configuration) = (folder.join("trace"), folder.join("sluice"), world.configuration());
    std::fs::copy(env!("CARGO_BIN_EXE_sluice"), &binary).unwrap();
    // Not as root, for whom SQLite makes calls that it does not make otherwise.
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
    let mut traced = Command::new("setpriv");
    if std::fs::metadata(folder).unwrap().uid() == 0 {
        traced.args(["--reuid=65532", "--regid=65532", "--clear-groups"]);
    }
    // The tracer is a grandchild of the gateway, so that signals reach the gateway itself.
    traced.args(["--no-new-privs", "strace", "-D", "-f", "-qq", "-s", "0", "-o"]).args([&trace, &binary]).args(["serve", &configuration]);
    let serve = sluice(&[]);
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    // By name, so that names are looked up, too.
    traced.env("SLUICE__ENVIRONMENT__DEV__NODES__0__URL", world.node.url().replace("127.0.0.1", "localhost"));
    let mut gateway = Gateway::start(traced, "payments", &world.folder.path().join("traced.log")).await.ready().await;
    let client = gateway.connect().await;
    let sends: Vec<_> = (0..20).map(|i| client.start("eth_sendTransaction", transfer(accounts[i % 2], 1))).collect();
    for send in sends {
        world.mined(parse::<B256>(&soon("an answer", send).await.unwrap())).await;
    }
    world.node.cut();
    assert_eq!(gateway.admin("metrics").await.0, 200);
    assert_eq!(gateway.reload().await, ("applied".to_owned(), Vec::new()), "ExecReload");
    drop(client);
    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());

    let (allowed, text) = (allowed(), std::fs::read_to_string(&trace).unwrap());
    let families: Vec<String> = setting("RestrictAddressFamilies").split(' ').map(str::to_owned).collect();
    let mut made = BTreeSet::new();
    for line in text.lines() {
        // `1234 openat(AT_FDCWD, …`; a call that is taken up again has been named before.
        let Some((name, arguments)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('(')) else { continue };
        if !name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_') {
            continue;
        }
        made.insert(name);
        if name == "socket" {
            let family = arguments.split(',').next().unwrap();
            assert!(families.iter().any(|allowed| allowed == family), "RestrictAddressFamilies: {line}");
        }
        if name.contains("mmap") || name.contains("mprotect") {
            assert!(!(arguments.contains("PROT_WRITE") && arguments.contains("PROT_EXEC")), "MemoryDenyWriteExecute: {line}");
        }
    }
    assert!(made.len() > 30 && (made.contains("fdatasync") || made.contains("fsync")) && made.contains("accept4"), "{made:?}");
    let forbidden: Vec<&str> = made.into_iter().filter(|name| !allowed.contains(*name)).collect();
    assert_eq!(forbidden, [""; 0], "SystemCallFilter");
}
