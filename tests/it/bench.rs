//! Every scenario of the benchmark, short and small, on the simulators. Here nothing is asked about how fast it is: everything that was
//! told is mined once, nothing else is, and every Sign is accounted for.

use std::path::PathBuf;

use sluice_load_tests::bench::{Extent, Programs, Report, Scenario, run};

async fn quick(scenario: Scenario) -> Report {
    small(scenario, Extent::quick()).await
}

async fn small(scenario: Scenario, extent: Extent) -> Report {
    let programs = Programs { gateway: PathBuf::from(env!("CARGO_BIN_EXE_sluice")), simulators: None };
    let report = run(scenario, &programs, extent).await.unwrap();
    assert!(report.wrong.is_empty(), "{report}");
    report
}

fn figure(report: &Report, name: &str) -> f64 {
    report.figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}: {report}")).value
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_beyond_its_quota_loses_nothing() {
    let report = quick(Scenario::OneAddress).await;
    assert!(figure(&report, "errors that clients were told") < 1.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_everything_is_mined_once_or_refused_before_it_took_a_nonce() {
    // Few Signs of an account in flight: what waits for one does so without a nonce, until its time is over.
    let report = small(Scenario::Storm, Extent { signs_in_flight: Some(8), ..Extent::quick() }).await;
    let (requests, errors) = (figure(&report, "requests"), figure(&report, "of these, answered with an error"));
    assert!(0.0 < errors && errors < requests, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_within_the_quota_lose_nothing() {
    let report = quick(Scenario::Many).await;
    assert!(figure(&report, "errors that clients were told") < 1.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_others_use_too_costs_no_client_an_error() {
    let report = quick(Scenario::SharedQuota).await;
    assert!(figure(&report, "errors that clients were told") < 1.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_discovered_are_all_there_after_a_restart_too() {
    let report = quick(Scenario::Discovery).await;
    assert!((figure(&report, "calls of GetPublicKey") - 100.0).abs() < 0.5, "once for each key: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_everything_in_order_and_who_never_reads_is_ended() {
    quick(Scenario::FanOut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sign_is_accounted_for_and_a_repeated_request_costs_none() {
    let report = quick(Scenario::Accounting).await;
    assert!(report.passes(), "{report}");
    assert!(figure(&report, "of these, retries") > 0.0, "the faults were met: {report}");
}
