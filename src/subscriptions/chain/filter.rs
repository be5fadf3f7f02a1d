//! Which logs a subscription is about.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, Bloom, BloomInput};

use crate::config::LogSource;

/// Addresses and topics by geth's rules (`eth_subscribe`, `logs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LogFilter {
    /// Any of these; none: whichever.
    pub addresses: BTreeSet<Address>,
    /// One set for each position; `None`: whichever topic is there.
    pub topics: Vec<Option<BTreeSet<B256>>>,
}

/// The logs of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfLogs {
    /// Those that it is about.
    pub filter: LogFilter,
    /// Where they are found.
    pub source: LogSource,
}

impl OfLogs {
    /// Whether a block with this bloom can have one of them; `None`: it has no bloom.
    pub(super) fn may_be_in(&self, bloom: Option<&Bloom>) -> bool {
        self.source == LogSource::Node || bloom.is_none_or(|bloom| self.filter.may_be_in(bloom))
    }
}

impl LogFilter {
    /// Whether clients disagree about it: at a position that any topic meets, with none after it that one has to, geth wants a topic to be there, and reth and
    /// anvil do not. What it means is the node's to say then.
    pub(super) fn is_the_nodes_to_judge(&self) -> bool {
        self.topics.last().is_some_and(Option::is_none)
    }

    /// Whether the log is one of them. One with fewer topics than the filter has positions is not.
    pub(super) fn matches(&self, address: Address, topics: &[B256]) -> bool {
        let is_there = |(wanted, topic): (&Option<BTreeSet<B256>>, &B256)| wanted.as_ref().is_none_or(|wanted| wanted.contains(topic));
        (self.addresses.is_empty() || self.addresses.contains(&address))
            && self.topics.len() <= topics.len()
            && self.topics.iter().zip(topics).all(is_there)
    }

    /// Whether a block with this bloom can have one of them.
    fn may_be_in(&self, bloom: &Bloom) -> bool {
        let has = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
        (self.addresses.is_empty() || self.addresses.iter().any(|address| has(address.as_slice())))
            && self.topics.iter().flatten().all(|topics| topics.iter().any(|topic| has(topic.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(bytes: &[u8]) -> Option<BTreeSet<B256>> {
        Some(bytes.iter().map(|byte| B256::repeat_byte(*byte)).collect())
    }

    #[test]
    fn positions_are_met_in_order_and_addresses_are_any_of_them() {
        let (here, there) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let log = [B256::repeat_byte(7), B256::repeat_byte(8)];
        let filter = |addresses: &[Address], topics| LogFilter { addresses: addresses.iter().copied().collect(), topics };
        for (filter, expected) in [
            (filter(&[], vec![]), true),
            (filter(&[here], vec![]), true),
            (filter(&[there], vec![]), false),
            (filter(&[there, here], vec![topics(&[7])]), true),
            (filter(&[], vec![None, topics(&[9, 8])]), true),
            (filter(&[], vec![topics(&[8])]), false),
            (filter(&[], vec![None, None]), true),
            (filter(&[], vec![None, None, None]), false),
        ] {
            assert_eq!(filter.matches(here, &log), expected, "{filter:?}");
            let mut bloom = Bloom::default();
            bloom.accrue_raw_log(here, &log);
            assert!(!expected || filter.may_be_in(&bloom), "{filter:?}");
        }
        let mut bloom = Bloom::default();
        bloom.accrue_raw_log(here, &log);
        assert!(!filter(&[there], vec![]).may_be_in(&bloom) && !filter(&[here], vec![topics(&[9])]).may_be_in(&bloom));
    }
}
