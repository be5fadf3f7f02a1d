//! A thousand schedules, and seeded faults that they must find.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::run::run;
use super::schedule::Schedule;
use crate::telemetry::faults::{self, SeededFault};

/// Schedules of a usual run.
const SCHEDULES: u64 = 1_000;
/// Schedules that a seeded fault has to be found in.
const FOUND_WITHIN: u64 = 200;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// What schedules from `first` on showed, on every core, until `enough` have failed: the violations by seed, and what happened how often.
fn explore(first: u64, count: u64, enough: usize, fault: Option<SeededFault>) -> (BTreeMap<u64, String>, BTreeMap<&'static str, u64>) {
    let next = AtomicU64::new(first);
    let findings = Mutex::new((BTreeMap::new(), BTreeMap::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                faults::seed(fault);
                while findings.lock().unwrap().0.len() < enough {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let report = run(&Schedule::new(seed));
                    let (failed, counts) = &mut *findings.lock().unwrap();
                    failed.extend(report.violation.map(|violation| (seed, violation)));
                    for (what, count) in report.counts.into_iter().chain([("told", report.events.iter().sum())]) {
                        *counts.entry(what).or_default() += count;
                    }
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
            if run(&one).violation.is_some() {
                schedule = one;
                continue 'smaller;
            }
        }
        return schedule;
    }
}

#[test]
fn whatever_happens_streams_of_the_chain_tell_what_a_node_without_a_gap_tells() {
    let (first, count) = (variable("SLUICE_SIM_SEED").unwrap_or(1), variable("SLUICE_SIM_SCHEDULES").unwrap_or(SCHEDULES));
    let (failed, counts) = explore(first, count, 12, None);
    println!("{counts:?}");
    if let Some(seed) = failed.keys().next() {
        let small = shrink(Schedule::new(*seed));
        panic!(
            "{failed:#?}\n\nmade small: {small:#?}\n{:?}\n\nagain: SLUICE_SIM_SEED={seed} SLUICE_SIM_SCHEDULES=1",
            run(&small).violation
        );
    }
    if count >= SCHEDULES {
        let happened = ["block", "reorg", "cut", "down", "hang", "stall", "announcing", "heads", "join", "leave", "told"];
        assert!(happened.iter().all(|what| counts.contains_key(what)), "{counts:?}");
    }
}

#[test]
fn a_schedule_of_streams_runs_the_same_way_again() {
    for seed in 1..=20 {
        assert_eq!(run(&Schedule::new(seed)), run(&Schedule::new(seed)), "seed {seed}");
    }
}

#[test]
fn streams_that_are_broken_on_purpose_are_found() {
    for (name, fault) in SeededFault::STREAMS {
        let (failed, _) = explore(1, FOUND_WITHIN, 1, Some(fault));
        let (seed, violation) = failed.first_key_value().unwrap_or_else(|| panic!("{name} was not found"));
        println!("{name}: seed {seed}: {violation}");
    }
}
