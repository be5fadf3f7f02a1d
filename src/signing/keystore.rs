//! Local keys behind the same interface: encrypted V3 keystore files, and the development mnemonic. For tests, small set-ups
//! and `sluice dev`; the private keys are in this process's memory, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use alloy_primitives::{Address, B256};
use alloy_signer_local::MnemonicBuilder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use k256::PublicKey;
use k256::ecdsa::SigningKey;
use k256::pkcs8::EncodePublicKey;
use zeroize::Zeroizing;

use super::signature::PinnedKey;
use super::{FoundKey, KeyArn, KeyState, KeyStore, KeyStoreError, QuotaGroup, RawSignature, SignAnswer, SignClass};
use crate::config::{KeySelection, Local, Secret};

/// The mnemonic that every development chain funds, and that everybody knows.
const DEVELOPMENT_MNEMONIC: &str = "test test test test test test test test test test test junk";
/// Files that are decrypted at the same time: each takes a core for about a second and, with geth's parameters, 256 MiB.
const CONCURRENCY: usize = 2;

/// Keys in memory, by address.
pub struct LocalKeys {
    keys: BTreeMap<Address, LocalKey>,
}

struct LocalKey {
    arn: KeyArn,
    /// Zeroised when dropped.
    signer: SigningKey,
    spki: Vec<u8>,
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl LocalKeys {
    /// Decrypts the keystore file, or every file of the directory (names that begin with a dot are left out, subdirectories
    /// are not entered). One file that cannot be decrypted is an error that names it.
    pub async fn open(config: &Local) -> Result<Self, KeyStoreError> {
        let path = config.keystore.clone();
        let files = blocking(move || files(&path)).await??;
        let decrypting = files.into_iter().map(|file| decrypt(file, config.password.clone()));
        let signers: Vec<SigningKey> = stream::iter(decrypting).buffer_unordered(CONCURRENCY).try_collect().await?;
        Self::new(signers)
    }

    /// The first addresses of the well-known development mnemonic (m/44'/60'/0'/0/i). Never for a chain of worth.
    pub fn development(accounts: u32) -> Result<Self, KeyStoreError> {
        let derive = |index| {
            MnemonicBuilder::try_from_phrase_nth(DEVELOPMENT_MNEMONIC, index)
                .map(alloy_signer_local::PrivateKeySigner::into_credential)
                .map_err(|_| configuration(format!("no development key of index {index}")))
        };
        Self::new((0..accounts).map(derive).collect::<Result<Vec<_>, _>>()?)
    }

    fn new(signers: Vec<SigningKey>) -> Result<Self, KeyStoreError> {
        let mut keys = BTreeMap::new();
        for signer in signers {
            let spki = PublicKey::from(signer.verifying_key()).to_public_key_der();
            let spki = spki.map_err(|_| configuration("a public key cannot be encoded".to_owned()))?.into_vec();
            let pinned = PinnedKey::from_spki(KeyArn("local:".into()), &spki).map_err(|error| configuration(error.to_string()))?;
            let address = pinned.address();
            keys.insert(address, LocalKey { arn: arn(address), signer, spki });
        }
        Ok(Self { keys })
    }

    fn get(&self, key: &KeyArn) -> Result<&LocalKey, KeyStoreError> {
        let address = key.0.strip_prefix("local:").and_then(|address| address.parse::<Address>().ok());
        address.and_then(|address| self.keys.get(&address)).ok_or_else(|| configuration(format!("no local key {key}")))
    }

    fn select(&self, selection: &KeySelection) -> Result<Vec<FoundKey>, KeyStoreError> {
        match selection {
            KeySelection::All => Ok(self.keys.values().map(found).collect()),
            KeySelection::Tags(_) => Err(configuration("local keys have no tags: select them by address".to_owned())),
            KeySelection::Ids(ids) => {
                let mut selected = BTreeMap::new();
                for id in ids {
                    let address: Address = id.parse().map_err(|_| configuration(format!("{id} is not an address")))?;
                    let key = self.keys.get(&address).ok_or_else(|| configuration(format!("no local key of {address}")))?;
                    selected.insert(address, found(key));
                }
                Ok(selected.into_values().collect())
            }
        }
    }

    /// Deterministic (RFC 6979): no randomness, and the same digest gives the same signature.
    fn sign(&self, key: &KeyArn, digest: B256) -> Result<SignAnswer, KeyStoreError> {
        let key = self.get(key)?;
        let (signature, _) = key
            .signer
            .sign_prehash_recoverable(digest.as_slice())
            .map_err(|_| KeyStoreError { class: SignClass::Transient, detail: format!("{} gave no signature", key.arn) })?;
        Ok(SignAnswer { arn: key.arn.clone(), signature: RawSignature::Compact(signature.to_bytes().into()) })
    }
}

fn arn(address: Address) -> KeyArn {
    KeyArn(format!("local:{address:#x}").into())
}

fn found(key: &LocalKey) -> FoundKey {
    FoundKey { arn: key.arn.clone(), state: KeyState::Enabled, aliases: Vec::new(), tags: BTreeMap::new() }
}

fn configuration(detail: String) -> KeyStoreError {
    KeyStoreError { class: SignClass::Configuration, detail }
}

/// Runs file access and key derivation beside the runtime. A panic there (a malformed file can cause one in the decoder) is
/// an error here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, KeyStoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| configuration("a keystore file is malformed".to_owned()))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, KeyStoreError> {
    let unreadable = |error: std::io::Error| configuration(format!("{}: {error}", path.display()));
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Follows links: a mounted secret is often one.
        if !is_hidden && std::fs::metadata(entry.path()).map_err(unreadable)?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The key of one file.
pub(super) async fn decrypt(file: PathBuf, password: Secret) -> Result<SigningKey, KeyStoreError> {
    let name = file.display().to_string();
    let decrypted = blocking(move || {
        let bytes = Zeroizing::new(eth_keystore::decrypt_key(&file, password.reveal()).map_err(|error| error.to_string())?);
        SigningKey::from_slice(&bytes).map_err(|_| "it holds no secp256k1 key".to_owned())
    });
    decrypted.await.and_then(|result| result.map_err(configuration)).map_err(|error| configuration(format!("{name}: {}", error.detail)))
}

impl KeyStore for LocalKeys {
    fn find<'a>(&'a self, selection: &'a KeySelection) -> BoxStream<'a, Result<FoundKey, KeyStoreError>> {
        match self.select(selection) {
            Ok(found) => stream::iter(found.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn public_key<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<Vec<u8>, KeyStoreError>> {
        async { self.get(key).map(|key| key.spki.clone()) }.boxed()
    }

    fn sign_digest<'a>(&'a self, key: &'a KeyArn, digest: B256) -> BoxFuture<'a, Result<SignAnswer, KeyStoreError>> {
        async move { self.sign(key, digest) }.boxed()
    }

    fn probe<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<(), KeyStoreError>> {
        async { self.get(key).map(drop) }.boxed()
    }

    /// Local keys share no quota with anything.
    fn quota_group(&self, _key: &KeyArn) -> QuotaGroup {
        QuotaGroup("local".into())
    }
}

#[cfg(test)]
pub(super) mod tests;
