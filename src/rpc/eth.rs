//! The `eth_` and `net_` methods that are answered here: accounts, sends and what has to know of nonces in memory.

use std::sync::Arc;

use alloy_consensus::TxEnvelope;
use alloy_eips::Decodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, U64};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use serde_json::value::{RawValue, to_raw_value};

use super::arguments::Arguments;
use super::errors::RpcError;
use super::pass_through::call_error;
use super::refusals::refusal;
use super::send::{self, Call};
use super::send_raw::send_raw;
use super::service::{Service, waited_all};
use super::sync;
use super::waiting::{self, Target};
use crate::config::SignTransactionResult;
use crate::journal::Kind;

pub(super) type Answer<T> = Result<T, ErrorObjectOwned>;
/// A result that is passed on as it is.
pub(super) type Raw = Arc<RawValue>;

/// Registers the methods.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_method("eth_accounts", |params, service, _| {
        Arguments::of(&params)?.at_most(0)?;
        Answer::Ok(service.keys.addresses())
    })?;
    module.register_method("eth_chainId", |params, service, _| {
        Arguments::of(&params)?.at_most(0)?;
        Answer::Ok(U64::from(service.chain.environment().chain_id))
    })?;
    module.register_method("net_version", |params, service, _| {
        Arguments::of(&params)?.at_most(0)?;
        Answer::Ok(service.chain.environment().chain_id.to_string())
    })?;
    module.register_async_method("eth_getTransactionCount", |params, service, extensions| async move {
        let answer = count(&params, &service).await;
        waited_all(&extensions);
        answer
    })?;
    module.register_async_method("eth_sendTransaction", |params, service, extensions| async move {
        send_transaction(&params, &service, &extensions).await
    })?;
    module.register_async_method("eth_signTransaction", |params, service, extensions| async move {
        let call = Call::read(&params, &service, &extensions, Kind::SignOnly)?;
        let signed = send::new(call, &service, &extensions).await?;
        signed_transaction(&signed.raw, service.sign_transaction_result)
    })?;
    module.register_async_method("eth_sendRawTransaction", |params, service, extensions| async move {
        send_raw(&params, &service, &extensions).await.map(|sent| sent.hash())
    })?;
    module.register_async_method("eth_sendRawTransactionSync", |params, service, extensions| async move {
        let answer = sync::send_raw_transaction(&params, &service, &extensions).await;
        waited_all(&extensions);
        answer
    })?;
    module.register_async_method("eth_sendTransactionSync", |params, service, extensions| async move {
        let answer = sync::send_transaction(&params, &service, &extensions).await;
        waited_all(&extensions);
        answer
    })?;
    Ok(())
}

/// The next nonce of a managed account at `pending` is ours to tell; every other question is the node's.
async fn count(params: &Params<'_>, service: &Arc<Service>) -> Answer<Raw> {
    let pending = Arguments::of(params).ok().and_then(|arguments| {
        let block: String = arguments.optional(1).ok()??;
        let address: Address = arguments.optional(0).ok()??;
        (block == "pending" && service.chain.is_managed(address)).then_some(address)
    });
    if let Some(address) = pending {
        let nonce = service.chain.next_nonce(address).await.map_err(refusal)?;
        return raw(&U64::from(nonce));
    }
    let params = untouched(params)?;
    service.chain.pool().call_raw("eth_getTransactionCount", params.as_deref()).await.map_err(|error| call_error(&error))
}

/// The hash of the first attempt. A repeated key may meet a transaction that is acknowledged and has none yet: that is waited for.
async fn send_transaction(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions) -> Answer<B256> {
    let call = Call::read(params, service, extensions, Kind::Send)?;
    let sent = send::send(call, service, extensions).await?;
    match sent.hash {
        Some(hash) => Ok(hash),
        None => {
            let timeout = service.chain.environment().sync_timeout;
            let life = waiting::until(service, extensions, &sent, Target::Attempt, timeout).await;
            waited_all(extensions);
            waiting::named(&life?).ok_or_else(|| RpcError::internal().into())
        }
    }
}

fn signed_transaction(bytes: &Bytes, shape: SignTransactionResult) -> Answer<Raw> {
    if shape == SignTransactionResult::Raw {
        return raw(bytes);
    }
    #[derive(serde::Serialize)]
    struct Signed<'a> {
        raw: &'a Bytes,
        tx: TxEnvelope,
    }
    let tx = TxEnvelope::decode_2718_exact(bytes).map_err(|_| ErrorObjectOwned::from(RpcError::internal()))?;
    raw(&Signed { raw: bytes, tx })
}

pub(super) fn raw<T: serde::Serialize>(value: &T) -> Answer<Raw> {
    to_raw_value(value).map(Arc::from).map_err(|_| RpcError::internal().into())
}

/// The client's parameters, to be passed on as they are.
pub(super) fn untouched(params: &Params<'_>) -> Answer<Option<Box<RawValue>>> {
    let text = params.as_str().map(|text| RawValue::from_string(text.to_owned()));
    text.transpose().map_err(|_| RpcError::invalid_params("non-array args").into())
}
