//! Which of its own events a client wants.

use alloy_primitives::Address;

use crate::journal::TransactionId;
use crate::journal::history::StoredEvent;

/// Addresses, and ids, that one filter may name.
pub const MAX_NAMED: usize = 200;

/// Addresses and ids that are wanted; an empty list wants all. The order in which they were given is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    addresses: Vec<Address>,
    ids: Vec<TransactionId>,
}

impl Filter {
    /// Events of these addresses and of these transactions.
    pub fn new(mut addresses: Vec<Address>, mut ids: Vec<TransactionId>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        ids.sort_unstable();
        ids.dedup();
        Self { addresses, ids }
    }

    /// The addresses, sorted.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The ids, sorted.
    pub fn ids(&self) -> &[TransactionId] {
        &self.ids
    }

    /// Whether the event is wanted.
    pub fn wants(&self, event: &StoredEvent) -> bool {
        (self.addresses.is_empty() || self.addresses.binary_search(&event.account.address).is_ok())
            && (self.ids.is_empty() || self.ids.binary_search(&event.transaction).is_ok())
    }
}
