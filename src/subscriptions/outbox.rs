//! What one connection's client is to be told and has no room for yet: bounded in bytes, in order, and sent by one task for all of its
//! subscriptions. A result is shared until it goes into its frame.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonrpsee::core::server::TrySendError;
use jsonrpsee::types::SubscriptionId;
use jsonrpsee::{SubscriptionMessage, SubscriptionSink};
use serde_json::value::RawValue;

use super::connection::ConnectionHandle;

/// One subscription's way to its client.
#[derive(Debug)]
pub(super) struct Way {
    sink: SubscriptionSink,
    id: SubscriptionId<'static>,
    /// `None` in tests without a server: jsonrpsee's own queue is all there is.
    connection: Option<ConnectionHandle>,
    /// Bytes of a notification around its result.
    envelope: usize,
}

/// How a result got on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is on its way.
    Yes,
    /// The client is gone, or has unsubscribed.
    Gone,
    /// More waits for the client than may.
    TooMuch,
}

impl Way {
    pub(super) fn new(sink: SubscriptionSink, connection: Option<ConnectionHandle>) -> Self {
        let id = sink.subscription_id();
        let id_bytes = match &id {
            SubscriptionId::Str(id) => id.len() + 2,
            SubscriptionId::Num(id) => id.to_string().len(),
        };
        let around = r#"{"jsonrpc":"2.0","method":"","params":{"subscription":,"result":}}"#.len();
        let envelope = around + sink.method_name().len() + id_bytes;
        Self { sink, id, connection, envelope }
    }

    /// Sends a result if there is room for it and none waits before it; else it waits.
    pub(super) fn tell(&mut self, result: &Arc<RawValue>) -> Told {
        let bytes = self.envelope + result.get().len();
        let Some(connection) = &self.connection else {
            return match self.sink.try_send(message(&self.sink, &self.id, result)) {
                Ok(()) => Told::Yes,
                Err(TrySendError::Closed(_)) => Told::Gone,
                Err(TrySendError::Full(_)) => Told::TooMuch,
            };
        };
        // Only this subscription's own task gets here: none of its results can join the outbox meanwhile.
        if !connection.outbox_used().load(Ordering::Acquire) && connection.owe_if_room(bytes) {
            match self.sink.try_send(message(&self.sink, &self.id, result)) {
                Ok(()) => return Told::Yes,
                Err(TrySendError::Closed(_)) => {
                    connection.pay(bytes);
                    return Told::Gone;
                }
                Err(TrySendError::Full(_)) => connection.pay(bytes),
            }
        }
        if self.sink.is_closed() {
            return Told::Gone;
        }
        let waiting = Waiting { sink: self.sink.clone(), result: Arc::clone(result), bytes };
        match connection.outbox().push(waiting, connection.outbox_used()) {
            Some(is_first) => {
                if is_first {
                    tokio::spawn(send(connection.clone()));
                }
                Told::Yes
            }
            None => Told::TooMuch,
        }
    }
}

/// The one copy is that into the frame. Text cannot fail to be written; if it did, the other way would be taken.
fn message(sink: &SubscriptionSink, id: &SubscriptionId<'_>, result: &Arc<RawValue>) -> SubscriptionMessage {
    let id = match id {
        SubscriptionId::Str(id) => SubscriptionId::Str(Cow::Borrowed(id)),
        SubscriptionId::Num(id) => SubscriptionId::Num(*id),
    };
    let message = SubscriptionMessage::new(sink.method_name(), id, result);
    message.unwrap_or_else(|_| (**result).to_owned().into())
}

/// Sends what waits, as there is room, until nothing does.
async fn send(connection: ConnectionHandle) {
    while let Some(Waiting { sink, result, bytes }) = connection.outbox().first() {
        tokio::select! {
            owed = connection.room(bytes) => {
                if sink.send(message(&sink, &sink.subscription_id(), &result)).await.is_ok() {
                    owed.is_queued();
                }
            }
            () = sink.closed() => {}
        }
        if !connection.outbox().sent(connection.outbox_used()) {
            return;
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Bytes that may wait.
    limit: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    results: VecDeque<Waiting>,
    bytes: usize,
    /// Something was thrown away: nothing that comes later may be told.
    closed: bool,
}

#[derive(Debug, Clone)]
struct Waiting {
    sink: SubscriptionSink,
    result: Arc<RawValue>,
    bytes: usize,
}

impl Waiting {
    /// What it counts for: a short one is more than its text.
    fn weight(&self) -> usize {
        self.bytes + size_of::<Self>()
    }
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A count that was not kept up is a bound that is a little off.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the first, and somebody has to begin to send; `None` if it does not fit. `used` says to whoever has nothing in it, as most, that
    /// it is in use.
    fn push(&self, waiting: Waiting, used: &AtomicBool) -> Option<bool> {
        let mut queue = self.queue();
        if queue.closed {
            return None;
        }
        let is_first = queue.results.is_empty();
        let bytes = queue.bytes + waiting.weight();
        if bytes > self.limit && !is_first {
            return None;
        }
        queue.bytes = bytes;
        queue.results.push_back(waiting);
        used.store(true, Ordering::Release);
        Some(is_first)
    }

    /// The next one, which stays until it is [sent](Self::sent): what comes meanwhile must not overtake it.
    fn first(&self) -> Option<Waiting> {
        self.queue().results.front().cloned()
    }

    /// The first one is sent, or nobody wants it. False if it was the last: who comes next begins anew.
    fn sent(&self, used: &AtomicBool) -> bool {
        let mut queue = self.queue();
        if let Some(first) = queue.results.pop_front() {
            queue.bytes = queue.bytes.saturating_sub(first.weight());
        }
        if queue.closed {
            return !queue.results.is_empty();
        }
        if queue.results.is_empty() {
            *queue = Queue::default();
            used.store(false, Ordering::Release);
            return false;
        }
        true
    }

    /// The client is not told any more, by none of its subscriptions: its connection ends.
    pub(super) fn close(&self, used: &AtomicBool) {
        let mut queue = self.queue();
        queue.closed = true;
        used.store(true, Ordering::Release);
        // The first one is in its sender's hand.
        queue.results.truncate(1);
        queue.bytes = queue.results.front().map_or(0, Waiting::weight);
    }
}

#[cfg(test)]
mod tests;
