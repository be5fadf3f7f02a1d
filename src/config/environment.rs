//! `[[environment]]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::errors::Fault;
use super::kinds::{Choice, Count, CountOr, Time};
use super::model::{AccountBounds, Broadcast, Bump, Confirmations, Environment, FeeMode, LogSource, Superseded};
use super::nodes;
use super::reader::Table;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The largest chain id of EIP-2294: floor((2⁶⁴ - 1) / 2) - 36, so that v of EIP-155 fits in 64 bits.
const MAX_CHAIN_ID: u64 = u64::MAX / 2 - 36;

const BROADCAST: Choice<Broadcast> =
    Choice(&[("pipelined", Broadcast::Pipelined), ("batched", Broadcast::Batched), ("sequential", Broadcast::Sequential)]);
const FEES: Choice<FeeMode> = Choice(&[("eip1559", FeeMode::Eip1559), ("legacy", FeeMode::Legacy), ("free", FeeMode::Free)]);
const LOGS: Choice<LogSource> = Choice(&[("chain", LogSource::Chain), ("node", LogSource::Node)]);
const SUPERSEDED: Choice<Superseded> = Choice(&[("mined", Superseded::Mined), ("own", Superseded::Own)]);

/// Reads one; `chains` holds the chain ids before it and their environments.
pub(super) fn environment(table: &mut Table<'_, '_>, name: String, chains: &mut BTreeMap<u64, String>) -> Option<Environment> {
    let chain_id = table.required("chain_id", Count(1..=MAX_CHAIN_ID));
    let nodes = nodes::nodes(table);
    let clocks = table.section("clocks", nodes::clocks);
    let account = table.section("account", account);
    let answer_after = table.or("answer_after", Time(Duration::ZERO..=10 * MINUTE), "2s");
    let broadcast = table.or("broadcast", BROADCAST, "pipelined");
    let confirmations = table.or("confirmations", CountOr(1..=100_000, "finalized"), "12");
    let finalized_fallback = table.or("finalized_fallback", Count(1..=100_000), "64");
    let node_deadline = table.or("node_deadline", Time(10 * MILLISECOND..=10 * MINUTE), "10s");
    let sync_timeout = table.or("sync_timeout", Time(10 * MILLISECOND..=HOUR), "20s");
    let sync_timeout_max = table.or("sync_timeout_max", Time(10 * MILLISECOND..=HOUR), "5m");
    if let (Some(default), Some(max)) = (sync_timeout, sync_timeout_max)
        && default > max
    {
        table.fail("sync_timeout", Fault::Value, "is longer than sync_timeout_max");
    }
    let gas_percent = table.or("gas_percent", Count(100..=1000), "100");
    let rebroadcast = table.or("rebroadcast", Time(SECOND..=DAY), "30s");
    let reconcile_blocks = table.or("reconcile_blocks", Count(1..=100_000), "12");
    let hold = table.or("hold", Time(SECOND..=30 * DAY), "10m");
    let fees = table.or("fees", FEES, "eip1559");
    let bump = table.section("bump", bump);
    let superseded = table.or("superseded", SUPERSEDED, "mined");
    let logs = table.or("logs", LOGS, "chain");
    if let Some(chain_id) = chain_id {
        if let Some(other) = chains.get(&chain_id) {
            let message = format!("is the chain id of environment `{other}` already: one chain is one environment, with all its nodes");
            table.fail("chain_id", Fault::Duplicate, message);
        } else {
            chains.insert(chain_id, name.clone());
        }
    }
    Some(Environment {
        name,
        chain_id: chain_id?,
        nodes: nodes?,
        clocks: clocks?,
        account: account?,
        answer_after: answer_after?,
        broadcast: broadcast?,
        confirmations: confirmations?.map_or(Confirmations::Finalized, Confirmations::Blocks),
        finalized_fallback: finalized_fallback?,
        node_deadline: node_deadline?,
        sync_timeout: sync_timeout?,
        sync_timeout_max: sync_timeout_max?,
        gas_percent: gas_percent?,
        rebroadcast: rebroadcast?,
        hold: hold?,
        reconcile_blocks: reconcile_blocks?,
        fees: fees?,
        bump: bump?,
        superseded: superseded?,
        logs: logs?,
    })
}

fn bump(table: &mut Table<'_, '_>) -> Option<Bump> {
    let after = table.or("after", Time(SECOND..=DAY), "60s");
    let blocks = table.or("blocks", Count(1..=10_000), "3");
    let times = table.or("times", Count(0..=100), "5");
    Some(Bump { after: after?, blocks: blocks?, times: times? })
}

fn account(table: &mut Table<'_, '_>) -> Option<AccountBounds> {
    let queue = table.or("queue", Count(1..=1_000_000), "1024");
    let queue_deadline = table.or("queue_deadline", Time(10 * MILLISECOND..=HOUR), "30s");
    let sign_window = table.or("sign_window", Count(1..=10_000), "64");
    let sign_ahead = table.or("sign_ahead", Count(1..=10_000), "64");
    let broadcast_window = table.or("broadcast_window", Count(1..=10_000), "64");
    let acknowledged = table.or("acknowledged", Count(1..=1_000_000), "10000");
    Some(AccountBounds {
        queue: queue?,
        queue_deadline: queue_deadline?,
        sign_window: sign_window?,
        sign_ahead: sign_ahead?,
        broadcast_window: broadcast_window?,
        acknowledged: acknowledged?,
    })
}
