//! The simulated KMS as a key store, without HTTP between.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use data_encoding::BASE64;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::json;
use sluice_load_tests::sim_kms::ReplyBody;

use super::edges::Edge;
use super::world::{Life, lock, short};
use crate::config::KeySelection;
use crate::signing::signature::PinnedKey;
use crate::signing::{FoundKey, Holder, Key, KeyArn, KeyState, KeyStore, KeyStoreError, QuotaGroup, RawSignature, SignAnswer, SignClass};

/// What one life of the process asks KMS by.
pub(super) struct Store(Arc<Life>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

fn failed(class: SignClass) -> KeyStoreError {
    KeyStoreError { class, detail: format!("simulated: {class:?}") }
}

/// As `signing/aws_kms/errors.rs` reads the codes.
fn class(code: &str) -> SignClass {
    match code {
        "ThrottlingException" => SignClass::Throttled,
        "DisabledException" | "KMSInvalidStateException" => SignClass::KeyDown,
        "AccessDeniedException" => SignClass::Credentials,
        _ => SignClass::Transient,
    }
}

impl Store {
    /// The managed keys of a life.
    pub(super) fn keys(life: &Arc<Life>) -> BTreeMap<Address, Arc<Key>> {
        let store: Arc<dyn KeyStore> = Arc::new(Self(Arc::clone(life)));
        let kms = lock(&life.world.kms);
        let key = |key: &sluice_load_tests::sim_kms::Key| {
            let arn = KeyArn(key.arn.as_str().into());
            let pinned = PinnedKey::from_spki(arn.clone(), &key.spki()).unwrap();
            let holder = Holder { arn, configuration: "sim".into(), store: Arc::clone(&store), state: KeyState::Enabled };
            (key.address(), Arc::new(Key::new(pinned, holder)))
        };
        kms.keys().iter().map(key).collect()
    }

    async fn sign(&self, key: &KeyArn, digest: B256) -> Result<SignAnswer, KeyStoreError> {
        let (life, world) = (&self.0, &self.0.world);
        if life.is_over() {
            return std::future::pending().await;
        }
        let (reply, made) = {
            let mut kms = lock(&world.kms);
            let before = kms.signed().len();
            let body = json!({
                "KeyId": &*key.0,
                "Message": BASE64.encode(digest.as_slice()),
                "MessageType": "DIGEST",
                "SigningAlgorithm": "ECDSA_SHA_256",
            });
            let reply = kms.call(world.now(), "Sign", &body);
            let address = kms.key(&key.0).ok().map(sluice_load_tests::sim_kms::Key::address);
            (reply, address.filter(|_| kms.signed().len() > before))
        };
        if let Some(address) = made {
            world.count("signed");
            world.note(|| format!("signed {} digest {}", world.index(address), short(digest)));
            lock(&world.ledger).signed(address, digest);
            life.pass(Edge::Signed);
        }
        tokio::time::sleep(reply.after).await;
        match reply.body {
            ReplyBody::Ok(answer) => {
                let der = answer["Signature"].as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok()).unwrap();
                Ok(SignAnswer { arn: KeyArn(answer["KeyId"].as_str().unwrap().into()), signature: RawSignature::Der(der) })
            }
            ReplyBody::Error(error) => {
                world.count(format!("kms {}", error.code));
                Err(failed(class(&error.code)))
            }
            ReplyBody::Cut => {
                world.count("kms cut");
                Err(failed(SignClass::Transient))
            }
        }
    }
}

impl KeyStore for Store {
    fn find<'a>(&'a self, _: &'a KeySelection) -> BoxStream<'a, Result<FoundKey, KeyStoreError>> {
        stream::iter([Err(failed(SignClass::Configuration))]).boxed()
    }

    fn public_key<'a>(&'a self, _: &'a KeyArn) -> BoxFuture<'a, Result<Vec<u8>, KeyStoreError>> {
        async { Err(failed(SignClass::Configuration)) }.boxed()
    }

    fn sign_digest<'a>(&'a self, key: &'a KeyArn, digest: B256) -> BoxFuture<'a, Result<SignAnswer, KeyStoreError>> {
        self.sign(key, digest).boxed()
    }

    fn probe<'a>(&'a self, _: &'a KeyArn) -> BoxFuture<'a, Result<(), KeyStoreError>> {
        async { Ok(()) }.boxed()
    }

    fn quota_group(&self, _: &KeyArn) -> QuotaGroup {
        QuotaGroup("sim".into())
    }
}
