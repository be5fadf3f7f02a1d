//! A real Prometheus that scrapes a gateway and evaluates the rules of dashboards/.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use ::http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sluice_load_tests::http;

use super::parts;
use super::process::{Process, free_port};

/// A file of dashboards/.
pub(crate) fn dashboard(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(name)
}

#[derive(Debug)]
pub(crate) struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it on a free port; it scrapes `/metrics` of `target` and evaluates the alert rules every second.
    pub(crate) async fn start(folder: &Path, target: SocketAddr) -> Self {
        let rules = dashboard("alerts.yml");
        let configuration = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\n\
             scrape_configs:\n  - job_name: sluice\n    static_configs: [{{ targets: [\"{target}\"] }}]\n",
            Value::from(rules.to_str().unwrap())
        );
        Self::configured(folder, &configuration).await
    }

    /// Starts it on a free port with this configuration.
    pub(crate) async fn configured(folder: &Path, configuration: &str) -> Self {
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(parts::prometheus());
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}"));
        let mut process = Process::start(&mut command, &folder.join("prometheus.log"));
        let ready = format!("http://{address}/-/ready");
        process.until("Prometheus to be ready", |_| async { http::get(&ready).await.ok().filter(|(status, _)| *status == 200) }).await;
        Self { _process: process, address }
    }

    /// `data` of one of its pages, or its error.
    pub(crate) async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
        let (_, body) = http::send(Method::GET, &format!("{url}?{}", fields.join("&")), &[], "").await?;
        let mut answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer["error"].to_string()) }
    }

    /// The values of a query now, NaN included.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<f64>, String> {
        let data = self.ask("query", &[("query", query)]).await?;
        let value = |sample: &Value| sample[1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        match data["resultType"].as_str() {
            Some("vector") => Ok(data["result"].as_array().into_iter().flatten().map(|series| value(&series["value"])).collect()),
            Some("scalar") => Ok(vec![value(&data["result"])]),
            other => Err(format!("{other:?} is no answer that a panel shows")),
        }
    }
}
