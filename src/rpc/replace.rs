//! `sluice_speedUpTransaction` and `sluice_cancelTransaction`: another payload in the place of one that waits. docs/fees.md describes
//! them for clients.

use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::Decodable2718 as _;
use alloy_primitives::{B256, U64, U256};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::arguments::Arguments;
use super::errors::RpcError;
use super::eth::raw;
use super::refusals::{invalid_argument, refusal};
use super::send::usable_key;
use super::service::{Service, waited};
use super::sluice::{find, parse_id};
use super::waiting::refused;
use crate::journal::history::{Life, Name};
use crate::journal::{AttemptState, TransactionId};
use crate::transactions::account::replace::Replacement;
use crate::transactions::chain::{Accepted, ReplaceWish};
use crate::transactions::errors::TransactionError;
use crate::transactions::request::{self, Fees, Quantity};

type Answer = Result<Arc<RawValue>, ErrorObjectOwned>;

/// Registers the methods.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_async_method("sluice_speedUpTransaction", |params, service, extensions| async move {
        replace(&params, &service, &extensions, Replacement::SpeedUp).await
    })?;
    module.register_async_method("sluice_cancelTransaction", |params, service, extensions| async move {
        replace(&params, &service, &extensions, Replacement::Cancel).await
    })?;
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wish {
    id: Option<String>,
    hash: Option<B256>,
    gas_price: Option<Quantity>,
    max_fee_per_gas: Option<Quantity>,
    max_priority_fee_per_gas: Option<Quantity>,
}

impl Wish {
    fn name(&self) -> Result<Name, ErrorObjectOwned> {
        match (&self.id, self.hash) {
            (Some(id), None) => parse_id(id).map(Name::Id).ok_or_else(|| invalid_argument(0, "id is not a transaction id")),
            (None, Some(hash)) => Ok(Name::Hash(hash)),
            _ => Err(invalid_argument(0, "either id or hash names the transaction")),
        }
    }

    /// By the rules of `eth_sendTransaction`.
    fn fees(&self) -> Result<Fees, TransactionError> {
        request::Arguments {
            gas_price: self.gas_price,
            max_fee_per_gas: self.max_fee_per_gas,
            max_priority_fee_per_gas: self.max_priority_fee_per_gas,
            ..request::Arguments::default()
        }
        .fees()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replaced {
    id: String,
    /// `null`, as the nonce, of a transaction that was ended before it had an attempt.
    hash: Option<B256>,
    nonce: Option<U64>,
    replaced: Option<B256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gas_price: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_fee_per_gas: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_priority_fee_per_gas: Option<U256>,
}

/// Why a transaction ended that was cancelled while it was queued.
const CANCELLED: &str = "cancelled before it was signed";

impl Replaced {
    /// There was nothing to replace.
    fn nothing(id: TransactionId) -> Self {
        let id = id.to_string();
        Self { id, hash: None, nonce: None, replaced: None, gas_price: None, max_fee_per_gas: None, max_priority_fee_per_gas: None }
    }

    fn new(accepted: &Accepted, replaced: Option<B256>) -> Option<Self> {
        let envelope = TxEnvelope::decode_2718_exact(&accepted.raw).ok()?;
        let price = envelope.gas_price();
        Some(Self {
            id: accepted.id.to_string(),
            hash: Some(accepted.hash),
            nonce: Some(U64::from(envelope.nonce())),
            replaced,
            gas_price: price.map(U256::from),
            max_fee_per_gas: price.is_none().then(|| U256::from(envelope.max_fee_per_gas())),
            max_priority_fee_per_gas: envelope.max_priority_fee_per_gas().filter(|_| price.is_none()).map(U256::from),
        })
    }
}

/// Why a transaction without an attempt cannot be replaced.
fn nothing_signed(life: &Life) -> TransactionError {
    TransactionError::NotReplaceable(match refused(life) {
        Some(ended) => format!("the transaction has ended: {}", ended.message),
        None => "nothing of the transaction is signed yet".to_owned(),
    })
}

async fn replace(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions, what: Replacement) -> Answer {
    let arrived = Instant::now();
    let wish: Wish = Arguments::up_to(params, 1)?.required(0)?;
    let name = wish.name()?;
    let fees = wish.fees().map_err(refusal)?;
    let waited = waited(extensions);
    let found = find(service, extensions, name).await;
    waited.since(arrived);
    let mut life = found?;
    if life.transaction.state == AttemptState::Queued && what == Replacement::Cancel {
        let begun = Instant::now();
        let ended = service.chain.end_queued(life.transaction.id, CANCELLED.to_owned()).await;
        waited.since(begun);
        if ended.map_err(|error| refusal(TransactionError::Journal(error)))? {
            return raw(&Replaced::nothing(life.transaction.id));
        }
        // It got its first attempt in this moment, or an end: the attempt is what is to be replaced.
        life = find(service, extensions, name).await?;
    }
    if life.transaction.attempt.is_none() {
        return Err(refusal(nothing_signed(&life)));
    }
    let transaction = life.transaction;
    if matches!(transaction.state, AttemptState::Included | AttemptState::Confirmed | AttemptState::Replaced) {
        let mined = transaction.attempt.filter(|_| transaction.state != AttemptState::Replaced).map(|(hash, _)| hash);
        return Err(refusal(TransactionError::AlreadyMined { hash: mined }));
    }
    if transaction.state == AttemptState::Refused {
        return Err(refusal(TransactionError::NotReplaceable("the transaction was refused".into())));
    }
    let from = transaction.account.address;
    let key = usable_key(service, from).map_err(refusal)?;
    let begun = Instant::now();
    let ready = service.chain.ready().await;
    waited.since(begun);
    ready.map_err(refusal)?;
    let wish = ReplaceWish { id: transaction.id, what, fees, key, arrived };
    let (replaced, submitted) = service.chain.replace(from, wish).map_err(refusal)?;
    let in_account = submitted.waited();
    let answer = submitted.answer().await;
    waited.add(in_account.total());
    let accepted = answer.map_err(refusal)?;
    match Replaced::new(&accepted, replaced.get().copied()) {
        Some(told) => raw(&told),
        None => Err(RpcError::internal().into()),
    }
}
