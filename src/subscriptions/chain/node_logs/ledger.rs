//! Which logs were told: each once, and each taken back once, whoever says so. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_primitives::{B256, U64};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Blocks whose logs are kept.
const KEPT: usize = 128;

/// What tells a log from all others.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Facts {
    block_hash: B256,
    block_number: U64,
    log_index: U64,
    #[serde(default)]
    removed: bool,
}

impl Facts {
    /// `None` if this is none that can be read.
    pub(super) fn of(log: &RawValue) -> Option<Self> {
        serde_json::from_str(log.get()).ok()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// By number, lowest first.
    blocks: VecDeque<OfBlock>,
    /// Logs of blocks up to this number are not kept: a node may take back what is not here.
    not_kept: u64,
}

#[derive(Debug)]
struct OfBlock {
    number: u64,
    hash: B256,
    /// By index.
    logs: Vec<(u64, Arc<RawValue>)>,
}

impl Ledger {
    /// Nothing was told yet; up to this block nothing will be kept.
    pub(super) fn new(number: u64) -> Self {
        Self { blocks: VecDeque::new(), not_kept: number }
    }

    /// Whether this changes what was told; it is noted then.
    pub(super) fn is_news(&mut self, facts: Facts, log: &Arc<RawValue>) -> bool {
        let (number, index) = (facts.block_number.to(), facts.log_index.to());
        let at = self.blocks.iter().rposition(|block| block.hash == facts.block_hash);
        if facts.removed { self.remove(at, number, index) } else { self.add(at, facts.block_hash, number, index, log) }
    }

    fn add(&mut self, at: Option<usize>, hash: B256, number: u64, index: u64, log: &Arc<RawValue>) -> bool {
        let at = at.unwrap_or_else(|| {
            let at = self.blocks.partition_point(|block| block.number <= number);
            self.blocks.insert(at, OfBlock { number, hash, logs: Vec::new() });
            at
        });
        let Some(block) = self.blocks.get_mut(at) else { return false };
        let Err(place) = block.logs.binary_search_by_key(&index, |(index, _)| *index) else { return false };
        block.logs.insert(place, (index, Arc::clone(log)));
        if self.blocks.len() > KEPT
            && let Some(oldest) = self.blocks.pop_front()
        {
            self.not_kept = self.not_kept.max(oldest.number);
        }
        true
    }

    fn remove(&mut self, at: Option<usize>, number: u64, index: u64) -> bool {
        let Some((at, block)) = at.and_then(|at| Some((at, self.blocks.get_mut(at)?))) else { return number <= self.not_kept };
        let before = block.logs.len();
        block.logs.retain(|(other, _)| *other != index);
        let was_there = block.logs.len() < before;
        if block.logs.is_empty() {
            self.blocks.remove(at);
        }
        was_there
    }

    /// Takes out the logs of blocks (by number and hash) that are not canonical any more, newest first.
    pub(super) fn take_back(&mut self, is_canonical: impl Fn(u64, B256) -> bool) -> Vec<Arc<RawValue>> {
        let mut orphaned = Vec::new();
        self.blocks.retain(|block| {
            let stays = is_canonical(block.number, block.hash);
            if !stays {
                orphaned.extend(block.logs.iter().map(|(_, log)| Arc::clone(log)));
            }
            stays
        });
        orphaned.reverse();
        orphaned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(number: u64, block: u8, index: u64, is_removed: bool) -> Arc<RawValue> {
        let hash = B256::repeat_byte(block);
        let text = format!(r#"{{"blockHash":"{hash}","blockNumber":"{number:#x}","logIndex":"{index:#x}","removed":{is_removed}}}"#);
        Arc::from(RawValue::from_string(text).unwrap())
    }

    fn is_news(ledger: &mut Ledger, log: &Arc<RawValue>) -> bool {
        ledger.is_news(Facts::of(log).unwrap(), log)
    }

    #[test]
    fn a_log_is_told_once_and_taken_back_once() {
        let mut ledger = Ledger::new(10);
        for (is_removed, expected) in [(false, true), (false, false), (true, true), (true, false), (false, true), (true, true)] {
            assert_eq!(is_news(&mut ledger, &log(11, 1, 0, is_removed)), expected);
        }
        assert!(is_news(&mut ledger, &log(10, 9, 0, true)), "of before it began: the node's to say");
        assert!(is_news(&mut ledger, &log(11, 1, 0, false)) && is_news(&mut ledger, &log(11, 2, 0, false)), "of two branches");
        assert!(Facts::of(&Arc::from(RawValue::from_string("7".into()).unwrap())).is_none());
    }

    #[test]
    fn what_is_not_canonical_is_taken_out_newest_first() {
        let mut ledger = Ledger::new(10);
        for told in [log(13, 3, 1, false), log(11, 1, 0, false), log(12, 2, 4, false), log(13, 3, 0, false)] {
            assert!(is_news(&mut ledger, &told));
        }
        let orphaned = ledger.take_back(|number, _| number < 12);
        let expected = [log(13, 3, 1, false), log(13, 3, 0, false), log(12, 2, 4, false)];
        assert!(orphaned.iter().map(|log| log.get()).eq(expected.iter().map(|log| log.get())), "{orphaned:?}");
        assert!(!is_news(&mut ledger, &log(13, 3, 1, true)), "the node says it again");
        assert!(!is_news(&mut ledger, &log(11, 1, 0, false)));
    }

    #[test]
    fn so_many_blocks_are_kept() {
        let mut ledger = Ledger::new(0);
        for number in 1..=(KEPT as u64 + 2) {
            assert!(is_news(&mut ledger, &log(number, number as u8, 0, false)));
        }
        assert_eq!((ledger.blocks.len(), ledger.not_kept), (KEPT, 2));
        assert!(is_news(&mut ledger, &log(2, 2, 0, true)) && !is_news(&mut ledger, &log(3, 200, 0, true)));
    }
}
