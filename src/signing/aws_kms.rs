//! Keys in AWS KMS: Sign over a digest, the public key, discovery. The SDK's own retries are off; time-outs are explicit.

mod access;
mod credentials;
mod discovery;
mod errors;
mod import;
mod manage;
mod pace;
mod replicate;
mod warm;
mod wrapping;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use alloy_primitives::B256;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio_util::task::AbortOnDropHandle;

use self::access::Access;
use self::credentials::StandingCredentials;
use self::errors::Fault;
pub use self::import::{Import, ImportError, Material};
use self::pace::Paces;
pub use self::replicate::{Replica, ReplicateError};
use self::warm::Traffic;
use super::backoff::full_jitter;
use super::{ATTEMPT_TIMEOUT, FoundKey, KeyArn, KeyState, KeyStore, KeyStoreError, QuotaGroup, RawSignature, SignAnswer, SignClass};
use crate::config::{self, KeySelection};
use crate::telemetry::metrics::Metrics;

/// Times that a call other than Sign is asked before its passing fault counts.
const ATTEMPTS: u32 = 6;
/// The same for a throttled one: whoever uses the quota beside us is not to end a discovery.
const THROTTLED_ATTEMPTS: u32 = 24;

/// One configuration's access to AWS KMS.
pub struct AwsKms {
    name: String,
    region: String,
    /// Where its keys come from: what was found by another way is not known here.
    source: String,
    /// The account that calls count against, where it is known.
    account: Option<String>,
    /// Of the calls that a discovery makes.
    paces: Paces,
    client: Client,
    credentials: StandingCredentials,
    /// Renews the credentials. Static ones cannot be renewed.
    renewing: Option<AbortOnDropHandle<()>>,
    traffic: Arc<Traffic>,
    warm_connections: usize,
    warming: OnceLock<AbortOnDropHandle<()>>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("name", &self.name).field("region", &self.region).finish_non_exhaustive()
    }
}

impl AwsKms {
    /// Prepares the access and resolves its credentials once, so that missing ones are told at the start; from then on they are
    /// renewed before they expire. `name` is the configuration's, for errors. No request goes to KMS yet.
    pub async fn connect(name: &str, config: &config::AwsKms, metrics: Arc<Metrics>) -> Result<Self, KeyStoreError> {
        let Access { kms, credentials, is_renewable, account } = Access::open(name, config).await?;
        let renewing = is_renewable.then(|| credentials.renew());
        Ok(Self {
            name: name.to_owned(),
            source: source(config, account.as_deref()),
            region: config.region.clone(),
            account,
            client: Client::from_conf(kms),
            credentials,
            renewing,
            traffic: Arc::default(),
            warm_connections: usize::try_from(config.warm_connections).unwrap_or_default(),
            warming: OnceLock::new(),
            paces: Paces::default(),
            metrics,
        })
    }

    /// One attempt.
    async fn once<T, E, F>(&self, operation: &'static str, call: impl FnOnce(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let generation = match tokio::time::timeout(ATTEMPT_TIMEOUT, self.credentials.generation()).await {
            Ok(known) => known.map_err(|error| errors::no_credentials(operation, &access::why(&error)))?,
            // As any answer that does not come.
            Err(_) => {
                let fault = errors::no_credentials(operation, "their source does not answer");
                return Err(Fault { class: SignClass::Transient, ..fault });
            }
        };
        call(self.client.clone()).await.map_err(|error| {
            let mut fault = errors::fault(operation, &error);
            if fault.has_stale_credentials() && self.renewing.is_some() && self.credentials.refuse(generation) {
                fault.class = SignClass::Transient;
            }
            fault
        })
    }

    /// A few attempts with full jitter, each in the pace of its operation, for everything but Sign and what creates.
    async fn patiently<T, E, F>(&self, operation: &'static str, call: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut retry = 0;
        let pace = self.paces.of(operation);
        loop {
            if let Some(pace) = pace {
                pace.turn().await;
            }
            let result = self.once(operation, &call).await;
            let throttled = matches!(&result, Err(fault) if fault.class == SignClass::Throttled);
            if let Some(pace) = pace {
                pace.answered(throttled);
            }
            let attempts = if throttled { THROTTLED_ATTEMPTS } else { ATTEMPTS };
            match result {
                Err(fault) if fault.class.is_retryable() && retry + 1 < attempts => {
                    tracing::debug!(configuration = self.name, operation, detail = fault.detail, "asking AWS KMS again");
                    tokio::time::sleep(full_jitter(retry, rand::random())).await;
                    retry += 1;
                }
                result => return result,
            }
        }
    }

    async fn get_public_key(&self, key: &KeyArn) -> Result<Vec<u8>, KeyStoreError> {
        let answer = self
            .patiently("GetPublicKey", |client| {
                self.metrics.signing.public_keys.inc();
                client.get_public_key().key_id(&*key.0).send()
            })
            .await?;
        match answer.public_key {
            Some(spki) => Ok(spki.into_inner()),
            None => Err(incomplete("GetPublicKey", "PublicKey")),
        }
    }

    async fn sign(&self, key: &KeyArn, digest: B256) -> Result<SignAnswer, KeyStoreError> {
        let _in_flight = self.traffic.enter();
        let answer = self
            .once("Sign", |client| {
                client
                    .sign()
                    .key_id(&*key.0)
                    .message(Blob::new(digest.as_slice()))
                    .message_type(MessageType::Digest)
                    .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
                    .send()
            })
            .await?;
        let arn = answer.key_id.ok_or_else(|| incomplete("Sign", "KeyId"))?;
        let signature = answer.signature.ok_or_else(|| incomplete("Sign", "Signature"))?;
        Ok(SignAnswer { arn: KeyArn(arn.into()), signature: RawSignature::Der(signature.into_inner()) })
    }

    /// Asks for the key's state and no more: DescribeKey needs no right to sign, and emulators know it. Whether the
    /// credentials may sign shows at the first Sign.
    async fn check(&self, key: &KeyArn) -> Result<(), KeyStoreError> {
        match self.describe(&key.0).await?.into_signer()?.state {
            KeyState::Enabled => Ok(()),
            KeyState::Unusable(why) => {
                Err(KeyStoreError { class: SignClass::KeyDown, detail: format!("the state of {key} is {why}, not Enabled") })
            }
        }
    }
}

/// What decides which keys there are to be seen: Region, endpoint, and the role or at least the account of the credentials.
fn source(config: &config::AwsKms, account: Option<&str>) -> String {
    let endpoint = config.endpoint.as_ref().map_or("AWS", url::Url::as_str);
    let caller = config.role.as_ref().map(|role| role.arn.as_str()).or(account).unwrap_or("default");
    format!("aws_kms {} {endpoint} {caller}", config.region)
}

/// A success without a field that the API promises.
fn incomplete(operation: &str, field: &str) -> KeyStoreError {
    KeyStoreError { class: SignClass::Transient, detail: format!("AWS KMS {operation}: the answer has no {field}") }
}

impl KeyStore for AwsKms {
    fn find<'a>(&'a self, selection: &'a KeySelection) -> BoxStream<'a, Result<FoundKey, KeyStoreError>> {
        self.stream(selection)
    }

    fn source(&self) -> Option<String> {
        Some(self.source.clone())
    }

    fn public_key<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<Vec<u8>, KeyStoreError>> {
        self.get_public_key(key).boxed()
    }

    fn sign_digest<'a>(&'a self, key: &'a KeyArn, digest: B256) -> BoxFuture<'a, Result<SignAnswer, KeyStoreError>> {
        self.sign(key, digest).boxed()
    }

    fn probe<'a>(&'a self, key: &'a KeyArn) -> BoxFuture<'a, Result<(), KeyStoreError>> {
        self.check(key).boxed()
    }

    /// `account/Region`: the Region of the ARN and the account of the caller, whose quota AWS counts cross-account use against.
    /// Where that is not known, the account that the key is in.
    fn quota_group(&self, key: &KeyArn) -> QuotaGroup {
        let mut parts = key.0.split(':').skip(3);
        match (parts.next(), parts.next()) {
            (Some(region), Some(account)) => QuotaGroup(format!("{}/{region}", self.account.as_deref().unwrap_or(account)).into()),
            _ => QuotaGroup(key.0.clone()),
        }
    }

    /// Connections are kept open from now on; once is enough.
    fn keep_ready(&self, key: &KeyArn) {
        if self.warm_connections > 0 {
            self.warming.get_or_init(|| {
                let (client, traffic) = (self.client.clone(), Arc::clone(&self.traffic));
                let keep = warm::keep(client, traffic, key.clone(), self.warm_connections, rand::random());
                AbortOnDropHandle::new(tokio::spawn(keep))
            });
        }
    }
}

#[cfg(test)]
mod tests;
