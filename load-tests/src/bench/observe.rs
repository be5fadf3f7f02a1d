//! What the simulators and the gateway have counted.

use std::time::{Duration, Instant};

use ::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::check::Mined;
use crate::http;

/// How long what was told may take until it is mined.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the pool.
const LOOK: Duration = Duration::from_millis(200);

/// A simulated KMS, by its HTTP URL.
#[derive(Debug, Clone)]
pub(super) struct Kms(String);

/// Calls of Sign that its quota let in and that it throttled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SignUsage {
    pub(super) admitted: u64,
    pub(super) throttled: u64,
}

impl Kms {
    pub(super) fn at(url: &str) -> Self {
        Self(url.into())
    }

    /// One of the simulator's own operations.
    pub(super) async fn steer(&self, operation: &str, body: &Value) -> Result<Value, Failure> {
        let target = format!("Simulator.{operation}");
        let (status, answer) = http::send(Method::POST, &self.0, &[("x-amz-target", target.as_str())], body.to_string()).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if status == 200 { Ok(answer) } else { Err(format!("{operation}: {answer}").into()) }
    }

    /// How Sign's quota has been used.
    pub(super) async fn signs(&self) -> Result<SignUsage, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Used {
            operation: String,
            admitted: u64,
            throttled: u64,
        }
        let used: Vec<Used> = serde_json::from_value(self.steer("Quotas", &json!({})).await?["Used"].take())?;
        Ok(used.iter().filter(|used| used.operation == "Sign").fold(SignUsage::default(), |sum, used| SignUsage {
            admitted: sum.admitted + used.admitted,
            throttled: sum.throttled + used.throttled,
        }))
    }

    /// How often an operation was called, throttled calls included.
    pub(super) async fn calls(&self, operation: &str) -> Result<u64, Failure> {
        Ok(self.steer("Calls", &json!({})).await?[operation].as_u64().unwrap_or(0))
    }
}

async fn ask_node(url: &str, method: &str) -> Result<Value, Failure> {
    steer_node(url, method, json!([])).await
}

/// One of a simulated node's own methods.
pub(super) async fn steer_node(url: &str, method: &str, params: Value) -> Result<Value, Failure> {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let (_, answer) = http::post_json(url, &request).await?;
    let mut answer: Value = serde_json::from_slice(&answer)?;
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(format!("{method}: {answer}").into()),
    }
}

/// How many transactions are in a simulated node's pool.
async fn pooled(node: &str) -> Result<usize, Failure> {
    Ok(ask_node(node, "sim_pool").await?.as_array().map_or(0, Vec::len))
}

/// Waits until the pool is empty, or the time for that is over: what is not mined then is told by the check.
pub(super) async fn settled(node: &str) -> Result<(), Failure> {
    let late = Instant::now() + PATIENCE;
    while pooled(node).await? > 0 && Instant::now() < late {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The transactions of all its blocks.
pub(super) async fn mined(node: &str) -> Result<Vec<Mined>, Failure> {
    #[derive(Deserialize)]
    struct Payload {
        sender: alloy_primitives::Address,
        nonce: u64,
        hash: alloy_primitives::B256,
    }
    let payloads: Vec<Payload> = serde_json::from_value(ask_node(node, "sim_payloads").await?)?;
    Ok(payloads.into_iter().map(|Payload { sender, nonce, hash }| Mined { sender, nonce, hash }).collect())
}

/// The sum of all series of a family on a page of metrics; 0 if there is none.
pub(super) fn total(page: &str, family: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(family)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.parse::<f64>().ok()
    };
    // Not `sum`: of nothing it is −0.
    page.lines().filter_map(value).fold(0.0, |sum, value| sum + value)
}

/// The sum of the series of a family that have this value of a label.
pub(super) fn labelled(page: &str, family: &str, value: &str) -> f64 {
    let value = format!("=\"{value}\"");
    let with: Vec<&str> = page.lines().filter(|line| line.contains(&value)).collect();
    total(&with.join("\n"), family)
}

/// The machine in a line of a report with its load before the run and now.
pub(super) fn machine(load_before: &str) -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("machine: {processors} processors, load averages {load_before} before and {} after", machine_load())
}

/// The load of the machine, as the system has it: averages of 1, 5 and 15 minutes.
pub(super) fn machine_load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<&str> = load.split(' ').take(3).collect();
    if averages.len() == 3 { averages.join(" ") } else { "unknown".into() }
}

/// In milliseconds.
pub(super) fn ms(duration: Option<Duration>) -> f64 {
    duration.map_or(f64::NAN, |duration| duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_the_sum_of_its_series_and_of_no_other() {
        let page = "# TYPE signs_total counter\nsigns_total{outcome=\"ok\"} 3\nsigns_total{outcome=\"a } b\"} 4\nsigns_total_more 5\n\
                    signs_total_more{a=\"b\"} 6\nplain_total 7\n";
        assert_eq!(total(page, "signs_total").to_bits(), 7.0_f64.to_bits());
        assert_eq!(total(page, "plain_total").to_bits(), 7.0_f64.to_bits());
        assert_eq!(labelled(page, "signs_total", "ok").to_bits(), 3.0_f64.to_bits());
        assert_eq!(total(page, "none_total").to_bits(), 0.0_f64.to_bits());
    }
}
