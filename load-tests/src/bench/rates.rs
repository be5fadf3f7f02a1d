//! How much of a quota becomes transactions, how long they take, and what they cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::accounting::{Ledger, ledger};
use super::check::{Mined, Told, check};
use super::figures::{Bound, Report};
use super::load::{Request, Shape, accounts, drive};
use super::observe::{SignUsage, machine, machine_load, mined, ms, settled};
use super::plan::Plan;
use super::world::{ProcessorTimes, Programs, World};
use super::{Extent, Failure};
use crate::latency::Latencies;
use crate::random::Delays;

/// The time of one of the processes.
type OfProcess = fn(&ProcessorTimes) -> Option<Duration>;

/// What a run has shown.
struct Run {
    requests: Vec<Request>,
    /// Between these two, everything was measured.
    from: Instant,
    until: Instant,
    signs: SignUsage,
    before: ProcessorTimes,
    after: ProcessorTimes,
    ledger: Ledger,
    mined: Vec<Mined>,
    load_before: String,
}

/// What is looked at when the measured time begins and ends.
async fn look(world: &World, at: Instant) -> Result<(Instant, SignUsage, ProcessorTimes), Failure> {
    tokio::time::sleep_until(at.into()).await;
    let signs = world.kms().signs().await?;
    Ok((Instant::now(), signs, world.processor_times()))
}

/// One run in a world of its own.
async fn measure(programs: &Programs, plan: &Plan, shape: Shape, warm_up: Duration, measured: Duration) -> Result<Run, Failure> {
    let load_before = machine_load();
    let world = World::start(programs, plan).await?;
    let client = world.client().await?;
    let accounts = accounts(&client).await?;
    if accounts.len() as u64 != plan.keys {
        return Err(format!("the service has {} of {} accounts", accounts.len(), plan.keys).into());
    }
    let begin = Instant::now() + warm_up;
    let looks = async { Ok::<_, Failure>((look(&world, begin).await?, look(&world, begin + measured).await?)) };
    let (requests, looks) = tokio::join!(drive(&client, &accounts, shape, begin + measured), looks);
    let ((from, signs_before, before), (until, signs_after, after)) = looks?;

    settled(world.node()).await?;
    Ok(Run {
        requests,
        from,
        until,
        signs: SignUsage {
            admitted: signs_after.admitted - signs_before.admitted,
            throttled: signs_after.throttled - signs_before.throttled,
        },
        before,
        after,
        ledger: ledger(&world).await?,
        mined: mined(world.node()).await?,
        load_before,
    })
}

impl Run {
    fn seconds(&self) -> f64 {
        self.until.duration_since(self.from).as_secs_f64()
    }

    /// Answered with a hash in the measured time.
    fn hashes(&self) -> impl Iterator<Item = &Request> {
        let within = move |request: &&Request| (self.from..self.until).contains(&request.answered);
        self.requests.iter().filter(within).filter(|request| matches!(request.told, Told::Hash(_)))
    }

    /// Signs that KMS let in, a second.
    fn signs_per_second(&self) -> f64 {
        self.signs.admitted as f64 / self.seconds()
    }

    /// Hashes that clients were told, a second.
    fn goodput(&self) -> f64 {
        self.hashes().count() as f64 / self.seconds()
    }

    /// Throttled Signs, of all, in percent.
    fn throttled(&self) -> f64 {
        100.0 * self.signs.throttled as f64 / (self.signs.admitted + self.signs.throttled).max(1) as f64
    }

    /// By how much the account that is farthest from the mean of all is away from it, in percent.
    fn farthest_share(&self, accounts: u64) -> f64 {
        let mut shares = vec![0_u64; usize::try_from(accounts).unwrap_or(0)];
        for request in self.hashes() {
            if let Some(share) = shares.get_mut(request.account) {
                *share += 1;
            }
        }
        let mean = shares.iter().sum::<u64>() as f64 / shares.len() as f64;
        shares.iter().map(|share| 100.0 * (*share as f64 / mean - 1.0).abs()).fold(0.0, f64::max)
    }

    /// How often which error was told: its code and its reason.
    fn errors_by_kind(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for request in &self.requests {
            if let Told::Error(code, reason) = &request.told {
                *kinds.entry(format!("{code} {reason}")).or_default() += 1;
            }
        }
        kinds
    }

    fn errors(&self) -> usize {
        self.requests.iter().filter(|request| matches!(request.told, Told::Error(..))).count()
    }

    /// What every run tells, and what is wrong.
    fn report(&self, report: &mut Report, shape: Shape, measured: Duration, warm_up: Duration) {
        report.configured.push(format!("load: {shape}; {measured:?} measured after {warm_up:?}"));
        report.configured.push(machine(&self.load_before));
        let mut latencies = Latencies::default();
        self.hashes().for_each(|request| latencies.add(request.answered.duration_since(request.sent)));
        report.tell("from request to hash, p50", ms(latencies.percentile(50)), "ms");
        report.tell("from request to hash, p99", ms(latencies.percentile(99)), "ms");
        for (error, count) in self.errors_by_kind() {
            report.tell(&format!("answered with {error}"), count as f64, "");
        }
        self.tell_processor_time(report);
        report.wrong.extend(check(self.requests.iter().map(|request| &request.told), &self.mined));
        let hashes = self.requests.iter().filter(|request| matches!(request.told, Told::Hash(_))).count();
        report.wrong.extend(self.ledger.wrong(hashes as u64, 0));
    }

    fn tell_processor_time(&self, report: &mut Report) {
        let used = |of: OfProcess| Some(of(&self.after)?.checked_sub(of(&self.before)?)?.as_secs_f64());
        if let Some(seconds) = used(|times| times.gateway) {
            report.tell("processor time of the gateway, a transaction", 1e6 * seconds / self.hashes().count().max(1) as f64, "µs");
        }
        let all: [(&str, OfProcess); 4] = [
            ("processors that the gateway used", |times| times.gateway),
            ("the simulated KMS", |times| times.kms),
            ("the simulated node", |times| times.node),
            ("this client", |times| times.load),
        ];
        for (name, of) in all {
            if let Some(seconds) = used(of) {
                report.tell(name, seconds / self.seconds(), "");
            }
        }
    }
}

/// One key at 50 ms, and more requests than its quota lets through; beside it, the same with one Sign at a time.
pub(super) async fn one_address(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let fixed = Plan::new(extent.seed, 1, extent.quota, Delays::fixed(50));
    let plan = Plan { signs_in_flight: extent.signs_in_flight.unwrap_or(fixed.signs_in_flight), ..fixed.clone() };
    let shape = Shape::Closed(usize::try_from(extent.quota * 3 / 2)?.max(1));
    let run = measure(programs, &plan, shape, extent.warm_up, extent.measured).await?;
    let mut report = Report::new("one-address", plan.lines());
    report.hold("Signs that KMS let in, of the quota", 100.0 * run.signs_per_second() / extent.quota as f64, "%", Bound::AtLeast(99.0));
    report.hold("throttled Signs, of all", run.throttled(), "%", Bound::AtMost(0.5));
    report.hold("errors that clients were told", run.errors() as f64, "", Bound::AtMost(0.0));
    report.tell("hashes that clients were told", run.goodput(), "/s");
    run.report(&mut report, shape, extent.measured, extent.warm_up);

    let one = Plan { signs_in_flight: 1, ..fixed };
    let short = (extent.warm_up.min(Duration::from_secs(2)), extent.measured.min(Duration::from_secs(10)));
    let beside = measure(programs, &one, Shape::Closed(16), short.0, short.1).await?;
    report.tell("hashes, with one Sign at a time", beside.goodput(), "/s");
    report.tell("as many times that", run.goodput() / beside.goodput(), "×");
    report.wrong.extend(check(beside.requests.iter().map(|request| &request.told), &beside.mined));
    Ok(report)
}

/// Five times the quota over many keys.
pub(super) async fn storm(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let plan = Plan { queue_deadline: Duration::from_secs(5), ..many_keys(extent) };
    let shape = Shape::Open(5.0 * extent.quota as f64);
    let run = measure(programs, &plan, shape, extent.warm_up, extent.measured).await?;
    let mut report = Report::new("storm", plan.lines());
    report.hold("hashes that clients were told, of the quota", 100.0 * run.goodput() / extent.quota as f64, "%", Bound::AtLeast(95.0));
    report.hold("the account farthest from an equal share", run.farthest_share(extent.keys), "%", Bound::AtMost(10.0));
    report.tell("Signs that KMS let in", run.signs_per_second(), "/s");
    report.tell("throttled Signs, of all", run.throttled(), "%");
    report.tell("requests", run.requests.len() as f64, "");
    report.tell("of these, answered with an error", run.errors() as f64, "");
    run.report(&mut report, shape, extent.measured, extent.warm_up);
    Ok(report)
}

/// Four fifths of the quota over many keys.
pub(super) async fn many(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let plan = many_keys(extent);
    let offered = 0.8 * extent.quota as f64;
    let run = measure(programs, &plan, Shape::Open(offered), extent.warm_up, extent.measured).await?;
    let mut report = Report::new("many", plan.lines());
    report.hold("hashes that clients were told, of what was offered", 100.0 * run.goodput() / offered, "%", Bound::AtLeast(99.0));
    report.hold("throttled Signs, of all", run.throttled(), "%", Bound::AtMost(0.5));
    report.hold("errors that clients were told", run.errors() as f64, "", Bound::AtMost(0.0));
    run.report(&mut report, Shape::Open(offered), extent.measured, extent.warm_up);
    Ok(report)
}

/// KMS gives three fifths of what is configured.
pub(super) async fn shared_quota(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let given = extent.quota * 3 / 5;
    let plan = Plan { quota: given, ..many_keys(extent) };
    let shape = Shape::Closed(usize::try_from(given)?.max(1));
    let run = measure(programs, &plan, shape, extent.warm_up, extent.measured).await?;
    let mut report = Report::new("shared-quota", plan.lines());
    report.hold("hashes that clients were told, of what KMS gives", 100.0 * run.goodput() / given as f64, "%", Bound::AtLeast(95.0));
    report.hold("errors that clients were told", run.errors() as f64, "", Bound::AtMost(0.0));
    report.tell("throttled Signs, of all", run.throttled(), "%");
    run.report(&mut report, shape, extent.measured, extent.warm_up);
    Ok(report)
}

/// Keys that take 10 ms, now and then 60, seldom a second.
fn many_keys(extent: Extent) -> Plan {
    let plan = Plan::new(extent.seed, extent.keys, extent.quota, Delays::aws());
    Plan { signs_in_flight: extent.signs_in_flight.unwrap_or(plan.signs_in_flight), ..plan }
}
