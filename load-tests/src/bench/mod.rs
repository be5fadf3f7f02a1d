//! Measures the path of a transaction through a key store of limited quota, and checks that nothing was lost or doubled on the way. The
//! gateway is a process of its own; so are the simulated node and the simulated KMS, unless they run in this one (for tests). Signs are
//! counted by the simulated KMS, transactions on the simulated chain, never by the gateway alone.

mod accounting;
mod check;
mod discovery;
mod fan_out;
mod figures;
mod load;
mod observe;
mod plan;
mod process;
mod rates;
mod world;

use std::time::Duration;

pub use self::figures::{Bound, Figure, Report};
pub use self::world::Programs;

/// What goes wrong before there is a result; for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The things that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// One key at 50 ms, more requests than the quota lets through.
    OneAddress,
    /// Five times the quota, over many keys.
    Storm,
    /// Many keys, four fifths of the quota.
    Many,
    /// KMS gives less than is configured, because others use its quota too.
    SharedQuota,
    /// Many keys that are found by their tag, cold and after a restart.
    Discovery,
    /// Where each Sign went, while KMS throttles, fails and is slow.
    Accounting,
    /// Many clients that are told the same.
    FanOut,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::OneAddress, Self::Storm, Self::Many, Self::SharedQuota, Self::Discovery, Self::Accounting, Self::FanOut];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneAddress => "one-address",
            Self::Storm => "storm",
            Self::Many => "many",
            Self::SharedQuota => "shared-quota",
            Self::Discovery => "discovery",
            Self::Accounting => "accounting",
            Self::FanOut => "fan-out",
        }
    }
}

/// How large and how long.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Load before anything is measured.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
    /// Signs per second that KMS grants; its bucket holds a tenth of a second of them.
    pub quota: u64,
    /// Keys, where there are many.
    pub keys: u64,
    /// Keys that are discovered.
    pub discovered: u64,
    /// Clients that watch heads; a tenth as many watch logs.
    pub observers: u64,
    /// Heads that they are told one by one.
    pub heads: u64,
    /// Signs of one account in flight, instead of what the scenario has.
    pub signs_in_flight: Option<u64>,
    /// Seed of the simulators.
    pub seed: u64,
}

impl Extent {
    /// As the bounds are meant.
    pub fn full() -> Self {
        Self {
            warm_up: Duration::from_secs(10),
            measured: Duration::from_secs(60),
            quota: 1_000,
            keys: 64,
            discovered: 10_000,
            observers: 10_000,
            heads: 30,
            signs_in_flight: None,
            seed: 1,
        }
    }

    /// Long enough to see whether everything is right, too short for a rate.
    pub fn quick() -> Self {
        let second = Duration::from_secs(1);
        Self { warm_up: second, measured: 2 * second, quota: 100, keys: 8, discovered: 100, observers: 50, heads: 3, ..Self::full() }
    }

    /// The longest that one scenario takes: load, what is answered and mined afterwards, starts and ends of processes; and the same
    /// once more where two ways are compared.
    pub fn longest(&self) -> Duration {
        2 * (self.warm_up + self.measured) + Duration::from_secs(300)
    }
}

/// Runs one scenario and stops all that it started, also when it is given up after [`Extent::longest`].
pub async fn run(scenario: Scenario, programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let measured = async {
        match scenario {
            Scenario::OneAddress => rates::one_address(programs, extent).await,
            Scenario::Storm => rates::storm(programs, extent).await,
            Scenario::Many => rates::many(programs, extent).await,
            Scenario::SharedQuota => rates::shared_quota(programs, extent).await,
            Scenario::Discovery => discovery::discovery(programs, extent).await,
            Scenario::Accounting => accounting::accounting(programs, extent).await,
            Scenario::FanOut => fan_out::fan_out(programs, extent).await,
        }
    };
    // On the heap: a scenario is a large future.
    let measured = tokio::time::timeout(extent.longest(), Box::pin(measured)).await;
    measured.map_err(|_| format!("{} did not end within {:?}", scenario.name(), extent.longest()))?
}
