//! From a configuration to its key store.

use std::sync::Arc;

use super::aws_kms::AwsKms;
use super::keystore::LocalKeys;
use super::{KeyStore, KeyStoreError};
use crate::config::{Configuration, Provider};
use crate::telemetry::metrics::Metrics;

/// Opens the key store of a configuration: resolves AWS credentials, or decrypts keystore files.
pub async fn build_store(configuration: &Configuration, metrics: Arc<Metrics>) -> Result<Arc<dyn KeyStore>, KeyStoreError> {
    Ok(match &configuration.provider {
        Provider::AwsKms(kms) => Arc::new(AwsKms::connect(&configuration.name, kms, metrics).await?),
        Provider::Local(local) => Arc::new(LocalKeys::open(local).await?),
        Provider::Development { accounts } => Arc::new(LocalKeys::development(*accounts)?),
    })
}
