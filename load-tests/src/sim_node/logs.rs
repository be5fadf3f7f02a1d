//! Logs: what a call emits, which of them a filter is about, and how they are told.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bloom, Bytes, Log, U64, address};
use alloy_rlp::Decodable;
use serde::Deserialize;
use serde_json::{Value, json};

use super::chain::Block;
use super::node::Node;
use super::settings::Client;
use super::subscriptions::Kind;
use super::words::RpcError;

/// The contract that is on every simulated chain: it emits the logs that its [call data](emitting) lists, and reverts what is no list.
pub const EMITTER: Address = address!("0x0000000000000000000000000000000000e3177e");

/// Positions of topics in a filter, as geth bounds them.
const MAX_TOPICS: usize = 4;

/// Call data by which an emitter emits these logs, in their order, each in the name of the address that it says: their RLP list.
pub fn emitting(logs: &[Log]) -> Bytes {
    let mut data = Vec::new();
    alloy_rlp::encode_list::<Log, Log>(logs, &mut data);
    data.into()
}

/// What an emitter emits on this call data; `None` if it is no list of logs with four topics at most.
pub(super) fn emitted(mut input: &[u8]) -> Option<Vec<Log>> {
    let logs = Vec::<Log>::decode(&mut input).ok()?;
    (input.is_empty() && logs.iter().all(|log| log.topics().len() <= MAX_TOPICS)).then_some(logs)
}

/// Gas of the logs (LOG0 to LOG4).
pub(super) fn gas(logs: &[Log]) -> u64 {
    logs.iter().map(|log| 375 + 375 * log.topics().len() as u64 + 8 * log.data.data.len() as u64).sum()
}

/// Which logs a subscription or a question is about: addresses and topics by geth's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    addresses: Vec<Address>,
    /// By position; without any: whichever topic is there.
    topics: Vec<Vec<B256>>,
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

/// In a position `null` is any topic, whatever stands beside it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Position {
    One(B256),
    More(Vec<Option<B256>>),
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spelled {
    address: Option<OneOrMore<Address>>,
    topics: Option<Vec<Option<Position>>>,
}

impl Filter {
    /// Reads the addresses and topics of a filter object; null is an empty one.
    pub(super) fn read(filter: &Value) -> Result<Self, RpcError> {
        let spelled: Option<Spelled> =
            serde_json::from_value(filter.clone()).map_err(|error| RpcError::invalid(format!("invalid argument 0: {error}")))?;
        let Spelled { address, topics } = spelled.unwrap_or_default();
        let addresses = address.map_or_else(Vec::new, |address| match address {
            OneOrMore::One(address) => vec![address],
            OneOrMore::More(addresses) => addresses,
        });
        let topics: Vec<Vec<B256>> =
            topics.unwrap_or_default().into_iter().map(|position| position.map_or_else(Vec::new, Position::any)).collect();
        if topics.len() > MAX_TOPICS {
            return Err(RpcError::invalid("exceed max topics"));
        }
        Ok(Self { addresses, topics })
    }

    /// Whether the log is one of them. geth wants a topic at every position, also where any will do; reth and anvil look at none behind the last
    /// position that names one.
    pub(super) fn matches(&self, log: &Log, client: Client) -> bool {
        let positions = match client {
            Client::Reth | Client::Anvil => self.topics.iter().rposition(|topics| !topics.is_empty()).map_or(0, |last| last + 1),
            _ => self.topics.len(),
        };
        let is_there = |(topics, topic): (&Vec<B256>, &B256)| topics.is_empty() || topics.contains(topic);
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && positions <= log.topics().len()
            && self.topics.iter().zip(log.topics()).all(is_there)
    }
}

impl Position {
    fn any(self) -> Vec<B256> {
        match self {
            Self::One(topic) => vec![topic],
            Self::More(topics) => topics.into_iter().collect::<Option<Vec<B256>>>().unwrap_or_default(),
        }
    }
}

/// The bloom of these logs.
pub(super) fn bloom<'a>(logs: impl IntoIterator<Item = &'a Log>) -> Bloom {
    let mut bloom = Bloom::ZERO;
    logs.into_iter().for_each(|log| bloom.accrue_log(log));
    bloom
}

/// The logs of a block's transaction, with how each is told.
pub(super) fn of(block: &Block, index: usize, is_removed: bool) -> impl Iterator<Item = (&Log, Value)> {
    block.transactions.get(index).into_iter().flat_map(move |mined| {
        mined.executed.logs.iter().zip(mined.first_log..).map(move |(log, place)| {
            let told = json!({
                "address": log.address,
                "topics": log.topics(),
                "data": log.data.data,
                "blockHash": block.hash,
                "blockNumber": U64::from(block.number()),
                "blockTimestamp": U64::from(block.header.timestamp),
                "transactionHash": mined.transaction.hash,
                "transactionIndex": U64::from(index),
                "logIndex": U64::from(place),
                "removed": is_removed,
            });
            (log, told)
        })
    })
}

/// All logs of a block: in their order, or as a reorg takes them back, newest first.
fn of_block(block: &Block, is_removed: bool) -> Vec<(&Log, Value)> {
    if block.header.logs_bloom.is_zero() {
        return Vec::new();
    }
    let mut logs: Vec<_> = (0..block.transactions.len()).flat_map(|index| of(block, index, is_removed)).collect();
    if is_removed {
        logs.reverse();
    }
    logs
}

impl Node {
    /// The logs of a block that a filter (`address` and `topics`) is about, as they are told: in their order, or as a reorg takes them back, newest
    /// first. An error for a filter that is none, and a block that never was.
    pub fn logs_of(&self, block: B256, filter: &Value, is_removed: bool) -> Result<Vec<Value>, RpcError> {
        let block = self.chain.hash(block).ok_or_else(unknown)?;
        Ok(self.matching(block, &Filter::read(filter)?, is_removed))
    }

    /// `eth_getLogs`: of one block, also of an orphaned one where the client tells those, or of canonical blocks up to `head`.
    pub(super) fn get_logs(&self, filter: &Value, head: &Arc<Block>) -> Result<Value, RpcError> {
        let wanted = Filter::read(filter)?;
        let member = |name| filter.get(name).filter(|value| !value.is_null());
        let (from, to) = (member("fromBlock"), member("toBlock"));
        if let Some(hash) = member("blockHash") {
            if from.is_some() || to.is_some() {
                let words = "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other";
                return Err(RpcError::invalid(format!("invalid argument 0: {words}")));
            }
            let block = hash.as_str().and_then(|hash| hash.parse().ok()).and_then(|hash| self.chain.hash(hash));
            // anvil does not tell the logs of an orphaned block by its hash.
            let is_told = |block: &&Arc<Block>| self.settings.client != Client::Anvil || self.chain.is_canonical(block);
            return Ok(self.matching(block.filter(is_told).ok_or_else(unknown)?, &wanted, false).into());
        }
        let (from, to) = (self.bound(from, head)?, self.bound(to, head)?);
        if from > to {
            return Err(RpcError::invalid("invalid block range params"));
        }
        let blocks = (from..=to.min(head.number())).filter_map(|number| self.chain.number(number));
        Ok(blocks.flat_map(|block| self.matching(block, &wanted, false)).collect())
    }

    fn matching(&self, block: &Block, filter: &Filter, is_removed: bool) -> Vec<Value> {
        let logs = of_block(block, is_removed).into_iter();
        logs.filter(|(log, _)| filter.matches(log, self.settings.client)).map(|(_, told)| told).collect()
    }

    /// Tells subscribers the logs of a block that became canonical, or is not any more. anvil does not tell the latter.
    pub(super) fn announce_logs(&mut self, now: Duration, block: &Block, is_removed: bool) {
        let client = self.settings.client;
        if is_removed && client == Client::Anvil {
            return;
        }
        for (log, told) in &of_block(block, is_removed) {
            self.notify(now, |kind| matches!(kind, Kind::Logs(filter) if filter.matches(log, client)).then_some(told));
        }
    }
}

fn unknown() -> RpcError {
    RpcError::new(-32000, "unknown block")
}
