//! What an endpoint has told about the chain, and how it is found to be untrue. Pure, and nothing here knows a chain's own format of headers.
//! What a node says about transactions has no part in it (I6).

use std::collections::VecDeque;
use std::fmt;

use alloy_primitives::B256;

use super::Head;

/// Heads of an endpoint that are remembered.
const TOLD: usize = 256;
/// So many announced heads in a row that the endpoint does not have are a lie; fewer may be another node behind the same address.
const MISSING: u32 = 3;
/// Looks after which an endpoint that goes on from a lower head is believed, where nobody else is trusted.
const INSISTING: u32 = 8;

/// What an endpoint told that is not true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lie {
    /// Its head fell by more than a reorg can.
    Backwards { head: u64, before: u64 },
    /// A block that is settled has another hash there.
    History { number: u64, told: B256, known: B256 },
    /// What it told does not fit what it told before.
    Contradiction(&'static str),
}

impl Lie {
    /// The label of `sluice_upstream_lies_total`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Backwards { .. } => "backwards",
            Self::History { .. } => "history",
            Self::Contradiction(_) => "contradiction",
        }
    }

    /// Every kind.
    pub(super) const KINDS: [&'static str; 3] = ["backwards", "history", "contradiction"];
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backwards { head, before } => write!(f, "runs backwards: its head was {before} and is {head}"),
            Self::History { number, told, known } => {
                write!(f, "tells another history: its block {number} is {told}, and that of the chain {known}")
            }
            Self::Contradiction(what) => write!(f, "contradicts itself: {what}"),
        }
    }
}

/// What one endpoint has told, over all its connections.
#[derive(Debug)]
pub(super) struct Record {
    /// Blocks that a reorg can take back.
    depth: u64,
    highest: Option<u64>,
    /// Newest last: hash, number, parent.
    told: VecDeque<(B256, u64, B256)>,
    missing: u32,
    /// Since it ran backwards, while nobody else is trusted: its newest head, and how often it was no lower than the one before.
    insisting: (u64, u32),
}

impl Record {
    pub(super) fn new(depth: u64) -> Self {
        Self { depth, highest: None, told: VecDeque::new(), missing: 0, insisting: (0, 0) }
    }

    /// A head that it told. `Ok(true)`: it follows nothing that was told before, so whoever wants to know asks whether the block is there.
    pub(super) fn hear(&mut self, head: &Head) -> Result<bool, Lie> {
        if let Some((_, number, parent)) = self.told.iter().rev().find(|(hash, ..)| *hash == head.hash)
            && (*number, *parent) != (head.number, head.parent_hash)
        {
            return Err(Lie::Contradiction("a block of the same hash had another number or parent before"));
        }
        let parent = self.told.iter().rev().find(|(hash, ..)| *hash == head.parent_hash);
        if parent.is_some_and(|(_, number, _)| number.checked_add(1) != Some(head.number)) {
            return Err(Lie::Contradiction("a block is not one above its parent"));
        }
        let is_known = self.told.iter().any(|(hash, ..)| *hash == head.hash);
        let jumps = !is_known && parent.is_none() && !self.told.is_empty();
        if !is_known {
            if self.told.len() == TOLD {
                self.told.pop_front();
            }
            self.told.push_back((head.hash, head.number, head.parent_hash));
        }
        let before = self.highest.unwrap_or(head.number);
        if self.falls(head.number) {
            return Err(Lie::Backwards { head: head.number, before });
        }
        self.highest = Some(before.max(head.number));
        Ok(jumps)
    }

    fn falls(&self, number: u64) -> bool {
        self.highest.is_some_and(|highest| number.saturating_add(self.depth) < highest)
    }

    /// Whether it has a block that it announced.
    pub(super) fn has(&mut self, it_has: bool) -> Result<(), Lie> {
        self.missing = if it_has { 0 } else { self.missing + 1 };
        if self.missing < MISSING { Ok(()) } else { Err(Lie::Contradiction("it does not have the blocks that it announces")) }
    }

    /// Whether this is a head to come back with: no more backwards, or, where others are trusted, near theirs. Where nobody is, one that
    /// insists is believed in the end: a single false head must not keep an environment's only node out for good. What was told before is
    /// then forgotten.
    pub(super) fn returns(&mut self, head: &Head, others: Option<u64>) -> bool {
        let near = match others {
            Some(others) => others.abs_diff(head.number) <= self.depth,
            None => self.insists(head.number),
        };
        if self.falls(head.number) && !near {
            return false;
        }
        *self = Self { highest: Some(head.number), ..Self::new(self.depth) };
        true
    }
}

impl Record {
    fn insists(&mut self, number: u64) -> bool {
        let (before, times) = self.insisting;
        self.insisting = (number, if number >= before { times + 1 } else { 0 });
        self.insisting.1 > INSISTING
    }
}

/// What one endpoint says of two settled blocks; `None` where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Of the block that is known.
    pub(super) old: Option<B256>,
    /// Of the one that is to be known.
    pub(super) new: Option<B256>,
}

/// What the testimonies come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Findings {
    /// For each endpoint: the hashes told and known, if they differ, and whether they are of the new block.
    pub(super) liars: Vec<Option<(bool, B256, B256)>>,
    /// The hash of the new block.
    pub(super) new: Option<B256>,
    /// Everybody tells the same other history: it is the chain's.
    pub(super) is_rewritten: bool,
}

/// Judges what the endpoints say, the best first. `known` is the hash of the old block; `endpoints` how many there are, those who are away too:
/// a new block is known once all were asked, or more than half of them say it.
pub(super) fn judge(known: Option<B256>, testimonies: &[Testimony], endpoints: usize) -> Findings {
    let all = testimonies.len() == endpoints;
    let others = known.map(|known| testimonies.iter().map(|one| one.old.filter(|told| *told != known)).collect::<Vec<_>>());
    let mut others = others.unwrap_or_else(|| vec![None; testimonies.len()]);
    // Whoever does not say keeps the chain as it was: it may come to say so.
    let is_rewritten = all && others.first().is_some_and(|first| first.is_some() && others.iter().all(|other| other == first));
    if is_rewritten {
        others.fill(None);
    }
    let voices = || testimonies.iter().zip(&others).filter(|(_, lie)| lie.is_none()).filter_map(|(one, _)| one.new);
    let mut new: Option<(B256, usize)> = None;
    for told in voices() {
        let votes = voices().filter(|other| *other == told).count();
        if new.is_none_or(|(_, most)| votes > most) {
            new = Some((told, votes));
        }
    }
    let new = new.filter(|(_, votes)| all || votes * 2 > endpoints).map(|(hash, _)| hash);
    let liar = |(one, lie): (&Testimony, &Option<B256>)| match (lie, known, new) {
        (Some(told), Some(known), _) => Some((false, *told, known)),
        (_, _, Some(new)) => one.new.filter(|told| *told != new).map(|told| (true, told, new)),
        _ => None,
    };
    let liars = testimonies.iter().zip(&others).map(liar).collect();
    Findings { liars, new, is_rewritten }
}

#[cfg(test)]
mod tests;
