//! What the variable asks for, and the kill itself.

use std::str::FromStr as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use super::{Edge, Point, Side, Told};

/// The edge and which passing of it, from 1.
const AT: &str = "SLUICE_CRASH_AT";

static KILL: LazyLock<Option<(Edge, u64)>> = LazyLock::new(|| {
    variable(AT, |text| {
        let (edge, passing) = text.rsplit_once(':')?;
        Some((Edge::parse(edge)?, u64::from_str(passing).ok()?))
    })
});
static PASSED: AtomicU64 = AtomicU64::new(0);
/// Answers of each kind that are on their way.
static TELLING: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// A variable that cannot be read ends the process: a harness must not take a plan that was never followed for one that was.
pub(in crate::telemetry) fn variable<T>(name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = read(&text);
    if value.is_none() {
        eprintln!("sluice: {name} names no edge: {text}");
        std::process::exit(2);
    }
    value
}

pub(super) fn pass(edge: Edge) {
    if let Some((at, passing)) = *KILL
        && at == edge
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == passing
    {
        eprintln!("killed at {edge}, passing {passing}");
        let _ = kill_process(getpid(), Signal::KILL);
        // No instruction after it may have an effect, on whichever thread this is.
        loop {
            std::thread::park();
        }
    }
}

fn place(told: Told) -> Option<&'static AtomicU64> {
    TELLING.get(told as usize)
}

pub(super) fn telling(told: Told) {
    pass(Edge(Side::Before, Point::Answer(told)));
    if let Some(count) = place(told) {
        count.fetch_add(1, Ordering::SeqCst);
    }
}

pub(super) fn written() {
    for told in [Told::Hash, Told::Bytes, Told::Error] {
        if place(told).is_some_and(|count| count.swap(0, Ordering::SeqCst) > 0) {
            pass(Edge(Side::After, Point::Answer(told)));
        }
    }
}
