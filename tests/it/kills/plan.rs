//! When the gateway is killed: drawn by seed, so that every edge gets its share.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sluice_gateway::telemetry::crash::{Commit, Edge, Point, Told};

/// The moment of one kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// At the so-many-th passing of an edge.
    Edge(Edge, u64),
    /// So many milliseconds after the clients have begun.
    Random(u64),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge(edge, passing) => write!(f, "{edge}:{passing}"),
            Self::Random(after) => write!(f, "random, after {after} ms"),
        }
    }
}

/// One kill of each so many is at a random moment.
const RANDOM: usize = 6;

/// So many kills: the edges in an order that the seed gives, again and again, with random moments in between.
pub(super) fn kills(seed: u64, count: usize) -> Vec<Moment> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut edges: Vec<Edge> = Vec::new();
    (0..count)
        .map(|kill| {
            if kill % RANDOM == RANDOM - 1 {
                return Moment::Random(rng.random_range(10..2_500));
            }
            if edges.is_empty() {
                edges.extend(Edge::all());
                edges.shuffle(&mut rng);
            }
            let edge = edges.pop().expect("there are edges");
            Moment::Edge(edge, rng.random_range(1..=passings(edge.1)))
        })
        .collect()
}

/// How often a life passes a point at the least, by and large.
fn passings(point: Point) -> u64 {
    match point {
        Point::Send | Point::NodeAnswer | Point::Answer(Told::Hash) | Point::Commit(Commit::Attempt) => 24,
        Point::Commit(Commit::Broadcast) => 12,
        Point::Commit(Commit::Claim) => 6,
        Point::Commit(Commit::Intent) => 3,
        Point::Commit(Commit::Included) => 5,
        Point::Commit(Commit::Confirmed | Commit::Held | Commit::Refused) | Point::Answer(_) => 3,
        Point::Commit(Commit::Released | Commit::Orphaned) => 2,
        Point::Commit(Commit::Floor | Commit::Replaced | Commit::Pause | Commit::Used | Commit::Chain | Commit::Key) => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_edge_has_its_share_and_a_seed_gives_one_plan() {
        let plan = kills(7, 100);
        assert_eq!(plan, kills(7, 100));
        assert_ne!(plan, kills(8, 100));
        let edges: BTreeSet<Edge> =
            plan.iter().filter_map(|moment| if let Moment::Edge(edge, _) = moment { Some(*edge) } else { None }).collect();
        assert_eq!(edges.len(), Edge::all().count());
        assert_eq!(plan.iter().filter(|moment| matches!(moment, Moment::Random(_))).count(), 100 / RANDOM);
    }
}
