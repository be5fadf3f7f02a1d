//! Keys in AWS KMS: Sign over a digest, the public key, discovery. The SDK's own retries are off; time-outs are explicit.

mod discovery;
mod errors;
mod manage;
mod pace;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use alloy_primitives::B256;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use self::errors::Fault;
use self::pace::Paces;
use super::backoff::full_jitter;
use super::{FoundKey, KeyArn, KeyState, KeyStore, KeyStoreError, QuotaGroup, RawSignature, SignAnswer, SignClass};
use crate::config::{self, KeySelection};
use crate::telemetry::metrics::Metrics;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for one answer: three times the longest that people report across Regions.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Times that a call other than Sign is asked before its passing fault counts.
const ATTEMPTS: u32 = 6;
/// The same for a throttled one: whoever uses the quota beside us is not to end a discovery.
const THROTTLED_ATTEMPTS: u32 = 24;
/// Refused credentials are read again from the chain at most this often.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// One configuration's access to AWS KMS.
pub struct AwsKms {
    name: String,
    region: String,
    sdk: SdkConfig,
    /// Static credentials cannot be refreshed.
    has_chain: bool,
    session: RwLock<Session>,
    /// Of the calls that a discovery makes.
    paces: Paces,
    metrics: Arc<Metrics>,
}

/// The client, and since when it has its credentials.
struct Session {
    client: Client,
    generation: u64,
    refreshed: Option<Instant>,
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("name", &self.name).field("region", &self.region).finish_non_exhaustive()
    }
}

impl AwsKms {
    /// Prepares the access and resolves its credentials once, so that missing ones are told at the start. `name` is the
    /// configuration's, for errors. No request goes to KMS yet.
    pub async fn connect(name: &str, config: &config::AwsKms, metrics: Arc<Metrics>) -> Result<Self, KeyStoreError> {
        find_certificates(name).await?;
        let attempt = ATTEMPT_TIMEOUT.min(config.sign_deadline);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(attempt))
            .read_timeout(attempt)
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint.as_str());
        }
        if let Some(credentials) = &config.credentials {
            loader = loader.credentials_provider(Credentials::from_keys(
                credentials.access_key_id.reveal(),
                credentials.secret_access_key.reveal(),
                credentials.session_token.as_ref().map(|token| token.reveal().to_owned()),
            ));
        }
        let sdk = loader.load().await;
        resolve_credentials(name, &sdk).await?;
        let session = RwLock::new(Session { client: client(&sdk), generation: 0, refreshed: None });
        let has_chain = config.credentials.is_none();
        Ok(Self { name: name.to_owned(), region: config.region.clone(), sdk, has_chain, session, paces: Paces::default(), metrics })
    }

    fn client(&self) -> (Client, u64) {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner);
        (session.client.clone(), session.generation)
    }

    /// Reads the credentials again after the ones of `generation` were refused. True if there are newer ones to try.
    fn refresh(&self, generation: u64) -> bool {
        if !self.has_chain {
            return false;
        }
        let mut session = self.session.write().unwrap_or_else(PoisonError::into_inner);
        if session.generation > generation {
            return true;
        }
        if session.refreshed.is_some_and(|at| at.elapsed() < REFRESH_INTERVAL) {
            return false;
        }
        tracing::warn!(configuration = self.name, "AWS refused the credentials; reading them again");
        *session = Session { client: client(&self.sdk), generation: generation + 1, refreshed: Some(Instant::now()) };
        true
    }

    /// One attempt.
    async fn once<T, E, F>(&self, operation: &'static str, call: impl FnOnce(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (client, generation) = self.client();
        call(client).await.map_err(|error| {
            let mut fault = errors::fault(operation, &error);
            if fault.has_stale_credentials() && self.refresh(generation) {
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

/// A client with a credentials cache of its own.
fn client(sdk: &SdkConfig) -> Client {
    Client::from_conf(aws_sdk_kms::config::Builder::from(sdk).identity_cache(IdentityCache::lazy().build()).build())
}

/// The SDK panics where the system has no CA certificates, whatever the endpoint is: that is told before it is asked.
async fn find_certificates(name: &str) -> Result<(), KeyStoreError> {
    let found = tokio::task::spawn_blocking(|| !rustls_native_certs::load_native_certs().certs.is_empty()).await;
    if found.unwrap_or(false) {
        return Ok(());
    }
    let detail = format!(
        "configuration \"{name}\" cannot be used: this system has no CA certificates (package ca-certificates, or SSL_CERT_FILE), and \
         the AWS SDK does not start without any"
    );
    Err(KeyStoreError { class: SignClass::Configuration, detail })
}

async fn resolve_credentials(name: &str, sdk: &SdkConfig) -> Result<(), KeyStoreError> {
    let resolved = match sdk.credentials_provider() {
        Some(provider) => provider.provide_credentials().await.map(drop).map_err(|error| error.to_string()),
        None => Err("no provider is configured".to_owned()),
    };
    resolved.map_err(|error| KeyStoreError {
        class: SignClass::Credentials,
        detail: format!(
            "configuration \"{name}\" has no AWS credentials ({error}): set access_key_id and secret_access_key, or provide them by \
             environment, profile, web identity, container or instance role"
        ),
    })
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
        let endpoint = self.sdk.endpoint_url().unwrap_or("AWS");
        Some(format!("aws_kms {} {endpoint}", self.region))
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

    /// `account/Region` of the ARN. AWS counts cross-account use against the caller instead; then every account that the
    /// keys are in gets its own ceiling, and `sign_rate` has to be set for the sum.
    fn quota_group(&self, key: &KeyArn) -> QuotaGroup {
        let mut parts = key.0.split(':').skip(3);
        match (parts.next(), parts.next()) {
            (Some(region), Some(account)) => QuotaGroup(format!("{account}/{region}").into()),
            _ => QuotaGroup(key.0.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
