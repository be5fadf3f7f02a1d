//! One run of a schedule, from a chain of a few blocks to a quiet end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloy_primitives::{Address, Bytes, Log, U256};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::random::{Delays, Random};
use sluice_load_tests::sim_node::{Settings, SimNode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::observers::{EMITTERS, Observer, topic};
use super::schedule::{Event, Schedule, heads};
use crate::node::testing::{self, pool_in_memory};
use crate::subscriptions::chain::{Feed, StepMeter};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{chance, clock};

/// Observers that are there from the beginning: two filters of each kind.
const OBSERVERS: usize = 8;
/// Blocks that are there from the beginning: more than a reorg takes.
const BLOCKS: usize = 24;
/// How long it may take, after nothing goes wrong any more, until everybody was told everything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes on the wire of one direction.
const WIRE: usize = 256 << 10;
/// Who has logs emitted.
const EMITTING: Address = Address::repeat_byte(0xaa);

/// What a run showed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Report {
    pub(super) violation: Option<String>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// By observer.
    pub(super) events: Vec<u64>,
}

thread_local! {
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
}

/// Runs a schedule on this thread.
pub(super) fn run(schedule: &Schedule) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut random = Random::new(schedule.seed, "pauses");
    chance::simulated::set(Some(Box::new(move || random.below(1 << 20) as f64 / f64::from(1 << 20))));
    let report = runtime.block_on(drive(schedule));
    drop(runtime);
    chance::simulated::set(None);
    clock::simulated::set(None);
    report
}

async fn drive(schedule: &Schedule) -> Report {
    clock::simulated::set(Some((clock::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))));
    let ether = U256::from(10).pow(U256::from(24));
    let settings = Settings { automine: false, delays: schedule.delays, ..Settings::new(schedule.client, 31337, schedule.seed) };
    let node = SimNode::new(settings.with_balance(ether, [EMITTING]));
    for _ in 0..BLOCKS {
        node.mine();
    }
    let urls = (0..schedule.endpoints).map(|number| format!("ws://node{number}.example:8546").parse().unwrap()).collect();
    let (stop, metrics) = (CancellationToken::new(), METRICS.with(Arc::clone));
    let dial = {
        let node = node.clone();
        move |_: &url::Url| {
            let (ours, theirs) = tokio::io::duplex(WIRE);
            let node = node.clone();
            tokio::spawn(async move { node.serve_connection(theirs).await });
            Some(ours)
        }
    };
    let pool = pool_in_memory(&testing::environment(urls, Duration::from_secs(2)), &metrics, stop.clone(), dial);
    let feed = Feed::start(pool, StepMeter::new(&metrics, "sim"), stop.clone());
    let (leave, away) = watch::channel(Duration::ZERO);
    let mut observers: Vec<Observer> = (0..OBSERVERS).map(|n| Observer::start(n, &node, &feed, away.clone())).collect();
    let mut report = Report::default();
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.with(|node, _| node.set_faults(schedule.faults.clone()));
    for (pause, event) in &schedule.events {
        tokio::time::sleep(*pause).await;
        *report.counts.entry(happen(&node, event)).or_default() += 1;
        match event {
            Event::Join => observers.push(Observer::start(observers.len(), &node, &feed, away.clone())),
            Event::Leave(how_long) => drop(leave.send_replace(*how_long)),
            _ => {}
        }
        report.violation = observers.iter().find_map(Observer::fault);
        if report.violation.is_some() {
            return report;
        }
    }
    settle(&node, &observers, &mut report).await;
    stop.cancel();
    report
}

fn happen(node: &SimNode, event: &Event) -> &'static str {
    node.with(|node, now| match event {
        Event::Block(logs) => {
            if !logs.is_empty() {
                node.emit(now, EMITTING, logs);
            }
            node.mine(now);
            "block"
        }
        Event::Reorg(reorg) => {
            node.reorg(now, *reorg);
            "reorg"
        }
        Event::Cut => {
            node.cut(now);
            "cut"
        }
        Event::Down(how_long) => {
            node.go_down(now, *how_long);
            "down"
        }
        Event::Hang => {
            node.hang(now);
            "hang"
        }
        Event::Stall(how_long) => {
            node.stall(now, *how_long);
            "stall"
        }
        Event::Announcing(is_announcing) => {
            node.set_announcing(*is_announcing);
            "announcing"
        }
        Event::Heads(fault, count) => {
            node.set_head_faults(heads(fault, *count));
            "heads"
        }
        Event::Join => "join",
        Event::Leave(_) => "leave",
    })
}

/// Nothing goes wrong any more, and a block comes that concerns everybody.
async fn settle(node: &SimNode, observers: &[Observer], report: &mut Report) {
    node.with(|node, now| {
        node.go_down(now, Duration::ZERO);
        node.stall(now, Duration::ZERO);
        node.set_announcing(true);
        node.set_faults(Faults::default());
        node.set_head_faults(Faults::default());
        node.set_delays(Delays::default());
        node.emit(now, EMITTING, &[Log::new_unchecked(EMITTERS[0], vec![topic(0), topic(1)], Bytes::new())]);
        node.mine(now);
    });
    let end = clock::now() + PATIENCE;
    loop {
        let verdicts: Vec<_> = node.with(|node, _| observers.iter().map(|observer| observer.complete(node)).collect());
        report.events = verdicts.iter().map(|(_, events)| *events).collect();
        report.violation = observers.iter().find_map(Observer::fault);
        let Some(why) = verdicts.into_iter().find_map(|(verdict, _)| verdict.err()) else { return };
        if report.violation.is_some() {
            return;
        }
        if clock::now() >= end {
            report.violation = Some(format!("stuck: {why}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
