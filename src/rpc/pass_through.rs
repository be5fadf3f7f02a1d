//! What the gateway does not answer itself: handed to the node and back without a tree of it being built.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jsonrpsee::Extensions;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::value::RawValue;

use super::errors::{METHOD_NOT_FOUND, RESOURCE_UNAVAILABLE, Reason, RpcError, SERVER_ERROR};
use crate::node::CallError;

/// Namespaces that pass through without being configured.
pub const NAMESPACES: [&str; 3] = ["eth", "net", "web3"];

/// The way of one service to its environment's nodes.
pub trait PassThrough: Send + Sync + 'static {
    /// Puts the service as it is now into the request of a stream, whose method is the one that the connection began with, and what
    /// the stream holds for as long as it is open. An error if it may not begin.
    fn admit(self: Arc<Self>, _request: &mut Extensions) -> Result<(), RpcError> {
        Ok(())
    }

    /// Whether a method that the gateway does not answer may go to the node.
    fn allows(&self, method: &str) -> bool;

    /// Asks the node. Params and result are the bytes of the client and of the node.
    fn call<'a>(&'a self, method: &'a str, params: Option<&'a RawValue>) -> BoxFuture<'a, Result<Arc<RawValue>, CallError>>;
}

/// Whether the namespace of `method` is one of [`NAMESPACES`] or of `extra` (without the underscore).
pub fn in_namespaces(method: &str, extra: &[String]) -> bool {
    method.split_once('_').is_some_and(|(namespace, _)| NAMESPACES.contains(&namespace) || extra.iter().any(|name| name == namespace))
}

/// Whether a call brings transactions along that somebody signed (`eth_sendPrivateTransaction`, `eth_sendBundle`, `eth_callBundle`,
/// `trace_rawTransaction` and their like): it goes where transactions go, since there may be endpoints that must not see them.
pub fn carries_transactions(method: &str) -> bool {
    let name = method.split_once('_').map_or(method, |(_, name)| name);
    let begins = ["send", "cancel", "rawTransaction"].iter().any(|word| name.starts_with(word));
    begins || name.contains("Bundle")
}

/// What a client is told when the node has no result for it. The node's own error goes on as it is; a code of more than 32 bits,
/// which no node uses, becomes -32000.
pub fn call_error(error: &CallError) -> ErrorObjectOwned {
    const AGAIN: Duration = Duration::from_secs(1);
    let unavailable = |message: String| RpcError::new(RESOURCE_UNAVAILABLE, Reason::NodeUnavailable, message).retry_after(AGAIN);
    let told = match error {
        CallError::Node(node) => {
            let code = i32::try_from(node.code).unwrap_or(SERVER_ERROR);
            return ErrorObjectOwned::owned(code, node.message.clone(), node.data.clone());
        }
        CallError::Unavailable | CallError::Full | CallError::Deadline(_) | CallError::Lost => unavailable(error.to_string()),
        CallError::WrongChain(what) => RpcError::new(RESOURCE_UNAVAILABLE, Reason::ChainMismatch, what.to_string()),
        CallError::NoStreams => RpcError::new(METHOD_NOT_FOUND, Reason::Unsupported, error.to_string()),
        CallError::Malformed(_) => RpcError::internal(),
    };
    told.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeError;

    #[test]
    fn namespaces_are_whole_words() {
        let extra = ["debug".to_owned()];
        for passes in ["eth_call", "net_version", "web3_sha3", "debug_traceTransaction", "eth_"] {
            assert!(in_namespaces(passes, &extra), "{passes}");
        }
        for stays in ["eth", "ethx_call", "trace_block", "", "_eth", "personal_sign", "debugx_y"] {
            assert!(!in_namespaces(stays, &extra), "{stays}");
        }
    }

    #[test]
    fn what_carries_transactions_is_told_by_its_name() {
        let carry =
            ["eth_sendRawTransactionConditional", "eth_sendPrivateTransaction", "eth_sendBundle", "eth_callBundle", "mev_sendBundle"];
        for method in carry.into_iter().chain(["eth_cancelPrivateTransaction", "trace_rawTransaction", "eth_sendUserOperation"]) {
            assert!(carries_transactions(method), "{method}");
        }
        for method in ["eth_call", "eth_getRawTransactionByHash", "eth_getTransactionReceipt", "net_version", "debug_traceTransaction", "x"]
        {
            assert!(!carries_transactions(method), "{method}");
        }
    }

    #[test]
    fn the_nodes_error_is_not_touched() {
        let data = r#"{ "a" : 1.50e+1,  "b":"\u0041" }"#;
        let node =
            NodeError { code: 3, message: "execution reverted".into(), data: Some(Arc::from(RawValue::from_string(data.into()).unwrap())) };
        let told = call_error(&CallError::Node(node));
        assert_eq!((told.code(), told.message()), (3, "execution reverted"));
        assert_eq!(told.data().unwrap().get(), data);
    }

    #[test]
    fn every_other_failure_has_its_code_and_reason() {
        let cases = [
            (CallError::Unavailable, -32002, "node_unavailable"),
            (CallError::Full, -32002, "node_unavailable"),
            (CallError::Lost, -32002, "node_unavailable"),
            (CallError::Deadline(Duration::from_secs(10)), -32002, "node_unavailable"),
            (CallError::WrongChain(Arc::from("the node is on chain 5")), -32002, "chain_mismatch"),
            (CallError::NoStreams, -32601, "unsupported"),
            (CallError::Malformed("secret inside".into()), -32603, "internal"),
        ];
        for (error, code, reason) in cases {
            let told = call_error(&error);
            let data: serde_json::Value = serde_json::from_str(told.data().unwrap().get()).unwrap();
            assert_eq!((told.code(), data["reason"].as_str().unwrap()), (code, reason));
            assert!(!told.message().contains("secret"));
        }
    }
}
