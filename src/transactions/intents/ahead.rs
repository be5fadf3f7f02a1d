//! What goes before an acknowledged transaction. Pure.

use std::collections::BTreeSet;

use crate::journal::{AttemptState, StoredAttempt, TransactionId};

/// Whether something that the account was asked for earlier waits for its nonce or for a block. `first`: the earliest that is acknowledged and
/// has neither attempt nor end; `unfinished`: the attempts of the account's slots. Ids are in the order of their requests, so what
/// is asked for later keeps nobody waiting.
pub(super) fn is_behind(transaction: TransactionId, first: Option<TransactionId>, unfinished: &[StoredAttempt]) -> bool {
    let slot = |stored: &StoredAttempt| (stored.attempt.account.address, stored.attempt.nonce);
    let is_mined = |stored: &&StoredAttempt| matches!(stored.state, AttemptState::Included | AttemptState::Confirmed);
    // A block has one payload of a slot: the others, which it replaced, are waited for by nobody.
    let mined: BTreeSet<_> = unfinished.iter().filter(is_mined).map(slot).collect();
    let waits = |stored: &StoredAttempt| {
        let is_open =
            matches!(stored.state, AttemptState::Committed | AttemptState::Held | AttemptState::Broadcast | AttemptState::Orphaned);
        is_open && stored.attempt.transaction < transaction && !mined.contains(&slot(stored))
    };
    first.is_some_and(|first| first < transaction) || unfinished.iter().any(waits)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alloy_primitives::{Address, B256, Bytes, U256};

    use super::*;
    use crate::journal::{Account, Attempt, Kind, Purpose};

    fn stored(nonce: u64, transaction: TransactionId, state: AttemptState) -> StoredAttempt {
        let attempt = Attempt {
            account: Account { chain_id: 1, address: Address::ZERO },
            nonce,
            transaction,
            kind: Kind::Send,
            service: Arc::from("payments"),
            principal: Arc::from("default"),
            request: Arc::from("{}"),
            purpose: Purpose::Request,
            hash: B256::repeat_byte(1),
            raw: Bytes::new(),
            cost: U256::ZERO,
            hold_until: None,
            authorisations: Vec::new(),
        };
        StoredAttempt { attempt, state, block: None, current: true }
    }

    #[test]
    fn what_was_asked_for_earlier_is_ahead_until_a_block_has_it_or_it_is_over() {
        let (earlier, this) = (TransactionId::new(), TransactionId::new());
        for state in [AttemptState::Committed, AttemptState::Held, AttemptState::Broadcast, AttemptState::Orphaned] {
            assert!(is_behind(this, None, &[stored(0, earlier, state)]), "{state:?}");
        }
        for state in [AttemptState::Included, AttemptState::Confirmed, AttemptState::Refused, AttemptState::Replaced] {
            assert!(!is_behind(this, None, &[stored(0, earlier, state)]), "{state:?}");
        }
        assert!(is_behind(this, Some(earlier), &[]), "it has no nonce yet");
    }

    #[test]
    fn what_was_asked_for_later_is_not_ahead() {
        let (this, later) = (TransactionId::new(), TransactionId::new());
        assert!(!is_behind(this, Some(this), &[stored(0, later, AttemptState::Broadcast)]));
        assert!(!is_behind(this, Some(later), &[]));
    }

    #[test]
    fn a_slot_that_is_mined_by_another_payload_is_not_ahead() {
        let (earlier, this) = (TransactionId::new(), TransactionId::new());
        let sped_up = [stored(0, earlier, AttemptState::Broadcast), stored(0, earlier, AttemptState::Included)];
        assert!(!is_behind(this, None, &sped_up));
        assert!(is_behind(this, None, &[stored(1, earlier, AttemptState::Broadcast), sped_up[1].clone()]));
    }
}
