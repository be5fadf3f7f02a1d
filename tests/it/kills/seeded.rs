//! The harness sees what it is there for: each edge has a seeded fault (`SLUICE_SEEDED_FAULT`), and each is caught, by a rule that
//! names what it does. A world like theirs without a fault is clean.
//!
//! `SLUICE_KILL_FAULTS` says how many edges are tried (`all`, or a number; 6 without it, others each time, by the seed), `SLUICE_KILL_FAULT`
//! names one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use sluice_gateway::telemetry::crash::{Commit, Edge, Point, Side, Told};

use super::chain::Environment;
use super::checker::Rule;
use super::plan::Moment;
use super::run::{Wanted, run};

/// Worlds at a time.
const WORLDS: usize = 6;
/// Edges that are tried if nobody says how many.
const SPREAD: usize = 6;
/// Worlds in which a seeded fault is looked for: by chance none of what it harms may be under way when the kill comes.
const TRIES: u64 = 3;
/// How long a world whose gateway is at fault may take to come to rest before that is the finding.
const PATIENCE: Duration = Duration::from_secs(8);

/// A kill at the edge itself, and one later: a fault that a kill hides shows in the life after it. What is lost passes no edge.
fn kills(edge: Option<Edge>) -> Vec<Moment> {
    match edge {
        Some(edge @ Edge(Side::After, _) | edge @ Edge(_, Point::Send | Point::NodeAnswer | Point::Answer(_))) => {
            vec![Moment::Edge(edge, 1), Moment::Random(2_000)]
        }
        _ => vec![Moment::Random(2_500), Moment::Random(1_500)],
    }
}

/// The rules that name what the seeded fault at this edge does; at least one of them has to be broken.
fn broken_by(Edge(side, point): Edge) -> &'static [Rule] {
    use Commit::*;
    use Rule::*;
    let before = side == Side::Before;
    match point {
        // What is told and not on record.
        Point::Commit(Attempt | Held) if before => &[Lost, NotOnRecord],
        Point::Commit(Intent) if before => &[Lost],
        Point::Commit(Pause) => &[Disobeyed],
        Point::Commit(Claim) => &[Doubled],
        Point::Commit(Refused) if before => &[WrongReport, TwoPayloads],
        Point::Commit(Floor | Released | Broadcast | Included | Orphaned | Confirmed | Chain | Key) if before => &[WrongRecord],
        Point::Commit(Replaced | Used) => &[Gap],
        // A restart that does not see what is on record: it never ends, or comes to nothing.
        Point::Commit(Floor | Key) => &[WrongRecord],
        Point::Commit(Attempt | Held | Released | Broadcast | Refused | Included | Orphaned | Confirmed | Intent | Chain) => &[Stuck],
        Point::Send if before => &[Stuck],
        Point::Send => &[TwoPayloads, NotOnRecord],
        Point::NodeAnswer if before => &[WrongRecord, TwoPayloads],
        Point::NodeAnswer => &[Stuck],
        // A client is told what is not so.
        Point::Answer(Told::Hash) if before => &[WrongReport],
        Point::Answer(Told::Bytes) if before => &[NotOnRecord],
        Point::Answer(Told::Hash | Told::Error) if before => &[Lost],
        Point::Answer(Told::Hash) => &[Lost],
        Point::Answer(_) => &[WrongRecord],
    }
}

fn wanted(fault: Option<Edge>, seed: u64) -> Wanted {
    Wanted { environment: Environment::Simulator, seed, world: 0, kills: kills(fault), fault, troubled: false, patience: PATIENCE }
}

/// The edges of this run: so many, evenly over the list, from another one with each seed.
fn spread(seed: u64, count: usize) -> Vec<Edge> {
    let all: Vec<Edge> = Edge::all().collect();
    let start = usize::try_from(seed % all.len() as u64).unwrap();
    let count = count.min(all.len());
    (0..count).map(|number| all[(start + number * all.len() / count) % all.len()]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeded_fault_of_each_edge_is_caught() {
    let seed = super::seed();
    let count = match super::variable::<String>("SLUICE_KILL_FAULTS").as_deref() {
        None => SPREAD,
        Some("all") => usize::MAX,
        Some(number) => number.parse().expect("SLUICE_KILL_FAULTS is all or a number"),
    };
    let edges = match super::variable::<String>("SLUICE_KILL_FAULT") {
        Some(name) => vec![Edge::parse(&name).expect("SLUICE_KILL_FAULT names an edge")],
        None => spread(seed, count),
    };
    println!("seeded faults, seed {seed}: {}", edges.iter().map(Edge::to_string).collect::<Vec<_>>().join(", "));
    let began = Instant::now();
    let faults = std::iter::once(None).chain(edges.into_iter().map(Some));
    let worlds = faults.map(|fault| async move {
        let Some(edge) = fault else {
            let done = run(&wanted(None, seed)).await;
            return (!done.violations.is_empty()).then(|| format!("no seeded fault, and {} broken promises", done.violations.len()));
        };
        let named = broken_by(edge);
        for world in 0..TRIES {
            let done = run(&wanted(fault, seed.wrapping_add(world))).await;
            let rules: BTreeSet<Rule> = done.violations.iter().map(|violation| violation.rule).collect();
            println!("the seeded fault at {edge}: {} broken promises {rules:?}", done.violations.len());
            if named.iter().any(|rule| rules.contains(rule)) {
                return None;
            }
        }
        Some(format!("{edge}: none of {named:?} in {TRIES} worlds"))
    });
    let wrong: Vec<Option<String>> = stream::iter(worlds).buffer_unordered(WORLDS).collect().await;
    println!("seeded faults: {:?}", began.elapsed());
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "not caught as they should be:\n{}", wrong.join("\n"));
}

#[test]
fn a_run_over_all_seeds_tries_every_edge() {
    assert_eq!(spread(3, usize::MAX).into_iter().collect::<BTreeSet<_>>().len(), Edge::all().count());
    let tried: BTreeSet<Edge> = (0..Edge::all().count() as u64).flat_map(|seed| spread(seed, SPREAD)).collect();
    assert_eq!(tried.len(), Edge::all().count());
    assert_eq!(spread(9, SPREAD).into_iter().collect::<BTreeSet<_>>().len(), SPREAD);
}
