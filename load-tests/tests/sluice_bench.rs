//! The program `sluice-bench`: what it takes. What it measures is tried in `tests/it/bench.rs` of the workspace.
// Tests may panic, and so may what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn what_is_not_understood_is_told_with_the_usage() {
    let cases = [
        (vec![], "a scenario is missing"),
        (vec!["rain"], "rain is not understood"),
        (vec!["storm", "--keys", "0"], "--keys takes a number from 1 to 10000"),
        (vec!["storm", "--seconds"], "--seconds wants a value"),
    ];
    for (arguments, words) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice-bench")).args(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text.contains(words) && text.contains("usage: sluice-bench SCENARIO"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_gateway_that_does_not_start_is_no_result() {
    let simulators = env!("CARGO_BIN_EXE_sluice-sim");
    let arguments = ["many", "--quick", "--gateway", "/nowhere/sluice", "--simulators", simulators];
    let output = Command::new(env!("CARGO_BIN_EXE_sluice-bench")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("many: /nowhere/sluice"), "{text}");
}
