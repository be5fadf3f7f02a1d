//! What goes to the endpoints that take transactions, and to no other: what is sent privately never falls back to public. No such call is
//! ever repeated, and what is said to it never counts against an endpoint (I6).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use alloy_primitives::B256;
use serde_json::value::RawValue;

use super::CallError;
use super::endpoint::Answer;
use super::frame::SEND;
use super::pool::{Pool, malformed};

impl Pool {
    /// How many endpoints take transactions.
    pub fn senders(&self) -> usize {
        self.inner.senders.len()
    }

    /// `None` if at least one endpoint that takes transactions is usable, else why none is.
    pub fn send_fault(&self) -> Option<CallError> {
        self.inner.board.send_fault()
    }

    /// `eth_sendRawTransaction` to every endpoint that takes transactions, never repeated. The bytes are queued before this returns, so
    /// the order of calls is the order on each socket; dropping a ticket takes nothing back. Tickets are in the order of the
    /// configuration.
    pub fn send_raw(&self, params: Arc<RawValue>) -> Vec<SendTicket> {
        let request = self.request(SEND, Some(&params));
        self.inner.senders.iter().map(|endpoint| SendTicket(endpoint.call(request.clone()))).collect()
    }

    /// `eth_sendRawTransaction` to one endpoint (by its place among those that take transactions), never repeated: several payloads as
    /// one JSON-RPC batch, in this order. Tickets are in the order of the payloads; without such an endpoint there is none.
    pub fn send_raw_to(&self, sender: usize, payloads: &[Arc<RawValue>]) -> Vec<SendTicket> {
        let Some(endpoint) = self.inner.senders.get(sender) else { return Vec::new() };
        let requests = payloads.iter().map(|params| self.request(SEND, Some(params))).collect();
        endpoint.call_batch(requests).into_iter().map(SendTicket).collect()
    }

    /// Any other call that carries transactions, params and result untouched: to the first usable endpoint that takes them, and to
    /// another one only where nothing was sent to it.
    pub async fn hand_in(&self, method: &str, params: Option<&RawValue>) -> Result<Arc<RawValue>, CallError> {
        let mut refused = self.send_fault().unwrap_or(CallError::Unavailable);
        for endpoint in &self.inner.senders {
            match endpoint.call(self.request(method, params).of_client().once()).await {
                Err(error @ (CallError::Unavailable | CallError::WrongChain(_) | CallError::Full)) => refused = error,
                answered => return answered.map(Arc::from),
            }
        }
        Err(refused)
    }
}

/// The answer of one endpoint to one raw send.
#[derive(Debug)]
#[must_use]
pub struct SendTicket(Answer);

impl Future for SendTicket {
    type Output = Result<B256, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = std::task::ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answered.and_then(|raw| serde_json::from_str(raw.get()).map_err(malformed)))
    }
}
