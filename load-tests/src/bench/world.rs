//! Everything that one run needs: the two simulators and the gateway, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::U256;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Failure;
use super::observe::Kms;
use super::plan::{CHAIN_ID, GAS_LIMIT, Plan, SERVICE};
use super::process::{Process, own_processor_time};
use crate::client::Client;
use crate::http;
use crate::listener::Listener;
use crate::random::Delays;
use crate::sim_kms::{self, Quotas, SimKms};
use crate::sim_node::{self, Limits, Settings, SimNode};
use crate::wallet::Wallet;

/// How long a gateway may take until it serves.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(5);

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `sluice`.
    pub gateway: PathBuf,
    /// `sluice-sim`; `None`: the simulators run in this process.
    pub simulators: Option<PathBuf>,
}

/// A folder for configuration, journal and logs, removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder in the place for temporary files: it may stay if it cannot be removed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A simulator.
#[derive(Debug)]
enum Simulator {
    Process(Process),
    Here { _listener: Listener, blocks: Option<JoinHandle<()>> },
}

impl Simulator {
    fn processor_time(&self) -> Option<Duration> {
        match self {
            Self::Process(process) => process.processor_time(),
            Self::Here { .. } => None,
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Self::Here { blocks: Some(blocks), .. } = self {
            blocks.abort();
        }
    }
}

/// Processor time that each process has used, where that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProcessorTimes {
    pub(super) gateway: Option<Duration>,
    pub(super) kms: Option<Duration>,
    pub(super) node: Option<Duration>,
    pub(super) load: Option<Duration>,
}

/// The gateway and the simulators, running; killed when dropped.
#[derive(Debug)]
pub(super) struct World {
    gateway: Option<Process>,
    program: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
    kms: (Simulator, Kms),
    node: (Simulator, String),
    folder: Folder,
    starts: u32,
}

impl World {
    /// The simulators, and no gateway yet.
    pub(super) async fn simulators(programs: &Programs, plan: &Plan) -> Result<Self, Failure> {
        let folder = Folder::new()?;
        let ((kms, kms_url), (node, node_url)) = match &programs.simulators {
            Some(program) => {
                let kms = as_process(program, "kms", &kms_options(plan), &folder).await?;
                (kms, as_process(program, "node", &node_options(plan), &folder).await?)
            }
            None => (kms_here(plan).await?, node_here(plan).await?),
        };
        // The node has WebSocket and HTTP at the same port.
        std::fs::write(folder.path().join("sluice.toml"), plan.toml(&node_url, &kms_url))?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            gateway: None,
            program: programs.gateway.clone(),
            listen: nowhere,
            admin: nowhere,
            kms: (kms, Kms::at(&kms_url)),
            node: (node, node_url.replacen("ws://", "http://", 1)),
            folder,
            starts: 0,
        })
    }

    /// The simulators and a gateway that serves.
    pub(super) async fn start(programs: &Programs, plan: &Plan) -> Result<Self, Failure> {
        let mut world = Self::simulators(programs, plan).await?;
        world.start_gateway().await?;
        Ok(world)
    }

    /// Starts the gateway; how long it takes until its service is ready.
    pub(super) async fn start_gateway(&mut self) -> Result<Duration, Failure> {
        self.starts += 1;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SLUICE_") || text.starts_with("AWS_") || text == "RUST_LOG" {
                command.env_remove(&name);
            }
        }
        command.env("BENCH_ACCESS_KEY_ID", "bench").env("BENCH_SECRET_ACCESS_KEY", "bench");
        command.arg("serve").arg(self.folder.path().join("sluice.toml"));
        let begun = Instant::now();
        let mut gateway = Process::start(&mut command, self.folder.path().join(format!("gateway-{}.log", self.starts)))?;
        (self.listen, self.admin) = gateway.until(serving).await?;
        self.gateway = Some(gateway);
        let ready = format!("http://{}/readyz/{SERVICE}", self.admin);
        while !http::get(&ready).await.is_ok_and(|(status, _)| status == 200) {
            if begun.elapsed() > PATIENCE {
                return Err("the gateway is not ready".into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    /// Stops the gateway, as an operator would.
    pub(super) async fn stop_gateway(&mut self) -> Result<(), Failure> {
        match self.gateway.take() {
            Some(gateway) => gateway.stop().await,
            None => Ok(()),
        }
    }

    /// The WebSocket URL of a service.
    pub(super) fn url(&self, service: &str) -> String {
        format!("ws://{}/{service}", self.listen)
    }

    /// Where a further process writes what it says.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Bytes of memory that the gateway has.
    pub(super) fn resident(&self) -> Option<u64> {
        self.gateway.as_ref().and_then(Process::resident)
    }

    /// A WebSocket to the service.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.url(SERVICE), &[]).await?)
    }

    /// The page of metrics.
    pub(super) async fn metrics(&self) -> Result<String, Failure> {
        let (_, page) = http::get(&format!("http://{}/metrics", self.admin)).await?;
        Ok(String::from_utf8(page.to_vec())?)
    }

    /// The simulated KMS.
    pub(super) fn kms(&self) -> &Kms {
        &self.kms.1
    }

    /// The simulated node's HTTP URL.
    pub(super) fn node(&self) -> &str {
        &self.node.1
    }

    /// What each process has used so far.
    pub(super) fn processor_times(&self) -> ProcessorTimes {
        ProcessorTimes {
            gateway: self.gateway.as_ref().and_then(Process::processor_time),
            kms: self.kms.0.processor_time(),
            node: self.node.0.processor_time(),
            load: own_processor_time(),
        }
    }
}

/// The addresses in the line of the log that says that it serves.
fn serving(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("\"serving\""))?;
    let json: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| json.get(name)?.as_str()?.parse().ok();
    Some((address("listen")?, address("admin")?))
}

/// A simulator as a process, and its URL: the last word of its first line.
async fn as_process(program: &Path, name: &str, options: &[String], folder: &Folder) -> Result<(Simulator, String), Failure> {
    let mut command = Command::new(program);
    command.arg(name).args(["--listen", "127.0.0.1:0"]).args(options);
    let mut process = Process::start(&mut command, folder.path().join(format!("{name}.log")))?;
    let url = process
        .until(|said| {
            let (first, _) = said.split_once('\n')?;
            first.rsplit(' ').next().map(str::to_owned)
        })
        .await?;
    Ok((Simulator::Process(process), url))
}

fn kms_options(plan: &Plan) -> Vec<String> {
    let Plan { seed, keys, quota, bucket, delays, .. } = plan;
    let Delays { p50, p99, max } = delays;
    let mut options = vec![format!("--seed={seed}"), format!("--keys={keys}"), format!("--tag=app={SERVICE}")];
    options.push(format!("--delays={p50},{p99},{max}"));
    if plan.other_quotas {
        options.push("--quotas=aws".into());
    }
    options.push(format!("--quota=Sign={quota},{bucket}"));
    separate(&options)
}

fn node_options(plan: &Plan) -> Vec<String> {
    let Plan { seed, keys, .. } = plan;
    separate(&[
        format!("--seed={seed}"),
        format!("--keys={keys}"),
        format!("--chain-id={CHAIN_ID}"),
        format!("--gas-limit={GAS_LIMIT}"),
        "--pool=open".into(),
        format!("--block-time={}ms", plan.block_time.as_millis()),
    ])
}

/// `--name=value` as two arguments.
fn separate(options: &[String]) -> Vec<String> {
    options.iter().filter_map(|option| option.split_once('=')).flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
}

async fn kms_here(plan: &Plan) -> Result<(Simulator, String), Failure> {
    let quotas = if plan.other_quotas { Quotas::aws() } else { Quotas::default() };
    let settings = sim_kms::Settings {
        quotas: quotas.with("Sign", plan.quota, plan.bucket),
        delays: plan.delays,
        ..sim_kms::Settings::new(plan.seed, plan.keys).with_tag("app", SERVICE)
    };
    let listener = SimKms::new(settings).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let url = listener.url();
    Ok((Simulator::Here { _listener: listener, blocks: None }, url))
}

async fn node_here(plan: &Plan) -> Result<(Simulator, String), Failure> {
    let ether = U256::from(1_000_000_000_000_000_000_u64);
    let keys = (0..plan.keys).map(|number| Wallet::new(plan.seed, number).address());
    let settings = Settings {
        genesis_time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        gas_limit: GAS_LIMIT,
        limits: Limits::of(sim_node::Client::Geth).open(),
        ..Settings::new(sim_node::Client::Geth, CHAIN_ID, plan.seed).with_balance(U256::from(1_000) * ether, keys)
    };
    let node = SimNode::new(settings);
    let listener = node.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let url = listener.url();
    let block_time = plan.block_time;
    let blocks = (!block_time.is_zero()).then(|| tokio::spawn(async move { node.run_blocks(block_time).await }));
    Ok((Simulator::Here { _listener: listener, blocks }, url))
}
