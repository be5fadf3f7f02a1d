//! A secp256k1 key that belongs to a seed: what the simulated KMS keeps, and what tests sign with. Never for real money.

use alloy_consensus::{SignableTransaction, TypedTransaction};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature};
use k256::ecdsa::SigningKey;

use crate::random::digest;

/// One key.
#[derive(Debug, Clone)]
pub struct Wallet {
    key: SigningKey,
    address: Address,
}

impl Wallet {
    /// Key `number` of `seed`. The same ones are in a simulated KMS of that seed, from 0.
    pub fn new(seed: u64, number: u64) -> Self {
        // A digest that is no secret key has never been seen: its chance is 2^-128.
        let mut secret = digest(seed, "key", number);
        loop {
            if let Ok(key) = SigningKey::from_slice(secret.as_slice()) {
                return Self::of(key);
            }
            secret = alloy_primitives::keccak256(secret);
        }
    }

    /// The wallet of this key.
    pub fn of(key: SigningKey) -> Self {
        let address = Address::from_public_key(key.verifying_key());
        Self { key, address }
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The key itself.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The signed bytes of a transaction (EIP-2718) and their hash; `None` if the key cannot sign, which has never been seen.
    pub fn sign(&self, transaction: TypedTransaction) -> Option<(Bytes, B256)> {
        let (signature, parity) = self.key.sign_prehash_recoverable(transaction.signature_hash().as_slice()).ok()?;
        let signed = transaction.into_envelope(Signature::from((signature, parity)));
        Some((signed.encoded_2718().into(), *signed.tx_hash()))
    }
}
