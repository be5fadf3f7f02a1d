//! A scripted key store in memory, for the tests of this room.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloy_primitives::B256;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use k256::PublicKey;
use k256::ecdsa::SigningKey;
use k256::pkcs8::EncodePublicKey;
use tokio::sync::Semaphore;

use super::*;

pub(super) fn arn(name: &str) -> KeyArn {
    KeyArn(name.into())
}

pub(super) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

pub(super) fn spki(key: &SigningKey) -> Vec<u8> {
    PublicKey::from(key.verifying_key()).to_public_key_der().unwrap().into_vec()
}

pub(super) fn failure(class: SignClass) -> KeyStoreError {
    KeyStoreError { class, detail: format!("scripted {class:?}") }
}

/// What one Sign does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Sign,
    /// Signs after a permit of the store's gate is there.
    Gated,
    /// Signs another digest.
    Lie,
    Fail(SignClass),
    Take(Duration),
    Hang,
    Panic,
}

type Script = Box<dyn Fn(usize) -> Act + Send + Sync>;

/// Keys by ARN, a script of Signs by their number, and what was asked.
pub(crate) struct ScriptedStore {
    pub(super) keys: HashMap<KeyArn, SigningKey>,
    pub(super) states: Mutex<HashMap<KeyArn, KeyState>>,
    pub(super) signs: Mutex<Vec<(KeyArn, B256)>>,
    pub(super) public_keys: Mutex<Vec<KeyArn>>,
    pub(super) probes: AtomicUsize,
    /// Probes that panic before they give a future.
    pub(super) panicking_probes: AtomicUsize,
    pub(super) refuse_public_key: Mutex<Option<SignClass>>,
    pub(super) refuse_discovery: Mutex<Option<SignClass>>,
    /// Keys that a listing does not have, as if they did not carry its tags.
    pub(super) hidden: Mutex<HashSet<KeyArn>>,
    pub(super) discoveries: AtomicUsize,
    pub(super) gate: Semaphore,
    pub(super) most_in_flight: AtomicUsize,
    in_flight: AtomicUsize,
    script: Script,
}

impl fmt::Debug for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedStore")
    }
}

impl ScriptedStore {
    pub(crate) fn new(keys: &[(&str, u8)], script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            keys: keys.iter().map(|(name, seed)| (arn(name), signing_key(*seed))).collect(),
            states: Mutex::default(),
            signs: Mutex::default(),
            public_keys: Mutex::default(),
            probes: AtomicUsize::new(0),
            panicking_probes: AtomicUsize::new(0),
            refuse_public_key: Mutex::default(),
            refuse_discovery: Mutex::default(),
            hidden: Mutex::default(),
            discoveries: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            most_in_flight: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            script: Box::new(script),
        })
    }

    pub(super) fn digests(&self) -> Vec<B256> {
        self.signs.lock().unwrap().iter().map(|(_, digest)| *digest).collect()
    }

    pub(crate) fn key(self: &Arc<Self>, name: &str) -> Arc<Key> {
        let pinned = signature::PinnedKey::from_spki(arn(name), &spki(&self.keys[&arn(name)])).unwrap();
        Arc::new(Key::new(pinned, self.holder(name)))
    }

    pub(super) fn holder(self: &Arc<Self>, name: &str) -> Holder {
        let store: Arc<dyn KeyStore> = self.clone();
        Holder { arn: arn(name), configuration: "test".into(), store, state: KeyState::Enabled }
    }

    /// A key with a replica.
    pub(super) fn key_with(self: &Arc<Self>, name: &str, replica: &str) -> Arc<Key> {
        let key = self.key(name);
        key.admit(self.holder(replica), &spki(&self.keys[&arn(replica)])).unwrap().join();
        key
    }

    /// The store says from now on that the key is in this state.
    pub(super) fn set(&self, name: &str, state: KeyState) {
        self.states.lock().unwrap().insert(arn(name), state);
    }

    /// How often each of these was asked to sign.
    pub(super) fn signs_by<const N: usize>(&self, names: [&str; N]) -> [usize; N] {
        let signs = self.signs.lock().unwrap();
        names.map(|name| signs.iter().filter(|(arn, _)| &*arn.0 == name).count())
    }

    fn found(&self, arn: &KeyArn) -> FoundKey {
        let state = self.states.lock().unwrap().get(arn).cloned().unwrap_or(KeyState::Enabled);
        FoundKey { arn: arn.clone(), state, aliases: Vec::new(), tags: BTreeMap::new() }
    }

    async fn act(&self, key: &KeyArn, digest: B256) -> Result<SignAnswer, KeyStoreError> {
        let number = {
            let mut signs = self.signs.lock().unwrap();
            signs.push((key.clone(), digest));
            signs.len() - 1
        };
        if self.found(key).state != KeyState::Enabled {
            return Err(failure(SignClass::KeyDown));
        }
        let digest = match (self.script)(number) {
            Act::Sign => digest,
            Act::Lie => B256::repeat_byte(0xee),
            Act::Gated => {
                self.gate.acquire().await.unwrap().forget();
                digest
            }
            Act::Take(duration) => {
                tokio::time::sleep(duration).await;
                digest
            }
            Act::Fail(class) => return Err(failure(class)),
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("scripted"),
        };
        let (signature, _) = self.keys[key].sign_prehash_recoverable(digest.as_slice()).unwrap();
        Ok(SignAnswer { arn: key.clone(), signature: RawSignature::Der(signature.to_der().as_bytes().to_vec()) })
    }
}

impl KeyStore for ScriptedStore {
    fn find<'a>(&'a self, selection: &'a KeySelection) -> BoxStream<'a, Result<FoundKey, KeyStoreError>> {
        let found = async move {
            self.discoveries.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if let Some(class) = *self.refuse_discovery.lock().unwrap() {
                return Err(failure(class));
            }
            let hidden = self.hidden.lock().unwrap().clone();
            match selection {
                KeySelection::Ids(ids) => {
                    let named = ids.iter().map(|id| arn(id));
                    named.map(|arn| self.keys.get(&arn).map(|_| self.found(&arn)).ok_or(failure(SignClass::Configuration))).collect()
                }
                _ => Ok(self.keys.keys().filter(|arn| !hidden.contains(*arn)).map(|arn| self.found(arn)).collect::<Vec<_>>()),
            }
        };
        stream::once(found).map_ok(|found| stream::iter(found.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn source(&self) -> Option<String> {
        Some("scripted".to_owned())
    }

    fn public_key<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<Vec<u8>, KeyStoreError>> {
        async move {
            self.public_keys.lock().unwrap().push(key.clone());
            tokio::task::yield_now().await;
            let refused = *self.refuse_public_key.lock().unwrap();
            refused.map_or_else(|| Ok(spki(&self.keys[key])), |class| Err(failure(class)))
        }
        .boxed()
    }

    fn sign_digest<'a>(&'a self, key: &'a KeyArn, digest: B256) -> BoxFuture<'a, Result<SignAnswer, KeyStoreError>> {
        async move {
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_flight.fetch_max(now, Ordering::SeqCst);
            let answer = self.act(key, digest).await;
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            answer
        }
        .boxed()
    }

    fn probe<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<(), KeyStoreError>> {
        let panics = self.panicking_probes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        assert!(!panics, "scripted");
        async move {
            self.probes.fetch_add(1, Ordering::SeqCst);
            match self.found(key).state {
                KeyState::Enabled => Ok(()),
                KeyState::Unusable(_) => Err(failure(SignClass::KeyDown)),
            }
        }
        .boxed()
    }

    /// What stands behind the key's `@`.
    fn quota_group(&self, key: &KeyArn) -> QuotaGroup {
        let region = key.0.split_once('@').map_or("test", |(_, region)| region);
        QuotaGroup(format!("1/{region}").into())
    }
}
