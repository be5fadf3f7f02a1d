//! What is in deploy/, as far as a machine without a container engine can tell: read by the parsers of Docker, systemd and Prometheus
//! themselves, and the image's file system put together and run.

mod compose;
mod dockerfile;
mod image;
mod service;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sluice_gateway::config::{self, Config};

use crate::support::gateway::{run, sluice, words};
use crate::support::parts;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(file: &str) -> PathBuf {
    root().join("deploy").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(deploy(file)).unwrap()
}

/// What Docker's parsers make of a file (tests/parts/deploy).
fn docker(what: &str, path: &Path) -> Value {
    let output = run(parsers(what, path));
    assert!(output.status.success(), "{what}: {}", words(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn parsers(what: &str, path: &Path) -> Command {
    let mut command = Command::new(parts::folder().join("bin/deploy"));
    command.arg(what).arg(path).env("NODE_URL", "wss://another.example.org");
    command
}

/// The configuration that container and service share.
fn configuration() -> Config {
    config::parse(&read("config/sluice.toml"), []).unwrap()
}

/// What `configuration` needs to end in order: the calls and then the connections, `server.drain` each, and the cut.
fn longest_drain(configuration: &Config) -> Duration {
    configuration.server.drain * 2 + Duration::from_secs(2)
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().map(|items| items.iter().map(|item| item.as_str().unwrap()).collect()).unwrap_or_default()
}

#[test]
fn the_sample_configuration_is_right() {
    let path = deploy("config/sluice.toml");
    let output = run(sluice(&["check", "--offline", path.to_str().unwrap()]));
    assert!(output.status.success(), "{}", words(&output));
    let config = configuration();
    for (listener, tls) in [(config.server.listen, &config.server.tls), (config.admin.listen, &config.admin.tls)] {
        assert!(listener.ip().is_unspecified() && tls.is_none());
    }
}

#[test]
fn prometheus_scrapes_the_gateway_of_the_compose_file() {
    if !parts::have("prometheus_scrapes_the_gateway_of_the_compose_file", &[parts::Part::Deploy]) {
        return;
    }
    let scrape = docker("yaml", &deploy("prometheus.yml"));
    let job = &scrape["scrape_configs"][0];
    assert_eq!(job["static_configs"][0]["targets"][0], format!("gateway:{}", configuration().admin.listen.port()));
    assert!(job["metrics_path"].is_null(), "/metrics is the default");
    let project = docker("compose", &deploy("compose.yaml"));
    let mounts = project["services"]["prometheus"]["volumes"].as_array().unwrap();
    let token = Path::new(job["authorization"]["credentials_file"].as_str().unwrap());
    let secrets = mounts.iter().find(|mount| mount["target"] == token.parent().unwrap().to_str().unwrap()).unwrap();
    let of_the_gateway = project["services"]["gateway"]["volumes"].as_array().unwrap();
    assert!(of_the_gateway.iter().any(|mount| mount["source"] == secrets["source"]), "the token of operators is in one place");
    assert_eq!(configuration().admin.token_file.unwrap(), token);
    // Rules are found beside the file that names them.
    for rules in texts(&scrape["rule_files"]) {
        assert!(mounts.iter().any(|mount| mount["target"] == format!("/etc/prometheus/{rules}")), "{rules}");
    }
    assert_eq!(job["job_name"], "sluice", "as the rules expect it");
}

#[test]
fn promtool_accepts_the_scrape_file() {
    if !parts::have("promtool_accepts_the_scrape_file", &[parts::Part::Prometheus]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("prometheus.yml"), folder.path().join("token"));
    std::fs::write(&token, "an-operator").unwrap();
    std::fs::write(&file, read("prometheus.yml").replace("/run/secrets/admin/token", token.to_str().unwrap())).unwrap();
    std::fs::copy(root().join("dashboards/alerts.yml"), folder.path().join("alerts.yml")).unwrap();
    let mut command = Command::new(parts::promtool());
    command.args(["check", "config"]).arg(&file);
    let output = run(command);
    assert!(output.status.success() && words(&output).contains("1 rule file"), "{}", words(&output));
}
