//! A private key on its way into KMS: PKCS#8 in DER, encrypted under the RSA key that KMS gives for it. The plain bytes are in
//! memory for the time of one encryption, and are wiped.

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_sdk_kms::types::{AlgorithmSpec, WrappingKeySpec};
use k256::SecretKey;
use k256::ecdsa::SigningKey;
use k256::pkcs8::EncodePrivateKey;

/// The algorithm of [`wrap`] in KMS's words. The key fits into one block of RSA, so that no second key stands between.
pub(super) const ALGORITHM: AlgorithmSpec = AlgorithmSpec::RsaesOaepSha256;
/// The size of the RSA key that KMS is asked for.
pub(super) const KEY_SPEC: WrappingKeySpec = WrappingKeySpec::Rsa4096;

/// The key could not be wrapped. Says nothing of it.
#[derive(Debug, thiserror::Error)]
#[error("the private key cannot be wrapped under the RSA key that KMS gave")]
pub(super) struct WrapError;

/// The key under `public_key`, an RSA key as SubjectPublicKeyInfo DER.
pub(super) fn wrap(public_key: &[u8], key: &SigningKey) -> Result<Vec<u8>, WrapError> {
    let rsa = PublicEncryptingKey::from_der(public_key).and_then(|key| Ok(OaepPublicEncryptingKey::new(key)?));
    let rsa = rsa.map_err(|_| WrapError)?;
    // Both are wiped when dropped.
    let plain = SecretKey::from(key).to_pkcs8_der().map_err(|_| WrapError)?;
    let mut wrapped = vec![0; rsa.ciphertext_size()];
    let length = rsa.encrypt(&OAEP_SHA256_MGF1SHA256, plain.as_bytes(), &mut wrapped, None).map_err(|_| WrapError)?.len();
    wrapped.truncate(length);
    Ok(wrapped)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
    use k256::pkcs8::DecodePrivateKey;

    use super::*;
    use crate::signing::testing::signing_key;

    #[test]
    fn what_is_wrapped_is_the_key_as_pkcs8_and_nothing_else() {
        for size in [KeySize::Rsa2048, KeySize::Rsa4096] {
            let private = PrivateDecryptingKey::generate(size).unwrap();
            let public: PublicKeyX509Der<'_> = private.public_key().as_der().unwrap();
            let wrapped = wrap(public.as_ref(), &signing_key(7)).unwrap();
            assert!(!wrapped.windows(32).any(|bytes| bytes == signing_key(7).to_bytes().as_slice()));
            let rsa = OaepPrivateDecryptingKey::new(private).unwrap();
            let mut plain = vec![0; rsa.min_output_size()];
            let plain = rsa.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped, &mut plain, None).unwrap();
            assert_eq!(SigningKey::from(SecretKey::from_pkcs8_der(plain).unwrap()), signing_key(7));
        }
        assert!(wrap(b"no key", &signing_key(7)).is_err());
    }
}
