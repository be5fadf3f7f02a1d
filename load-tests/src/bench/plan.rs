//! What one run is made of, and how it is written down.

use std::time::Duration;

use crate::random::Delays;

/// The tag of the keys, `app`, and the name of the service.
pub(super) const SERVICE: &str = "bench";
/// The chain.
pub(super) const CHAIN_ID: u64 = 31_337;
/// Gas of a block: more than a second brings.
pub(super) const GAS_LIMIT: u64 = 1_000_000_000;
/// Every window of an account and of the key store.
pub(super) const WINDOW: u64 = 2_000;
/// `sign_deadline`; a busy machine alone must not use it up.
const SIGN_DEADLINE: Duration = Duration::from_secs(30);
/// Connections that the gateway takes.
const CONNECTIONS: u64 = 100_000;
/// Calls that one connection may have in flight.
const CALLS_IN_FLIGHT: u64 = 100_000;

/// What is configured: of the gateway, the simulated KMS and the simulated node.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) keys: u64,
    /// Signs per second that the gateway is told of.
    pub(super) sign_rate: u64,
    /// Signs per second that KMS grants.
    pub(super) quota: u64,
    /// Tokens that the bucket of Signs holds.
    pub(super) bucket: u64,
    /// Whether the other quotas are those of AWS too.
    pub(super) other_quotas: bool,
    /// How long KMS takes.
    pub(super) delays: Delays,
    /// `account.sign_window`.
    pub(super) signs_in_flight: u64,
    /// `account.queue_deadline`.
    pub(super) queue_deadline: Duration,
    /// The time between two blocks; none: only where they are asked for.
    pub(super) block_time: Duration,
}

impl Plan {
    /// The quota is known to the gateway, and everything that is bounded has room.
    pub(super) fn new(seed: u64, keys: u64, quota: u64, delays: Delays) -> Self {
        Self {
            seed,
            keys,
            sign_rate: quota,
            quota,
            bucket: quota.div_ceil(10),
            other_quotas: false,
            delays,
            signs_in_flight: WINDOW,
            queue_deadline: Duration::from_secs(30),
            block_time: Duration::from_secs(1),
        }
    }

    /// The configuration of the gateway.
    pub(super) fn toml(&self, node: &str, kms: &str) -> String {
        let Self { sign_rate, signs_in_flight, .. } = self;
        let (queue_deadline, sign_deadline) = (self.queue_deadline.as_millis(), SIGN_DEADLINE.as_millis());
        format!(
            r#"[server]
listen = "127.0.0.1:0"
max_connections = {CONNECTIONS}
max_calls_in_flight = {CALLS_IN_FLIGHT}
[admin]
listen = "127.0.0.1:0"
[journal]
path = "sluice.db"
[[environment]]
name = "bench"
chain_id = {CHAIN_ID}
nodes = [{{ url = "{node}" }}]
bump = {{ times = 0 }}
[environment.account]
queue = {WINDOW}
queue_deadline = "{queue_deadline}ms"
sign_window = {signs_in_flight}
sign_ahead = {WINDOW}
broadcast_window = {WINDOW}
[[configuration]]
name = "kms"
provider = "aws_kms"
region = "us-east-1"
endpoint = "{kms}"
access_key_id = {{ env = "BENCH_ACCESS_KEY_ID" }}
secret_access_key = {{ env = "BENCH_SECRET_ACCESS_KEY" }}
sign_rate = {sign_rate}
sign_rate_per_key = {sign_rate}
sign_window = {WINDOW}
sign_window_per_key = {WINDOW}
sign_deadline = "{sign_deadline}ms"
[[service]]
name = "{SERVICE}"
environment = "bench"
configurations = ["kms"]
keys = {{ tag = {{ app = "{SERVICE}" }} }}
"#
        )
    }

    /// The same for people, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { keys, sign_rate, quota, bucket, delays, signs_in_flight, .. } = self;
        let Delays { p50, p99, max } = delays;
        let others = if self.other_quotas { ", and AWS's other quotas" } else { "" };
        vec![
            format!("KMS: {keys} keys; {quota} Signs a second, {bucket} tokens{others}; answers in p50 {p50}, p99 {p99}, at most {max} ms"),
            format!(
                "key store: sign_rate and sign_rate_per_key {sign_rate}; sign_window and sign_window_per_key {WINDOW}; sign_deadline {SIGN_DEADLINE:?}"
            ),
            format!(
                "windows of each account: sign_window {signs_in_flight}; queue, sign_ahead and broadcast_window {WINDOW}; queue_deadline {:?}",
                self.queue_deadline
            ),
            format!("gateway: max_calls_in_flight {CALLS_IN_FLIGHT}"),
            format!("node: a block each second, of {GAS_LIMIT} gas at most; no bound on the pool"),
        ]
    }
}
