//! Bytes that were signed elsewhere.

use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::{Decodable2718 as _, Encodable2718 as _};
use alloy_primitives::{B256, Bytes, U256};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jsonrpsee::Extensions;
use jsonrpsee::types::Params;
use serde_json::value::to_raw_value;

use super::arguments::Arguments;
use super::errors::RpcError;
use super::eth::Answer;
use super::pass_through::call_error;
use super::refusals::refusal;
use super::send::submit;
use super::service::{Service, principal, turn, waited, waited_all};
use crate::config::FeeCeilings;
use crate::journal::Kind;
use crate::node::CallError;
use crate::transactions::account::loans::Borrowed;
use crate::transactions::authorisations::Authorisations;
use crate::transactions::ceilings::hold;
use crate::transactions::chain::{Accepted, NewRequest, Payload, SignedBytes};
use crate::transactions::errors::TransactionError;
use crate::transactions::fees::Price;
use crate::transactions::request::Fees;

/// Whose bytes they were.
#[derive(Debug)]
pub(super) enum SentRaw {
    /// A managed account's.
    Ours(Accepted),
    /// Somebody else's: what the node answered.
    Foreign(B256),
}

impl SentRaw {
    pub(super) fn hash(&self) -> B256 {
        match self {
            Self::Ours(accepted) => accepted.hash,
            Self::Foreign(hash) => *hash,
        }
    }
}

/// Bytes of a managed sender enter the same table under the same rules; all others are the node's business. The first of the
/// parameters alone is looked at.
pub(super) async fn send_raw(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions) -> Answer<SentRaw> {
    let arrived = Instant::now();
    let arguments = Arguments::of(params)?;
    let bytes: Bytes = arguments.required(0)?;
    let ours = TxEnvelope::decode_2718_exact(&bytes)
        .ok()
        .and_then(|envelope| envelope.recover_signer().ok().map(|from| (envelope, from)))
        .filter(|(_, from)| service.chain.is_managed(*from));
    let Some((envelope, from)) = ours else {
        let answer = forward(service, &bytes).await;
        waited_all(extensions);
        return answer.map(SentRaw::Foreign);
    };
    let turn = turn(extensions, from);
    let chain_id = service.chain.environment().chain_id;
    check_raw(&envelope, chain_id).map_err(refusal)?;
    check_ceilings(&envelope, service.ceilings).map_err(refusal)?;
    service.chain.ready().await.map_err(refusal)?;
    let waited = waited(extensions);
    waited.since(arrived);
    let list = envelope.authorization_list().unwrap_or_default();
    let authorisations = Authorisations::read(list, from, chain_id, |address| service.chain.is_managed(address)).map_err(refusal)?;
    let (_, span) = authorisations.of_sender(Some(envelope.nonce())).map_err(refusal)?;
    let fees = U256::from(envelope.max_fee_per_gas()).saturating_mul(U256::from(envelope.gas_limit()));
    let payload = Payload::Signed {
        nonce: envelope.nonce(),
        span,
        cost: fees.saturating_add(envelope.value()),
        bytes: SignedBytes { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into() },
    };
    let new = NewRequest {
        from,
        kind: Kind::Raw,
        service: Arc::clone(&service.name),
        principal: Arc::clone(&principal(extensions).name),
        request: Arc::from("{}"),
        payload,
        borrowed: Borrowed::default(),
        arrived,
        claim: None,
        acknowledged: None,
    };
    submit(service, new, authorisations.others, turn, &waited).await.map(SentRaw::Ours).map_err(refusal)
}

/// Bytes of a sender that is not managed go to every endpoint, once; the best answer is passed on.
async fn forward(service: &Service, bytes: &Bytes) -> Answer<B256> {
    let params = to_raw_value(&[bytes]).map_err(|_| RpcError::internal())?;
    let mut worst = CallError::Unavailable;
    let mut answers: FuturesUnordered<_> = service.chain.pool().send_raw(Arc::from(params)).into_iter().collect();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(hash) => return Ok(hash),
            Err(error) if matches!(worst, CallError::Unavailable) || matches!(error, CallError::Lost | CallError::Deadline(_)) => {
                worst = error
            }
            Err(_) => {}
        }
    }
    Err(call_error(&worst))
}

/// The price of bytes that are signed is as it is.
fn check_ceilings(envelope: &TxEnvelope, ceilings: FeeCeilings) -> Result<(), TransactionError> {
    let price = match envelope.gas_price() {
        Some(price) => Price::Legacy(price),
        None => Price::Dynamic { cap: envelope.max_fee_per_gas(), tip: envelope.max_priority_fee_per_gas().unwrap_or_default() },
    };
    let given = Fees::Dynamic { cap: Some(price.highest()), tip: None };
    hold(price, given, envelope.gas_limit(), None, ceilings).map(|_| ())
}

fn check_raw(envelope: &TxEnvelope, chain_id: u64) -> Result<(), TransactionError> {
    match envelope.chain_id() {
        None => Err(TransactionError::Invalid("only replay-protected (EIP-155) transactions allowed over RPC".into())),
        Some(have) if have != chain_id => {
            Err(TransactionError::Invalid(format!("invalid sender: invalid chain id for signer: have {have} want {chain_id}")))
        }
        Some(_) if envelope.is_eip4844() => {
            Err(TransactionError::Unsupported("blob transactions of managed accounts are not supported".into()))
        }
        Some(_) => Ok(()),
    }
}
