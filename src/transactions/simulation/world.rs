//! What outlives the process: nodes, KMS, the database, and what was seen. And one life of the process in it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, U256};
use sluice_load_tests::random::Random;
use sluice_load_tests::sim_kms::{self, Kms};
use sluice_load_tests::sim_node::{self, SimNode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::edges::Edge;
use super::ledger::Ledger;
use super::schedule::Schedule;
use super::store::Store;
use super::tap::Tap;
use crate::config::{Bump, Environment, FeeCeilings};
use crate::journal::Engine as _;
use crate::journal::Record;
use crate::journal::sqlite::inline::{Database, Fate, Watch};
use crate::journal::sqlite::{SqliteJournal, edges};
use crate::node::testing::{self, pool_in_memory};
use crate::signing::{Key, Scheduler, SignLimits};
use crate::telemetry::crash::Commit;
use crate::telemetry::metrics::Metrics;
use crate::transactions::chain::{Chain, Parts};

/// The chain's id.
pub(super) const CHAIN: u64 = 31_337;
/// Blocks after which an inclusion is final, also where nodes have no word for it.
pub(super) const BLOCKS: u64 = 3;
/// Bytes on the wire of one direction.
const WIRE: usize = 256 << 10;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is written down of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    None,
    Story,
    Frames,
}

/// What outlives the process.
pub(super) struct World {
    pub(super) schedule: Schedule,
    pub(super) node: SimNode,
    pub(super) kms: Mutex<Kms>,
    /// The managed addresses, in order.
    pub(super) addresses: Vec<Address>,
    pub(super) database: Database,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    /// How often what happened.
    pub(super) counts: Mutex<BTreeMap<String, u64>>,
    /// Nothing goes wrong any more.
    pub(super) is_calm: AtomicBool,
    luck: Mutex<Random>,
    detail: Detail,
    trace: Mutex<String>,
}

impl World {
    pub(super) fn new(schedule: &Schedule, metrics: Arc<Metrics>, database: Database, detail: Detail) -> Arc<Self> {
        database.clear();
        let world = &schedule.world;
        let mut kms =
            Kms::new(sim_kms::Settings { delays: world.kms_delays, ..sim_kms::Settings::new(schedule.seed, world.accounts as u64) });
        kms.set_faults(world.kms_faults.clone());
        let addresses: Vec<Address> = kms.keys().iter().map(sim_kms::Key::address).collect();
        let ether = U256::from(1_000_000_000_000_000_000_u64);
        let settings =
            sim_node::Settings::new(world.client, CHAIN, schedule.seed).with_balance(ether * U256::from(1_000), addresses.iter().copied());
        let node = SimNode::new(sim_node::Settings { automine: false, delays: world.node_delays, ..settings });
        node.with(|node, _| node.set_faults(world.node_faults.clone()));
        Arc::new(Self {
            schedule: schedule.clone(),
            node,
            kms: Mutex::new(kms),
            addresses,
            database,
            ledger: Mutex::default(),
            metrics,
            counts: Mutex::default(),
            is_calm: AtomicBool::new(false),
            luck: Mutex::new(Random::new(schedule.seed, "world")),
            detail,
            trace: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.node.now()
    }

    /// Adds a line to the trace, if there is one.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        if self.detail > Detail::None {
            let now = self.now();
            writeln!(lock(&self.trace), "{:>9} {}", now.as_millis(), line()).unwrap();
        }
    }

    /// Whether frames are traced as well.
    pub(super) fn is_detailed(&self) -> bool {
        self.detail == Detail::Frames
    }

    pub(super) fn trace(&self) -> String {
        lock(&self.trace).clone()
    }

    pub(super) fn count(&self, what: impl Into<String>) {
        *lock(&self.counts).entry(what.into()).or_default() += 1;
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        lock(&self.luck).below(bound)
    }

    /// The nonce that the account is at, with what is in the pool.
    pub(super) fn pending(&self, address: Address) -> u64 {
        self.node.with(|node, _| node.pool().next_nonce(node.state(), address))
    }

    pub(super) fn index(&self, address: Address) -> usize {
        self.addresses.iter().position(|known| *known == address).unwrap_or(usize::MAX)
    }
}

/// One life of the process.
pub(super) struct Life {
    pub(super) world: Arc<World>,
    is_over: AtomicBool,
    pub(super) stop: CancellationToken,
    kill: Mutex<Option<(Edge, u64)>>,
    /// Sends at the node that were looked at.
    pub(super) seen: AtomicUsize,
}

impl Life {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The process passes this edge: it may end here.
    pub(super) fn pass(&self, edge: Edge) {
        if self.is_over() {
            return;
        }
        let is_here = {
            let mut kill = lock(&self.kill);
            match &mut *kill {
                Some((at, left)) if *at == edge => {
                    *left -= 1;
                    *left == 0
                }
                _ => false,
            }
        };
        if is_here {
            self.end(&format!("{edge:?}"));
        }
    }

    /// SIGKILL: from here on nothing that the process does has an effect.
    pub(super) fn end(&self, why: &str) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.world.count(format!("killed {why}"));
            self.world.note(|| format!("KILLED {why}"));
            self.stop.cancel();
        }
    }

    fn kinds(records: &[Record]) -> Vec<Commit> {
        let mut kinds: Vec<Commit> = records.iter().filter_map(edges::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

impl Watch for Life {
    fn pace(&self) -> Duration {
        Duration::from_micros(1 + self.world.below(self.world.schedule.world.commit_micros))
    }

    fn is_over(&self) -> bool {
        Self::is_over(self)
    }

    fn before(&self, records: &[Record]) -> Fate {
        Self::kinds(records).into_iter().for_each(|kind| self.pass(Edge::Before(kind)));
        let world = &self.world.schedule.world;
        if self.world.is_calm.load(Ordering::Relaxed) || records.is_empty() {
            return Fate::Done;
        }
        let drawn = self.world.below(1_000);
        let fate = if drawn < world.not_written {
            Fate::NotWritten
        } else if drawn < world.not_written + world.undecided {
            Fate::Undecided { written: self.world.below(2) == 0 }
        } else {
            Fate::Done
        };
        if fate != Fate::Done {
            self.world.count(format!("commit {fate:?}"));
        }
        fate
    }

    fn durable(&self, records: &[Record]) {
        lock(&self.world.ledger).durable(records, |address| self.world.pending(address));
        for record in records.iter().filter(|record| !matches!(record, Record::Tenure { .. })) {
            self.world.note(|| format!("durable {}", words(&self.world, record)));
        }
        Self::kinds(records).into_iter().for_each(|kind| self.pass(Edge::Durable(kind)));
    }

    fn answered(&self, records: &[Record], fate: Fate) {
        if fate != Fate::Done {
            self.world.note(|| format!("commit of {} records: {fate:?}", records.len()));
        }
        Self::kinds(records).into_iter().for_each(|kind| self.pass(Edge::Answered(kind)));
    }
}

fn words(world: &World, record: &Record) -> String {
    match record {
        Record::Floor { account, nonce } => format!("floor {} {nonce}", world.index(account.address)),
        Record::Attempt { attempt, state, replaces, .. } => format!(
            "{} {} nonce {} {} {}{}",
            attempt.kind.as_str(),
            world.index(attempt.account.address),
            attempt.nonce,
            short(attempt.hash),
            state.as_str(),
            replaces.map(|old| format!(" replaces {}", short(old))).unwrap_or_default()
        ),
        Record::State { hash, state, block, detail, .. } => {
            format!(
                "{} {}{}{}",
                short(*hash),
                state.as_str(),
                block.map(|block| format!(" in {}", block.number)).unwrap_or_default(),
                detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default()
            )
        }
        Record::Tenure { .. } => "tenure".to_owned(),
        Record::Intent(_) => "intent".to_owned(),
        Record::Taken { .. } => "intent taken".to_owned(),
        Record::Ended { detail, .. } => format!("intent ended ({detail})"),
        Record::Key { .. } => "key".to_owned(),
        Record::Used { account, nonce } => format!("used {} {nonce}", world.index(account.address)),
        Record::Pause { by, reason, .. } => format!("pause {} {reason:?}", by.as_str()),
    }
}

/// The beginning of a hash.
pub(super) fn short(hash: alloy_primitives::B256) -> String {
    alloy_primitives::hex::encode(&hash[..4])
}

/// A life and the way into it.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) life: Arc<Life>,
    pub(super) chain: Arc<Chain>,
    pub(super) keys: Arc<BTreeMap<Address, Arc<Key>>>,
    pub(super) fatal: CancellationToken,
}

impl Process {
    /// The process starts; `kill`: at which passing of which edge it ends.
    pub(super) fn start(world: &Arc<World>, kill: Option<(Edge, u64)>) -> Self {
        world.note(|| format!("STARTED, to be killed at {kill:?}"));
        let stop = CancellationToken::new();
        let life = Arc::new(Life {
            world: Arc::clone(world),
            is_over: AtomicBool::new(false),
            stop: stop.clone(),
            kill: Mutex::new(kill),
            seen: AtomicUsize::new(world.node.with(|node, _| node.arrivals().len())),
        });
        let environment = environment(&world.schedule);
        let journal = SqliteJournal::inline(&world.database, Arc::<Life>::clone(&life));
        let dial = {
            let life = Arc::clone(&life);
            move |_: &url::Url| {
                let (ours, theirs) = tokio::io::duplex(WIRE);
                let node = life.world.node.clone();
                let tap = Tap::new(theirs, Arc::clone(&life));
                tokio::spawn(async move { node.serve_connection(tap).await });
                Some(ours)
            }
        };
        let keys = Arc::new(Store::keys(&life));
        let limits = SignLimits { deadline: Duration::from_secs(4), ..SignLimits::default() };
        let chain = Chain::start(Parts {
            pool: pool_in_memory(&environment, &world.metrics, stop.clone(), dial),
            environment,
            ceilings: HashMap::from([("payments".into(), FeeCeilings::default())]),
            journal: Arc::<SqliteJournal>::clone(&journal),
            scheduler: Scheduler::start(HashMap::from([("sim".to_owned(), limits)]), Arc::clone(&world.metrics)),
            key_of: {
                let keys = Arc::clone(&keys);
                Arc::new(move |address| keys.get(&address).cloned())
            },
            receipts: mpsc::unbounded_channel().0,
            metrics: Arc::clone(&world.metrics),
            stop,
        });
        Self { life, chain, keys, fatal: journal.fatal() }
    }
}

fn environment(schedule: &Schedule) -> Environment {
    let world = &schedule.world;
    let urls = (0..world.endpoints).map(|number| format!("ws://node{number}.example:8546").parse().unwrap()).collect();
    Environment {
        name: "sim".into(),
        account: world.bounds,
        answer_after: world.answer_after,
        broadcast: world.broadcast,
        confirmations: world.confirmations,
        finalized_fallback: BLOCKS,
        rebroadcast: Duration::from_secs(5),
        hold: Duration::from_secs(4),
        reconcile_blocks: 2,
        bump: Bump { after: world.bump_after, blocks: 2, times: 3 },
        ..testing::environment(urls, Duration::from_secs(2))
    }
}
