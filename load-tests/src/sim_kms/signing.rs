//! Signatures as KMS makes them, and as it never would.

use alloy_primitives::{B256, keccak256};
use k256::ecdsa::Signature;

use super::core::Kms;
use super::faults::{Fault, OutOfRange, Scalar};
use crate::curve;
use crate::wallet::Wallet;

/// The order n of the curve, big-endian.
const ORDER: [u8; 32] = alloy_primitives::hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
/// The number, beyond all others, of the key that nobody has.
const NOBODY: u64 = u64::MAX;

impl Kms {
    /// A signature as KMS makes it: DER, a nonce of its own each time, S high about half the time; or what the fault makes of it.
    pub(super) fn signature(&mut self, wallet: &Wallet, digest: B256, fault: Option<&Fault>) -> Option<Vec<u8>> {
        let digest = if fault == Some(&Fault::OtherDigest) { keccak256(digest) } else { digest };
        let (entropy, coin) = (self.nonces.hash(), self.nonces.below(2) == 1);
        let is_high = match fault {
            Some(Fault::HighS) => true,
            Some(Fault::LowS) => false,
            _ => coin,
        };
        let nobody = (fault == Some(&Fault::OtherSigner)).then(|| Wallet::new(self.settings.seed, NOBODY));
        let secret = nobody.as_ref().unwrap_or(wallet).key().to_bytes().into();
        let low = Signature::from_slice(&curve::sign(secret, digest, entropy)?).ok()?;
        let signature = if is_high { Signature::from_scalars(low.r(), -low.s()).ok()? } else { low };
        let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
        Some(match fault {
            Some(Fault::OutOfRange { scalar: Scalar::R, value }) => der(&out_of_range(*value), &s),
            Some(Fault::OutOfRange { scalar: Scalar::S, value }) => der(&r, &out_of_range(*value)),
            Some(Fault::MalformedDer) => malformed(&r, &s, self.nonces.below(5)),
            _ => signature.to_der().as_bytes().to_vec(),
        })
    }
}

fn out_of_range(value: OutOfRange) -> [u8; 32] {
    let mut number = ORDER;
    match value {
        OutOfRange::Zero => number = [0; 32],
        OutOfRange::Order => {}
        OutOfRange::Above => number[31] += 1,
    }
    number
}

/// A positive INTEGER in DER; less than 126 bytes.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len().saturating_sub(1));
    let mut content = number.get(zeros..).unwrap_or_default().to_vec();
    if content.first().is_some_and(|byte| *byte >= 0x80) {
        content.insert(0, 0);
    }
    [vec![2, content.len() as u8], content].concat()
}

fn sequence(content: Vec<u8>) -> Vec<u8> {
    [vec![0x30, content.len() as u8], content].concat()
}

fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    sequence([integer(r), integer(s)].concat())
}

/// The same signature in a form that is no DER; there are five.
fn malformed(r: &[u8], s: &[u8], form: u64) -> Vec<u8> {
    let mut bytes = der(r, s);
    match form {
        // The last byte is missing.
        0 => drop(bytes.pop()),
        // There is one too many.
        1 => bytes.push(0),
        // A SET, not a SEQUENCE.
        2 => bytes[0] = 0x31,
        // The length in two bytes where one is enough: BER.
        3 => bytes.insert(1, 0x81),
        // A zero before S that it does not need.
        _ => {
            let mut padded = integer(s);
            padded.insert(2, 0);
            padded[1] += 1;
            bytes = sequence([integer(r), padded].concat());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_here_is_what_the_crate_encodes_and_no_malformed_form_is_read_by_it() {
        for n in 0..200 {
            let wallet = Wallet::new(n, 0);
            let (signature, _) = wallet.key().sign_prehash_recoverable(keccak256([n as u8]).as_slice()).unwrap();
            let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
            assert_eq!(der(&r, &s), signature.to_der().as_bytes());
            let high = (-*signature.s()).to_bytes();
            for form in 0..5 {
                assert!(Signature::from_der(&malformed(&r, &s, form)).is_err(), "{n} {form}");
                assert!(Signature::from_der(&malformed(&r, &high, form)).is_err(), "{n} {form}");
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_well_formed_and_none_of_a_signature() {
        let one = [&[0; 31][..], &[1]].concat();
        assert_eq!(der(&one, &out_of_range(OutOfRange::Zero)), [0x30, 6, 2, 1, 1, 2, 1, 0]);
        for value in [OutOfRange::Zero, OutOfRange::Order, OutOfRange::Above] {
            assert!(Signature::from_der(&der(&out_of_range(value), &one)).is_err());
            assert!(Signature::from_der(&der(&one, &out_of_range(value))).is_err());
        }
    }
}
