//! The RSA keys under which key material is wrapped on its way into KMS, and how it is wrapped and unwrapped.
//!
//! They are the same in every simulator and lie beside this file for everybody to read: what is wrapped under them is no secret.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};

/// How long a wrapping key and its token can be used.
pub(super) const VALID: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The wrapping key of this `WrappingKeySpec` as PKCS#8.
fn private_key(spec: &str) -> Option<PrivateDecryptingKey> {
    let pkcs8: &[u8] = match spec {
        "RSA_2048" => include_bytes!("wrapping/rsa_2048.der"),
        "RSA_3072" => include_bytes!("wrapping/rsa_3072.der"),
        "RSA_4096" => include_bytes!("wrapping/rsa_4096.der"),
        _ => return None,
    };
    PrivateDecryptingKey::from_pkcs8(pkcs8).ok()
}

/// The public key of this `WrappingKeySpec` as SPKI DER.
pub(super) fn public_key(spec: &str) -> Option<Vec<u8>> {
    let der: PublicKeyX509Der<'_> = private_key(spec)?.public_key().as_der().ok()?;
    Some(der.as_ref().to_vec())
}

/// Whether this `WrappingAlgorithm` is simulated.
pub(super) fn is_known(algorithm: &str) -> bool {
    matches!(algorithm, "RSAES_OAEP_SHA_256" | "RSA_AES_KEY_WRAP_SHA_256")
}

/// Wraps as somebody does who moves a key in: `material` under the public key (SPKI DER) of GetParametersForImport. `aes` is the key
/// between the two of RSA_AES_KEY_WRAP_SHA_256. `None` where the algorithm is not simulated, or the material is too long for it.
pub fn wrap(public_key: &[u8], algorithm: &str, aes: [u8; 32], material: &[u8]) -> Option<Vec<u8>> {
    let rsa = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key).ok()?).ok()?;
    let under_rsa = |plain: &[u8]| {
        let mut wrapped = vec![0; rsa.ciphertext_size()];
        rsa.encrypt(&OAEP_SHA256_MGF1SHA256, plain, &mut wrapped, None).ok().map(|wrapped| wrapped.to_vec())
    };
    match algorithm {
        "RSAES_OAEP_SHA_256" => under_rsa(material),
        "RSA_AES_KEY_WRAP_SHA_256" => {
            let mut inner = vec![0; material.len() + 16];
            let inner = AesKek::new(&AES_256, &aes).ok()?.wrap_with_padding(material, &mut inner).ok()?;
            Some([under_rsa(&aes)?, inner.to_vec()].concat())
        }
        _ => None,
    }
}

/// What was wrapped; `None` where it was not, or not so.
pub(super) fn unwrap(spec: &str, algorithm: &str, wrapped: &[u8]) -> Option<Vec<u8>> {
    let key = OaepPrivateDecryptingKey::new(private_key(spec)?).ok()?;
    if algorithm == "RSAES_OAEP_SHA_256" {
        return decrypt(&key, wrapped);
    }
    // An AES key under RSA, followed by the material under that (RFC 5649).
    let (head, tail) = wrapped.split_at_checked(key.key_size_bytes())?;
    let aes = AesKek::new(&AES_256, &decrypt(&key, head)?).ok()?;
    let mut plain = vec![0; tail.len()];
    aes.unwrap_with_padding(tail, &mut plain).ok().map(|plain| plain.to_vec())
}

fn decrypt(key: &OaepPrivateDecryptingKey, wrapped: &[u8]) -> Option<Vec<u8>> {
    let mut plain = vec![0; key.min_output_size()];
    key.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut plain, None).ok().map(|plain| plain.to_vec())
}
