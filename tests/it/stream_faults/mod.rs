//! Streams of heads, logs and receipts while the ways to two endpoints of one chain fail in every kind, with a reorg meanwhile or without. What each
//! client was told is compared with the chain: docs/crash-testing.md.

mod kinds;
mod observers;
mod stage;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use self::kinds::Kind;
use self::stage::Stage;

/// Faults of each kind; `SLUICE_STREAM_FAULTS` says another number.
const FAULTS: u64 = 10;
/// Clients; `SLUICE_STREAM_CLIENTS` says another number.
const CLIENTS: u64 = 100;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// `SLUICE_STREAM_SEED`, or one by the clock; it is printed.
fn seed() -> u64 {
    let by_clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = variable("SLUICE_STREAM_SEED").unwrap_or_else(by_clock);
    println!("again: SLUICE_STREAM_SEED={seed}");
    seed
}

/// So many faults of each of these kinds, in turn; how many there were, and how many with a reorg, and how many events were compared. An error is the first
/// thing that a client was told and a node without a gap would not have told it.
async fn run(stage: &Stage, kinds: &[Kind], faults: u64) -> Result<(BTreeMap<Kind, (u64, u64)>, u64), String> {
    let mut counts = BTreeMap::<Kind, (u64, u64)>::new();
    for number in 0..faults {
        for kind in kinds {
            stage.fault(*kind, number).await.map_err(|why| format!("{kind:?} {number}: {why}"))?;
            let (all, with_reorg) = counts.entry(*kind).or_default();
            *all += 1;
            *with_reorg += u64::from(kind.has_reorg(number));
        }
    }
    let events = stage.complete().await?;
    Ok((counts, events))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_sees_the_chain_whatever_happens_to_the_connections() {
    let (faults, clients) = (variable("SLUICE_STREAM_FAULTS").unwrap_or(FAULTS), variable("SLUICE_STREAM_CLIENTS").unwrap_or(CLIENTS));
    everybody_sees_the_chain("chain", faults, clients).await;
}

/// Logs that are found whatever the blooms say: once of each kind, with a reorg and without.
#[tokio::test(flavor = "multi_thread")]
async fn logs_whatever_the_bloom_are_told_as_completely() {
    everybody_sees_the_chain("node", FAULTS.min(2), CLIENTS.min(20)).await;
}

async fn everybody_sees_the_chain(logs: &str, faults: u64, clients: u64) {
    let stage = Stage::start(seed(), clients as usize, logs, None).await;
    let (counts, events) = run(&stage, &Kind::ALL, faults).await.unwrap_or_else(|why| panic!("{why}"));
    for (kind, (all, with_reorg)) in &counts {
        println!("{all:>6} {kind:?}, {with_reorg} of them with a reorg");
    }
    println!("{events:>6} events compared at {clients} clients: none missing, doubled or out of order");
    assert!(stage.steps("fetched").await > 0.0 && stage.steps("orphaned").await > 0.0, "faults that nobody noticed prove nothing");
    assert_eq!(stage.steps("gap").await, 0.0);
}

/// The gateway is broken on purpose, and the same comparison has to say so.
#[cfg(feature = "crash-points")]
async fn is_found(fault: &str, expected: &[&str]) {
    let stage = Stage::start(seed(), 6, "chain", Some(fault)).await;
    let kinds = [Kind::Away, Kind::Cut, Kind::HalfOpen, Kind::LeftOut, Kind::Reorg];
    let why = run(&stage, &kinds, 3).await.expect_err("what is broken has to be found");
    println!("{fault}: {why}");
    assert!(expected.iter().any(|word| why.contains(word)), "{why}");
}

#[cfg(feature = "crash-points")]
#[tokio::test(flavor = "multi_thread")]
async fn streams_without_back_fill_are_found() {
    is_found("stream-not-filled", &["missing"]).await;
}

#[cfg(feature = "crash-points")]
#[tokio::test(flavor = "multi_thread")]
async fn logs_of_orphaned_blocks_that_are_not_taken_back_are_found() {
    is_found("stream-not-unwound", &["not taken back", "missing before"]).await;
}

#[cfg(feature = "crash-points")]
#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_told_twice_are_found() {
    is_found("stream-doubled", &["twice"]).await;
}
