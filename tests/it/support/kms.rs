//! A KMS emulator that others wrote.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sluice_load_tests::http;

use super::parts;
use super::process::{Process, free_port};

#[derive(Debug)]
pub(crate) struct Kms {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl Kms {
    /// Starts ministack on a free port.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, "kms").await
    }

    /// The same, with these services of AWS at the same port.
    pub(crate) async fn start_with(folder: &Path, services: &str) -> Self {
        let port = free_port();
        let mut command = Command::new(parts::ministack());
        let port_text = port.to_string();
        let settings = [("BIND_HOST", "127.0.0.1"), ("GATEWAY_PORT", &port_text), ("SERVICES", services), ("IOT_MTLS_ENABLED", "0")];
        command.envs(settings).current_dir(folder);
        let mut process = Process::start(&mut command, &folder.join(format!("kms-{port}.log")));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        process.until("the KMS emulator to answer", |_| async move { call_at(address, "ListKeys", json!({})).await.ok() }).await;
        Self { _process: process, address }
    }

    /// A call of the emulator itself.
    pub(crate) async fn call(&self, operation: &str, body: Value) -> Value {
        call_at(self.address, operation, body).await.unwrap()
    }
}

/// One KMS call, unsigned: the emulator does not check.
pub(crate) async fn call_at(address: SocketAddr, operation: &str, body: Value) -> Result<Value, String> {
    let target = format!("TrentService.{operation}");
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
    let (status, answer) = http::send(::http::Method::POST, &format!("http://{address}/"), &headers, body.to_string()).await?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    if status == 200 { Ok(answer) } else { Err(format!("{status} {answer}")) }
}
