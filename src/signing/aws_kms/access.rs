//! From a configuration to the way into AWS: endpoints, time-outs, the chain of credentials, an assumed role, the account.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_sts::error::ProvideErrorMetadata;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use super::credentials::StandingCredentials;
use super::errors::LONGEST_MESSAGE;
use crate::config::{self, AssumedRole};
use crate::signing::{ATTEMPT_TIMEOUT, KeyStoreError, SignClass};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the SDK's clients are made of.
pub(super) struct Access {
    /// For KMS: one attempt a call, with time-outs.
    pub(super) kms: aws_sdk_kms::Config,
    pub(super) credentials: StandingCredentials,
    /// Whether the credentials come from somewhere that can give others.
    pub(super) is_renewable: bool,
    /// The account that calls count against, where it is known.
    pub(super) account: Option<String>,
}

impl Access {
    /// Resolves the credentials, so that missing ones are told at the start. `name` is the configuration's. Of AWS only STS is
    /// asked: for an assumed role, and for the account where nothing else says it.
    pub(super) async fn open(name: &str, config: &config::AwsKms) -> Result<Self, KeyStoreError> {
        find_certificates(name).await?;
        let attempt = ATTEMPT_TIMEOUT.min(config.sign_deadline);
        let shared = shared(config, attempt).await;
        let sts = match &config.sts_endpoint {
            Some(endpoint) => shared.clone().into_builder().endpoint_url(endpoint.as_str()).build(),
            None => shared.clone(),
        };
        let source = match (&config.role, shared.credentials_provider()) {
            (Some(role), _) => assumed(role, &sts).await,
            (None, Some(chain)) => chain,
            (None, None) => return Err(without_credentials(name, "no provider is configured")),
        };
        let standing = StandingCredentials::new(name, source);
        let credentials = standing.get().await.map_err(|error| without_credentials(name, &why(&error)))?;
        let account = match (&config.account_id, credentials.account_id()) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(told)) => Some(told.as_str().to_owned()),
            // Who has an endpoint of his own for KMS alone may have no way to AWS's STS.
            (None, None) if config.endpoint.is_some() && config.sts_endpoint.is_none() => None,
            (None, None) => caller(name, &sts, &standing).await,
        };
        let mut kms = aws_sdk_kms::config::Builder::from(&shared)
            .credentials_provider(standing.clone())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(attempt).operation_timeout(attempt).build());
        if let Some(endpoint) = &config.endpoint {
            kms = kms.endpoint_url(endpoint.as_str());
        }
        let is_renewable = config.credentials.is_none() || config.role.is_some();
        Ok(Self { kms: kms.build(), credentials: standing, is_renewable, account })
    }
}

/// What KMS and STS have in common. STS, and where the chain asks, may retry: nobody's Sign waits for them.
async fn shared(config: &config::AwsKms, attempt: Duration) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts(attempt).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    // What is not asked for here may be in AWS's own variables and profiles.
    if config.use_fips {
        loader = loader.use_fips(true);
    }
    if config.use_dual_stack {
        loader = loader.use_dual_stack(true);
    }
    if let Some(credentials) = &config.credentials {
        loader = loader.credentials_provider(Credentials::from_keys(
            credentials.access_key_id.reveal(),
            credentials.secret_access_key.reveal(),
            credentials.session_token.as_ref().map(|token| token.reveal().to_owned()),
        ));
    }
    loader.load().await
}

fn timeouts(attempt: Duration) -> aws_smithy_types::timeout::TimeoutConfigBuilder {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT.min(attempt)).read_timeout(attempt).operation_attempt_timeout(attempt)
}

async fn assumed(role: &AssumedRole, sts: &SdkConfig) -> SharedCredentialsProvider {
    match &role.web_identity_token_file {
        Some(file) => {
            SharedCredentialsProvider::new(WebIdentity { sts: aws_sdk_sts::Client::new(sts), role: role.clone(), file: file.clone() })
        }
        None => {
            let mut builder = AssumeRoleProvider::builder(&role.arn).configure(sts).session_name(&role.session_name);
            if let Some(external_id) = &role.external_id {
                builder = builder.external_id(external_id);
            }
            SharedCredentialsProvider::new(builder.build().await)
        }
    }
}

/// A role that is assumed with the token in a file, which is read each time: whoever runs the process replaces it.
struct WebIdentity {
    sts: aws_sdk_sts::Client,
    role: AssumedRole,
    file: PathBuf,
}

impl std::fmt::Debug for WebIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebIdentity").field("role", &self.role.arn).field("file", &self.file).finish_non_exhaustive()
    }
}

impl WebIdentity {
    async fn assume(&self) -> Result<Credentials, CredentialsError> {
        let token = tokio::fs::read_to_string(&self.file).await.map_err(CredentialsError::provider_error)?;
        let call = self.sts.assume_role_with_web_identity().role_arn(&self.role.arn).role_session_name(&self.role.session_name);
        let answer = call.web_identity_token(token.trim_end()).send().await.map_err(CredentialsError::provider_error)?;
        let given = answer.credentials.ok_or_else(|| CredentialsError::unhandled("STS gave no credentials"))?;
        let expiry = SystemTime::try_from(given.expiration).map_err(CredentialsError::unhandled)?;
        let account = self.role.arn.split(':').nth(4).map(Into::into);
        let mut builder = Credentials::builder()
            .access_key_id(given.access_key_id)
            .secret_access_key(given.secret_access_key)
            .session_token(given.session_token)
            .expiry(expiry)
            .provider_name("WebIdentity");
        builder.set_account_id(account);
        Ok(builder.build())
    }
}

impl ProvideCredentials for WebIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.assume())
    }
}

/// Whose credentials they are, by GetCallerIdentity, which needs no right. Without an answer Signs are counted by the account that
/// each key is in.
async fn caller(name: &str, sts: &SdkConfig, credentials: &StandingCredentials) -> Option<String> {
    let config = aws_sdk_sts::config::Builder::from(sts).credentials_provider(credentials.clone()).build();
    match aws_sdk_sts::Client::from_conf(config).get_caller_identity().send().await {
        Ok(answer) => answer.account,
        Err(error) => {
            let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or("no answer").to_owned();
            tracing::warn!(configuration = name, code, "STS does not say which account this is; account_id in the configuration does");
            None
        }
    }
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

fn without_credentials(name: &str, why: &str) -> KeyStoreError {
    let detail = format!(
        "configuration \"{name}\" has no AWS credentials ({why}): set access_key_id and secret_access_key, or provide them by \
         environment, profile, web identity, container or instance role"
    );
    KeyStoreError { class: SignClass::Credentials, detail }
}

/// Why there are no credentials: of STS only the code, but for a refusal of the role, whose words say who may not do what.
pub(super) fn why(error: &CredentialsError) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    for source in sources {
        let assume = source.downcast_ref::<AssumeRoleError>().map(|error| (error.code(), error.message()));
        let web = || source.downcast_ref::<AssumeRoleWithWebIdentityError>().map(|error| (error.code(), error.message()));
        match assume.or_else(web) {
            Some((Some("AccessDenied"), Some(message))) => {
                return format!("STS: AccessDenied: {}", message.chars().take(LONGEST_MESSAGE).collect::<String>());
            }
            Some((code, _)) => return format!("STS: {}", code.unwrap_or("an error without a code")),
            None => {}
        }
        if let Some(file) = source.downcast_ref::<std::io::Error>() {
            return format!("{error}: {file}");
        }
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
