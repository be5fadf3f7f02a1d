//! The order of a batch's items among those that name the same address.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use alloy_primitives::Address;

/// Hands out turns within one batch. It lies in the extensions of each of the batch's requests; requests outside a batch have none.
///
/// Items are first polled in array order, so a method that asks for its turn before its first await asks in array order.
#[derive(Debug, Clone, Default)]
pub struct BatchOrder(Arc<Mutex<Lanes>>);

#[derive(Debug, Default)]
struct Lanes {
    next: u64,
    /// Turns that are not dropped, oldest first, each with the waker of whoever waits for it.
    live: HashMap<Address, BTreeMap<u64, Option<Waker>>>,
}

impl BatchOrder {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // The map is whole after every statement that can panic, so a poisoned lock holds nothing broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next turn of this address. Call it before the first await.
    pub fn turn(&self, address: Address) -> Turn {
        let mut lanes = self.lanes();
        let number = lanes.next;
        lanes.next += 1;
        lanes.live.entry(address).or_default().insert(number, None);
        drop(lanes);
        Turn { order: self.clone(), address, number }
    }
}

/// A place in the order of one address; dropping it lets the next one go. It may be moved into a task.
#[derive(Debug)]
#[must_use = "a dropped turn lets the next one go at once"]
pub struct Turn {
    order: BatchOrder,
    address: Address,
    number: u64,
}

impl Turn {
    /// Resolves when every earlier turn of the same address in this batch was dropped.
    pub async fn wait(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut lanes = self.order.lanes();
        let Some(lane) = lanes.live.get_mut(&self.address) else { return Poll::Ready(()) };
        if lane.first_key_value().is_none_or(|(first, _)| *first == self.number) {
            return Poll::Ready(());
        }
        lane.insert(self.number, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.order.lanes();
        let Some(lane) = lanes.live.get_mut(&self.address) else { return };
        lane.remove(&self.number);
        let waker = lane.first_entry().and_then(|mut first| first.get_mut().take());
        if lane.is_empty() {
            lanes.live.remove(&self.address);
        }
        drop(lanes);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn address(byte: u8) -> Address {
        Address::repeat_byte(byte)
    }

    #[test]
    fn a_turn_waits_for_every_earlier_one_of_its_address() {
        let order = BatchOrder::default();
        let mut first = order.turn(address(1));
        let second = order.turn(address(1));
        let mut third = order.turn(address(1));
        let mut elsewhere = order.turn(address(2));
        assert!(first.wait().now_or_never().is_some());
        assert!(elsewhere.wait().now_or_never().is_some());
        assert!(third.wait().now_or_never().is_none());
        drop(second);
        assert!(third.wait().now_or_never().is_none(), "the first turn still stands");
        drop(first);
        assert!(third.wait().now_or_never().is_some());
    }

    #[tokio::test]
    async fn dropping_a_turn_wakes_the_next() {
        let order = BatchOrder::default();
        let first = order.turn(address(1));
        let mut second = order.turn(address(1));
        let waiting = tokio::spawn(async move { second.wait().await });
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap();
    }

    #[test]
    fn nothing_is_kept_of_turns_that_are_over() {
        let order = BatchOrder::default();
        drop((order.turn(address(1)), order.turn(address(1)), order.turn(address(2))));
        assert!(order.lanes().live.is_empty());
    }

    proptest! {
        #[test]
        fn exactly_the_oldest_of_each_address_may_go(
            addresses in proptest::collection::vec(0_u8..3, 1..40),
            drops in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let order = BatchOrder::default();
            let mut turns: Vec<(u8, Turn)> = addresses.iter().map(|byte| (*byte, order.turn(address(*byte)))).collect();
            for drop_at in drops {
                let mut seen = [false; 3];
                for (byte, turn) in &mut turns {
                    let may_go = turn.wait().now_or_never().is_some();
                    prop_assert_eq!(may_go, !seen[usize::from(*byte)]);
                    seen[usize::from(*byte)] = true;
                }
                if turns.is_empty() {
                    break;
                }
                let index = drop_at.index(turns.len());
                drop(turns.remove(index));
            }
        }
    }
}
