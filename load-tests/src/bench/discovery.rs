//! How long a gateway with many keys takes until it serves.

use serde_json::json;

use super::figures::{Bound, Report};
use super::observe::{machine, machine_load};
use super::plan::Plan;
use super::world::{Programs, World};
use super::{Extent, Failure};
use crate::random::Delays;

/// Each key is described, read for its tags and asked for its public key, once.
const OPERATIONS: [&str; 4] = ["ListKeys", "DescribeKey", "ListResourceTags", "GetPublicKey"];

/// A cold start, an end, and a warm start.
pub(super) async fn discovery(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let plan = Plan { other_quotas: true, ..Plan::new(extent.seed, extent.discovered, extent.quota, Delays::fixed(20)) };
    let load = machine_load();
    let mut world = World::simulators(programs, &plan).await?;
    let cold = world.start_gateway().await?;
    let mut report = Report::new("discovery", plan.lines());
    count_accounts(&world, extent, &mut report, "cold").await?;
    let throttled = throttled(&world).await?;
    world.stop_gateway().await?;
    let warm = world.start_gateway().await?;
    count_accounts(&world, extent, &mut report, "warm").await?;
    report.configured.push(machine(&load));
    report.hold("from the start until it serves, cold", cold.as_secs_f64(), "s", Bound::AtMost(15.0));
    report.hold("from the start until it serves, warm", warm.as_secs_f64(), "s", Bound::AtMost(1.0));
    report.tell("throttled calls of the cold start", throttled as f64, "");
    for operation in OPERATIONS {
        report.tell(&format!("calls of {operation}"), world.kms().calls(operation).await? as f64, "");
    }
    world.stop_gateway().await?;
    Ok(report)
}

async fn count_accounts(world: &World, extent: Extent, report: &mut Report, start: &str) -> Result<(), Failure> {
    let accounts = super::load::accounts(&world.client().await?).await?.len();
    if accounts as u64 != extent.discovered {
        report.wrong.push(format!("{accounts} of {} accounts after the {start} start", extent.discovered));
    }
    Ok(())
}

/// Calls of all operations that were throttled.
async fn throttled(world: &World) -> Result<u64, Failure> {
    let used = world.kms().steer("Quotas", &json!({})).await?;
    Ok(used["Used"].as_array().into_iter().flatten().filter_map(|used| used["Throttled"].as_u64()).sum())
}
