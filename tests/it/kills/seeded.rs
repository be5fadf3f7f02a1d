//! The harness sees what it is there for: each edge has a fault that is seeded there (`SLUICE_BUG`), and each is caught.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use sluice_gateway::telemetry::crash::{Commit, Edge, Point};

use super::chain::Environment;
use super::plan::Moment;
use super::run::{Wanted, run};

/// Worlds at a time.
const WORLDS: usize = 6;
/// How long a world whose gateway is at fault may take to come to rest before that is the finding.
const PATIENCE: Duration = Duration::from_secs(8);

/// A kill at the edge itself, and one later: a fault that a kill hides shows in the life after it.
fn kills(edge: Edge) -> Vec<Moment> {
    let life = if edge.1 == Point::Commit(Commit::Pause) { 6_000 } else { 1_500 };
    vec![Moment::Edge(edge, 1), Moment::Random(life)]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_that_is_seeded_at_each_edge_is_caught() {
    let only = super::variable::<String>("SLUICE_KILL_BUG");
    let edges: Vec<Edge> = Edge::all().filter(|edge| only.as_ref().is_none_or(|only| edge.to_string() == *only)).collect();
    let worlds = edges.into_iter().map(|edge| async move {
        let wanted =
            Wanted { environment: Environment::Simulator, seed: 1, world: 0, kills: kills(edge), bug: Some(edge), patience: PATIENCE };
        let done = run(&wanted).await;
        let rules: BTreeSet<_> = done.violations.iter().map(|violation| violation.rule).collect();
        println!("the fault at {edge}: {} broken promises {rules:?}", done.violations.len());
        (edge, rules.is_empty())
    });
    let results: Vec<(Edge, bool)> = stream::iter(worlds).buffer_unordered(WORLDS).collect().await;
    let unseen: Vec<String> = results.iter().filter(|(_, unseen)| *unseen).map(|(edge, _)| edge.to_string()).collect();
    assert!(unseen.is_empty(), "nobody saw the faults at {unseen:?}");
}
