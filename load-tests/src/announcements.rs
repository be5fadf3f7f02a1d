//! Heads on their way to a subscriber, and what goes wrong with them by plan: left out, doubled, out of order, or not true.

use std::collections::VecDeque;

use alloy_consensus::Header;
use alloy_primitives::B256;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::random::Random;

/// The name of announcements in [`Faults`].
pub const HEADS: &str = "newHeads";

/// Heads that [`HeadFault::Older`] can go back to.
const RECENT: usize = 64;

/// What can go wrong with the announcement of a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum HeadFault {
    /// It is not told.
    LeftOut,
    /// It is told twice.
    Twice,
    /// It is told behind the one that follows it: the child before its parent.
    BehindNext,
    /// A head of before is told in its place: the chain runs backwards.
    Older {
        /// How many heads ago.
        heads: u64,
    },
    /// A block that there is not, with the same parent, is told in its place. Its hash is that of its header.
    Invented,
    /// A block that there is not, whose parent there is not either, is told in its place.
    OtherHistory,
}

/// The line of heads to one subscriber.
#[derive(Debug, Clone, Default)]
pub struct Announcements {
    /// What is told behind the next head.
    held: Option<Value>,
    /// Newest last.
    recent: VecDeque<Value>,
}

impl Announcements {
    /// A head is to be told, as JSON: what is told instead, in this order.
    pub fn tell(&mut self, head: Value, faults: &mut Faults<HeadFault>, random: &mut Random) -> Vec<Value> {
        let fault = faults.next(HEADS, random);
        let mut told = match &fault {
            None => vec![head.clone()],
            Some(HeadFault::LeftOut) => Vec::new(),
            Some(HeadFault::Twice) => vec![head.clone(), head.clone()],
            Some(HeadFault::BehindNext) => Vec::new(),
            Some(HeadFault::Older { heads }) => self.before(*heads).into_iter().collect(),
            Some(HeadFault::Invented) => vec![invented(&head, None)],
            Some(HeadFault::OtherHistory) => vec![invented(&head, Some(random.hash()))],
        };
        told.extend(self.held.take());
        self.held = (fault == Some(HeadFault::BehindNext)).then(|| head.clone());
        self.recent.push_back(head);
        self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        told
    }

    /// The head of so many ago, or the oldest that is known.
    fn before(&self, heads: u64) -> Option<Value> {
        let back = usize::try_from(heads).unwrap_or(usize::MAX);
        self.recent.get(self.recent.len().saturating_sub(back)).or(self.recent.back()).cloned()
    }
}

/// Another block of the same number and time: with a header that is consistent, but no block behind it.
fn invented(head: &Value, parent: Option<B256>) -> Value {
    let mut told = head.clone();
    told["extraData"] = json!("0x696e76656e746564");
    if let Some(parent) = parent {
        told["parentHash"] = json!(parent);
    }
    // What is no header of this chain keeps its hash, which nobody will take for that of this block.
    if let Ok(header) = serde_json::from_value::<Header>(told.clone()) {
        told["hash"] = json!(header.hash_slow());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u64) -> Value {
        let header = Header { number, parent_hash: B256::with_last_byte(7), ..Header::default() };
        let mut head = serde_json::to_value(&header).unwrap();
        head["hash"] = json!(header.hash_slow());
        head
    }

    /// Tells the heads 1 to 6, the third with this fault; the numbers of what is told, and all of it.
    fn told(fault: HeadFault) -> (Vec<u64>, Vec<Value>) {
        let (mut line, mut random) = (Announcements::default(), Random::new(1, "heads"));
        let mut told = Vec::new();
        for number in 1..=6 {
            let mut faults = Faults::default();
            if number == 3 {
                faults = faults.then(HEADS, 1, fault.clone());
            }
            told.extend(line.tell(head(number), &mut faults, &mut random));
        }
        let number = |head: &Value| u64::from_str_radix(head["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        (told.iter().map(number).collect(), told)
    }

    #[test]
    fn heads_are_left_out_doubled_and_out_of_order() {
        assert_eq!(told(HeadFault::LeftOut).0, [1, 2, 4, 5, 6]);
        assert_eq!(told(HeadFault::Twice).0, [1, 2, 3, 3, 4, 5, 6]);
        assert_eq!(told(HeadFault::BehindNext).0, [1, 2, 4, 3, 5, 6]);
        assert_eq!(told(HeadFault::Older { heads: 2 }).0, [1, 2, 1, 4, 5, 6]);
        assert_eq!(told(HeadFault::Older { heads: 1 }).0, [1, 2, 2, 4, 5, 6]);
    }

    #[test]
    fn lies_are_consistent_headers_of_blocks_that_there_are_not() {
        for (fault, keeps_parent) in [(HeadFault::Invented, true), (HeadFault::OtherHistory, false)] {
            let (numbers, heads) = told(fault);
            assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
            let (lie, truth) = (&heads[2], head(3));
            let header: Header = serde_json::from_value(lie.clone()).unwrap();
            assert_eq!(lie["hash"], json!(header.hash_slow()));
            assert_ne!(lie["hash"], truth["hash"]);
            assert_eq!(lie["parentHash"] == truth["parentHash"], keeps_parent);
        }
    }

    #[test]
    fn two_heads_in_a_row_that_are_told_behind_the_next_are_all_told() {
        let (mut line, mut random) = (Announcements::default(), Random::new(1, "heads"));
        let mut faults = Faults::default().then(HEADS, 2, HeadFault::BehindNext);
        let told: Vec<Value> = (1..=3).flat_map(|number| line.tell(head(number), &mut faults, &mut random)).collect();
        assert_eq!(told, [head(1), head(3), head(2)]);
    }
}
