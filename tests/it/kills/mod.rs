//! The crash harness: the real process is killed at every edge and at random moments under load, started again on the same journal,
//! and at the end the chain, the journal and what clients were told are compared. docs/crash-testing.md describes it.
//!
//! `SLUICE_KILLS` says how many kills (24 without it), `SLUICE_KILL_ON` on which chains, `SLUICE_KILL_SEED` with which seed;
//! `SLUICE_KILL_WORLD` makes one world of all of them again.

mod chain;
mod checker;
mod journal;
mod ledger;
mod load;
mod operate;
mod plan;
mod provoke;
mod report;
mod run;
mod seeded;
mod stream;
mod wallet;
mod world;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::chain::Environment;
use self::plan::Moment;
use self::run::{Wanted, run};
use crate::support::parts::{Part, have, skip};

/// Blocks after which an inclusion is final here; no reorg of a run is as deep.
const CONFIRMATIONS: u64 = 3;
/// Kills in one world: what they leave behind meets in one journal.
const KILLS_OF_A_WORLD: usize = 8;
/// Kills of a run if nobody says how many.
const KILLS: usize = 24;
/// Planned edges of which one at the least is hit.
const MANY: usize = 5;
/// How long what is left at the end of a world may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be read")))
}

/// The chains of these names.
fn named(names: &str) -> Vec<Environment> {
    let find = |name| Environment::ALL.into_iter().find(|one| one.name() == name);
    names.split(',').map(|name| find(name).unwrap_or_else(|| panic!("SLUICE_KILL_ON={names}: there is no {name}"))).collect()
}

/// As asked for, or by the clock.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    variable("SLUICE_KILL_SEED").unwrap_or(now.as_secs() << 8 | u64::from(now.subsec_micros() & 0xff))
}

/// Kills its share of all on one chain, world after world.
async fn kill_on(environment: Environment, test: &str, parts: &[Part]) {
    let chosen: Vec<Environment> = match variable::<String>("SLUICE_KILL_ON") {
        Some(names) => named(&names),
        None => Environment::ALL.to_vec(),
    };
    let Some(place) = chosen.iter().position(|one| *one == environment) else {
        return skip(test, "SLUICE_KILL_ON leaves it out");
    };
    if !have(test, parts) {
        return;
    }
    let all: usize = variable("SLUICE_KILLS").unwrap_or(KILLS);
    let share = all / chosen.len() + usize::from(place < all % chosen.len());
    if share == 0 {
        return skip(test, "SLUICE_KILLS leaves nothing for it");
    }
    let seed = seed();
    let only: Option<u64> = variable("SLUICE_KILL_WORLD");
    let plan = plan::kills(seed.wrapping_add(place as u64), share);
    let (mut broken, mut done_kills) = (Vec::new(), Vec::new());
    for (world, kills) in (0..).zip(plan.chunks(KILLS_OF_A_WORLD)).filter(|(world, _)| only.is_none_or(|only| only == *world)) {
        let wanted = Wanted { environment, seed, world, kills: kills.to_vec(), fault: None, troubled: true, patience: PATIENCE };
        let mut done = run(&wanted).await;
        report::write(&wanted, &done);
        done_kills.append(&mut done.kills);
        if !done.violations.is_empty() {
            done.world.folder.disable_cleanup(true);
            println!("{wanted}: the files are kept in {}", done.world.folder.path().display());
            broken.extend(done.violations.into_iter().map(|violation| format!("{wanted}: {violation}")));
        }
    }
    assert!(!done_kills.is_empty(), "there is no world {only:?}");
    // By chance an edge is not passed, or one or two of them; not all of many.
    let planned = done_kills.iter().filter(|kill| matches!(kill.planned, Moment::Edge(..)));
    assert!(planned.clone().count() < MANY || planned.clone().any(|kill| kill.hit), "killed at no edge");
    assert!(broken.is_empty(), "{} promises are broken:\n{}", broken.len(), broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_double_and_misreport_nothing_on_anvil() {
    kill_on(Environment::Anvil, "kills_lose_double_and_misreport_nothing_on_anvil", &[Part::Node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_double_and_misreport_nothing_on_the_simulated_node() {
    kill_on(Environment::Simulator, "kills_lose_double_and_misreport_nothing_on_the_simulated_node", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_double_and_misreport_nothing_on_geth() {
    kill_on(Environment::Geth, "kills_lose_double_and_misreport_nothing_on_geth", &[Part::Go]).await;
}
