//! Look-ups by hash. A client that polls the first hash of a transaction that paid more later is told what was mined of it, and does not
//! wait for ever and pay again.

use std::sync::Arc;

use alloy_primitives::B256;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use serde_json::value::{RawValue, to_raw_value};

use super::arguments::Arguments;
use super::errors::RpcError;
use super::eth::untouched;
use super::pass_through::call_error;
use super::service::{Service, connection, waited_all};
use crate::config::Superseded;

type Answer = Result<Arc<RawValue>, ErrorObjectOwned>;

/// Registers the methods.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    for method in ["eth_getTransactionReceipt", "eth_getTransactionByHash"] {
        module.register_async_method(method, move |params, service, extensions| async move {
            let answer = look_up(method, &params, &service, &extensions).await;
            waited_all(&extensions);
            answer
        })?;
    }
    Ok(())
}

/// The node's answer. Where the node has nothing of a hash of ours that was superseded: its answer about the attempt that was mined, never
/// about a cancel, which does not pay what the hash was to pay.
async fn look_up(method: &'static str, params: &Params<'_>, service: &Service, extensions: &Extensions) -> Answer {
    let pool = service.chain.pool();
    let own = pool.call_raw(method, untouched(params)?.as_deref()).await.map_err(|error| call_error(&error))?;
    let environment = service.chain.environment();
    if own.get() != "null" || environment.superseded == Superseded::Own {
        return Ok(own);
    }
    let Some(hash) = Arguments::of(params).ok().and_then(|arguments| arguments.optional::<B256>(0).ok()?) else { return Ok(own) };
    let chain_id = environment.chain_id;
    let mined = service.lifecycle.read(connection(extensions), |history| history.mined_instead(chain_id, hash)).await;
    // A journal that cannot be asked now leaves the node's answer, which is to be asked for again anyway.
    let Ok(Some(mined)) = mined else { return Ok(own) };
    let params = to_raw_value(&(mined,)).map_err(|_| ErrorObjectOwned::from(RpcError::internal()))?;
    pool.call_raw(method, Some(&params)).await.map_err(|error| call_error(&error))
}
