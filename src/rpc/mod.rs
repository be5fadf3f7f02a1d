//! JSON-RPC by namespace: what is answered here, what passes through to the node, and the errors.

mod arguments;
pub mod batch;
mod edges;
pub mod errors;
mod eth;
pub mod idempotency;
mod limits;
mod log_filter;
mod messages;
mod meters;
pub mod middleware;
mod openrpc;
pub mod order;
pub mod pass_through;
pub mod rate;
pub mod refusals;
mod replace;
mod send;
mod send_raw;
pub mod service;
mod sluice;
mod sluice_send;
mod sluice_subscribe;
mod subscribe;
mod superseded;
mod sync;
mod waiting;

use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::server::RegisterMethodError;

use self::service::Service;

/// Everything that a service answers itself.
pub fn module(service: Arc<Service>) -> Result<RpcModule<Service>, RegisterMethodError> {
    let mut module = RpcModule::from_arc(service);
    eth::register(&mut module)?;
    messages::register(&mut module)?;
    subscribe::register(&mut module)?;
    superseded::register(&mut module)?;
    sluice::register(&mut module)?;
    sluice_send::register(&mut module)?;
    replace::register(&mut module)?;
    sluice_subscribe::register(&mut module)?;
    openrpc::register(&mut module)?;
    Ok(module)
}
