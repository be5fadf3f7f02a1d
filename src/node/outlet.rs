//! The way of a subscription's items from the task that owns the socket to whoever reads them: bounded, and never blocking the task.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::StreamItem;

/// Items that wait for a slow reader; one more slot is kept for the gap that tells of what did not fit.
pub(super) const CAPACITY: usize = 1024;

/// The task's end.
#[derive(Debug)]
pub(super) struct Outlet {
    items: mpsc::Sender<StreamItem>,
    /// The last thing queued is a gap, which covers whatever is dropped until it is read.
    gap_last: bool,
}

/// Both ends of a new stream.
pub(super) fn outlet() -> (Outlet, mpsc::Receiver<StreamItem>) {
    let (items, reader) = mpsc::channel(CAPACITY + 1);
    (Outlet { items, gap_last: false }, reader)
}

impl Outlet {
    /// Queues an item. Without room the item is dropped and a gap takes the last slot, behind everything that was queued before
    /// it: the reader meets it in its place. Items dropped after that, and before the reader has met the gap, are covered by it.
    pub(super) fn deliver(&mut self, item: &RawValue) {
        if self.items.capacity() > 1 {
            // Only this end sends, so a slot that was free stays free.
            self.gap_last = false;
            let _closed = self.items.try_send(StreamItem::Item(Arc::from(item.to_owned())));
        } else {
            self.gap();
        }
    }

    /// Queues a gap, unless one is last in the queue already.
    pub(super) fn gap(&mut self) {
        if !self.gap_last {
            self.gap_last = self.items.try_send(StreamItem::Gap).is_ok();
        }
    }

    /// Nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: usize) -> Box<RawValue> {
        serde_json::value::to_raw_value(&n).unwrap()
    }

    fn drain(reader: &mut mpsc::Receiver<StreamItem>) -> Vec<Option<usize>> {
        std::iter::from_fn(|| reader.try_recv().ok())
            .map(|item| match item {
                StreamItem::Item(raw) => Some(raw.get().parse().unwrap()),
                StreamItem::Lost | StreamItem::Gap => None,
            })
            .collect()
    }

    #[test]
    fn what_does_not_fit_becomes_one_gap_in_its_place() {
        let (mut outlet, mut reader) = outlet();
        (0..CAPACITY + 50).for_each(|n| outlet.deliver(&number(n)));
        let read = drain(&mut reader);
        assert_eq!(read.len(), CAPACITY + 1);
        assert!(read[..CAPACITY].iter().enumerate().all(|(n, item)| *item == Some(n)));
        assert_eq!(read[CAPACITY], None);
        outlet.deliver(&number(7));
        assert_eq!(drain(&mut reader), [Some(7)]);
    }

    #[test]
    fn an_item_after_an_unread_gap_needs_a_gap_of_its_own_when_the_next_is_dropped() {
        let (mut outlet, mut reader) = outlet();
        (0..=CAPACITY).for_each(|n| outlet.deliver(&number(n)));
        // Two are read, one fits, the next does not.
        assert!(reader.try_recv().is_ok() && reader.try_recv().is_ok());
        (5000..5002).for_each(|n| outlet.deliver(&number(n)));
        let read = drain(&mut reader);
        assert_eq!(&read[read.len() - 3..], [None, Some(5000), None]);
    }

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        let (mut outlet, reader) = outlet();
        assert!(!outlet.is_closed());
        drop(reader);
        assert!(outlet.is_closed());
        outlet.deliver(&number(1));
        outlet.gap();
    }
}
