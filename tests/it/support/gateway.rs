//! The gateway's own process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError, outcome};
use sluice_load_tests::http;

use super::process::Process;
use super::raw::RawSocket;
use super::soon;

/// A command of the binary, with an environment of its own: nothing of the caller's may configure it.
pub(crate) fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SLUICE_") || name.starts_with("AWS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("TEST_ACCESS_KEY_ID", "test").env("TEST_SECRET_ACCESS_KEY", "test");
    command
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Both outputs, for people.
pub(crate) fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What a command that worked prints as JSON.
pub(crate) fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", words(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command of the binary, which has to work, beside the test; what it prints as JSON.
pub(crate) async fn printed(arguments: &[&str]) -> Value {
    let command = sluice(arguments);
    parsed(&soon("a command", tokio::task::spawn_blocking(|| run(command))).await.unwrap())
}

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) service: String,
}

impl Gateway {
    /// Starts it and waits until it says where it serves.
    pub(crate) async fn start(mut command: Command, service: &str, log: &Path) -> Self {
        let mut process = Process::start(&mut command, log);
        let (listen, admin) = process.until("the gateway to listen", |log| async move { serving(&log) }).await;
        Self { process, listen, admin, service: service.into() }
    }

    /// Waits until its service can accept sends.
    pub(crate) async fn ready(mut self) -> Self {
        let url = self.admin_url(&format!("readyz/{}", self.service));
        self.process.until("the gateway to be ready", |_| async { http::get(&url).await.ok().filter(|(status, _)| *status == 200) }).await;
        self
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.admin)
    }

    /// The status and the text of one of the operators' pages.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let (status, body) = http::get(&self.admin_url(path)).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The value of a series, `name` or `name{labels}`, which has to be there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, page) = self.admin("metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
    }

    /// Signs beyond the first of each signature: asked again after a passing fault, or a second time because they took long.
    pub(crate) async fn more_signs(&self) -> u64 {
        let mut sum = self.metric("sluice_sign_retries_total").await;
        for outcome in ["won", "lost", "failed"] {
            sum += self.metric(&format!("sluice_sign_hedges_total{{outcome=\"{outcome}\"}}")).await;
        }
        sum as u64
    }

    /// What /status shows.
    pub(crate) async fn status(&self) -> Value {
        let (status, page) = self.admin("status").await;
        assert_eq!(status, 200, "{page}");
        serde_json::from_str(&page).unwrap()
    }

    /// SIGHUP; the outcome, `applied` or `refused`, and its errors.
    pub(crate) async fn reload(&mut self) -> (String, Vec<String>) {
        let times = |page: &Value| {
            let reloads = &page["configuration"]["reloads"];
            reloads["applied"].as_u64().unwrap() + reloads["refused"].as_u64().unwrap()
        };
        let before = times(&self.status().await);
        self.process.hang_up();
        let url = self.admin_url("status");
        let page = self
            .process
            .until("the configuration to be read again", |_| async {
                let (_, page) = http::get(&url).await.ok()?;
                serde_json::from_slice::<Value>(&page).ok().filter(|page| times(page) > before)
            })
            .await;
        let last = &page["configuration"]["lastReload"];
        let errors = last["errors"].as_array().unwrap().iter().map(|error| error.as_str().unwrap().to_owned()).collect();
        (last["outcome"].as_str().unwrap().to_owned(), errors)
    }

    /// A WebSocket to another service.
    pub(crate) async fn connect_to(&self, service: &str) -> Client {
        soon("a WebSocket", Client::connect(&format!("ws://{}/{service}", self.listen), &[])).await.unwrap()
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/{}", self.listen, self.service)
    }

    /// A WebSocket to the service.
    pub(crate) async fn connect(&self) -> Client {
        soon("a WebSocket", Client::connect(&self.url("ws"), &[])).await.unwrap()
    }

    /// A WebSocket to the service that reads nothing into a tree.
    pub(crate) async fn raw_socket(&self) -> RawSocket {
        RawSocket::connect(&self.url("ws")).await
    }

    /// One call over HTTP.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (status, body) = http::post_json(&self.url("http"), &request).await.map_err(ClientError::Connection)?;
        let answer = serde_json::from_slice(&body);
        outcome(answer.map_err(|_| ClientError::Status(status))?)
    }
}

/// The addresses in the line of the log that says that it serves.
fn serving(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("\"serving\""))?;
    let json: Value = serde_json::from_str(line).ok()?;
    let field = |name| json.get(name).or_else(|| json.get("fields")?.get(name))?.as_str()?.parse().ok();
    Some((field("listen")?, field("admin")?))
}
