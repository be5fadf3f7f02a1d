//! `eth_sendRawTransaction`, and the record of what arrived.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes};
use serde::Serialize;
use serde_json::{Value, json};

use super::faults::Fault;
use super::node::Node;
use super::transaction::Transaction;
use super::words::{Refusal, RpcError};

/// The method that brings transactions.
pub(super) const SEND: &str = "eth_sendRawTransaction";

/// One raw transaction that was sent to the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// When it came, in milliseconds on the node's clock.
    pub milliseconds: u64,
    /// The connection that it came on; 0 for a direct call.
    pub connection: u64,
    /// Its bytes.
    pub raw: Bytes,
    /// What the bytes are; `None` if they are no transaction.
    pub transaction: Option<Sent>,
    /// What went wrong with it by plan.
    pub fault: Option<Fault>,
    /// What the pool made of it; `None` if the node has not seen it (yet).
    pub verdict: Option<Verdict>,
    /// What the sender was told; `None`: nothing (yet).
    pub told: Option<Verdict>,
}

/// Sender, nonce and hash of raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Who signed them.
    pub from: Address,
    /// Their nonce.
    pub nonce: u64,
    /// Their hash.
    pub hash: B256,
}

/// A hash or an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// A hash.
    Hash(B256),
    /// An error.
    Error(RpcError),
}

impl Verdict {
    pub(super) fn of(answer: &Result<Value, RpcError>) -> Self {
        match answer {
            Ok(hash) => Self::Hash(hash.as_str().and_then(|hash| hash.parse().ok()).unwrap_or_default()),
            Err(error) => Self::Error(error.clone()),
        }
    }
}

impl Node {
    /// Puts it on record; answers its place there.
    pub(super) fn arrived(&mut self, now: Duration, connection: u64, params: &Value, fault: Option<Fault>) -> usize {
        let raw: Bytes = params.get(0).and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or_default();
        let transaction = self.decode(&raw).ok().map(|one| Sent { from: one.from, nonce: one.nonce(), hash: one.hash });
        let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.arrivals.push(Arrival { milliseconds, connection, raw, transaction, fault, verdict: None, told: None });
        self.arrivals.len() - 1
    }

    fn decode(&mut self, raw: &Bytes) -> Result<Arc<Transaction>, Refusal> {
        if let Some(known) = self.decoded.get(raw) {
            return Ok(Arc::clone(known));
        }
        let transaction = Transaction::decode(raw.clone())?;
        self.decoded.insert(raw.clone(), Arc::clone(&transaction));
        Ok(transaction)
    }

    pub(super) fn send(&mut self, now: Duration, params: &Value) -> Result<Value, RpcError> {
        let raw: Bytes = super::methods::param(params, 0)?;
        let client = self.settings.client;
        let transaction = self.decode(&raw).map_err(|refusal| refusal.error(client))?;
        match self.pool_transaction(now, &transaction) {
            Ok(()) => {
                self.announce_pending(now, &transaction);
                if self.settings.automine {
                    self.mine(now);
                }
            }
            Err(refusal) if self.settings.local_tracker && refusal.passes() => {
                if self.tracked.1.is_empty() {
                    self.tracked.0 = now;
                }
                if !self.tracked.1.contains(&transaction) {
                    self.tracked.1.push(transaction.clone());
                }
            }
            Err(refusal) => return Err(refusal.error(client)),
        }
        Ok(json!(transaction.hash))
    }
}
