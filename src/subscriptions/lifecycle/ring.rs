//! The newest events of one scope in memory, so that the journal is read once for all who follow it live.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::journal::history::{Bounds, StoredEvent};

/// A row of events without a gap: all of the scope behind `start`, up to the newest that was read.
#[derive(Debug)]
pub(super) struct Ring {
    start: i64,
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
    bounds: Bounds,
}

/// What follows a position.
#[derive(Debug)]
pub(super) enum Next {
    /// These events, the next ones.
    Events(Vec<Arc<StoredEvent>>),
    /// Nothing yet.
    Nothing,
    /// The ring begins at this position, later: the next events are in the journal alone.
    Behind(i64),
}

impl Ring {
    /// Nothing yet, everything from `start` on.
    pub(super) fn new(start: i64, bounds: Bounds) -> Self {
        Self { start, events: VecDeque::new(), bytes: 0, bounds }
    }

    /// The position up to which it was read.
    pub(super) fn end(&self) -> i64 {
        self.events.back().map_or(self.start, |event| event.position)
    }

    /// What the journal has behind [`Ring::end`]. The oldest go, beyond the bounds.
    pub(super) fn push(&mut self, events: Vec<StoredEvent>) {
        for event in events {
            self.bytes += event.weight();
            self.events.push_back(Arc::new(event));
        }
        while self.events.len() > self.bounds.items || self.bytes > self.bounds.bytes {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.weight();
            self.start = oldest.position;
        }
    }

    /// Whether something follows the position.
    pub(super) fn reaches_beyond(&self, position: i64) -> bool {
        position < self.end()
    }

    /// What follows the position, within the bounds.
    pub(super) fn after(&self, position: i64, bounds: Bounds) -> Next {
        if position < self.start {
            return Next::Behind(self.start);
        }
        let first = self.events.partition_point(|event| event.position <= position);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for event in self.events.range(first..).take(bounds.items) {
            bytes += event.weight();
            taken.push(Arc::clone(event));
            if bytes >= bounds.bytes {
                break;
            }
        }
        if taken.is_empty() { Next::Nothing } else { Next::Events(taken) }
    }
}
