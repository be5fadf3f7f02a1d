//! `sluice_subscribe("transactions")`: the life of a principal's own transactions, event by event, in the order of their commits
//! (I7a). The journal is the truth: a stream is a position in it, and what it tells was read from it. Commits only wake the
//! reader; one reader per scope keeps the newest events for all who follow it live, and who lags behind reads pages of its own.

pub mod cursor;
mod feed;
pub mod filter;
mod reads;
mod ring;
#[cfg(test)]
mod tests;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::SubscriptionSink;
use serde_json::value::to_raw_value;
use tokio::sync::watch;

use self::cursor::{EventCursor, Seal};
use self::feed::Feeds;
use self::filter::Filter;
pub use self::reads::ReadError;
use self::reads::Reads;
use self::ring::{Next, Ring};
use self::view::EventView;
use crate::journal::TransactionId;
use crate::journal::history::{Answer, Bounds, History, Life, Name, Scope, StoredEvent};
use crate::subscriptions::connection::{ConnectionHandle, Turn};

/// How much is held in memory.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// What one connection takes in hand at a time, and one read of the journal brings.
    page: Bounds,
    /// What is kept of one scope for those who follow it live.
    kept: Bounds,
}

const SIZES: Sizes = Sizes { page: Bounds { items: 256, bytes: 256 << 10 }, kept: Bounds { items: 1024, bytes: 1 << 20 } };
/// Time before a read that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// With what is committed from now on.
    Now,
    /// With the first event on record.
    Start,
    /// Right behind this cursor.
    Cursor(String),
}

/// Why a stream cannot begin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Not a cursor at all.
    #[error("this is not a cursor")]
    Garbled,
    /// Told by another stream, or by a journal that has another event there.
    #[error("the cursor is not of this service, principal, chain and filter")]
    Foreign,
    /// Its event is not on record.
    #[error(
        "the event of the cursor is not on record: it is of another service, of a chain that was forgotten, pruned, or of a newer journal"
    )]
    Gone,
    /// No transaction of the scope has this id.
    #[error("no transaction {0} of this service")]
    Unknown(TransactionId),
    /// Its place cannot be found now.
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// A stream that can be served: whose, through which filter, from where on.
#[derive(Debug)]
pub struct Stream {
    scope: Scope,
    filter: Filter,
    seal: Seal,
    position: i64,
    /// The newest event of the scope when the stream was opened.
    newest: i64,
}

/// The lifecycle streams of all services over one journal.
#[derive(Debug)]
pub struct Lifecycle {
    reads: Reads,
    feeds: Arc<Feeds>,
    page: Bounds,
}

impl Lifecycle {
    /// Over this journal; reads nothing before the first subscriber comes.
    pub fn new(history: Arc<dyn History>) -> Arc<Self> {
        Self::with_sizes(history, SIZES)
    }

    fn with_sizes(history: Arc<dyn History>, sizes: Sizes) -> Arc<Self> {
        let feeds = Arc::new(Feeds::new(Arc::clone(&history), sizes));
        Arc::new(Self { reads: Reads::new(history), feeds, page: sizes.page })
    }

    /// One question of a client, answered in its turn; questions of one connection one after the other.
    pub async fn read<T>(
        &self,
        connection: Option<&ConnectionHandle>,
        read: impl FnOnce(&dyn History) -> Answer<T>,
    ) -> Result<T, ReadError> {
        self.reads.question(connection, read).await
    }

    /// Finds where the stream begins. With [`After::Now`] that is behind everything that was committed before this call.
    pub async fn open(
        &self,
        scope: Scope,
        filter: Filter,
        after: After,
        connection: Option<&ConnectionHandle>,
    ) -> Result<Stream, OpenError> {
        let newest = self.read(connection, |history| history.last_event(scope.clone())).await?.map_or(0, |event| event.position);
        let seal = Seal::of_stream(&scope, &filter);
        let begin = self.begin_of(&scope, &filter, connection).await?;
        let position = match after {
            After::Now => newest,
            // Nothing of the named transactions is before their first event.
            After::Start if filter.ids().is_empty() => 0,
            After::Start => begin,
            After::Cursor(text) => self.find(&scope, seal, &text, connection).await?,
        };
        Ok(Stream { scope, filter, seal, position, newest })
    }

    /// The cursor behind everything that was committed before this call.
    pub async fn cursor(&self, scope: Scope, filter: &Filter, connection: Option<&ConnectionHandle>) -> Result<String, OpenError> {
        let seal = Seal::of_stream(&scope, filter);
        self.begin_of(&scope, filter, connection).await?;
        let last = self.read(connection, |history| history.last_event(scope)).await?;
        Ok(last.map_or_else(|| EventCursor::start(seal), |event| EventCursor::behind(seal, &event)).to_string())
    }

    /// The position before the first event of the transactions that the filter names; an error if one is not on record.
    async fn begin_of(&self, scope: &Scope, filter: &Filter, connection: Option<&ConnectionHandle>) -> Result<i64, OpenError> {
        let begin = self.read(connection, |history| history.begin_of(scope.clone(), filter.ids().to_vec())).await?;
        begin.map_err(OpenError::Unknown)
    }

    async fn find(&self, scope: &Scope, seal: Seal, text: &str, connection: Option<&ConnectionHandle>) -> Result<i64, OpenError> {
        let cursor = EventCursor::parse(text).ok_or(OpenError::Garbled)?;
        if cursor.is_start() {
            return if cursor == EventCursor::start(seal) { Ok(0) } else { Err(OpenError::Foreign) };
        }
        let (address, sequence) = cursor.event();
        let event = self.read(connection, |history| history.event(scope.clone(), address, sequence)).await?.ok_or(OpenError::Gone)?;
        if cursor.is_behind(seal, &event) { Ok(event.position) } else { Err(OpenError::Foreign) }
    }

    /// Serves one client until it goes. It is sent what it has room for; what it has no room for stays in the journal.
    pub async fn serve(&self, stream: Stream, sink: SubscriptionSink, connection: Option<ConnectionHandle>) {
        let client = Client { sink, connection };
        tokio::select! {
            () = client.sink.closed() => {}
            () = self.follow(stream, &client) => {}
        }
    }

    /// Ends when the client is gone.
    async fn follow(&self, stream: Stream, client: &Client) {
        let Stream { scope, filter, seal, mut position, newest } = stream;
        let mut ring = self.feeds.follow(&scope, newest);
        loop {
            if !ring.borrow_and_update().reaches_beyond(position) {
                if ring.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // Before anything is taken, from the ring or from the journal: until then nothing is held for this client.
            let _in_hand = client.page().await;
            let next = ring.borrow().after(position, self.page);
            let events = match next {
                Next::Events(events) => events,
                Next::Behind(start) => {
                    let page = self.page(&scope, position).await;
                    if page.is_empty() {
                        position = start;
                    }
                    page.into_iter().map(Arc::new).collect()
                }
                Next::Nothing => continue,
            };
            for event in events {
                position = event.position;
                if filter.wants(&event) && client.send(&event, seal).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Looks at a transaction of the scope, now and after each of its further events, until the look answers. Holds nothing of it
    /// in between, and goes on through faults of reading.
    pub async fn watch<T>(&self, scope: Scope, id: TransactionId, mut look: impl FnMut(&Life) -> Option<T>) -> T {
        // Followed from before the first look on: what is committed after it is an event behind this position.
        let newest = loop {
            match self.read(None, |history| history.last_event(scope.clone())).await {
                Ok(event) => break event.map_or(0, |event| event.position),
                Err(error) => tracing::warn!(%error, "a transaction that is waited for cannot be read yet"),
            }
            tokio::time::sleep(RETRY).await;
        };
        let mut ring = self.feeds.follow(&scope, newest);
        let mut position = newest;
        loop {
            match self.read(None, |history| history.life(scope.clone(), Name::Id(id))).await {
                Ok(life) => {
                    if let Some(answer) = life.as_ref().and_then(&mut look) {
                        return answer;
                    }
                    self.next_event(&mut ring, &mut position, id).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "a transaction that is waited for cannot be read yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits for an event of the transaction behind the position, or for so many others that it cannot be said.
    async fn next_event(&self, ring: &mut watch::Receiver<Ring>, position: &mut i64, id: TransactionId) {
        loop {
            if !ring.borrow_and_update().reaches_beyond(*position) {
                if ring.changed().await.is_err() {
                    // The journal is closed: there will be no further event.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let next = ring.borrow().after(*position, self.page);
            match next {
                Next::Events(events) => {
                    for event in &events {
                        *position = event.position;
                    }
                    if events.iter().any(|event| event.transaction == id) {
                        return;
                    }
                }
                Next::Behind(start) => {
                    *position = start;
                    return;
                }
                Next::Nothing => {}
            }
        }
    }

    /// What the journal has behind the position; tried again until it can be read.
    async fn page(&self, scope: &Scope, position: i64) -> Vec<StoredEvent> {
        loop {
            match self.reads.page(|history| history.events(scope.clone(), position, self.page)).await {
                Ok(events) => return events,
                Err(error) => tracing::warn!(%error, "a lifecycle stream cannot be read yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

struct Client {
    sink: SubscriptionSink,
    connection: Option<ConnectionHandle>,
}

/// The client is gone.
struct Gone;

impl Client {
    /// The turn of this stream to have events in hand.
    async fn page(&self) -> Option<Turn<'_>> {
        match &self.connection {
            Some(connection) => connection.page().await,
            None => None,
        }
    }

    /// Waits until the connection has room, then sends.
    async fn send(&self, event: &StoredEvent, seal: Seal) -> Result<(), Gone> {
        let told = EventView::told(event, EventCursor::behind(seal, event).to_string());
        // A view of strings and numbers with a receipt that was read as JSON: there is nothing that cannot be written.
        let Ok(json) = to_raw_value(&told) else { return Err(Gone) };
        let owed = match &self.connection {
            Some(connection) => Some(connection.room(json.get().len()).await),
            None => None,
        };
        self.sink.send(json).await.map_err(|_| Gone)?;
        if let Some(owed) = owed {
            owed.is_queued();
        }
        Ok(())
    }
}
