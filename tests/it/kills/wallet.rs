//! Keys that the gateway and the test both have: what somebody else who uses a managed key can do, a wallet can.

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Signature, TxKind, U256, hex};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};

/// Keystore files of the keys `[0x51; 32]` and on, with the password `test` and the cheapest derivation that there is.
const FILES: &str = include_str!("keys.json");
/// How many keys there are.
pub(super) const KEYS: usize = 12;

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Wallet {
    key: SigningKey,
    pub(super) address: Address,
}

impl Wallet {
    /// Key number `index`, below [`KEYS`].
    pub(super) fn new(index: usize) -> Self {
        let key = SigningKey::from_slice(&[0x51 + u8::try_from(index).unwrap(); 32]).unwrap();
        Self { address: Address::from_public_key(key.verifying_key()), key }
    }

    /// Its keystore file.
    pub(super) fn file(index: usize) -> String {
        let files: Vec<Value> = serde_json::from_str(FILES).unwrap();
        files[index].to_string()
    }

    fn sign(&self, digest: B256) -> Signature {
        let (signature, parity) = self.key.sign_prehash_recoverable(digest.as_slice()).unwrap();
        Signature::from_signature_and_parity(signature, parity.is_y_odd())
    }

    /// The bytes of a transfer to itself, as 0x-hex, and their hash.
    pub(super) fn transfer(&self, chain_id: u64, nonce: u64, value: u64) -> (String, B256) {
        let transaction = TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 40_000_000_000,
            max_priority_fee_per_gas: 2_000_000_000,
            to: TxKind::Call(self.address),
            value: U256::from(value),
            ..TxEip1559::default()
        };
        let signature = self.sign(transaction.signature_hash());
        let signed = transaction.into_signed(signature);
        (hex::encode_prefixed(signed.encoded_2718()), *signed.hash())
    }

    /// An EIP-7702 authorisation with this nonce, of no code.
    pub(super) fn authorisation(&self, chain_id: u64, nonce: u64) -> Value {
        let authorisation = Authorization { chain_id: U256::from(chain_id), address: Address::ZERO, nonce };
        let signature = self.sign(authorisation.signature_hash());
        json!(authorisation.into_signed(signature))
    }
}
