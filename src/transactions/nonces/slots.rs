//! The slots on record that are not final, by nonce and by state: what is asked before every action takes no look at each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use super::SlotState;

#[derive(Debug, Default)]
pub(super) struct Slots {
    states: BTreeMap<u64, SlotState>,
    by_state: BTreeMap<SlotState, BTreeSet<u64>>,
}

impl Slots {
    pub(super) fn get(&self, nonce: u64) -> Option<SlotState> {
        self.states.get(&nonce).copied()
    }

    pub(super) fn contains(&self, nonce: u64) -> bool {
        self.states.contains_key(&nonce)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Adds the slot, or changes its state; answers the state before.
    pub(super) fn insert(&mut self, nonce: u64, state: SlotState) -> Option<SlotState> {
        let before = self.states.insert(nonce, state);
        if before != Some(state) {
            self.leave(nonce, before);
            self.by_state.entry(state).or_default().insert(nonce);
        }
        before
    }

    pub(super) fn extend(&mut self, nonces: impl IntoIterator<Item = u64>, state: SlotState) {
        for nonce in nonces {
            self.insert(nonce, state);
        }
    }

    /// Changes a slot that is there; answers the state before.
    pub(super) fn change(&mut self, nonce: u64, state: SlotState) -> Option<SlotState> {
        self.contains(nonce).then(|| self.insert(nonce, state)).flatten()
    }

    pub(super) fn remove(&mut self, nonce: u64) {
        let before = self.states.remove(&nonce);
        self.leave(nonce, before);
    }

    fn leave(&mut self, nonce: u64, state: Option<SlotState>) {
        if let Some(nonces) = state.and_then(|state| self.by_state.get_mut(&state)) {
            nonces.remove(&nonce);
        }
    }

    /// The nonces in this state, lowest first.
    pub(super) fn of(&self, state: SlotState) -> impl Iterator<Item = u64> {
        self.by_state.get(&state).into_iter().flatten().copied()
    }

    pub(super) fn lowest(&self, state: SlotState) -> Option<u64> {
        self.by_state.get(&state)?.first().copied()
    }

    pub(super) fn count(&self, state: SlotState) -> usize {
        self.by_state.get(&state).map_or(0, BTreeSet::len)
    }

    /// How many are in none of these states.
    pub(super) fn count_but(&self, states: &[SlotState]) -> usize {
        self.states.len() - states.iter().map(|state| self.count(*state)).sum::<usize>()
    }

    /// Those in this state within a range of nonces, lowest first.
    pub(super) fn within(&self, state: SlotState, nonces: impl RangeBounds<u64>) -> impl Iterator<Item = u64> {
        self.by_state.get(&state).map(|all| all.range(nonces)).into_iter().flatten().copied()
    }

    /// Every slot within a range of nonces, lowest first.
    pub(super) fn range(&self, nonces: impl RangeBounds<u64>) -> impl Iterator<Item = (u64, SlotState)> {
        self.states.range(nonces).map(|(nonce, state)| (*nonce, *state))
    }
}

impl FromIterator<(u64, SlotState)> for Slots {
    fn from_iter<T: IntoIterator<Item = (u64, SlotState)>>(slots: T) -> Self {
        let mut all = Self::default();
        for (nonce, state) in slots {
            all.insert(nonce, state);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_by_state_is_what_is_there() {
        let states = [SlotState::Open, SlotState::Unsent, SlotState::Sent, SlotState::Mined, SlotState::Tied];
        let mut slots: Slots = (0..20).map(|nonce| (nonce, SlotState::Unsent)).collect();
        // A walk that comes back to each slot and state in another order.
        for step in 0..500_u64 {
            let (nonce, state) = (step * 7 % 23, states[(step * 11 % 5) as usize]);
            match step % 3 {
                0 => drop(slots.insert(nonce, state)),
                1 => assert_eq!(slots.change(nonce, state).is_some(), slots.contains(nonce)),
                _ => slots.remove(nonce),
            }
            for state in states {
                let by_look: Vec<u64> = slots.range(..).filter(|(_, is)| *is == state).map(|(nonce, _)| nonce).collect();
                assert_eq!(slots.of(state).collect::<Vec<_>>(), by_look);
                assert_eq!((slots.lowest(state), slots.count(state)), (by_look.first().copied(), by_look.len()));
                assert_eq!(slots.within(state, 5..).count(), by_look.iter().filter(|nonce| **nonce >= 5).count());
            }
            let others = slots.range(..).filter(|(_, is)| ![SlotState::Mined, SlotState::Tied].contains(is)).count();
            assert_eq!(slots.count_but(&[SlotState::Mined, SlotState::Tied]), others);
        }
    }
}
