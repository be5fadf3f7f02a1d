//! What requests are counted with, resolved once per service and method.

use std::collections::HashMap;

use jsonrpsee::{MethodCallback, MethodResponse, Methods};
use prometheus::IntCounter;
use serde::Deserialize;

use super::errors::Reason;
use crate::telemetry::metrics::{Lazy, Metrics};
use crate::telemetry::waited::Waited;

/// Methods of nodes that get a label of their own in the metrics; all others that are not answered here are `other`.
const NODE_METHODS: [&str; 32] = [
    "eth_accounts",
    "eth_blobBaseFee",
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_createAccessList",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getCode",
    "eth_getFilterChanges",
    "eth_getLogs",
    "eth_getProof",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_newBlockFilter",
    "eth_newFilter",
    "eth_sendRawTransaction",
    "eth_syncing",
    "net_version",
    "web3_clientVersion",
];

/// The label of a method without one of its own.
const OTHER: &str = "other";
/// The label of an error that is the node's own.
const NODE: &str = "node";

/// The handles of one service.
pub(super) struct Meters {
    known: HashMap<&'static str, Meter>,
    other: Meter,
    errors: Errors,
}

/// The handles of one method.
pub(super) struct Meter {
    pub(super) method: &'static str,
    ok: IntCounter,
    error: IntCounter,
    seconds: Lazy,
    /// A subscription waits upstream, with others: nobody can say how long for this request.
    own_seconds: Option<Lazy>,
}

struct Errors {
    /// In the order of `Reason::ALL`.
    by_reason: Vec<IntCounter>,
    node: IntCounter,
}

impl Meters {
    pub(super) fn new(service: &str, methods: &Methods, metrics: &Metrics) -> Self {
        let family = &metrics.clients;
        let meter = |method: &'static str| {
            let subscribes = matches!(methods.method(method), Some(MethodCallback::Subscription(_)));
            Meter {
                method,
                ok: family.requests.with_label_values(&[service, method, "ok"]),
                error: family.requests.with_label_values(&[service, method, "error"]),
                seconds: Lazy::new(&family.seconds, method),
                own_seconds: (!subscribes).then(|| Lazy::new(&family.own_seconds, method)),
            }
        };
        let known = methods.method_names().chain(NODE_METHODS).map(|method| (method, meter(method))).collect();
        let errors = Errors {
            by_reason: Reason::ALL.iter().map(|reason| family.errors.with_label_values(&[service, &reason.word()])).collect(),
            node: family.errors.with_label_values(&[service, NODE]),
        };
        Self { known, other: meter(OTHER), errors }
    }

    pub(super) fn of(&self, method: &str) -> &Meter {
        self.known.get(method).unwrap_or(&self.other)
    }

    /// Counts an answered request.
    pub(super) fn count(&self, meter: &Meter, waited: &Waited, response: &MethodResponse) {
        if response.is_error() {
            meter.error.inc();
            let counter = reason(response.as_json().get()).and_then(|reason| self.errors.by_reason.get(reason as usize));
            counter.unwrap_or(&self.errors.node).inc();
        } else {
            meter.ok.inc();
        }
        let took = waited.started().elapsed();
        meter.seconds.observe(took.as_secs_f64());
        if let Some(own) = &meter.own_seconds {
            own.observe(took.saturating_sub(waited.total()).as_secs_f64());
        }
    }
}

/// The reason in the data of an error's answer. Errors are read again for it: they are rare, or a client is doing something wrong.
fn reason(answer: &str) -> Option<Reason> {
    #[derive(Deserialize)]
    struct Answer {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        reason: Reason,
    }
    serde_json::from_str::<Answer>(answer).ok().map(|answer| answer.error.data.reason)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use jsonrpsee::ResponsePayload;
    use jsonrpsee::types::{ErrorObjectOwned, Id};

    use super::super::errors::RpcError;
    use super::*;

    fn error(error: impl Into<ErrorObjectOwned>) -> MethodResponse {
        MethodResponse::error(Id::Number(1), error.into())
    }

    #[test]
    fn an_error_is_counted_under_its_reason() {
        let metrics = Metrics::new().unwrap();
        let meters = Meters::new("main", &Methods::new(), &metrics);
        let count = |response: &MethodResponse| meters.count(meters.of("eth_call"), &Waited::new(Instant::now()), response);
        for reason in Reason::ALL {
            count(&error(RpcError::new(-32000, reason, "words with \"data\" in them").retry_after(Duration::from_secs(1))));
            assert_eq!(metrics.clients.errors.with_label_values(&["main", &reason.word()]).get(), 1, "{reason:?}");
        }
        count(&error(ErrorObjectOwned::owned(3, "execution reverted", Some("0x08c379a0"))));
        count(&error(ErrorObjectOwned::owned(-32000, "header not found", None::<()>)));
        count(&error(ErrorObjectOwned::owned(-32000, "of another world", Some(serde_json::json!({ "reason": "no such word" })))));
        assert_eq!(metrics.clients.errors.with_label_values(&["main", NODE]).get(), 3);
        let all = Reason::ALL.len() as u64 + 3;
        assert_eq!(metrics.clients.requests.with_label_values(&["main", "eth_call", "error"]).get(), all);
    }

    #[test]
    fn what_a_request_waited_for_others_is_not_its_own_time() {
        let metrics = Metrics::new().unwrap();
        let meters = Meters::new("main", &Methods::new(), &metrics);
        let waited = Waited::new(Instant::now().checked_sub(Duration::from_secs(100)).unwrap());
        waited.add(Duration::from_secs(99));
        let response = MethodResponse::response(Id::Number(1), ResponsePayload::success(true), usize::MAX);
        meters.count(meters.of("some_method"), &waited, &response);
        let sum = |family: &prometheus::HistogramVec| family.with_label_values(&[OTHER]).get_sample_sum();
        assert!(sum(&metrics.clients.seconds) >= 100.0);
        // What it waited for is left out; how long the test itself takes is not asserted.
        let own = sum(&metrics.clients.own_seconds);
        assert!((own - (sum(&metrics.clients.seconds) - 99.0)).abs() < 1e-6, "{own}");
        assert_eq!(metrics.clients.requests.with_label_values(&["main", OTHER, "ok"]).get(), 1);
    }
}
