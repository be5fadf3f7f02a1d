//! The acknowledged transactions of one account, by where they are: ids alone, so that all that may be on record fit. Pure.
//!
//! Whoever waits a fault out has places of its own: it keeps nobody behind it from being worked on, however long the fault lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::verdict::Tries;
use crate::journal::TransactionId;

/// Transactions that are prepared or queued for the first time, at most; and as many that are tried again.
const AT_WORK: usize = 64;

/// One transaction at work.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) transaction: TransactionId,
    pub(super) tries: Tries,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeSet<TransactionId>,
    fresh: BTreeSet<TransactionId>,
    again: BTreeSet<TransactionId>,
    resting: BTreeMap<TransactionId, Tries>,
    /// When the rests are over.
    due: BTreeSet<(Instant, TransactionId)>,
}

impl Line {
    /// Transactions that are known here.
    pub(super) fn known(&self) -> usize {
        self.waiting.len() + self.fresh.len() + self.again.len() + self.resting.len()
    }

    /// Whether one more that is not known yet would be worked on now.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.fresh.len() < AT_WORK
    }

    /// These are on record.
    pub(super) fn found(&mut self, ids: impl IntoIterator<Item = TransactionId>) {
        for id in ids {
            if !self.fresh.contains(&id) && !self.again.contains(&id) && !self.resting.contains_key(&id) {
                self.waiting.insert(id);
            }
        }
    }

    /// The next one to be worked on: whose rest is over, then in the order of ids.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        if self.next_due().is_some_and(|due| due <= now)
            && let Some((_, transaction)) = self.due.pop_first()
        {
            let tries = self.resting.remove(&transaction).unwrap_or_default();
            self.again.insert(transaction);
            return Some(Job { transaction, tries });
        }
        if self.fresh.len() >= AT_WORK {
            return None;
        }
        let transaction = self.waiting.pop_first()?;
        self.fresh.insert(transaction);
        Some(Job { transaction, tries: Tries::default() })
    }

    /// When the next rest is over that somebody is to be worked on after.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().filter(|_| self.again.len() < AT_WORK).map(|(due, _)| *due)
    }

    /// It is tried again at this time.
    pub(super) fn rest(&mut self, job: Job, until: Instant) {
        let Job { transaction, tries } = job;
        self.leave(transaction);
        self.resting.insert(transaction, tries);
        self.due.insert((until, transaction));
    }

    /// It is off the record of what waits.
    pub(super) fn over(&mut self, transaction: TransactionId) {
        self.leave(transaction);
    }

    fn leave(&mut self, transaction: TransactionId) {
        self.fresh.remove(&transaction);
        self.again.remove(&transaction);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ids(count: usize) -> Vec<TransactionId> {
        (0..count).map(|_| TransactionId::new()).collect()
    }

    fn taken(line: &mut Line, now: Instant) -> Vec<Job> {
        std::iter::from_fn(|| line.next(now)).collect()
    }

    fn named(jobs: &[Job]) -> Vec<TransactionId> {
        jobs.iter().map(|job| job.transaction).collect()
    }

    #[test]
    fn what_is_on_record_is_taken_once_in_the_order_of_its_ids_as_far_as_there_is_room() {
        let (mut line, now, ids) = (Line::default(), Instant::now(), ids(AT_WORK + 2));
        line.found(ids.iter().rev().copied());
        let first = taken(&mut line, now);
        assert_eq!(named(&first), ids[..AT_WORK]);
        line.found(ids.iter().copied());
        assert_eq!((line.known(), taken(&mut line, now).len(), line.has_room()), (AT_WORK + 2, 0, false));
        line.over(ids[5]);
        assert_eq!(named(&taken(&mut line, now)), [ids[AT_WORK]]);
        assert_eq!(line.known(), AT_WORK + 1);
    }

    #[test]
    fn ten_thousand_that_wait_a_fault_out_keep_nobody_behind_them_from_being_worked_on() {
        let (mut line, now, ids) = (Line::default(), Instant::now(), ids(10_000));
        line.found(ids.iter().copied());
        let later = now + Duration::from_secs(1);
        let mut faults = 0;
        while let Some(job) = line.next(now) {
            line.rest(job, later);
            faults += 1;
        }
        assert_eq!((faults, line.known(), line.has_room(), line.next_due()), (10_000, 10_000, true, Some(later)));
        // All of them at once: no more than have places, in their order.
        let again = taken(&mut line, later);
        assert_eq!((named(&again), line.next_due()), (ids[..AT_WORK].to_vec(), None));
        let behind = TransactionId::new();
        line.found(ids.iter().copied().chain([behind]));
        assert_eq!(named(&taken(&mut line, later)), [behind]);
        line.over(ids[0]);
        assert_eq!(named(&taken(&mut line, later)), [ids[AT_WORK]], "the next of those that rested");
        assert_eq!(line.known(), 10_000);
    }
}
