//! A KMS that the suite is run against.

use std::net::SocketAddr;

use alloy_primitives::B256;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::sign::{SignError, SignOutput};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::ecdsa::{Signature, VerifyingKey};
use k256::pkcs8::DecodePublicKey;

/// Where it is, and who asks.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) address: SocketAddr,
    pub(super) credentials: Credentials,
}

impl Side {
    /// The SDK's client in a Region.
    pub(super) fn client(&self, region: &str) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(format!("http://{}", self.address))
            .credentials_provider(self.credentials.clone())
            .build();
        Client::from_conf(config)
    }
}

/// `ok`, or the code of the refusal.
pub(super) fn code<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E>>) -> String {
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.code().unwrap_or("no code").to_owned(),
    }
}

pub(super) async fn sign(client: &Client, key: &str, digest: B256) -> Result<SignOutput, SdkError<SignError>> {
    let call = client.sign().key_id(key).message(Blob::new(digest.as_slice())).message_type(MessageType::Digest);
    call.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await
}

pub(super) async fn public_key(client: &Client, key: &str) -> Vec<u8> {
    client.get_public_key().key_id(key).send().await.unwrap().public_key.unwrap().into_inner()
}

/// Whether S is high, where the answer is a signature of this digest by this key.
pub(super) fn is_high(answer: &SignOutput, spki: &[u8], digest: B256) -> Option<bool> {
    let signature = Signature::from_der(answer.signature()?.as_ref()).ok()?;
    let low = signature.normalize_s();
    let key = VerifyingKey::from_public_key_der(spki).ok()?;
    key.verify_prehash(digest.as_slice(), &low.unwrap_or(signature)).ok().map(|()| low.is_some())
}
