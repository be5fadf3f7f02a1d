//! One service as its methods see it: a name, a chain, and the keys that its principals may use.

use std::sync::Arc;
use std::time::Instant;

use alloy_primitives::Address;
use futures_util::future::BoxFuture;
use jsonrpsee::Extensions;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::value::RawValue;

use super::errors::{LIMIT_EXCEEDED, Reason, RpcError};
use super::order::{BatchOrder, Turn};
use super::pass_through::{PassThrough, carries_transactions, in_namespaces};
use super::refusals::refusal;
use crate::config::{self, FeeCeilings, SignTransactionResult};
use crate::journal::history::Scope;
use crate::node::CallError;
use crate::policy::Principal;
use crate::signing::ServiceKeys;
use crate::subscriptions::connection::ConnectionHandle;
use crate::subscriptions::hub::Hub;
use crate::subscriptions::lifecycle::Lifecycle;
use crate::subscriptions::places::Places;
use crate::subscriptions::receipts::Receipts;
use crate::telemetry::metrics::{Metrics, Subscriptions};
use crate::telemetry::waited::Waited;
use crate::transactions::chain::Chain;
use crate::transactions::errors::TransactionError;

/// What the methods of one service work with.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// Its environment.
    pub chain: Arc<Chain>,
    /// The keys it may use.
    pub keys: ServiceKeys,
    /// Shape of the answer of `eth_signTransaction`.
    pub sign_transaction_result: SignTransactionResult,
    /// What its transactions may pay.
    pub ceilings: FeeCeilings,
    /// What its environment's nodes announce.
    pub hub: Hub,
    /// Receipts of its environment.
    pub receipts: Arc<Receipts>,
    /// The life of its transactions.
    pub lifecycle: Arc<Lifecycle>,
    /// Namespaces that pass through beside those that always do.
    pub pass_through: Vec<String>,
    /// What subscriptions are counted with, by kind.
    pub subscriptions: Subscriptions,
    /// Subscriptions that its principals have open.
    pub places: Places,
    /// Subscriptions of one principal.
    pub max_principal_subscriptions: u32,
    /// What clients connect to: over HTTP and over WebSocket.
    pub urls: (String, String),
}

/// An environment at work, with its streams.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The environment.
    pub chain: Arc<Chain>,
    /// What its nodes announce.
    pub hub: Hub,
    /// Its receipts.
    pub receipts: Arc<Receipts>,
    /// The life of transactions, of every environment.
    pub lifecycle: Arc<Lifecycle>,
    /// Subscriptions that are open, by service and principal.
    pub places: Places,
}

impl Service {
    /// A service of the configuration, with its parts.
    pub fn new(config: &config::Service, urls: (String, String), keys: ServiceKeys, streams: Streams, metrics: &Metrics) -> Self {
        let Streams { chain, hub, receipts, lifecycle, places } = streams;
        Self {
            name: Arc::from(config.name.as_str()),
            chain,
            keys,
            sign_transaction_result: config.sign_transaction_result,
            ceilings: config.ceilings,
            hub,
            receipts,
            lifecycle,
            pass_through: config.pass_through.clone(),
            subscriptions: metrics.clients.subscriptions.clone(),
            places,
            max_principal_subscriptions: config.limits.max_principal_subscriptions,
            urls,
        }
    }
}

impl Service {
    /// What the caller may see of the journal (I11).
    pub(super) fn scope(&self, extensions: &Extensions) -> Scope {
        let chain_id = self.chain.environment().chain_id;
        Scope { chain_id, service: Arc::clone(&self.name), principal: Arc::clone(&principal(extensions).name) }
    }

    /// An address that this service has a key for, usable or not.
    pub(super) fn own_address(&self, address: Address) -> Result<Address, ErrorObjectOwned> {
        self.keys.get(&address).map(|_| address).ok_or_else(|| refusal(TransactionError::UnknownAccount))
    }
}

impl PassThrough for Service {
    fn admit(self: Arc<Self>, request: &mut Extensions) -> Result<(), RpcError> {
        let place = self.places.take(&self.name, &principal(request).name, self.max_principal_subscriptions);
        // Kept with the request until the stream is over.
        request.insert(Arc::new(place.ok_or_else(too_many_subscriptions)?));
        request.insert(self);
        Ok(())
    }

    fn allows(&self, method: &str) -> bool {
        in_namespaces(method, &self.pass_through)
    }

    fn call<'a>(&'a self, method: &'a str, params: Option<&'a RawValue>) -> BoxFuture<'a, Result<Arc<RawValue>, CallError>> {
        let pool = self.chain.pool();
        if carries_transactions(method) { Box::pin(pool.hand_in(method, params)) } else { Box::pin(pool.pass(method, params)) }
    }
}

fn too_many_subscriptions() -> RpcError {
    RpcError::new(LIMIT_EXCEEDED, Reason::LimitExceeded, "too many subscriptions are open, over all connections")
}

/// The service as it is now, for a stream: the connection's own may be older than the last reload.
pub(super) fn current(own: Arc<Service>, extensions: &Extensions) -> Arc<Service> {
    extensions.get::<Arc<Service>>().cloned().unwrap_or(own)
}

/// Who calls, as the server put it into the request's extensions.
pub(super) fn principal(extensions: &Extensions) -> Arc<Principal> {
    extensions.get::<Arc<Principal>>().cloned().unwrap_or_else(|| Arc::new(Principal::sole()))
}

/// What the call came by.
pub(super) fn connection(extensions: &Extensions) -> Option<&ConnectionHandle> {
    extensions.get::<ConnectionHandle>()
}

/// What the call waits for others.
pub(super) fn waited(extensions: &Extensions) -> Waited {
    extensions.get::<Waited>().cloned().unwrap_or_else(|| Waited::new(Instant::now()))
}

/// The call was no more than a question to others: all of its time until now is a wait.
pub(super) fn waited_all(extensions: &Extensions) {
    let waited = waited(extensions);
    waited.since(waited.started());
}

/// The call's place among those of its batch with the same sender. Ask before the first await.
pub(super) fn turn(extensions: &Extensions, address: Address) -> Option<Turn> {
    extensions.get::<BatchOrder>().map(|order| order.turn(address))
}
