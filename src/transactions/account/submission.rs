//! What a client's request looks like on its way through the account's task.

use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::{SignableTransaction as _, TxEnvelope, TypedTransaction};
use alloy_eips::Encodable2718 as _;
use alloy_primitives::{B256, Bytes, Signature, U256};
use tokio::sync::{oneshot, watch};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::loans::Borrowed;
use crate::journal::{IdempotencyKey, Kind, Purpose, TransactionId};
use crate::signing::Key;
use crate::telemetry::waited::Waited;
use crate::transactions::errors::TransactionError;
use crate::transactions::idempotency::Claim;
use crate::transactions::prepare::Prepared;

/// What a client is told when its request is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The transaction's id.
    pub id: TransactionId,
    /// Hash of the committed attempt.
    pub hash: B256,
    /// Its signed bytes.
    pub raw: Bytes,
}

/// What is to be committed.
#[derive(Debug)]
pub enum Payload {
    /// To be signed with this key once it has a nonce.
    Unsigned {
        /// Everything but nonce and signature.
        prepared: Box<Prepared>,
        /// The key of its sender.
        key: Arc<Key>,
    },
    /// Signed elsewhere with a managed key.
    Signed {
        /// The bytes.
        bytes: SignedBytes,
        /// Their nonce.
        nonce: u64,
        /// Nonces that they use up: 1, and one for each authorisation of the sender by itself (EIP-7702).
        span: u64,
        /// value + gas × highest price, in wei.
        cost: U256,
    },
}

/// Signed bytes and their hash.
#[derive(Debug, Clone)]
pub struct SignedBytes {
    /// EIP-2718 bytes.
    pub raw: Bytes,
    /// Transaction hash.
    pub hash: B256,
}

/// A request that waits for its account's task.
#[derive(Debug)]
pub struct Submission {
    /// Id for life.
    pub id: TransactionId,
    /// What it came from.
    pub kind: Kind,
    /// What its payload pays for.
    pub purpose: Purpose,
    /// The service that took it.
    pub service: Arc<str>,
    /// The principal that made it.
    pub principal: Arc<str>,
    /// The request as JSON.
    pub request: Arc<str>,
    /// What is to be committed.
    pub payload: Payload,
    /// When it arrived.
    pub arrived: Instant,
    /// When it was put into its account's queue.
    pub queued: Instant,
    /// Where the answer goes; `None` for a filler.
    pub reply: Option<Reply>,
    /// Nonces of other accounts that it authorises with.
    pub borrowed: Borrowed,
    /// Written with its attempt: the key under which it is paid once.
    pub key: Option<IdempotencyKey>,
    /// Whether it was acknowledged before it had an attempt: it waits for as long as it takes.
    pub acknowledged: bool,
}

/// Where the answer of one request goes.
#[derive(Debug)]
pub struct Reply {
    /// The waiting call.
    pub sender: oneshot::Sender<Result<Accepted, TransactionError>>,
    /// Set at the commit, so that a call whose account's task died can still tell the hash; it ends without a value where nothing became durable.
    pub committed: watch::Sender<Option<Accepted>>,
    /// What it waits for others, told to the waiting call.
    pub waited: Waited,
    /// Keeps the drain waiting; `None` for what is acknowledged, which goes on after the restart.
    pub token: Option<TaskTrackerToken>,
    /// The right to work under its idempotency key; given up with the answer.
    pub claim: Option<Claim>,
}

impl Submission {
    /// value + gas × highest price, in wei.
    pub fn cost(&self) -> U256 {
        match &self.payload {
            Payload::Unsigned { prepared, .. } => prepared.cost,
            Payload::Signed { cost, .. } => *cost,
        }
    }

    /// The nonce that the client wants.
    pub fn nonce(&self) -> Option<u64> {
        match &self.payload {
            Payload::Unsigned { prepared, .. } => prepared.nonce,
            Payload::Signed { nonce, .. } => Some(*nonce),
        }
    }

    /// Nonces that it uses up.
    pub fn span(&self) -> u64 {
        match &self.payload {
            Payload::Unsigned { prepared, .. } => prepared.span,
            Payload::Signed { span, .. } => *span,
        }
    }

    /// It ends without an attempt.
    pub(super) fn refuse(self, error: TransactionError) {
        if let Some(reply) = self.reply {
            let _gone = reply.sender.send(Err(error));
        }
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.sender.is_closed())
    }
}

/// The payload with its nonce.
pub(super) fn with_nonce(transaction: &TypedTransaction, nonce: u64) -> TypedTransaction {
    let mut transaction = transaction.clone();
    match &mut transaction {
        TypedTransaction::Legacy(tx) => tx.nonce = nonce,
        TypedTransaction::Eip2930(tx) => tx.nonce = nonce,
        TypedTransaction::Eip1559(tx) => tx.nonce = nonce,
        TypedTransaction::Eip7702(tx) => tx.nonce = nonce,
        // Blob transactions are refused before they get here; the nonce is set all the same.
        TypedTransaction::Eip4844(tx) => match tx {
            alloy_consensus::TxEip4844Variant::TxEip4844(tx) => tx.nonce = nonce,
            alloy_consensus::TxEip4844Variant::TxEip4844WithSidecar(tx) => tx.tx.nonce = nonce,
        },
    }
    transaction
}

/// The signed bytes of a payload.
pub(super) fn assemble(transaction: TypedTransaction, signature: Signature) -> SignedBytes {
    let envelope: TxEnvelope = transaction.into_signed(signature).into();
    SignedBytes { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into() }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::transaction::SignerRecoverable as _;
    use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy};
    use alloy_eips::Decodable2718 as _;
    use alloy_primitives::{Address, TxKind, address, hex};
    use k256::ecdsa::SigningKey;

    use super::*;

    fn sign(key: &SigningKey, transaction: &TypedTransaction) -> Signature {
        let (signature, parity) = key.sign_prehash_recoverable(transaction.signature_hash().as_slice()).unwrap();
        Signature::from_signature_and_parity(signature, parity.is_y_odd())
    }

    /// The example of EIP-155, byte for byte.
    #[test]
    fn eip_155_example() {
        let key = SigningKey::from_slice(&[0x46; 32]).unwrap();
        let unsigned = TypedTransaction::Legacy(TxLegacy {
            chain_id: Some(1),
            nonce: 0,
            gas_price: 20_000_000_000,
            gas_limit: 21_000,
            to: TxKind::Call(address!("3535353535353535353535353535353535353535")),
            value: U256::from(1_000_000_000_000_000_000_u64),
            input: Bytes::new(),
        });
        let transaction = with_nonce(&unsigned, 9);
        assert_eq!(hex::encode(transaction.signature_hash()), "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
        let bytes = assemble(transaction.clone(), sign(&key, &transaction));
        assert_eq!(
            hex::encode(&bytes.raw),
            "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
        );
    }

    #[test]
    fn every_type_carries_its_nonce_and_recovers_to_its_sender() {
        let key = SigningKey::from_slice(&[0x11; 32]).unwrap();
        let sender = Address::from_public_key(key.verifying_key());
        let to = TxKind::Call(Address::repeat_byte(9));
        let types = [
            TypedTransaction::Legacy(TxLegacy { chain_id: Some(5), to, ..TxLegacy::default() }),
            TypedTransaction::Eip2930(TxEip2930 { chain_id: 5, to, ..TxEip2930::default() }),
            TypedTransaction::Eip1559(TxEip1559 { chain_id: 5, to, ..TxEip1559::default() }),
            TypedTransaction::Eip7702(alloy_consensus::TxEip7702 { chain_id: 5, ..Default::default() }),
        ];
        for unsigned in types {
            let transaction = with_nonce(&unsigned, 77);
            let bytes = assemble(transaction.clone(), sign(&key, &transaction));
            let envelope = TxEnvelope::decode_2718_exact(&bytes.raw).unwrap();
            assert_eq!(alloy_consensus::Transaction::nonce(&envelope), 77);
            assert_eq!((envelope.recover_signer().unwrap(), *envelope.tx_hash()), (sender, bytes.hash));
        }
    }
}
