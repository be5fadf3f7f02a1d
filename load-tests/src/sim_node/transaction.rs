//! A transaction as the pool sees it.

use std::sync::Arc;

use alloy_consensus::{Transaction as _, TxEnvelope, TxLegacy, TypedTransaction};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, Signature, U256};

use super::gas;
use super::words::Refusal;
use crate::curve;

/// Largest transaction, in bytes.
const LARGEST: usize = 128 * 1024;

/// A signed transaction, its bytes and what can be read from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// Its parts.
    pub envelope: TxEnvelope,
    /// Its bytes (EIP-2718).
    pub raw: Bytes,
    /// Who signed it.
    pub from: Address,
    /// Its hash.
    pub hash: B256,
    /// Who authorised code in it (EIP-7702), in its order; what cannot be recovered is left out.
    pub authorities: Vec<Authority>,
}

/// One authorisation of EIP-7702.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    /// Who signed it.
    pub address: Address,
    /// The nonce that its signer must have.
    pub nonce: u64,
    /// The chain that it is for; 0 for all.
    pub chain_id: U256,
    /// Whose code it gets; the zero address takes it away.
    pub code: Address,
}

impl Transaction {
    /// Reads signed bytes.
    pub fn decode(raw: Bytes) -> Result<Arc<Self>, Refusal> {
        if raw.len() > LARGEST {
            return Err(Refusal::Oversized { size: raw.len() });
        }
        let mut rest = raw.as_ref();
        if rest.first() == Some(&3) {
            return Err(Refusal::Type);
        }
        let envelope = TxEnvelope::decode_2718(&mut rest).map_err(|_| Refusal::Undecodable)?;
        let from = curve::signer(envelope.signature_hash(), envelope.signature()).ok_or(Refusal::Undecodable)?;
        if !rest.is_empty() {
            return Err(Refusal::Undecodable);
        }
        let authorities = envelope.authorization_list().unwrap_or_default().iter().filter_map(|signed| {
            let address = signed.recover_authority().ok()?;
            Some(Authority { address, nonce: signed.nonce, chain_id: signed.chain_id, code: signed.address })
        });
        let authorities = authorities.collect();
        Ok(Arc::new(Self { hash: *envelope.tx_hash(), envelope, raw, from, authorities }))
    }

    /// A call that nobody signed, from whoever is named: how somebody else who has a key uses it. `unique` makes its hash.
    pub(super) fn unsigned(from: Address, call: TxLegacy, unique: B256) -> Arc<Self> {
        let r = U256::from_be_bytes(unique.0) >> 1;
        let envelope: TxEnvelope = TypedTransaction::Legacy(call).into_envelope(Signature::new(r, U256::from(1), false));
        let raw = envelope.encoded_2718().into();
        Arc::new(Self { hash: *envelope.tx_hash(), envelope, raw, from, authorities: Vec::new() })
    }

    /// Its nonce.
    pub fn nonce(&self) -> u64 {
        self.envelope.nonce()
    }

    /// The most that it pays per gas, in wei.
    pub fn cap(&self) -> u128 {
        self.envelope.max_fee_per_gas()
    }

    /// The most that it pays per gas beyond the base fee, in wei; the price of types 0 and 1.
    pub fn tip(&self) -> u128 {
        self.envelope.priority_fee_or_price()
    }

    /// What it may cost for gas, in wei.
    pub fn fee(&self) -> U256 {
        U256::from(self.cap()).saturating_mul(U256::from(self.envelope.gas_limit()))
    }

    /// What it may cost in all, in wei.
    pub fn cost(&self) -> U256 {
        self.fee().saturating_add(self.envelope.value())
    }

    /// Gas that it takes to begin.
    pub fn intrinsic_gas(&self) -> u64 {
        let authorisations = self.envelope.authorization_list().unwrap_or_default().len();
        gas::intrinsic(self.envelope.input(), self.envelope.is_create(), self.envelope.access_list(), authorisations)
    }

    /// Gas that its data costs at least.
    pub fn floor_gas(&self) -> u64 {
        gas::floor(self.envelope.input())
    }

    /// What it pays per gas beyond a base fee, in wei; `None` if its cap is below that.
    pub fn effective_tip(&self, base_fee: Option<u64>) -> Option<u128> {
        let over = self.cap().checked_sub(u128::from(base_fee.unwrap_or(0)))?;
        Some(over.min(self.tip()))
    }
}
