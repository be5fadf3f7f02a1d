//! Who may use what: the authenticated client and the keys it may name.

use std::sync::Arc;

/// An authenticated client. Every transaction, stream and list belongs to one principal of one service (I11).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Stable name, written into the journal.
    pub name: Arc<str>,
}

impl Principal {
    /// The principal of a listener with one token, or with none on loopback.
    pub fn sole() -> Self {
        Self { name: Arc::from("default") }
    }
}
