//! The simulators as processes of their own: a node, or a KMS. On loopback only.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, U256};
use sluice_load_tests::random::Delays;
use sluice_load_tests::sim_kms::{self, AccessKey, Place, Quotas, SimKms};
use sluice_load_tests::sim_node::{BaseFee, Client, Limits, Settings, SimNode};
use sluice_load_tests::wallet::Wallet;

/// As in the gateway: the simulators must not be what a benchmark measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: sluice-sim node [--listen ADDRESS] [--client NAME] [--chain-id N] [--seed N] [--block-time TIME]
                       [--fees eip1559|free|legacy] [--fund ADDRESS]... [--keys N] [--delays P50,P99,MAX]
                       [--gas-limit GAS] [--pool client|open]
       sluice-sim kms  [--listen ADDRESS] [--seed N] [--keys N] [--tag NAME=VALUE]... [--delays P50,P99,MAX|aws]
                       [--account ID] [--region NAME] [--place ACCOUNT/REGION]... [--replica REGION]... [--creating TIME]
                       [--access-key ID:SECRET[:ACCOUNT[:TOKEN]]]... [--quotas aws] [--quota OPERATION=RATE[,BURST]]...
                       [--bare-alias NAME]...

  --listen      127.0.0.1:8600 (node: WebSocket and HTTP), 127.0.0.1:8601 (kms)
  --client      geth, reth, besu, nethermind, erigon or anvil (geth)
  --chain-id    31337
  --seed        what everything random comes from (1)
  --block-time  such as 1s or 250ms (1s); 0s: blocks only where sim_mine or the client's own mining makes them
  --fees        base fee by EIP-1559, a fixed base fee of 0, or none (eip1559)
  --gas-limit   of a block (30000000)
  --pool        whether the pool has the client's bounds or is open (client)
  --fund        an address that has 1000 ether; again for more
  --keys        node: fund so many keys of a simulated KMS of the same seed (0); kms: have so many keys (4)
  --tag         a tag of every key; again for more
  --delays      of answers, in milliseconds (0,0,0); aws: 10,60,1000
  --account     of the first keys (111122223333); --region: theirs (us-east-1)
  --place       a further account and Region with as many keys; again for more
  --replica     a Region that has a replica of every key; again for more
  --creating    how long a new replica is in the state Creating (2s)
  --access-key  credentials that are known; without any, signatures of requests are not checked
  --quotas      aws: what AWS grants at first; --quota: one of them, a second, and what its bucket holds (a tenth of that)
  --bare-alias  an alias without a target, such as alias/aws/ebs";

/// Keys that are printed at the start; `Simulator.Keys` tells all.
const PRINTED: usize = 100;

/// What the options say, for both simulators.
#[derive(Debug)]
struct Options {
    listen: SocketAddr,
    seed: u64,
    keys: u64,
    delays: Delays,
    client: Client,
    chain_id: u64,
    block_time: Duration,
    fees: String,
    gas_limit: u64,
    pool: String,
    fund: Vec<Address>,
    kms: sim_kms::Settings,
}

fn parse<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name} does not take {text}"))
}

fn duration(name: &str, text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    match unit {
        "ms" => parse(name, digits).map(Duration::from_millis),
        "s" => parse(name, digits).map(Duration::from_secs),
        _ => Err(format!("{name} takes a time such as 1s or 250ms, not {text}")),
    }
}

fn delays(name: &str, text: &str) -> Result<Delays, String> {
    if text == "aws" {
        return Ok(Delays::aws());
    }
    let numbers = text.split(',').map(|number| parse(name, number)).collect::<Result<Vec<u64>, _>>()?;
    match numbers.as_slice() {
        [p50, p99, max] if p50 <= p99 && p99 <= max => Ok(Delays { p50: *p50, p99: *p99, max: *max }),
        _ => Err(format!("{name} takes three rising numbers of milliseconds, not {text}")),
    }
}

fn access_key(text: &str, account: &str) -> Result<AccessKey, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [id, secret, rest @ ..] = parts.as_slice() else {
        return Err(format!("--access-key takes ID:SECRET, not {text}"));
    };
    let account = rest.first().copied().unwrap_or(account);
    Ok(AccessKey { session_token: rest.get(1).map(|token| (*token).to_owned()), ..AccessKey::new(id, secret, account) })
}

fn quota(quotas: Quotas, text: &str) -> Result<Quotas, String> {
    let (operation, numbers) = text.split_once('=').ok_or_else(|| format!("--quota takes OPERATION=RATE, not {text}"))?;
    let (rate, burst) = numbers.split_once(',').map_or((numbers, None), |(rate, burst)| (rate, Some(burst)));
    let rate: u64 = parse("--quota", rate)?;
    let burst = burst.map_or_else(|| Ok(rate.div_ceil(10)), |burst| parse("--quota", burst))?;
    Ok(quotas.with(operation, rate, burst))
}

/// An option that only the KMS has.
fn kms_option(kms: &mut sim_kms::Settings, name: &str, value: &str) -> Result<(), String> {
    match name {
        "--tag" => {
            let (tag, value) = value.split_once('=').ok_or_else(|| format!("--tag takes NAME=VALUE, not {value}"))?;
            kms.tags.insert(tag.into(), value.into());
        }
        "--account" => kms.account = value.into(),
        "--region" => kms.region = value.into(),
        "--place" => {
            let (account, region) = value.split_once('/').ok_or_else(|| format!("--place takes ACCOUNT/REGION, not {value}"))?;
            kms.further.push(Place::new(account, region));
        }
        "--replica" => kms.replica_regions.push(value.into()),
        "--creating" => kms.creating = duration(name, value)?,
        "--access-key" => kms.access_keys.push(access_key(value, &kms.account)?),
        "--quotas" if value == "aws" => kms.quotas = Quotas::aws(),
        "--quota" => kms.quotas = quota(std::mem::take(&mut kms.quotas), value)?,
        "--bare-alias" => kms.bare_aliases.push(value.into()),
        _ => return Err(format!("{name} {value} is not understood")),
    }
    Ok(())
}

fn options(command: &str, mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let is_node = command == "node";
    if !is_node && command != "kms" {
        return Err(format!("{command} is no simulator"));
    }
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], if is_node { 8600 } else { 8601 })),
        seed: 1,
        keys: if is_node { 0 } else { 4 },
        delays: Delays::default(),
        client: Client::Geth,
        chain_id: 31_337,
        block_time: Duration::from_secs(1),
        fees: "eip1559".into(),
        gas_limit: 30_000_000,
        pool: "client".into(),
        fund: Vec::new(),
        kms: sim_kms::Settings::new(1, 0),
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} wants a value"))?;
        match (name.as_str(), is_node) {
            ("--listen", _) => options.listen = parse(&name, &value)?,
            ("--seed", _) => options.seed = parse(&name, &value)?,
            ("--keys", _) => options.keys = parse(&name, &value)?,
            ("--delays", _) => options.delays = delays(&name, &value)?,
            ("--client", true) => options.client = value.parse()?,
            ("--chain-id", true) => options.chain_id = parse(&name, &value)?,
            ("--block-time", true) => options.block_time = duration(&name, &value)?,
            ("--fees", true) if ["eip1559", "free", "legacy"].contains(&value.as_str()) => options.fees = value,
            ("--gas-limit", true) => options.gas_limit = parse(&name, &value)?,
            ("--pool", true) if ["client", "open"].contains(&value.as_str()) => options.pool = value,
            ("--fund", true) => options.fund.push(parse(&name, &value)?),
            (_, false) => kms_option(&mut options.kms, &name, &value)?,
            _ => return Err(format!("{name} {value} is not understood")),
        }
    }
    if options.listen.ip().is_loopback() { Ok(options) } else { Err("--listen takes a loopback address only".into()) }
}

async fn node(options: Options) -> std::io::Result<()> {
    let ether = U256::from(1_000_000_000_000_000_000_u64);
    let keys = (0..options.keys).map(|number| Wallet::new(options.seed, number).address());
    let funded: Vec<Address> = keys.chain(options.fund).collect();
    let settings = Settings::new(options.client, options.chain_id, options.seed).with_balance(U256::from(1_000) * ether, funded);
    let settings = match options.fees.as_str() {
        "free" => settings.free(),
        "legacy" => Settings { base_fee: BaseFee::Absent, ..settings },
        _ => settings,
    };
    let limits = Limits::of(options.client);
    let limits = if options.pool == "open" { limits.open() } else { limits };
    let settings = Settings { gas_limit: options.gas_limit, limits, ..settings };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let node = SimNode::new(Settings { delays: options.delays, genesis_time: now, ..settings });
    let listener = node.listen(options.listen).await?;
    println!("{} of chain {} listens on {}", options.client.name(), options.chain_id, listener.url());
    if options.block_time.is_zero() {
        std::future::pending().await
    } else {
        node.run_blocks(options.block_time).await;
        Ok(())
    }
}

async fn kms(options: Options) -> std::io::Result<()> {
    let Options { seed, keys, delays, kms, listen, .. } = options;
    let kms = SimKms::new(sim_kms::Settings { seed, keys, delays, ..kms });
    let listener = kms.listen(listen).await?;
    println!("KMS with {keys} keys listens on {}", listener.url());
    kms.with(|kms, _| kms.keys().iter().take(PRINTED).for_each(|key| println!("{} {}", key.address(), key.arn)));
    std::future::pending().await
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = match options(&command, arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("sluice-sim: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluice-sim: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async move { if command == "node" { node(options).await } else { kms(options).await } });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
