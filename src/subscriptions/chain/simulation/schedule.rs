//! What a seed decides before the run.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, Log};
use sluice_load_tests::announcements::{HEADS, HeadFault};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::random::{Delays, Random};
use sluice_load_tests::sim_node::{Client, Fault, Reorg, Returned};

use super::observers::{EMITTERS, topic};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A block with these logs.
    Block(Vec<Log>),
    Reorg(Reorg),
    /// Every connection is cut.
    Cut,
    /// The node is away for so long.
    Down(Duration),
    /// Every connection is half-open from here on.
    Hang,
    /// Nothing is told to anybody for so long.
    Stall(Duration),
    /// The node tells no heads and logs of its own, or does again.
    Announcing(bool),
    /// These heads go wrong next.
    Heads(HeadFault, u64),
    /// One observer more.
    Join,
    /// Who can come back goes away, and comes back after so long.
    Leave(Duration),
}

#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) client: Client,
    pub(super) endpoints: usize,
    pub(super) delays: Delays,
    pub(super) faults: Faults<Fault>,
    /// Each so long after the one before.
    pub(super) events: Vec<(Duration, Event)>,
}

fn pick<T: Clone>(random: &mut Random, of: &[T]) -> T {
    of[usize::try_from(random.below(of.len() as u64)).unwrap()].clone()
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed, "streams");
        // anvil tells no logs of orphaned blocks: who comes back to it after a reorg has a gap.
        let client = pick(random, &Client::ALL.map(|client| if client == Client::Anvil { Client::Geth } else { client }));
        let endpoints = 1 + usize::from(random.below(3) > 0);
        let delays = pick(random, &[Delays::default(), Delays { p50: 5, p99: 80, max: 400 }]);
        let faults = faults(random);
        // Some chains are quick, and some have more trouble than blocks.
        let (pace, trouble) = (pick(random, &[200, 2_000, 12_000]), pick(random, &[1, 3, 6]));
        let events = (0..20 + random.below(40)).map(|_| (Duration::from_millis(random.below(pace)), event(random, trouble)));
        Self { seed, client, endpoints, delays, faults, events: events.collect() }
    }

    /// Schedules with one event less.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let without = |left_out: usize| {
            let mut smaller = self.clone();
            smaller.events.remove(left_out);
            smaller
        };
        (0..self.events.len()).map(without).collect()
    }
}

/// Half of the schedules lose, delay or refuse some of what is read.
fn faults(random: &mut Random) -> Faults<Fault> {
    let mut faults = Faults::default();
    if random.below(2) == 0 {
        return faults;
    }
    let all = [
        Fault::DropAnswer,
        Fault::Late { milliseconds: 600 },
        Fault::Refuse { code: -32000, message: "header not found".into() },
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Stale { blocks: 2 },
    ];
    for of in ["eth_getBlockByHash", "eth_getBlockByNumber", "eth_getLogs"] {
        faults = faults.sometimes(of, pick(random, &[0, 500, 1_500]), pick(random, &all));
    }
    faults
}

fn event(random: &mut Random, trouble: u64) -> Event {
    if random.below(10) >= trouble {
        return Event::Block(logs(random));
    }
    let milliseconds = |random: &mut Random| Duration::from_millis(random.below(40_000));
    match random.below(12) {
        0..3 => {
            let transactions = pick(random, &[Returned::Mined, Returned::Pooled, Returned::Lost]);
            let depth = pick(random, &[1, 1, 2, 5, 20]);
            // One block shorter at most: a chain that loses many of its blocks is believed of several endpoints only once it is as long again.
            let blocks = (depth + random.below(4)).saturating_sub(1).max(1);
            Event::Reorg(Reorg { depth, blocks, transactions })
        }
        3 => Event::Cut,
        4 => Event::Down(milliseconds(random)),
        5 => Event::Hang,
        6 => Event::Stall(milliseconds(random)),
        7 => Event::Announcing(random.below(2) == 0),
        8 | 9 => {
            let older = HeadFault::Older { heads: 1 + random.below(8) };
            let fault = pick(random, &[HeadFault::LeftOut, HeadFault::Twice, HeadFault::BehindNext, older]);
            Event::Heads(fault, 1 + random.below(4))
        }
        10 => Event::Join,
        _ => Event::Leave(milliseconds(random)),
    }
}

fn logs(random: &mut Random) -> Vec<Log> {
    let log = |random: &mut Random| {
        let topics: Vec<B256> = (0..random.below(4)).map(|_| topic(random.below(2))).collect();
        let address: Address = pick(random, &EMITTERS);
        Log::new_unchecked(address, topics, Bytes::new())
    };
    (0..random.below(4)).map(|_| log(random)).collect()
}

/// The script of heads that go wrong.
pub(super) fn heads(fault: &HeadFault, count: u64) -> Faults<HeadFault> {
    Faults::default().then(HEADS, count, fault.clone())
}
