//! One run: a world, its kills, and the reckoning when everything has come to rest.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sluice_gateway::telemetry::crash::{Commit, Edge, Point};
use sluice_load_tests::client::Client;

use super::chain::Environment;
use super::checker::{Evidence, Violation, check};
use super::journal::Journal;
use super::ledger::Answer;
use super::load::{self, Asker};
use super::operate::{self, operate};
use super::plan::Moment;
use super::provoke::provoke;
use super::stream::Stream;
use super::world::{Life, Start, World, killed_itself};
use crate::support::anvil::parse;
use crate::support::soon;

/// How long a life waits for the edge at which it is to be killed; then it is killed all the same.
const LIFE: Duration = Duration::from_secs(10);
/// Requests of each client in one life.
const REQUESTS: usize = 60;

/// What is wanted of a run.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) environment: Environment,
    /// Of the whole, and which world of it.
    pub(super) seed: u64,
    pub(super) world: u64,
    pub(super) kills: Vec<Moment>,
    /// The edge whose seeded fault is switched on.
    pub(super) fault: Option<Edge>,
    /// Whether the simulated node loses, delays and cuts.
    pub(super) troubled: bool,
    /// How long what waits at the end may take.
    pub(super) patience: Duration,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}, world {}", self.environment.name(), self.seed, self.world)?;
        self.fault.map_or(Ok(()), |edge| write!(f, ", seeded fault at {edge}"))
    }
}

/// One kill as it was.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    pub(super) planned: Moment,
    /// Whether it was at the planned edge; otherwise it was at a random moment.
    pub(super) hit: bool,
}

/// What came of it.
pub(super) struct Done {
    pub(super) kills: Vec<Kill>,
    pub(super) violations: Vec<Violation>,
    /// Kept where a promise is broken.
    pub(super) world: World,
}

/// Kills as planned, waits for rest, and compares.
pub(super) async fn run(wanted: &Wanted) -> Done {
    let mut world = World::start(wanted.environment, wanted.seed.wrapping_add(wanted.world), wanted.troubled).await;
    let stream = Stream::start(Arc::clone(&world.ledger));
    let mut kills = Vec::new();
    for (number, moment) in wanted.kills.iter().enumerate() {
        let seed = wanted.seed.wrapping_add(wanted.world).wrapping_mul(1_000).wrapping_add(number as u64);
        if matches!(moment, Moment::Edge(Edge(_, Point::Commit(Commit::Key)), _)) && number > 0 {
            world.add_key();
        }
        let began = Instant::now();
        let hit = one_life(&mut world, &stream, *moment, wanted.fault, seed).await;
        println!("{wanted}: {moment}{} ({:?})", if hit { "" } else { " was not passed" }, began.elapsed());
        kills.push(Kill { planned: *moment, hit });
    }
    let began = Instant::now();
    let evidence = rest(&mut world, &stream, wanted).await;
    println!("{wanted}: at rest ({:?})", began.elapsed());
    let violations = check(&evidence);
    for violation in &violations {
        println!("{wanted}: {violation}");
    }
    Done { kills, violations, world }
}

/// Whether it was killed at the planned edge, or at a random moment that was planned.
async fn one_life(world: &mut World, stream: &Stream, moment: Moment, fault: Option<Edge>, seed: u64) -> bool {
    let mut rng = StdRng::seed_from_u64(seed);
    world.node.set_faults([]);
    let plan = if let Moment::Edge(edge, passing) = moment { Some((edge, passing)) } else { None };
    let mut life = match world.live(plan, fault).await {
        Start::Lives(life) => life,
        Start::Killed => return true,
        Start::Failed(why) => {
            world.ledger.complain(format!("the gateway does not start: {why}"));
            return false;
        }
    };
    stream.at(Some(life.url()));
    let admin = life.admin.clone();
    if let Some(asker) = ask(world, &life).await {
        let world: &World = world;
        let provoking = async {
            match moment {
                Moment::Edge(edge, _) => provoke(world, &asker, edge, seed).await,
                Moment::Random(_) => provoke(world, &asker, fault.unwrap_or_else(|| any(&mut rng)), seed).await,
            }
        };
        let until = if let Moment::Random(after) = moment { Duration::from_millis(after) } else { LIFE };
        let ending = end(&mut life, until, &asker);
        tokio::join!(load::run(asker.clone(), seed, REQUESTS), operate(world, &admin, &asker, seed), provoking, ending);
    } else {
        life.process.exit().await;
    }
    stream.at(None);
    let hit = killed_at(&mut life);
    operate::compare(world);
    // A reorg that happens while nobody looks.
    if rng.random_ratio(1, 5) {
        world.chain.reorg(rng.random_range(1..super::CONFIRMATIONS)).await;
    }
    hit || plan.is_none()
}

/// An edge that has a provocation of its own.
fn any(rng: &mut StdRng) -> Edge {
    let edges: Vec<Edge> = Edge::all().collect();
    edges[rng.random_range(0..edges.len())]
}

/// A client of this life; `None` if it has ended already.
async fn ask(world: &World, life: &Life) -> Option<Asker> {
    let client = soon("a connection", Client::connect(&life.url(), &[])).await.ok()?;
    Some(Asker { client: Arc::new(client), ledger: Arc::clone(&world.ledger), accounts: Arc::clone(&world.loaded) })
}

/// Waits for the process to kill itself, and kills it in the end; returns when its clients know.
async fn end(life: &mut Life, after: Duration, asker: &Asker) {
    let until = Instant::now() + after;
    while life.process.ended().is_none() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    life.process.kill();
    while !asker.client.is_closed() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn killed_at(life: &mut Life) -> bool {
    life.process.kill();
    killed_itself(&mut life.process) && life.process.log().lines().any(|line| line.starts_with("killed at "))
}

/// Lives on without kills until everything is final, and gathers what there is to be compared.
async fn rest(world: &mut World, stream: &Stream, wanted: &Wanted) -> Evidence {
    world.node.set_faults([]);
    world.chain.heal();
    let until = Instant::now() + wanted.patience;
    let mut unrest = Vec::new();
    let mut life = match live_on(world, stream, wanted.fault).await {
        Ok(life) => life,
        Err(why) => {
            let journal = world.journal().unwrap_or_default();
            return Evidence { journal, record: std::mem::take(&mut *world.ledger.read()), unrest: vec![why], ..Evidence::default() };
        }
    };
    operate::resume_all(world, &life.admin).await;
    // By itself: nobody asks for anything.
    while let Some(why) = unsettled(&world.journal().unwrap_or_default()) {
        if Instant::now() > until {
            println!("{wanted}: {why}; {}", world.chain.state_of(&world.accounts()).await);
            unrest.push(why);
            break;
        }
        // A refused filler stops an account for longer than a test has patience; a restart tries at once.
        if world.accounts().iter().any(|account| world.is_paused(*account)) {
            tokio::time::sleep(Duration::from_secs(2)).await;
            if world.accounts().iter().any(|account| world.is_paused(*account)) {
                stream.at(None);
                life.process.kill();
                life = live_on(world, stream, wanted.fault).await.expect("it did start before");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asker = ask(world, &life).await.expect("the gateway lives");
    let mut witnesses = Vec::new();
    // Where something does not end, nothing that comes behind it does.
    let going_on = if unrest.is_empty() { world.accounts() } else { Vec::new() };
    for account in going_on {
        for _ in 0..=open_slots(world, account) {
            match asker.ask("witness", "eth_sendTransaction", account, json!({ "gas": "0x5208" })).await {
                Answer::Hash(hash) => witnesses.push(hash),
                other => unrest.push(format!("{account} does not go on: {other:?}")),
            }
        }
    }
    let until = until.max(Instant::now() + wanted.patience / 2);
    while unrest.is_empty()
        && let Some(why) = not_final(world, stream).await
    {
        if Instant::now() > until {
            unrest.push(why);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let looked_up = look_up(world, &asker).await;
    let journal = world.journal().expect("a journal");
    // In order: what is told is on record before.
    let stream_events = stream.events();
    stream.at(None);
    life.process.kill();
    let mut nonces = std::collections::BTreeMap::new();
    for account in world.accounts() {
        nonces.insert(account, world.chain.nonce(account).await);
    }
    Evidence {
        journal,
        mined: world.chain.mined().await,
        genesis: world.chain.genesis().await,
        nonces,
        keys: world.keys(),
        record: std::mem::take(&mut *world.ledger.read()),
        sent: world.node.sent().iter().filter_map(|sent| sent.decode()).map(|decoded| decoded.hash).collect(),
        stream: stream_events,
        looked_up,
        witnesses,
        unrest,
    }
}

async fn live_on(world: &mut World, stream: &Stream, fault: Option<Edge>) -> Result<Life, String> {
    match world.live(None, fault).await {
        Start::Lives(life) => {
            stream.at(Some(life.url()));
            Ok(life)
        }
        Start::Killed => Err("it was killed, and nobody asked for that".into()),
        Start::Failed(why) => Err(format!("the gateway does not start: {why}")),
    }
}

/// What still moves by itself: attempts that are neither final nor refused, slots that wait for a filler, pauses.
fn unsettled(journal: &Journal) -> Option<String> {
    let moving = |state: &str| !matches!(state, "confirmed" | "replaced" | "refused");
    if let Some(attempt) = journal.attempts.iter().find(|attempt| moving(&attempt.state)) {
        return Some(format!("{} (nonce {} of {}) stays {}", attempt.hash, attempt.nonce, attempt.address, attempt.state));
    }
    if let Some(id) = journal.queued.first() {
        return Some(format!("transaction {id} stays queued"));
    }
    journal.accounts.iter().find(|account| account.paused.is_some()).map(|account| format!("{} stays paused", account.address))
}

fn open_slots(world: &World, account: Address) -> usize {
    let journal = world.journal().unwrap_or_default();
    journal.slots.iter().filter(|slot| slot.address == account && !slot.done).count()
}

async fn not_final(world: &World, stream: &Stream) -> Option<String> {
    let journal = world.journal().unwrap_or_default();
    if let Some(why) = unsettled(&journal) {
        return Some(why);
    }
    if let Some(slot) = journal.slots.iter().find(|slot| !slot.done) {
        return Some(format!("nonce {} of {} stays open", slot.nonce, slot.address));
    }
    let told = journal.events.iter().filter(|event| !event.service.is_empty()).count();
    (stream.events().len() < told).then(|| format!("{} of {told} events are told", stream.events().len()))
}

/// What the gateway says of every hash that it told.
async fn look_up(world: &World, asker: &Asker) -> std::collections::HashMap<B256, (String, B256)> {
    let told: Vec<B256> = world
        .ledger
        .read()
        .requests
        .iter()
        .filter_map(|request| if let Answer::Hash(hash) = request.answer { Some(hash) } else { None })
        .collect();
    let mut found = std::collections::HashMap::new();
    for hash in told {
        if let Ok(life) = asker.question("sluice_getTransaction", json!([hash])).await {
            let state = life["state"].as_str().unwrap_or_default().to_owned();
            found.insert(hash, (state, parse(&life["hash"])));
        }
    }
    found
}
