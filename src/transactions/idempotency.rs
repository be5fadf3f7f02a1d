//! Idempotency keys before they are on record: what a key is, what it stands for, and who works under one at the moment. The
//! journal has the keys of everything that was acknowledged or committed; here are those of requests on their way there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::{B256, keccak256};
use serde_json::json;
use tokio::sync::watch;

use super::chain::Chain;
use super::errors::TransactionError;
use super::request::{Fees, Request};
use crate::journal::{IdempotencyKey, StoredIdempotencyKey};
use crate::telemetry::crash::Commit;
use crate::telemetry::faults::SeededFault;

/// Bytes of a key, at most.
pub const MAX_KEY: usize = 255;

/// Whether a client's text can be a key: 1 to 255 bytes of visible ASCII.
pub fn is_key(text: &str) -> bool {
    (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Digest of what is asked for, after it was read: two texts of the same request have the same one. It is on record for as long as
/// the key: what goes into it must not change.
pub fn digest(chain_id: u64, request: &Request) -> B256 {
    let Request { from, to, gas, fees, value, nonce, input, access_list, authorizations } = request;
    let fees = match fees {
        Fees::Price(price) => json!({ "price": price.to_string() }),
        Fees::Dynamic { cap, tip } => json!({ "cap": cap.map(|cap| cap.to_string()), "tip": tip.map(|tip| tip.to_string()) }),
        Fees::AnyPrice => json!("price"),
    };
    keccak256(json!([chain_id, from, to, gas, fees, value, nonce, input, access_list, authorizations]).to_string())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    service: Arc<str>,
    principal: Arc<str>,
    key: Arc<str>,
}

#[derive(Debug)]
struct Held {
    digest: B256,
    over: watch::Receiver<()>,
}

/// Who works under which key: one request of a service's principal at a time.
#[derive(Debug, Clone, Default)]
pub struct Claims(Arc<Mutex<HashMap<Name, Held>>>);

/// What a request's key leads to.
#[derive(Debug)]
pub enum Claimed {
    /// The request has none.
    NoKey,
    /// Nothing yet: the work is the request's.
    Ours(Claim),
    /// The same request was acknowledged or committed before.
    Before(StoredIdempotencyKey),
    /// The key stands for a request with another content.
    Conflict,
}

/// What comes of asking for a key.
#[derive(Debug)]
pub enum Asked {
    /// Nobody works under it: the journal says whether somebody did.
    Ours(Claim),
    /// The same request is on its way under it.
    InFlight(InFlight),
    /// Another request is.
    Conflict,
}

/// The right to work under a key; it ends when this is dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    name: Name,
    key: IdempotencyKey,
    _over: watch::Sender<()>,
}

/// Another request under the key.
#[derive(Debug)]
pub struct InFlight(watch::Receiver<()>);

impl Claims {
    fn held(&self) -> MutexGuard<'_, HashMap<Name, Held>> {
        // The map is whole after every statement that can panic, so a poisoned lock holds nothing broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks to work under a key of this service's principal. Awaits nothing.
    pub fn ask(&self, service: &Arc<str>, principal: &Arc<str>, key: &IdempotencyKey) -> Asked {
        let name = Name { service: Arc::clone(service), principal: Arc::clone(principal), key: Arc::clone(&key.key) };
        match self.held().entry(name) {
            Entry::Occupied(held) if held.get().digest != key.digest => Asked::Conflict,
            Entry::Occupied(held) => Asked::InFlight(InFlight(held.get().over.clone())),
            Entry::Vacant(free) => {
                let (sender, over) = watch::channel(());
                let name = free.key().clone();
                free.insert(Held { digest: key.digest, over });
                Asked::Ours(Claim { claims: self.clone(), name, key: key.clone(), _over: sender })
            }
        }
    }
}

impl Claim {
    /// The key.
    pub fn key(&self) -> &IdempotencyKey {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.held().remove(&self.name);
    }
}

impl InFlight {
    /// Resolves when the request has its outcome: then the key is on record, or free.
    pub async fn over(mut self) {
        // The sender says nothing: it goes with its claim.
        let _over = self.0.changed().await;
    }
}

impl Chain {
    /// Claims the key of a request of this service's principal; whoever works under it is waited for, after `step_aside`.
    pub async fn claim(
        &self,
        service: &Arc<str>,
        principal: &Arc<str>,
        key: &IdempotencyKey,
        mut step_aside: impl FnMut(),
    ) -> Result<Claimed, TransactionError> {
        let claim = loop {
            match self.claims.ask(service, principal, key) {
                Asked::Ours(claim) => break claim,
                Asked::Conflict => return Ok(Claimed::Conflict),
                Asked::InFlight(in_flight) => {
                    step_aside();
                    in_flight.over().await;
                }
            }
        };
        let stored = self.journal.idempotency_key(Arc::clone(service), Arc::clone(principal), Arc::clone(&key.key)).await;
        Ok(match stored.map_err(TransactionError::Journal)? {
            Some(_) if SeededFault::Unseen(Commit::Claim).is_on() => Claimed::NoKey,
            None => Claimed::Ours(claim),
            Some(stored) if stored.digest != key.digest => Claimed::Conflict,
            Some(stored) => Claimed::Before(stored),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;
    use crate::transactions::request::Arguments;

    fn read(members: &str) -> B256 {
        let text = format!(
            r#"{{"from":"0x00000000000000000000000000000000000000aa","to":"0x00000000000000000000000000000000000000bb"{members}}}"#
        );
        digest(1337, &serde_json::from_str::<Arguments>(&text).unwrap().check(1337).unwrap())
    }

    #[test]
    fn a_key_is_visible_ascii_of_bounded_length() {
        for good in ["a", "order-17/retry~1", &"x".repeat(255)] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "ключ", "\u{7f}", &"x".repeat(256)] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn the_digest_is_of_the_meaning_and_not_of_the_text() {
        let plain = read("");
        let others = [r#","value":"0x0""#, r#","chainId":"0x539""#, r#","idempotencyKey":"k""#, r#","data":"0x""#, r#","unknown":1"#];
        for same in others {
            assert_eq!(read(same), plain, "{same}");
        }
        assert_eq!(read(r#","data":"0x01""#), read(r#","input":"0x01""#));
        let different = [
            "",
            r#","value":"0x1""#,
            r#","input":"0x01""#,
            r#","gas":"0x5208""#,
            r#","nonce":"0x0""#,
            r#","gasPrice":"0x1""#,
            r#","maxFeePerGas":"0x1""#,
            r#","maxPriorityFeePerGas":"0x1""#,
            r#","type":"0x0""#,
            r#","accessList":[{"address":"0x00000000000000000000000000000000000000cc","storageKeys":[]}]"#,
        ];
        let digests: std::collections::HashSet<B256> = different.into_iter().map(read).collect();
        assert_eq!(digests.len(), different.len());
        let text = r#"{"from":"0x00000000000000000000000000000000000000aa","to":"0x00000000000000000000000000000000000000bb"}"#;
        let mut elsewhere = serde_json::from_str::<Arguments>(text).unwrap().check(1).unwrap();
        assert_ne!(digest(1, &elsewhere), plain, "another chain");
        elsewhere.value = U256::from(1);
        assert_ne!(digest(1337, &elsewhere), plain);
    }

    fn key(digest: u8) -> IdempotencyKey {
        IdempotencyKey { key: Arc::from("k"), digest: B256::repeat_byte(digest) }
    }

    #[tokio::test]
    async fn one_request_at_a_time_works_under_a_key() {
        let claims = Claims::default();
        let (service, principal, other) = (Arc::from("payments"), Arc::from("default"), Arc::from("other"));
        let Asked::Ours(claim) = claims.ask(&service, &principal, &key(1)) else { panic!("the key is free") };
        assert!(matches!(claims.ask(&service, &principal, &key(2)), Asked::Conflict));
        assert!(matches!(claims.ask(&other, &principal, &key(2)), Asked::Ours(_)), "a key is of one service");
        let Asked::InFlight(in_flight) = claims.ask(&service, &principal, &key(1)) else { panic!("it is in flight") };
        let waiting = tokio::spawn(in_flight.over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(claim);
        waiting.await.unwrap();
        assert!(matches!(claims.ask(&service, &principal, &key(2)), Asked::Ours(_)), "and free again");
        assert!(claims.held().is_empty());
    }
}
