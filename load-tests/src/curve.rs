//! Signatures by libsecp256k1, which is several times as fast as k256: the simulators share their machine with what they are to measure.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, Signature, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{All, Message, Secp256k1, SecretKey};

static CURVE: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Who signed the digest; `None` if nobody can have: r or s out of range, S high (EIP-2), or no such point.
pub(crate) fn signer(digest: B256, signature: &Signature) -> Option<Address> {
    if signature.normalize_s().is_some() {
        return None;
    }
    let id = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
    let bytes = [signature.r().to_be_bytes::<32>(), signature.s().to_be_bytes::<32>()].concat();
    let signature = RecoverableSignature::from_compact(&bytes, id).ok()?;
    let key = CURVE.recover_ecdsa(Message::from_digest(digest.0), &signature).ok()?;
    Some(Address::from_slice(&keccak256(&key.serialize_uncompressed()[1..])[12..]))
}

/// r ‖ s with a low S, of a nonce that `entropy` has a part in; `None` if the secret is no key.
pub(crate) fn sign(secret: [u8; 32], digest: B256, entropy: B256) -> Option<[u8; 64]> {
    let key = SecretKey::from_byte_array(secret).ok()?;
    Some(CURVE.sign_ecdsa_with_noncedata(Message::from_digest(digest.0), &key, &entropy.0).serialize_compact())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;
    use k256::ecdsa::RecoveryId as Parity;
    use k256::ecdsa::signature::hazmat::PrehashVerifier;

    use super::*;
    use crate::wallet::Wallet;

    #[test]
    fn the_signer_is_the_one_that_k256_says() {
        for number in 0..20 {
            let (wallet, digest) = (Wallet::new(7, number), keccak256(number.to_be_bytes()));
            let (signature, parity) = wallet.key().sign_prehash_recoverable(digest.as_slice()).unwrap();
            let low = Signature::from((signature, parity));
            assert_eq!(signer(digest, &low), Some(wallet.address()));
            assert_ne!(signer(keccak256(digest), &low), Some(wallet.address()));
            let high = Signature::from((k256::ecdsa::Signature::from_scalars(signature.r(), -signature.s()).unwrap(), flipped(parity)));
            assert_eq!(signer(digest, &high), None, "EIP-2");
        }
        assert_eq!(signer(B256::ZERO, &Signature::new(U256::MAX, U256::from(1), false)), None);
    }

    fn flipped(parity: Parity) -> Parity {
        Parity::new(!parity.is_y_odd(), false)
    }

    #[test]
    fn what_is_signed_verifies_and_differs_by_its_entropy() {
        let (wallet, digest) = (Wallet::new(7, 0), keccak256("a digest"));
        let secret = wallet.key().to_bytes().into();
        let [one, other] = [1, 2].map(|n| sign(secret, digest, B256::repeat_byte(n)).unwrap());
        assert_ne!(one, other);
        for bytes in [one, other] {
            let signature = k256::ecdsa::Signature::from_slice(&bytes).unwrap();
            assert!(
                signature.normalize_s().is_none() && wallet.key().verifying_key().verify_prehash(digest.as_slice(), &signature).is_ok()
            );
        }
        assert_eq!(sign([0; 32], digest, B256::ZERO), None);
    }
}
