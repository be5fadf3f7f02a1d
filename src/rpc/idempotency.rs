//! Where a client names its idempotency key: a member of the transaction's object, or the header of an HTTP request.

use std::sync::Arc;

use jsonrpsee::Extensions;
use jsonrpsee::types::ErrorObjectOwned;

use super::errors::{Reason, RpcError, SERVER_ERROR};
use super::refusals::invalid_argument;
use crate::transactions::idempotency::is_key;

/// The methods that take a key.
const METHODS: [&str; 3] = ["eth_sendTransaction", "eth_sendTransactionSync", "sluice_sendTransaction"];

/// What is said of a text that is no key.
const RULE: &str = "an idempotency key has 1 to 255 characters of visible ASCII";

/// The header `Idempotency-Key` of the HTTP request that a call came by; the server puts it into the call's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHeader(Option<Arc<str>>);

impl KeyHeader {
    /// Reads the values of the header; `None` if there are none.
    pub fn read<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut values = values.into_iter();
        let first = values.next()?;
        let text = std::str::from_utf8(first).ok().filter(|text| is_key(text));
        Some(Self(text.filter(|_| values.next().is_none()).map(Arc::from)))
    }
}

/// Why a call cannot have the header that its request came with.
pub(super) fn misplaced(extensions: &Extensions, method: &str, in_batch: bool) -> Option<RpcError> {
    let KeyHeader(key) = extensions.get::<KeyHeader>()?;
    if key.is_none() {
        return Some(RpcError::invalid_params(format!("the header Idempotency-Key is there once: {RULE}")));
    }
    if in_batch || !METHODS.contains(&method) {
        let methods = METHODS.join(", ");
        return Some(RpcError::invalid_params(format!("the header Idempotency-Key goes with one call alone, of {methods}")));
    }
    None
}

/// The key of a call, by its member, its header, or both if they are the same.
pub(super) fn key(member: Option<&str>, extensions: &Extensions) -> Result<Option<Arc<str>>, ErrorObjectOwned> {
    let header = extensions.get::<KeyHeader>().and_then(|KeyHeader(key)| key.clone());
    match (member, header) {
        (None, header) => Ok(header),
        (Some(member), _) if !is_key(member) => Err(invalid_argument(0, format_args!("idempotencyKey: {RULE}"))),
        (Some(member), Some(header)) if *member != *header => {
            Err(invalid_argument(0, "idempotencyKey is another one than the header Idempotency-Key"))
        }
        (Some(member), _) => Ok(Some(Arc::from(member))),
    }
}

/// The key stands for another request.
pub(super) fn conflict() -> ErrorObjectOwned {
    RpcError::new(SERVER_ERROR, Reason::IdempotencyConflict, "the idempotency key stands for a request with another content").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&[u8]]) -> Extensions {
        let mut extensions = Extensions::new();
        if let Some(header) = KeyHeader::read(values.iter().copied()) {
            extensions.insert(header);
        }
        extensions
    }

    #[test]
    fn a_header_goes_with_one_send_alone() {
        let fine = with(&[b"k-1"]);
        for method in METHODS {
            assert_eq!(misplaced(&fine, method, false), None);
        }
        assert!(misplaced(&fine, "eth_sendTransaction", true).unwrap().message.contains("one call alone"));
        assert!(misplaced(&fine, "eth_chainId", false).is_some());
        for bad in [&[b"a b".as_slice()][..], &[b""], &[b"\xff"], &[b"k", b"k"], &[&[b'x'; 256]]] {
            assert!(misplaced(&with(bad), "eth_sendTransaction", false).unwrap().message.contains("once"), "{bad:?}");
        }
        assert_eq!(misplaced(&with(&[]), "eth_chainId", true), None);
    }

    #[test]
    fn member_and_header_are_one_key() {
        let header = with(&[b"k-1"]);
        assert_eq!(key(None, &header).unwrap().as_deref(), Some("k-1"));
        assert_eq!(key(Some("k-1"), &header).unwrap().as_deref(), Some("k-1"));
        assert_eq!(key(Some("k-2"), &with(&[])).unwrap().as_deref(), Some("k-2"));
        assert_eq!(key(None, &with(&[])).unwrap(), None);
        assert!(key(Some("k-2"), &header).unwrap_err().message().contains("another one"));
        assert!(key(Some(""), &with(&[])).unwrap_err().message().contains("visible ASCII"));
    }
}
