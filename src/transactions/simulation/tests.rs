//! Thousands of schedules, and seeded faults that they must find.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::run::{Report, run};
use super::schedule::Schedule;
use super::world::Detail;
use crate::telemetry::crash::Commit;
use crate::telemetry::faults::{self, SeededFault};

/// Schedules of a usual run.
const SCHEDULES: u64 = 2_000;
/// Schedules that a seeded fault has to be found in.
const FOUND_WITHIN: u64 = 600;

/// What has to have happened in a usual run: every kind of event and fault, kills at every kind of edge, answers of every kind.
const HAPPENED: [&str; 56] = [
    "event Request",
    "event Block",
    "event Reorg",
    "event ForgetPool",
    "event Cut",
    "event Down",
    "event BaseFee",
    "event Foreign",
    "killed at a time",
    "killed by its journal",
    "killed Before(Attempt)",
    "killed Durable(Attempt)",
    "killed Answered(Attempt)",
    "killed Before(Floor)",
    "killed Before(Broadcast)",
    "killed Before(Included)",
    "killed Before(Confirmed)",
    "killed Durable(Confirmed)",
    "(Held)",
    "(Released)",
    "(Refused)",
    "(Orphaned)",
    "(Claim)",
    "(Intent)",
    "killed Signed",
    "killed Sent",
    "killed ToldHash",
    "killed ToldError",
    "commit NotWritten",
    "commit Undecided { written: true }",
    "commit Undecided { written: false }",
    "node DropAnswer",
    "node DropRequest",
    "node Late",
    "node Refuse",
    "node Lie",
    "node OtherHash",
    "node ForgetPool",
    "node CutBefore",
    "node CutAfter",
    "node Overtaken",
    "kms ThrottlingException",
    "kms KMSInternalException",
    "kms DisabledException",
    "kms cut",
    "client went away",
    "held bytes given to the node: taken",
    "SpeedUp done",
    "Cancel done",
    "told hash",
    "told queued",
    "told by its key",
    "cancelled before it was signed",
    "told Refused",
    "told Sign",
    "told NonceHeld",
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// What some schedules showed.
#[derive(Default)]
struct Findings {
    /// The first violation of each seed that has one.
    failed: BTreeMap<u64, String>,
    counts: BTreeMap<String, u64>,
}

/// Runs schedules from `first` on, on every core, until `enough` have failed.
fn explore(first: u64, count: u64, enough: usize, fault: Option<SeededFault>) -> Findings {
    let next = AtomicU64::new(first);
    let findings = Mutex::new(Findings::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                faults::seed(fault);
                while findings.lock().unwrap().failed.len() < enough {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let report = run(&Schedule::new(seed), Detail::None);
                    let mut findings = findings.lock().unwrap();
                    for (what, count) in report.counts {
                        *findings.counts.entry(what).or_default() += count;
                    }
                    findings.failed.extend(report.violations.into_iter().next().map(|violation| (seed, violation)));
                }
            });
        }
    });
    findings.into_inner().unwrap()
}

/// Takes away what is not needed for the failure.
fn shrink(mut schedule: Schedule) -> Schedule {
    'smaller: loop {
        for one in schedule.smaller() {
            if !run(&one, Detail::None).violations.is_empty() {
                schedule = one;
                continue 'smaller;
            }
        }
        return schedule;
    }
}

/// The failure of a seed, made small, with all that happened.
fn tell(seed: u64) -> String {
    let schedule = shrink(Schedule::new(seed));
    let Report { violations, trace, .. } = run(&schedule, Detail::Story);
    let Schedule { world, events, kills, .. } = schedule;
    format!("{trace}\n{world:?}\n{events:?}\nkills {kills:?}\n{}", violations.join("\n"))
}

#[test]
fn thousands_of_schedules_keep_every_promise() {
    let first = variable("SLUICE_SIM_SEED").unwrap_or(1);
    let count = variable("SLUICE_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    assert!(count > 0, "SLUICE_SIM_SCHEDULES=0 tries nothing");
    if count == 1 {
        println!("{}", run(&Schedule::new(first), Detail::Story).trace);
    }
    let Findings { failed, counts } = explore(first, count, 12, None);
    if let Some(seed) = failed.keys().next() {
        let failures: Vec<String> = failed.iter().map(|(seed, violation)| format!("seed {seed}: {violation}")).collect();
        panic!(
            "{}\n\nmade small: seed {seed}\n{}\n\nagain: SLUICE_SIM_SEED={seed} SLUICE_SIM_SCHEDULES=1",
            failures.join("\n"),
            tell(*seed)
        );
    }
    for (what, count) in &counts {
        println!("{count:>8} {what}");
    }
    if count >= SCHEDULES {
        let missing: Vec<_> = HAPPENED.iter().filter(|what| !counts.keys().any(|known| known.contains(**what))).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn the_same_seed_runs_the_same_way() {
    for seed in 1..=30 {
        let [one, other] = [0, 1].map(|_| run(&Schedule::new(seed), Detail::Frames).trace);
        let differs = one.lines().zip(other.lines()).position(|(left, right)| left != right);
        if let Some(at) = differs {
            let near = |trace: &str| trace.lines().skip(at.saturating_sub(20)).take(25).collect::<Vec<_>>().join("\n");
            panic!("seed {seed}, line {at}:\n{}\n\nand again:\n{}", near(&one), near(&other));
        }
        assert!(one.lines().count() > 0, "seed {seed} does nothing");
        assert_eq!(one.lines().count(), other.lines().count());
    }
}

/// The fault is seen within a bounded number of schedules.
fn is_found(fault: SeededFault) {
    let failed = explore(1, FOUND_WITHIN, 1, Some(fault)).failed;
    let (seed, violation) = failed.first_key_value().unwrap_or_else(|| panic!("{fault:?} was not found"));
    println!("{fault:?}: seed {seed}: {violation}");
}

macro_rules! found {
    ($($name:ident: $fault:expr,)*) => {
        $(#[test] fn $name() { is_found($fault); })*
    };
}

found! {
    a_hash_told_before_the_commit_is_found: SeededFault::ToldBeforeCommit,
    bytes_sent_before_the_commit_are_found: SeededFault::SentBeforeCommit,
    a_gap_in_the_committed_prefix_is_found: SeededFault::GapCommitted,
    a_failed_commit_taken_for_done_is_found: SeededFault::FailedCommitIgnored,
    a_payload_that_moved_down_with_its_old_signature_is_found: SeededFault::MovedDownUnsigned,
    an_unknown_answer_taken_for_a_refusal_is_found: SeededFault::UnknownIsRefused,
    nonce_too_low_taken_for_a_refusal_is_found: SeededFault::TooLowIsRefused,
    a_refusal_told_before_it_is_on_record_is_found: SeededFault::RefusalToldBeforeDurable,
    refused_bytes_sent_again_are_found: SeededFault::RefusedSentAgain,
    a_change_of_state_that_is_lost_is_found: SeededFault::StateLost,
    a_restart_that_forgets_an_attempt_is_found: SeededFault::Unseen(Commit::Attempt),
    a_restart_that_hands_a_committed_slot_on_is_found: SeededFault::RestartSignsAgain,
    a_restart_that_never_sends_is_found: SeededFault::RestartNeverSends,
    an_orphan_that_is_forgotten_is_found: SeededFault::OrphanForgotten,
    a_confirmation_too_early_is_found: SeededFault::ConfirmedAtOnce,
    a_held_slot_handed_on_is_found: SeededFault::HeldHandedOn,
    a_signature_that_nobody_checked_is_found: SeededFault::SignatureUnchecked,
    a_key_that_is_not_seen_is_found: SeededFault::Unseen(Commit::Claim),
    a_key_that_is_lost_is_found: SeededFault::Lost(Commit::Claim),
    an_acknowledged_transaction_that_is_not_seen_is_found: SeededFault::Unseen(Commit::Intent),
    an_acknowledged_transaction_that_is_lost_is_found: SeededFault::Lost(Commit::Intent),
}
