//! Cursors: opaque places to come back to, each valid for the one stream or list that it was told by.
//!
//! A cursor names its place (an event by its account and its number there, a transaction by its id) and carries a digest over
//! the stream and over what stands at that place. So one that is garbled, of another service, principal, chain or filter, or of a
//! journal that has something else there is told as such. It is no secret and no permission: what is read behind it is the
//! reader's own in any case.

use std::fmt;

use alloy_primitives::{Address, B256, Keccak256, keccak256};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::filter::Filter;
use super::view::millis;
use crate::journal::TransactionId;
use crate::journal::history::{Scope, StoredEvent};

/// The first byte of a cursor: another layout gets another number.
const VERSION: u8 = 1;
/// Bytes of the digest that are kept.
const TAG: usize = 16;
/// Characters that are looked at; no cursor is longer.
const MAX_TEXT: usize = 128;

/// What a cursor is valid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal(B256);

impl Seal {
    /// The lifecycle stream of a scope through a filter.
    pub fn of_stream(scope: &Scope, filter: &Filter) -> Self {
        let ids: Vec<String> = filter.ids().iter().map(TransactionId::to_string).collect();
        Self::new(scope, &json!({ "stream": "transactions", "from": filter.addresses(), "ids": ids }))
    }

    /// A list of a scope's transactions, with everything that selects and orders it.
    pub fn of_list(scope: &Scope, selection: &Value) -> Self {
        Self::new(scope, &json!({ "list": selection }))
    }

    fn new(scope: &Scope, what: &Value) -> Self {
        let text = json!([scope.chain_id, &*scope.service, &*scope.principal, what]).to_string();
        Self(keccak256(text))
    }
}

/// A place, sealed. `N` is the size of the place in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<const N: usize> {
    place: [u8; N],
    tag: [u8; TAG],
}

impl<const N: usize> Cursor<N> {
    /// `witness` is what stands at the place.
    pub fn new(seal: Seal, place: [u8; N], witness: &[u8]) -> Self {
        Self { place, tag: tag(seal, &place, witness) }
    }

    /// Reads a cursor; `None` if it is none of this size.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (place, tag) = rest.split_at_checked(N)?;
        (*version == VERSION).then_some(Self { place: place.try_into().ok()?, tag: tag.try_into().ok()? })
    }

    /// The place that it names; to be believed only if [`Cursor::is_of`].
    pub fn place(&self) -> [u8; N] {
        self.place
    }

    /// Whether it was made for this stream or list, with this witness at its place.
    pub fn is_of(&self, seal: Seal, witness: &[u8]) -> bool {
        self.tag == tag(seal, &self.place, witness)
    }
}

impl<const N: usize> fmt::Display for Cursor<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(1 + N + TAG);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.place);
        bytes.extend_from_slice(&self.tag);
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

/// Keccak has no length extension, and the sizes of seal and place are fixed: plain concatenation is unambiguous.
fn tag(seal: Seal, place: &[u8], witness: &[u8]) -> [u8; TAG] {
    let mut hasher = Keccak256::new();
    hasher.update(seal.0);
    hasher.update(place);
    hasher.update(witness);
    let digest = hasher.finalize();
    let mut tag = [0; TAG];
    tag.copy_from_slice(&digest[..TAG]);
    tag
}

/// The place of an event: its account's address and its number there.
const EVENT: usize = 28;

/// A cursor of the lifecycle stream: behind one event, or before the first one.
pub type EventCursor = Cursor<EVENT>;

impl EventCursor {
    /// Before the first event.
    pub fn start(seal: Seal) -> Self {
        Self::new(seal, [0; EVENT], &[])
    }

    /// Behind this event.
    pub fn behind(seal: Seal, event: &StoredEvent) -> Self {
        let mut place = [0; EVENT];
        place[..20].copy_from_slice(event.account.address.as_slice());
        place[20..].copy_from_slice(&event.sequence.to_be_bytes());
        Self::new(seal, place, &witness(event))
    }

    /// Whether it is that of [`EventCursor::start`] of any stream; the number of an event is never 0.
    pub fn is_start(&self) -> bool {
        self.place == [0; EVENT]
    }

    /// Whether it is that of this event in this stream.
    pub fn is_behind(&self, seal: Seal, event: &StoredEvent) -> bool {
        self.is_of(seal, &witness(event))
    }

    /// Address and number of its event.
    pub fn event(&self) -> (Address, u64) {
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&self.place[20..]);
        (Address::from_slice(&self.place[..20]), u64::from_be_bytes(sequence))
    }
}

/// What tells an event from another one that has the same number in another life of the journal.
fn witness(event: &StoredEvent) -> Vec<u8> {
    let mut bytes = event.hash.map(|hash| hash.to_vec()).unwrap_or_default();
    bytes.extend_from_slice(&millis(event.at).to_be_bytes());
    bytes.extend_from_slice(event.state.as_str().as_bytes());
    bytes
}
