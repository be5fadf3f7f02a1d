//! What it costs to tell many clients the same, beside jsonrpsee alone in the same run.

mod deaf;
mod observers;
mod servers;

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Log};
use serde_json::{Value, json};

use self::observers::Observers;
use self::servers::Server;
use super::figures::{Bound, Report};
use super::observe::{machine, machine_load, ms, steer_node};
use super::plan::Plan;
use super::world::{Programs, World};
use super::{Extent, Failure};
use crate::random::Delays;
use crate::wallet::Wallet;

/// Heads of a burst.
const BURST: u64 = 20;
/// Logs of a block.
const LOGS: u64 = 10;
/// The most memory that a connection may need beyond what it needs of jsonrpsee alone, in KiB.
const MORE_MEMORY: f64 = 8.0;
/// The most processor time of a notification, compared with jsonrpsee alone.
const MORE_TIME: f64 = 1.2;

/// What one of them needed.
#[derive(Debug, Default)]
struct Cost {
    /// KiB of a connection with a subscription.
    memory: f64,
    single: Told,
    burst: Told,
    logs: Told,
    /// Until everybody was back, with an id.
    storm: Duration,
    /// Processor time of that, for each, in microseconds.
    storm_time: f64,
}

/// Notifications of one kind.
#[derive(Debug, Default)]
struct Told {
    /// Processor time of one notification, in microseconds.
    time: f64,
    /// Until the last client had it, each time.
    delays: Vec<Duration>,
}

impl Told {
    fn delay(&self, share: f64) -> Option<Duration> {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        delays.get((delays.len().saturating_sub(1) as f64 * share).round() as usize).copied()
    }
}

/// Sluice, then jsonrpsee alone, on the same node.
pub(super) async fn fan_out(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let mut plan = Plan::new(extent.seed, 1, extent.quota, Delays::fixed(1));
    plan.block_time = Duration::ZERO;
    let load = machine_load();
    let world = World::start(programs, &plan).await?;
    let mut report = Report::new("fan-out", vec![format!("{} clients of newHeads, {} of logs", extent.observers, extent.observers / 10)]);
    let sluice = Server::Sluice(&world);
    // Before there is memory that others have left.
    let deaf = deaf::cost(&sluice, &world, &mut report).await?;
    let ours = cost(&sluice, &world, extent, &mut report).await?;
    let bare = Server::bare(programs, &world).await?;
    let theirs = cost(&bare, &world, extent, &mut report).await?;
    drop(bare);
    report.configured.push(machine(&load));
    for (name, cost) in [("Sluice", &ours), ("bare jsonrpsee", &theirs)] {
        tell(&mut report, name, cost);
    }
    report.hold("processor time of a head, to bare", ours.single.time / theirs.single.time, "x", Bound::AtMost(MORE_TIME));
    report.hold("processor time of a burst, to bare", ours.burst.time / theirs.burst.time, "x", Bound::AtMost(1.0));
    report.tell("processor time of a log, to bare", ours.logs.time / theirs.logs.time, "x");
    report.hold("memory of a connection beyond bare", ours.memory - theirs.memory, "KiB", Bound::AtMost(MORE_MEMORY));
    report.hold("memory of a client that never reads", deaf.memory, "MiB", Bound::AtMost(32.0));
    report.tell("of this, of its subscriptions", deaf.subscriptions, "MiB");
    report.tell("until it was ended", deaf.ended.as_secs_f64(), "s");
    Ok(report)
}

fn tell(report: &mut Report, name: &str, cost: &Cost) {
    for (kind, told) in [("head", &cost.single), ("burst", &cost.burst), ("log", &cost.logs)] {
        report.tell(&format!("{name}, {kind}: processor time of each"), told.time, "us");
        report.tell(&format!("{name}, {kind}: last client, p50"), ms(told.delay(0.5)), "ms");
        report.tell(&format!("{name}, {kind}: last client, at most"), ms(told.delay(1.0)), "ms");
    }
    report.tell(&format!("{name}: memory of a connection"), cost.memory, "KiB");
    report.tell(&format!("{name}: all came back in"), cost.storm.as_secs_f64(), "s");
    report.tell(&format!("{name}: processor time of one"), cost.storm_time, "us");
}

async fn cost(server: &Server<'_>, world: &World, extent: Extent, report: &mut Report) -> Result<Cost, Failure> {
    let count = extent.observers;
    // Whatever a first connection brings with it is no part of one.
    drop(Observers::connect(&server.url(), 100.min(count), "[\"newHeads\"]").await?);
    let before = server.resident();
    let (mut heads, _) = Observers::connect(&server.url(), count, "[\"newHeads\"]").await?;
    let mine = async |blocks: u64| steer_node(world.node(), "sim_mine", json!([blocks])).await;
    // Everybody has been told something, and buffers are what they are.
    told(server, &mut heads, 3, 1, || mine(1)).await?;
    let memory = match (before, server.resident()) {
        (Some(before), Some(after)) => (after as f64 - before as f64) / 1024.0 / count as f64,
        _ => f64::NAN,
    };
    let single = told(server, &mut heads, extent.heads, 1, || mine(1)).await?;
    let burst = told(server, &mut heads, (extent.heads / 6).max(1), BURST, || mine(BURST)).await?;
    check(server, &heads, report);
    drop(heads);

    let used = server.processor_time();
    let (mut back, storm) = Observers::connect(&server.url(), count, "[\"newHeads\"]").await?;
    let storm_time = per(used, server.processor_time(), count);
    told(server, &mut back, 1, 1, || mine(1)).await?;
    check(server, &back, report);
    drop(back);

    let (mut watching, _) = Observers::connect(&server.url(), (count / 10).max(1), &logs_of_the_bench().to_string()).await?;
    let sender = Wallet::new(extent.seed, 0).address();
    let emit = async || {
        steer_node(world.node(), "sim_emit", json!([sender, logs()])).await?;
        mine(1).await
    };
    let logs = told(server, &mut watching, extent.heads, LOGS, emit).await?;
    check(server, &watching, report);
    Ok(Cost { memory, single, burst, logs, storm, storm_time })
}

/// Makes something happen so many times; each time everybody is told of `each` of it.
async fn told(
    server: &Server<'_>,
    observers: &mut Observers,
    times: u64,
    each: u64,
    happen: impl AsyncFn() -> Result<Value, Failure>,
) -> Result<Told, Failure> {
    let used = server.processor_time();
    let mut delays = Vec::new();
    for _ in 0..times {
        let from = Instant::now();
        happen().await?;
        delays.push(observers.told(each, from).await?);
    }
    Ok(Told { time: per(used, server.processor_time(), times * each * observers.count()), delays })
}

/// Microseconds of processor time for each of so many.
fn per(before: Option<Duration>, after: Option<Duration>, count: u64) -> f64 {
    match (before, after) {
        (Some(before), Some(after)) => after.saturating_sub(before).as_secs_f64() * 1e6 / count as f64,
        _ => f64::NAN,
    }
}

fn check(server: &Server<'_>, observers: &Observers, report: &mut Report) {
    for (what, count) in [("notifications out of order", observers.out_of_order()), ("clients that were ended", observers.ended())] {
        if count > 0 {
            report.wrong.push(format!("{}: {count} {what}", server.name()));
        }
    }
}

fn emitter() -> Address {
    Address::repeat_byte(0xfa)
}

fn logs_of_the_bench() -> Value {
    json!(["logs", { "address": emitter() }])
}

fn logs() -> Vec<Log> {
    (0..LOGS)
        .map(|number| Log::new_unchecked(emitter(), vec![B256::left_padding_from(&number.to_be_bytes())], vec![7; 64].into()))
        .collect()
}
