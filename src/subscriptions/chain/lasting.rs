//! One client's stream of `sluice_subscribe`: it says what is taken back and what cannot be told, begins behind the block that the client names,
//! and goes on behind what it has told when it was left behind. A client that reads slowly lags; it holds no queue.

use std::sync::Arc;

use jsonrpsee::{SubscriptionMessage, SubscriptionSink};
use serde_json::value::RawValue;

use super::feed::Feed;
use super::filter::OfLogs;
use super::heads::Heads;
use super::logs::Logs;
use super::steps::Steps;
use super::told::{Place, Told};
use crate::node::CallError;
use crate::subscriptions::connection::ConnectionHandle;

/// What it is about.
#[derive(Debug, Clone)]
pub enum About {
    /// The headers.
    Heads,
    /// Logs.
    Logs(OfLogs),
}

/// See the module.
pub struct Lasting {
    feed: Feed,
    source: Source,
}

enum Source {
    Heads(Heads),
    Logs(Box<Logs>),
}

impl Source {
    async fn next(&mut self) -> Option<Told> {
        match self {
            Self::Heads(heads) => heads.next().await,
            Self::Logs(logs) => logs.next().await,
        }
    }

    fn position(&self) -> Place {
        match self {
            Self::Heads(heads) => heads.position(),
            Self::Logs(logs) => logs.position(),
        }
    }

    fn go_on(&mut self, steps: Steps) {
        match self {
            Self::Heads(heads) => heads.go_on(steps),
            Self::Logs(logs) => logs.go_on(steps),
        }
    }
}

impl Lasting {
    /// Begins behind this place, else with what changes from now on. Waits until a node has told a head.
    pub(in crate::subscriptions) async fn open(feed: &Feed, about: About, after: Option<Place>) -> Result<Self, CallError> {
        let steps = match after {
            Some(after) => feed.resume(after).await?,
            None => feed.follow().await?,
        };
        let position = after.unwrap_or_else(|| steps.start().place());
        let source = match about {
            About::Heads => Source::Heads(Heads::behind(position, steps)),
            About::Logs(logs) => Source::Logs(Box::new(Logs::behind(feed, logs, position, after.is_some(), steps))),
        };
        Ok(Self { feed: feed.clone(), source })
    }

    /// Where the stream stands.
    #[cfg(test)]
    pub(super) fn position(&self) -> Place {
        self.source.position()
    }

    /// The next thing to tell; cancel safe. `None`: the feed is over.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.source.next().await {
                return Some(told);
            }
            let steps = self.feed.resume(self.source.position()).await.ok()?;
            self.source.go_on(steps);
        }
    }

    /// Serves one client until it goes. It is sent what it has room for.
    pub async fn serve(mut self, sink: SubscriptionSink, connection: ConnectionHandle) {
        let follow = async {
            while let Some(told) = self.next().await {
                let event = match told {
                    Told::Item(item) => Ok(item),
                    Told::Gap(gap) => gap.event(),
                };
                match event {
                    Ok(event) => {
                        if send(&sink, &connection, &event).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => return tracing::error!(%error, "a gap cannot be told: the stream ends"),
                }
            }
        };
        tokio::select! {
            () = sink.closed() => {}
            () = follow => {}
        }
    }
}

/// The client is gone.
struct Gone;

/// Waits until the connection has room, then sends. The one copy is that into the frame.
async fn send(sink: &SubscriptionSink, connection: &ConnectionHandle, event: &Arc<RawValue>) -> Result<(), Gone> {
    let owed = connection.room(event.get().len()).await;
    let message = SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), event).map_err(|_| Gone)?;
    sink.send(message).await.map_err(|_| Gone)?;
    owed.is_queued();
    Ok(())
}
