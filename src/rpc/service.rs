//! One service as its methods see it: a name, a chain, and the keys that its principals may use.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jsonrpsee::Extensions;
use prometheus::IntGaugeVec;
use serde_json::value::RawValue;

use super::order::{BatchOrder, Turn};
use super::pass_through::{PassThrough, in_namespaces};
use crate::config::{self, SignTransactionResult};
use crate::node::CallError;
use crate::policy::Principal;
use crate::signing::ServiceKeys;
use crate::subscriptions::hub::Hub;
use crate::subscriptions::receipts::Receipts;
use crate::telemetry::metrics::Metrics;
use crate::transactions::chain::Chain;

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
    /// What its environment's nodes announce.
    pub hub: Hub,
    /// Receipts of its environment.
    pub receipts: Arc<Receipts>,
    /// Namespaces that pass through beside those that always do.
    pub pass_through: Vec<String>,
    /// Open subscriptions, by kind.
    pub subscriptions: IntGaugeVec,
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
}

impl Service {
    /// A service of the configuration, with its parts.
    pub fn new(config: &config::Service, keys: ServiceKeys, streams: Streams, metrics: &Metrics) -> Self {
        let Streams { chain, hub, receipts } = streams;
        Self {
            name: Arc::from(config.name.as_str()),
            chain,
            keys,
            sign_transaction_result: config.sign_transaction_result,
            hub,
            receipts,
            pass_through: config.pass_through.clone(),
            subscriptions: metrics.subscriptions.clone(),
        }
    }
}

impl PassThrough for Service {
    fn allows(&self, method: &str) -> bool {
        in_namespaces(method, &self.pass_through)
    }

    fn call<'a>(&'a self, method: &'a str, params: Option<&'a RawValue>) -> BoxFuture<'a, Result<Arc<RawValue>, CallError>> {
        Box::pin(self.chain.pool().call_raw(method, params))
    }
}

/// Who calls, as the server put it into the request's extensions.
pub(super) fn principal(extensions: &Extensions) -> Arc<Principal> {
    extensions.get::<Arc<Principal>>().cloned().unwrap_or_else(|| Arc::new(Principal::sole()))
}

/// The call's place among those of its batch with the same sender. Ask before the first await.
pub(super) fn turn(extensions: &Extensions, address: alloy_primitives::Address) -> Option<Turn> {
    extensions.get::<BatchOrder>().map(|order| order.turn(address))
}
