//! The one step between a key store's answer and a signature that Sluice uses: strict parsing, low S, parity and
//! verification against the pinned key (I5).

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, Signature, keccak256};
use k256::ecdsa::Signature as RawScalars;
use k256::elliptic_curve::ops::{Invert, LinearCombination, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use k256::pkcs8::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use k256::{ProjectivePoint, PublicKey, Scalar, U256};

use super::{KeyArn, RawSignature, SignAnswer};
use crate::telemetry::faults::SeededFault;

/// id-ecPublicKey (RFC 5480, 2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256k1 (SEC 2, A.2).
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
/// Bytes of a SubjectPublicKeyInfo with an uncompressed secp256k1 point: what AWS KMS answers.
const SPKI_LENGTH: usize = 88;

/// Why a SubjectPublicKeyInfo is not a secp256k1 key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpkiError {
    /// Not one exact DER SubjectPublicKeyInfo.
    #[error("the public key is not DER of a SubjectPublicKeyInfo")]
    NotDer,
    /// The algorithm is not id-ecPublicKey.
    #[error("the public key's algorithm is {0}, not id-ecPublicKey (1.2.840.10045.2.1)")]
    NotEllipticCurve(String),
    /// The curve is missing or is not secp256k1.
    #[error("the public key's curve is {0}, not secp256k1 (1.3.132.0.10)")]
    NotSecp256k1(String),
    /// Not an uncompressed point of 65 bytes.
    #[error("the public key is not an uncompressed point")]
    NotUncompressed,
    /// The coordinates are not those of a point of the curve.
    #[error("the public key is not a point of secp256k1")]
    NotOnCurve,
    /// Another key than the pinned one.
    #[error("{arn} holds the key of {found}, not of {pinned}")]
    OtherKey {
        /// The ARN that was to be added.
        arn: KeyArn,
        /// The address of its key.
        found: Address,
        /// The address that is pinned.
        pinned: Address,
    },
}

/// Why an answer of a key store is not a signature of the pinned key over the digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The store used another key than the pinned one: an alias was pointed elsewhere, or worse.
    #[error("the key store signed with {0}, which is not pinned")]
    OtherArn(KeyArn),
    /// Not strict DER of two integers, or r or s is not in [1, n-1].
    #[error("the signature is not strict DER of r and s in [1, n-1]")]
    Malformed,
    /// R lies at x ≥ n, which Ethereum's `v` cannot say. Signing again gives another R.
    #[error("the signature's point lies at x ≥ n")]
    XTooLarge,
    /// It does not verify.
    #[error("the signature does not verify against the pinned key")]
    Unverified,
}

/// One public key and the names that hold it, for life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedKey {
    address: Address,
    point: ProjectivePoint,
    arns: BTreeSet<KeyArn>,
}

impl PinnedKey {
    /// Pins the key of a SubjectPublicKeyInfo: exact DER, both object identifiers, an uncompressed point of the curve.
    pub fn from_spki(arn: KeyArn, spki: &[u8]) -> Result<Self, SpkiError> {
        let point = point_of(spki)?;
        Ok(Self { address: address_of(&point), point: point.to_projective(), arns: BTreeSet::from([arn]) })
    }

    /// An error if the public key of a name is another one.
    pub(super) fn compare(&self, arn: &KeyArn, spki: &[u8]) -> Result<(), SpkiError> {
        let found = address_of(&point_of(spki)?);
        if found == self.address { Ok(()) } else { Err(SpkiError::OtherKey { arn: arn.clone(), found, pinned: self.address }) }
    }

    /// Adds a name whose public key was [compared](Self::compare).
    pub(super) fn pin(&mut self, arn: KeyArn) {
        self.arns.insert(arn);
    }

    /// keccak256(X ‖ Y)[12..].
    pub fn address(&self) -> Address {
        self.address
    }

    /// The names that hold the key, sorted; at least one.
    pub fn arns(&self) -> impl Iterator<Item = &KeyArn> {
        self.arns.iter()
    }

    /// Whether an answer may come from this name.
    pub fn is_pinned(&self, arn: &KeyArn) -> bool {
        self.arns.contains(arn)
    }
}

fn point_of(spki: &[u8]) -> Result<PublicKey, SpkiError> {
    let info = SubjectPublicKeyInfoRef::try_from(spki).map_err(|_| SpkiError::NotDer)?;
    if info.algorithm.oid != EC_PUBLIC_KEY {
        return Err(SpkiError::NotEllipticCurve(info.algorithm.oid.to_string()));
    }
    match info.algorithm.parameters_oid() {
        Ok(SECP256K1) => {}
        Ok(other) => return Err(SpkiError::NotSecp256k1(other.to_string())),
        Err(_) => return Err(SpkiError::NotSecp256k1("not named".to_owned())),
    }
    let bytes = info.subject_public_key.as_bytes().ok_or(SpkiError::NotUncompressed)?;
    if spki.len() != SPKI_LENGTH || bytes.first() != Some(&0x04) {
        return Err(SpkiError::NotUncompressed);
    }
    PublicKey::from_sec1_bytes(bytes).map_err(|_| SpkiError::NotOnCurve)
}

fn address_of(key: &PublicKey) -> Address {
    let encoded = key.to_encoded_point(false);
    Address::from_slice(&keccak256(encoded.as_bytes().get(1..).unwrap_or_default())[12..])
}

/// Turns an answer into a signature that may be used: from a pinned ARN, strictly parsed, S low, verified, with its parity.
///
/// One double-scalar product does the last two: R = (z/s)·G + (r/s)·Q must lie at x = r, and the parity of its y is
/// Ethereum's. It is computed with the low s already, so the parity is the one that belongs to it.
pub fn finish(answer: &SignAnswer, digest: B256, key: &PinnedKey) -> Result<Signature, SignatureFault> {
    if !key.is_pinned(&answer.arn) {
        return Err(SignatureFault::OtherArn(answer.arn.clone()));
    }
    let parsed = match &answer.signature {
        RawSignature::Der(bytes) => RawScalars::from_der(bytes),
        RawSignature::Compact(bytes) => RawScalars::from_slice(bytes),
    };
    let parsed = parsed.map_err(|_| SignatureFault::Malformed)?;
    let low = parsed.normalize_s().unwrap_or(parsed);
    let (r, s) = low.split_scalars();
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&digest.0.into());
    // All of it is public, so variable time is fine.
    let inverse = *s.invert_vartime();
    let point = ProjectivePoint::lincomb(&ProjectivePoint::GENERATOR, &(z * inverse), &key.point, &(*r * inverse));
    if point == ProjectivePoint::IDENTITY {
        return Err(SignatureFault::Unverified);
    }
    let point = point.to_affine();
    let x = point.x();
    let is_unchecked = SeededFault::SignatureUnchecked.is_on();
    if <Scalar as Reduce<U256>>::reduce_bytes(&x) != *r && !is_unchecked {
        return Err(SignatureFault::Unverified);
    }
    if x != r.to_bytes() && !is_unchecked {
        return Err(SignatureFault::XTooLarge);
    }
    let y_is_odd = bool::from(point.y_is_odd());
    Ok(Signature::from_scalars_and_parity(B256::from_slice(&r.to_bytes()), B256::from_slice(&s.to_bytes()), y_is_odd))
}

#[cfg(test)]
mod tests;
