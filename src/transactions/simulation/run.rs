//! One run of a schedule, from the first start of the process to a quiet end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::U256;
use sluice_load_tests::faults::Faults;
use sluice_load_tests::random::{Delays, Random};
use tokio::task::JoinSet;

use super::schedule::{Event, Schedule};
use super::world::{Detail, Process, World, lock, short};
use super::{checker, client};
use crate::journal::sqlite::inline::Database;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{chance, clock};

/// How long it may take, after nothing goes wrong any more, until everything is final.
const PATIENCE: Duration = Duration::from_secs(120);

/// Blocks with nothing open, until it is believed that nothing comes any more.
const QUIET: u32 = 6;

/// What a run showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) violations: Vec<String>,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) trace: String,
}

thread_local! {
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
    /// One for all runs of a thread: to make its tables takes longer than to empty them.
    static DATABASE: Database = Database::new(METRICS.with(Arc::clone));
}

/// Runs a schedule on this thread.
pub(super) fn run(schedule: &Schedule, detail: Detail) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut random = Random::new(schedule.seed, "pauses");
    chance::simulated::set(Some(Box::new(move || random.below(1 << 20) as f64 / f64::from(1 << 20))));
    let report = runtime.block_on(drive(schedule, detail));
    drop(runtime);
    chance::simulated::set(None);
    clock::simulated::set(None);
    report
}

async fn drive(schedule: &Schedule, detail: Detail) -> Report {
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    clock::simulated::set(Some((clock::now(), noon)));
    let metrics = METRICS.with(Arc::clone);
    let alarms = alarms(&metrics);
    let world = World::new(schedule, Arc::clone(&metrics), DATABASE.with(Database::clone), detail);
    let mut driver = Driver { kills: schedule.kills.clone().into_iter(), clients: JoinSet::new(), process: None, world };
    driver.start();
    let start = clock::now();
    for (at, event) in &schedule.events {
        driver.wait_until(start + *at).await;
        driver.happen(event);
    }
    driver.settle().await;
    let world = &driver.world;
    if let Some(process) = &driver.process {
        process.life.look_at_sends();
    }
    checker::check(world);
    for (kind, (before, after)) in ["account_restarted", "slot_taken"].into_iter().zip(alarms.into_iter().zip(self::alarms(&metrics))) {
        if after != before {
            lock(&world.ledger).violation(format!("alarm {kind}"));
        }
    }
    let violations = std::mem::take(&mut lock(&world.ledger).violations);
    Report { violations, counts: lock(&world.counts).clone(), trace: world.trace() }
}

/// How often there were alarms that there must never be.
fn alarms(metrics: &Metrics) -> [u64; 2] {
    ["account_restarted", "slot_taken"].map(|kind| metrics.transactions.alarms.with_label_values(&["sim", kind]).get())
}

struct Driver {
    world: Arc<World>,
    kills: std::vec::IntoIter<(super::edges::Edge, u64)>,
    clients: JoinSet<()>,
    /// `None` while it is down.
    process: Option<Process>,
}

impl Driver {
    fn start(&mut self) {
        self.process = Some(Process::start(&self.world, self.kills.next()));
    }

    /// Lets time pass; a process that ends meanwhile is started again after a while.
    async fn wait_until(&mut self, at: Instant) {
        loop {
            let Some(process) = &self.process else {
                self.start();
                continue;
            };
            let (stop, fatal) = (process.life.stop.clone(), process.fatal.clone());
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = fatal.cancelled() => {
                    // The process ends by itself, and is not there yet.
                    tokio::time::sleep(Duration::from_millis(self.world.below(300))).await;
                    process.life.end("by its journal");
                }
                () = tokio::time::sleep_until(at.into()) => return,
            }
            self.clients.abort_all();
            self.process = None;
            tokio::time::sleep(Duration::from_millis(self.world.below(1_500))).await;
        }
    }

    fn happen(&mut self, event: &Event) {
        let world = &self.world;
        if !matches!(event, Event::Request(_)) {
            world.note(|| format!("{event:?}"));
        }
        let words = format!("{event:?}");
        world.count(format!("event {}", words.split(['(', ' ']).next().unwrap_or_default()));
        match event {
            Event::Request(request) => {
                if let Some(process) = &self.process {
                    self.clients.spawn(client::run(process.clone(), request.clone()));
                }
            }
            Event::Block => drop(world.node.mine()),
            Event::Reorg(reorg) => drop(world.node.reorg(*reorg)),
            Event::ForgetPool => world.node.with(|node, _| node.forget_pool()),
            Event::Cut => world.node.with(|node, now| node.cut(now)),
            Event::Down(time) => world.node.with(|node, now| node.go_down(now, *time)),
            Event::BaseFee(wei) => world.node.with(|node, _| node.set_base_fee(*wei)),
            Event::Foreign(account) => {
                let from = world.addresses[*account];
                let hash = world.node.with(|node, now| node.impersonate(now, from, from, U256::from(1), None));
                world.note(|| format!("foreign {}", short(hash)));
                let nonce = world.pending(from);
                lock(&world.ledger).used_beside(from, hash, nonce);
            }
            Event::Kill => {
                if let Some(process) = &self.process {
                    process.life.end("at a time");
                }
            }
        }
    }

    /// Nothing goes wrong any more, blocks come, and everything has to become final.
    async fn settle(&mut self) {
        self.kills = Vec::new().into_iter();
        let world = Arc::clone(&self.world);
        world.note(|| "CALM".to_owned());
        world.is_calm.store(true, std::sync::atomic::Ordering::Relaxed);
        world.node.with(|node, now| {
            node.go_down(now, Duration::ZERO);
            node.set_faults(Faults::default());
            node.set_delays(Delays::default());
        });
        lock(&world.kms).set_faults(Faults::default());
        lock(&world.kms).set_delays(Delays::default());
        let end = clock::now() + PATIENCE;
        let mut quiet = 0;
        while quiet < QUIET {
            if clock::now() >= end {
                lock(&world.ledger).violation(format!("stuck: {} attempts, {} clients", checker::open(&world), self.clients.len()));
                return;
            }
            self.wait_until(clock::now() + Duration::from_secs(1)).await;
            world.node.with(|node, _| node.set_base_fee(1_000_000_000));
            world.node.mine();
            while self.clients.try_join_next().is_some() {}
            let is_quiet = self.clients.is_empty() && checker::open(&world) == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }
}
