//! What a seed decides: the world, what is asked of it and when, what goes wrong, and where the process is killed.

use std::time::Duration;

use sluice_load_tests::faults::Faults;
use sluice_load_tests::random::{Delays, Random};
use sluice_load_tests::sim_kms::{self, KmsError};
use sluice_load_tests::sim_node::{self, Client, Reorg, Returned};

use super::edges::Edge;
use super::world::BLOCKS;
use crate::config::{AccountBounds, Broadcast, Confirmations};
use crate::transactions::account::replace::Replacement;

/// Everything that is decided before a run: the same schedule runs the same way.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) world: Settings,
    /// In order of time.
    pub(super) events: Vec<(Duration, Event)>,
    /// Where the first, second, … life of the process ends, if it gets there.
    pub(super) kills: Vec<(Edge, u64)>,
}

/// What does not change while it runs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) endpoints: usize,
    pub(super) accounts: usize,
    pub(super) bounds: AccountBounds,
    pub(super) confirmations: Confirmations,
    pub(super) broadcast: Broadcast,
    pub(super) bump_after: Duration,
    pub(super) answer_after: Duration,
    pub(super) node_delays: Delays,
    pub(super) node_faults: Faults<sim_node::Fault>,
    pub(super) kms_delays: Delays,
    pub(super) kms_faults: Faults<sim_kms::Fault>,
    /// The longest that a commit or a read takes, in microseconds.
    pub(super) commit_micros: u64,
    /// Of 1,000 groups, so many are not written, and so many end undecided.
    pub(super) not_written: u64,
    pub(super) undecided: u64,
}

/// What happens at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Request(Request),
    Block,
    Reorg(Reorg),
    ForgetPool,
    Cut,
    Down(Duration),
    BaseFee(u64),
    /// Somebody else who has the key uses a nonce.
    Foreign(usize),
    /// The process is killed.
    Kill,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// It pays as many wei more than a million: by that its bytes are known.
    pub(super) number: u64,
    pub(super) account: usize,
    pub(super) kind: Asked,
    /// What it wants with its transaction later: speed it up or cancel it, so long after it was told its hash.
    pub(super) later: Option<(Replacement, Duration)>,
    /// After this time the client goes away.
    pub(super) patience: Option<Duration>,
    /// Whether it comes with an idempotency key, and whether it comes more than once.
    pub(super) key: Option<Repeats>,
}

/// How often a request comes under its idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    Once,
    Again,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Send,
    /// `sluice_sendTransaction` that is answered once it is acknowledged.
    Queue,
    /// With a nonce so far above the next one.
    SendAt(u64),
    /// `eth_signTransaction` for the next nonce; what the client does with the bytes, and after how long.
    Sign(Held, Duration),
    /// Bytes that the client signed with the key, for a nonce so far above the next one; handed in so many times.
    Raw(u64, u64),
}

/// What becomes of bytes that a client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Kept,
    GivenToTheNode,
    GivenBack,
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[usize::try_from(random.below(of.len() as u64)).unwrap()]
}

fn millis(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random.below(to - from))
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed, "schedule");
        let world = Settings::draw(random);
        let mut events = requests(random, world.accounts);
        let end = events.iter().map(|(at, _)| *at).max().unwrap_or_default() + Duration::from_secs(2);
        events.extend(chain(random, end));
        events.extend(trouble(random, end, &world));
        events.sort_by_key(|(at, _)| *at);
        let edges = Edge::all();
        let kills = pick(random, &[0, 1, 1, 2, 3]);
        let kills = (0..kills).map(|_| (pick(random, &edges), 1 + random.below(3))).collect();
        Self { seed, world, events, kills }
    }

    /// The same without one of its events or kills, smallest change first: what is tried to make a failure smaller.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        for at in 0..self.kills.len() {
            let mut one = self.clone();
            one.kills.remove(at);
            smaller.push(one);
        }
        for at in (0..self.events.len()).rev() {
            let mut one = self.clone();
            one.events.remove(at);
            smaller.push(one);
        }
        for quiet in [
            |world: &mut Settings| world.node_faults = Faults::default(),
            |world: &mut Settings| {
                world.kms_faults = Faults::default();
            },
        ] {
            let mut one = self.clone();
            quiet(&mut one.world);
            if one.world.node_faults != self.world.node_faults || one.world.kms_faults != self.world.kms_faults {
                smaller.push(one);
            }
        }
        smaller
    }
}

impl Settings {
    fn draw(random: &mut Random) -> Self {
        let client = pick(random, &Client::ALL);
        let ten = |random: &mut Random| usize::try_from(1 + random.below(8)).unwrap();
        Self {
            client,
            endpoints: pick(random, &[1, 1, 2]),
            accounts: pick(random, &[1, 1, 2]),
            bounds: AccountBounds {
                queue: pick(random, &[4, 64]),
                queue_deadline: pick(random, &[Duration::from_secs(3), Duration::from_secs(10)]),
                sign_window: ten(random),
                sign_ahead: ten(random),
                broadcast_window: ten(random),
                ..AccountBounds::default()
            },
            confirmations: Confirmations::Blocks(BLOCKS),
            broadcast: if client == Client::Nethermind {
                Broadcast::Sequential
            } else {
                pick(random, &[Broadcast::Pipelined, Broadcast::Batched, Broadcast::Sequential])
            },
            bump_after: pick(random, &[Duration::from_secs(3), Duration::from_secs(600)]),
            answer_after: pick(random, &[Duration::from_millis(50), Duration::from_secs(2)]),
            node_delays: pick(random, &[Delays::default(), Delays { p50: 5, p99: 200, max: 1_500 }]),
            node_faults: node_faults(random),
            kms_delays: pick(random, &[Delays::default(), Delays { p50: 20, p99: 400, max: 3_000 }]),
            kms_faults: kms_faults(random),
            commit_micros: pick(random, &[200, 5_000, 100_000]),
            not_written: pick(random, &[0, 0, 0, 60]),
            undecided: pick(random, &[0, 0, 0, 20]),
        }
    }
}

/// Half of the schedules have some of these for raw sends, and a quarter some for reads.
fn node_faults(random: &mut Random) -> Faults<sim_node::Fault> {
    use sim_node::Fault;
    let mut faults = Faults::default();
    let refuse = |message: &str| Fault::Refuse { code: -32000, message: message.into() };
    let lie = |message: &str| Fault::Lie { code: -32000, message: message.into() };
    let sends = [
        Fault::DropAnswer,
        Fault::DropRequest,
        Fault::Late { milliseconds: 700 },
        Fault::Late { milliseconds: 4_000 },
        refuse("insufficient funds for gas * price + value: balance 0, tx cost 1, overshot 1"),
        refuse("transaction underpriced: gas tip cap 0, minimum needed 1"),
        refuse("intrinsic gas too low: gas 1, minimum needed 21000"),
        refuse("txpool is full"),
        refuse("something nobody has seen"),
        refuse("nonce too low: next nonce 5, tx nonce 4"),
        lie("nonce too low: next nonce 5, tx nonce 4"),
        lie("something nobody has seen"),
        lie("replacement transaction underpriced"),
        lie("already known"),
        Fault::OtherHash,
        Fault::ForgetPool,
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Overtaken,
    ];
    if random.below(4) > 0 {
        for _ in 0..1 + random.below(4) {
            let fault = &sends[usize::try_from(random.below(sends.len() as u64)).unwrap()];
            faults = faults.sometimes("eth_sendRawTransaction", pick(random, &[500, 1_500]), fault.clone());
        }
    }
    if random.below(4) == 0 {
        let reads = ["eth_getTransactionReceipt", "eth_getTransactionCount", "eth_getBalance", "eth_getBlockByHash"];
        let read = pick(random, &reads);
        let fault = [
            Fault::DropAnswer,
            refuse("header not found"),
            Fault::CutBefore,
            Fault::Stale { blocks: 1 },
            Fault::Stale { blocks: 2 },
            Fault::Late { milliseconds: 900 },
        ];
        let fault = &fault[usize::try_from(random.below(fault.len() as u64)).unwrap()];
        faults = faults.sometimes(read, pick(random, &[500, 2_000]), fault.clone());
    }
    faults
}

fn kms_faults(random: &mut Random) -> Faults<sim_kms::Fault> {
    use sim_kms::Fault;
    let mut faults = Faults::default();
    let all = [
        Fault::Error(KmsError::throttled()),
        Fault::Error(KmsError::internal()),
        Fault::Error(KmsError::new("DisabledException", "the key is disabled.")),
        Fault::Error(KmsError::new("AccessDeniedException", "not authorised")),
        Fault::Late { milliseconds: 2_500 },
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::HighS,
        Fault::OtherDigest,
        Fault::OtherKey,
    ];
    if random.below(2) == 0 {
        for _ in 0..1 + random.below(3) {
            let fault = &all[usize::try_from(random.below(all.len() as u64)).unwrap()];
            faults = faults.sometimes("Sign", pick(random, &[500, 2_000]), fault.clone());
        }
    }
    faults
}

fn requests(random: &mut Random, accounts: usize) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let mut number = 0;
    for _ in 0..2 + random.below(4) {
        let at = millis(random, 0, 9_000);
        for _ in 0..1 + random.below(4) {
            number += 1;
            let account = usize::try_from(random.below(accounts as u64)).unwrap();
            let kind = match random.below(18) {
                0..=9 => Asked::Send,
                16 | 17 => Asked::Queue,
                10 | 11 => Asked::SendAt(random.below(3)),
                12 | 13 => {
                    let held = pick(random, &[Held::Kept, Held::GivenToTheNode, Held::GivenBack]);
                    Asked::Sign(held, millis(random, 0, 3_000))
                }
                _ => Asked::Raw(random.below(2), 1 + random.below(2)),
            };
            let what = pick(random, &[Replacement::SpeedUp, Replacement::Cancel]);
            let later = (random.below(5) == 0).then(|| (what, millis(random, 0, 4_000)));
            let patience = (random.below(8) == 0).then(|| millis(random, 0, 600));
            let has_key = matches!(kind, Asked::Send | Asked::Queue) && random.below(3) == 0;
            let times = if has_key { pick(random, &[1, 2, 3]) } else { 1 };
            let key = has_key.then_some(if times > 1 { Repeats::Again } else { Repeats::Once });
            let request = Request { number, account, kind, later, patience, key };
            for again in 0..times {
                let at = if again == 0 { at + millis(random, 0, 20) } else { at + millis(random, 0, 6_000) };
                events.push((at, Event::Request(request.clone())));
            }
        }
    }
    events
}

fn chain(random: &mut Random, end: Duration) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let pace = pick(random, &[300, 1_000, 2_500]);
    let mut at = Duration::ZERO;
    while at < end {
        at += millis(random, pace / 2, pace * 3 / 2);
        events.push((at, Event::Block));
    }
    if random.below(3) == 0 {
        for _ in 0..1 + random.below(3) {
            let depth = 1 + random.below(BLOCKS - 1);
            let transactions = pick(random, &[Returned::Mined, Returned::Pooled, Returned::Lost]);
            let blocks = depth + random.below(2);
            events.push((millis(random, 1_000, 12_000), Event::Reorg(Reorg { depth, blocks: blocks.max(1), transactions })));
        }
    }
    events
}

fn trouble(random: &mut Random, end: Duration, world: &Settings) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let last = u64::try_from(end.as_millis()).unwrap();
    for _ in 0..random.below(4) {
        let event = match random.below(8) {
            0 => Event::ForgetPool,
            1 | 2 => Event::Cut,
            3 => Event::Down(millis(random, 100, 5_000)),
            4 => Event::BaseFee(pick(random, &[7, 5_000_000_000])),
            5 => Event::Foreign(usize::try_from(random.below(world.accounts as u64)).unwrap()),
            _ => Event::Kill,
        };
        events.push((millis(random, 200, last), event));
    }
    events
}
