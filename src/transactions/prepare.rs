//! Everything that can fail before a nonce exists: type, fees, gas, cost. The result lacks only the nonce and the signature.

use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy, TypedTransaction};
use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, TxKind, U256};
use serde::Serialize;

use super::authorisations::Authorisations;
use super::ceilings::hold;
use super::errors::TransactionError;
use super::fees::{Feed, Price, decide};
use super::request::{Fees, Request};
use crate::config::{Environment, FeeCeilings};
use crate::node::CallError;
use crate::node::Pool;

/// A transaction that lacks its nonce and its signature.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The sender.
    pub from: Address,
    /// The payload, with nonce 0 until one is handed out.
    pub transaction: TypedTransaction,
    /// A nonce that the client wants.
    pub nonce: Option<u64>,
    /// value + gas × highest price, in wei.
    pub cost: U256,
    /// Nonces that it uses up: 1, and one for each authorisation of the sender by itself (EIP-7702).
    pub span: u64,
}

/// Gas of a plain transfer of value.
pub const TRANSFER_GAS: u64 = 21_000;

/// Fills fees and gas from the node and builds the payload.
pub async fn prepare(
    request: Request,
    authorisations: &Authorisations,
    environment: &Environment,
    pool: &Pool,
    fees: &Feed,
    ceilings: FeeCeilings,
) -> Result<Prepared, TransactionError> {
    let now = fees.newest(environment.node_deadline).await?;
    let price = decide(request.fees, now, environment.fees)?;
    let gas = match request.gas {
        Some(gas) => gas,
        None => estimate(&request, price, environment, pool).await?,
    };
    let price = hold(price, request.fees, gas, Some(now), ceilings)?;
    build(request, authorisations, price, gas, environment.chain_id)
}

/// As [`prepare`], for `eth_signTransaction`: everything must be given (geth's rule and words).
pub fn prepare_as_given(
    request: Request,
    authorisations: &Authorisations,
    chain_id: u64,
    ceilings: FeeCeilings,
) -> Result<Prepared, TransactionError> {
    let invalid = |words: &str| TransactionError::Invalid(words.into());
    let gas = request.gas.ok_or_else(|| invalid("gas not specified"))?;
    let price = match request.fees {
        Fees::Price(price) => Price::Legacy(price),
        Fees::Dynamic { cap: Some(cap), tip: Some(tip) } => Price::Dynamic { cap, tip },
        _ => return Err(invalid("missing gasPrice or maxFeePerGas/maxPriorityFeePerGas")),
    };
    if request.nonce.is_none() {
        return Err(invalid("nonce not specified"));
    }
    let price = hold(price, request.fees, gas, None, ceilings)?;
    build(request, authorisations, price, gas, chain_id)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    from: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Address>,
    value: U256,
    input: &'a alloy_primitives::Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_list: Option<&'a alloy_eips::eip2930::AccessList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_list: Option<&'a Vec<SignedAuthorization>>,
}

/// Estimates at `pending`, so that a call that depends on one sent just before works; at `latest` where the node cannot.
async fn estimate(request: &Request, price: Price, environment: &Environment, pool: &Pool) -> Result<u64, TransactionError> {
    let call = Call {
        from: request.from,
        to: request.to,
        value: request.value,
        input: &request.input,
        access_list: request.access_list.as_ref(),
        authorization_list: request.authorizations.as_ref(),
    };
    let estimated = match pool.call::<U256>("eth_estimateGas", (&call, "pending")).await {
        Err(CallError::Node(error)) if !is_verdict(error.code, &error.message) => {
            pool.call::<U256>("eth_estimateGas", (&call, "latest")).await
        }
        other => other,
    };
    let gas = match estimated {
        Ok(gas) => u64::try_from(gas).map_err(|_| TransactionError::Call(CallError::Malformed("gas beyond 64 bits".into())))?,
        Err(error) => return Err(explain(error, request, price, pool).await),
    };
    Ok(u64::try_from(u128::from(gas) * u128::from(environment.gas_percent) / 100).unwrap_or(u64::MAX))
}

/// Whether the node judged the call itself (a revert) rather than the question.
pub(super) fn is_verdict(code: i64, message: &str) -> bool {
    code == 3 || message.to_ascii_lowercase().contains("revert")
}

/// An estimate fails in many words when the sender is simply too poor: then the error is geth's for that.
async fn explain(error: CallError, request: &Request, price: Price, pool: &Pool) -> TransactionError {
    if let CallError::Node(node) = &error
        && !is_verdict(node.code, &node.message)
        && let Ok(balance) = pool.call::<U256>("eth_getBalance", (request.from, "pending")).await
    {
        let cost = cost(request.value, TRANSFER_GAS, price).unwrap_or(U256::MAX);
        if cost > balance {
            return TransactionError::InsufficientFunds { balance, cost, overshot: cost - balance, queued: U256::ZERO };
        }
    }
    error.into()
}

fn cost(value: U256, gas: u64, price: Price) -> Option<U256> {
    U256::from(price.highest()).checked_mul(U256::from(gas))?.checked_add(value)
}

fn build(
    request: Request,
    authorisations: &Authorisations,
    price: Price,
    gas_limit: u64,
    chain_id: u64,
) -> Result<Prepared, TransactionError> {
    let invalid = |words: &str| TransactionError::Invalid(words.into());
    let cost = cost(request.value, gas_limit, price).ok_or_else(|| invalid("value and fees are beyond 256 bits"))?;
    let (nonce, span) = authorisations.of_sender(request.nonce)?;
    let Request { from, to, value, input, access_list, authorizations, .. } = request;
    let kind = to.map_or(TxKind::Create, TxKind::Call);
    let transaction = match (price, access_list, authorizations, to) {
        (Price::Dynamic { cap, tip }, access_list, Some(authorization_list), Some(to)) => TypedTransaction::Eip7702(TxEip7702 {
            chain_id,
            nonce: 0,
            gas_limit,
            max_fee_per_gas: cap,
            max_priority_fee_per_gas: tip,
            to,
            value,
            access_list: access_list.unwrap_or_default(),
            authorization_list,
            input,
        }),
        (_, _, Some(_), _) => return Err(invalid("EIP-7702 transactions need a recipient and maxFeePerGas")),
        (Price::Dynamic { cap, tip }, access_list, None, _) => TypedTransaction::Eip1559(TxEip1559 {
            chain_id,
            nonce: 0,
            gas_limit,
            max_fee_per_gas: cap,
            max_priority_fee_per_gas: tip,
            to: kind,
            value,
            access_list: access_list.unwrap_or_default(),
            input,
        }),
        (Price::Legacy(gas_price), Some(access_list), None, _) => {
            TypedTransaction::Eip2930(TxEip2930 { chain_id, nonce: 0, gas_price, gas_limit, to: kind, value, access_list, input })
        }
        (Price::Legacy(gas_price), None, None, _) => {
            TypedTransaction::Legacy(TxLegacy { chain_id: Some(chain_id), nonce: 0, gas_price, gas_limit, to: kind, value, input })
        }
    };
    Ok(Prepared { from, transaction, nonce, cost, span })
}
