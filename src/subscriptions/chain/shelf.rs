//! What was read lately, by block: a bounded number of things, and of bytes; the oldest goes first. Pure.

use std::collections::{HashMap, VecDeque};

use alloy_primitives::B256;

/// See the module.
#[derive(Debug)]
pub(super) struct Shelf<V> {
    /// Oldest first.
    order: VecDeque<B256>,
    values: HashMap<B256, (V, usize)>,
    bytes: usize,
    most: Most,
}

/// What a shelf holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl<V: Clone> Shelf<V> {
    pub(super) fn new(most: Most) -> Self {
        Self { order: VecDeque::new(), values: HashMap::new(), bytes: 0, most }
    }

    pub(super) fn get(&self, hash: B256) -> Option<V> {
        self.values.get(&hash).map(|(value, _)| value.clone())
    }

    /// What is there of this block; this value, of so many bytes, if there is nothing.
    pub(super) fn get_or_put(&mut self, hash: B256, value: V, bytes: usize) -> V {
        if let Some((there, _)) = self.values.get(&hash) {
            return there.clone();
        }
        self.order.push_back(hash);
        self.values.insert(hash, (value.clone(), bytes));
        self.bytes += bytes;
        self.fit();
        value
    }

    /// What is there of this block has so many bytes now.
    pub(super) fn weigh(&mut self, hash: B256, bytes: usize) {
        if let Some((_, before)) = self.values.get_mut(&hash) {
            self.bytes = self.bytes - *before + bytes;
            *before = bytes;
            self.fit();
        }
    }

    fn fit(&mut self) {
        while self.order.len() > self.most.items || self.bytes > self.most.bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some((_, bytes)) = self.values.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_or_they_are_too_long() {
        let mut shelf = Shelf::new(Most { items: 3, bytes: 100 });
        for byte in 1..=4 {
            assert_eq!(shelf.get_or_put(hash(byte), byte, 10), byte);
        }
        assert_eq!([1, 2, 3, 4].map(|byte| shelf.get(hash(byte))), [None, Some(2), Some(3), Some(4)]);
        assert_eq!(shelf.get_or_put(hash(3), 9, 1_000), 3, "what is there stays");
        shelf.weigh(hash(4), 81);
        assert_eq!([2, 3, 4].map(|byte| shelf.get(hash(byte))), [None, Some(3), Some(4)]);
        shelf.weigh(hash(1), 1_000);
        shelf.weigh(hash(4), 101);
        assert_eq!([3, 4].map(|byte| shelf.get(hash(byte))), [None, None], "one that is too long alone is not kept");
        assert_eq!((shelf.bytes, shelf.order.len(), shelf.values.len()), (0, 0, 0));
    }
}
