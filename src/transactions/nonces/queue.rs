//! Requests that wait for whichever nonce is next, in order of arrival.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Ticket, Waiting};

#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Waiting>,
    /// No deadline is before this: who asks for those that have passed looks at the requests only if there can be one.
    earliest: Option<Instant>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn front(&self) -> Option<Waiting> {
        self.entries.front().copied()
    }

    pub(super) fn push_back(&mut self, entry: Waiting) {
        self.note(entry.deadline);
        self.entries.push_back(entry);
    }

    pub(super) fn push_front(&mut self, entry: Waiting) {
        self.note(entry.deadline);
        self.entries.push_front(entry);
    }

    fn note(&mut self, deadline: Instant) {
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    pub(super) fn pop_front(&mut self) -> Option<Waiting> {
        self.entries.pop_front()
    }

    /// Takes the first that this is true of.
    pub(super) fn take_first(&mut self, is_it: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let at = self.entries.iter().position(is_it)?;
        self.entries.remove(at)
    }

    /// Takes the first whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Waiting> {
        if self.earliest()? > now {
            return None;
        }
        let late = self.take_first(|entry| entry.deadline <= now);
        if late.is_none() {
            self.earliest = self.entries.iter().map(|entry| entry.deadline).min();
        }
        late
    }

    /// When a deadline passes, or before: those of requests that are gone may be among them.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest.filter(|_| !self.entries.is_empty())
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.entries.retain(|entry| entry.ticket != ticket);
    }

    pub(super) fn take_all(&mut self) -> VecDeque<Waiting> {
        self.earliest = None;
        std::mem::take(&mut self.entries)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_late_is_found_in_order_of_arrival_whoever_left_meanwhile() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::default();
        for (ticket, deadline) in [(1, 9), (2, 3), (3, 5), (4, 2)] {
            queue.push_back(Waiting { ticket, deadline: at(deadline) });
        }
        queue.push_front(Waiting { ticket: 5, deadline: at(4) });
        queue.remove(4);
        assert_eq!(queue.earliest(), Some(at(2)), "of one that is gone");
        assert!(queue.take_late(at(2)).is_none());
        assert_eq!(queue.earliest(), Some(at(3)), "looked at again");
        let late: Vec<Ticket> = std::iter::from_fn(|| queue.take_late(at(5))).map(|entry| entry.ticket).collect();
        assert_eq!(late, [5, 2, 3]);
        assert_eq!((queue.earliest(), queue.len()), (Some(at(9)), 1));
        assert_eq!(queue.pop_front().map(|entry| entry.ticket), Some(1));
        assert_eq!((queue.earliest(), queue.take_late(at(10)).is_none()), (None, true));
    }
}
