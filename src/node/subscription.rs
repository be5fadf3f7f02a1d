//! A subscription that outlives connections and endpoints.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::StreamItem;
use super::endpoint::EndpointStream;
use super::pool::Pool;

/// An `eth_subscribe` at the environment's nodes. When its connection is lost, [`StreamItem::Lost`] says so and it is made again on
/// the best endpoint; [`StreamItem::Gap`] is delivered once the new one is live: whatever is missing happened before that moment. A
/// reader that lets more than 1,024 items wait gets a gap in place of what did not fit. Dropping it unsubscribes.
pub struct Subscription {
    pool: Pool,
    params: Arc<RawValue>,
    state: State,
}

enum State {
    Live(EndpointStream),
    Moving(Pin<Box<dyn Future<Output = Option<EndpointStream>> + Send>>),
    Ended,
}

impl Subscription {
    pub(super) fn new(pool: Pool, params: Arc<RawValue>, stream: EndpointStream) -> Self {
        Self { pool, params, state: State::Live(stream) }
    }

    /// The next item. `None` is the end: Sluice stops, or every usable endpoint has refused to subscribe again, several times.
    /// Cancel safe. A subscription moves to another connection only while somebody waits here.
    pub async fn next(&mut self) -> Option<StreamItem> {
        loop {
            match &mut self.state {
                State::Live(stream) => match stream.next().await {
                    Some(item) => return Some(item),
                    None => {
                        self.state = State::Moving(Box::pin(self.pool.clone().reopen(self.params.clone())));
                        return Some(StreamItem::Lost);
                    }
                },
                State::Moving(moving) => match moving.as_mut().await {
                    Some(stream) => {
                        self.state = State::Live(stream);
                        return Some(StreamItem::Gap);
                    }
                    None => self.state = State::Ended,
                },
                State::Ended => return None,
            }
        }
    }
}
