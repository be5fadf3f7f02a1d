//! Measures the path of a transaction through a KMS of limited quota (docs/benchmarks.md). Ends with 1 if a bound is missed or
//! anything is wrong, with 2 if it did not come to a result.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sluice_load_tests::bare::Bare;
use sluice_load_tests::bench::{Extent, Programs, Scenario, run};
use tokio::signal::unix::{SignalKind, signal};

/// As in the gateway: the simulators must not be what a benchmark measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: sluice-bench SCENARIO... [--quick] [--warm-up SECONDS] [--seconds SECONDS] [--quota N] [--keys N]
                    [--discovered N] [--observers N] [--heads N] [--signs-in-flight N] [--seed N] [--gateway PATH] [--simulators PATH]

  SCENARIO           one-address, storm, many, shared-quota, discovery, accounting, fan-out, or all
  --quick            short and small: whether all is right, not how fast it is
  --warm-up          load before anything is measured (10)
  --seconds          how long is measured (60)
  --quota            Signs per second that KMS grants (1000)
  --keys             keys of storm, many, shared-quota and accounting (64)
  --discovered       keys of discovery (10000)
  --observers        clients of fan-out (10000)
  --heads            heads that they are told one by one (30)
  --signs-in-flight  window of Signs of each account, of one-address, storm, many and shared-quota (2000)
  --seed             of the simulators (1)
  --gateway          the program sluice (beside this one)
  --simulators       the program sluice-sim (beside this one)";

#[derive(Debug)]
struct Options {
    scenarios: Vec<Scenario>,
    extent: Extent,
    programs: Programs,
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} takes a number from 1 to {most}")),
    }
}

fn options(arguments: &[String], beside: &Path) -> Result<Options, String> {
    let mut scenarios = Vec::new();
    let mut extent = if arguments.iter().any(|one| one == "--quick") { Extent::quick() } else { Extent::full() };
    let mut programs = Programs { gateway: beside.join("sluice"), simulators: Some(beside.join("sluice-sim")) };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--quick" => {}
            "--warm-up" => extent.warm_up = Duration::from_secs(number(argument, value()?, 3_600)?),
            "--seconds" => extent.measured = Duration::from_secs(number(argument, value()?, 3_600)?),
            "--quota" => extent.quota = number(argument, value()?, 100_000)?,
            "--keys" => extent.keys = number(argument, value()?, 10_000)?,
            "--discovered" => extent.discovered = number(argument, value()?, 100_000)?,
            "--observers" => extent.observers = number(argument, value()?, 60_000)?,
            "--heads" => extent.heads = number(argument, value()?, 100_000)?,
            "--signs-in-flight" => extent.signs_in_flight = Some(number(argument, value()?, 10_000)?),
            "--seed" => extent.seed = number(argument, value()?, u64::MAX)?,
            "--gateway" => programs.gateway = PathBuf::from(value()?),
            "--simulators" => programs.simulators = Some(PathBuf::from(value()?)),
            "all" => scenarios.extend(Scenario::ALL),
            name => match Scenario::ALL.into_iter().find(|scenario| scenario.name() == name) {
                Some(scenario) => scenarios.push(scenario),
                None => return Err(format!("{name} is not understood")),
            },
        }
    }
    if scenarios.is_empty() { Err("a scenario is missing".into()) } else { Ok(Options { scenarios, extent, programs }) }
}

/// Runs them one after the other; whether all of them pass.
async fn bench(options: &Options) -> Result<bool, String> {
    let mut passes = true;
    for scenario in &options.scenarios {
        let report = run(*scenario, &options.programs, options.extent).await;
        let report = report.map_err(|error| format!("{}: {error}", scenario.name()))?;
        println!("{report}\n");
        passes &= report.passes();
    }
    Ok(passes)
}

/// What fan-out is compared with, as a process of its own: `bare --listen ADDRESS --node URL`.
fn bare(listen: &str, node: &str) -> Result<(), String> {
    let listen = listen.parse().map_err(|_| format!("{listen} is no address"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let bare = Bare::start(listen, node).await.map_err(|error| error.to_string())?;
        println!("jsonrpsee listens on {}", bare.url());
        interrupted().await.map_err(|error| error.to_string())
    })
}

/// SIGINT or SIGTERM.
async fn interrupted() -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

fn main() -> ExitCode {
    let failed = |error: &dyn std::fmt::Display| {
        eprintln!("sluice-bench: {error}");
        ExitCode::from(2)
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, listen, address, node, url] = arguments.as_slice()
        && [name.as_str(), listen, node] == ["bare", "--listen", "--node"]
    {
        return bare(address, url).map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS);
    }
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf)).unwrap_or_default();
    let options = match options(&arguments, &beside) {
        Ok(options) => options,
        Err(error) => return failed(&format!("{error}\n{USAGE}")),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    // What was started is stopped when the run is dropped.
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = bench(&options) => ended,
            _ = interrupted() => Err("interrupted".into()),
        }
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}
