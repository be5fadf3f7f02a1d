//! What a discovery of keys found last, as it is on record: for a start that does not wait for the key store's listings.

use std::sync::Arc;

/// Whose findings: a configuration, and which of its keys were wanted of which source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiscoveryName {
    /// Name of the configuration.
    pub configuration: Arc<str>,
    /// The source and the selection in one text. Another text is another discovery.
    pub selection: Arc<str>,
}

/// A key as it was found. The journal keeps the texts as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredKey {
    /// Its pinned name; its public key is among the [`StoredKey`](super::StoredKey)s.
    pub arn: String,
    /// The provider's word for its state.
    pub state: String,
    /// Aliases that led to it, a JSON list.
    pub aliases: String,
    /// Tags that were read, a JSON object.
    pub tags: String,
}

/// What differs from what is on record. Changes of many keys come in several of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryChange {
    /// Whose.
    pub name: DiscoveryName,
    /// Whether it begins anew: what was on record goes, and what comes counts only once it is complete.
    pub anew: bool,
    /// Keys that are new, or that differ.
    pub found: Vec<DiscoveredKey>,
    /// Pinned names of keys that were not found any more.
    pub gone: Vec<String>,
    /// Whether everything that was found is on record with this.
    pub complete: bool,
}
