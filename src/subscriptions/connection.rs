//! What a call knows of the connection that it came by.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jsonrpsee::{PendingSubscriptionSink, SubscriptionSink};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;

/// How a call reached the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One request, one response.
    Http,
    /// Can carry notifications.
    WebSocket,
}

/// A client's connection; clones are the same connection. The server puts it into each request's extensions.
#[derive(Debug, Clone)]
pub struct ConnectionHandle(Arc<Connection>);

/// What is known of one connection, and what it has of what all share, so that it cannot take the rest.
#[derive(Debug)]
#[repr(C)]
struct Connection {
    // What each message is looked at with, side by side: with thousands of connections none of it is in a cache.
    owed: AtomicUsize,
    /// [`ConnectionHandle::end`] was called.
    ended: AtomicBool,
    /// It speaks WebSocket from here on.
    upgraded: AtomicBool,
    /// Something is in the outbox.
    outbox_used: AtomicBool,
    cut: CancellationToken,
    /// Messages that were read and are not known for calls.
    unknown: AtomicUsize,
    /// Told when there is room again for notifications that wait for it.
    room: Notify,
    /// What its client is to be told and has no room for.
    outbox: Outbox,
    /// Subscriptions whose id is being answered.
    answering: watch::Sender<usize>,
    /// Places for upstream subscriptions to filters that are made for it.
    filters: Arc<Semaphore>,
    /// Places for questions to the journal, and the turn of the one that is answered.
    questions: Semaphore,
    question: Semaphore,
    /// The turn of the stream that has a page of events in hand.
    page: Semaphore,
}

/// Places for upstream subscriptions to filters that one connection has: half of its service's.
pub(super) const FILTERS: usize = 512;
/// Questions to the journal of one connection, with the one that is answered: a batch of the usual size fits.
pub(super) const QUESTIONS: usize = 1024;

/// Bytes that may wait for a client when another notification joins them.
const ROOM: usize = 256 << 10;

/// A notification that was counted in and is on its way into the queue. Dropped before [`Owed::is_queued`] it is counted out again.
#[derive(Debug)]
#[must_use = "a notification that was not queued is counted out again"]
pub struct Owed {
    connection: ConnectionHandle,
    bytes: usize,
}

impl Owed {
    /// The notification is in the queue: writing it counts it out.
    pub fn is_queued(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.connection.pay(self.bytes);
    }
}

impl ConnectionHandle {
    /// The connection that is cut by this token. So many bytes of notifications may wait for a client that does not keep up.
    pub fn new(cut: CancellationToken, backlog: usize) -> Self {
        Self(Arc::new(Connection {
            owed: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            outbox_used: AtomicBool::new(false),
            unknown: AtomicUsize::new(0),
            cut,
            room: Notify::new(),
            outbox: Outbox::new(backlog),
            answering: watch::Sender::new(0),
            filters: Arc::new(Semaphore::new(FILTERS)),
            questions: Semaphore::new(QUESTIONS),
            question: Semaphore::new(1),
            page: Semaphore::new(1),
        }))
    }

    /// A WebSocket was agreed on: whatever comes from here on is frames.
    pub(crate) fn upgraded(&self) {
        self.0.upgraded.store(true, Ordering::Release);
    }

    /// Whether it is a WebSocket.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.0.upgraded.load(Ordering::Acquire)
    }

    /// So many messages were read.
    pub(crate) fn heard(&self, messages: usize) {
        self.0.unknown.fetch_add(messages, Ordering::Relaxed);
    }

    /// So many of them are calls, or pass for none.
    pub(crate) fn known(&self, messages: usize) {
        if messages > 0 {
            // The closure always has a value, so this cannot fail.
            let _before =
                self.0.unknown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |unknown| Some(unknown.saturating_sub(messages)));
        }
    }

    /// Messages that were read and are not known for calls.
    pub(crate) fn unknown(&self) -> usize {
        self.0.unknown.load(Ordering::Relaxed)
    }

    /// Whether [`ConnectionHandle::end`] was called.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Whether notifications wait in the outbox: told by the outbox alone.
    pub(super) fn outbox_used(&self) -> &AtomicBool {
        &self.0.outbox_used
    }

    /// What waits for the client, of notifications.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Counts a notification in, if there is room for it at once.
    pub(super) fn owe_if_room(&self, bytes: usize) -> bool {
        let counted = |owed| (owed <= ROOM).then_some(owed + bytes);
        self.0.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).is_ok()
    }

    /// Cuts the connection: nothing more is read from it or written to it, and calls in flight on it are dropped.
    /// What still waits in its queue is lost. Further calls do nothing.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.cut.cancel();
    }

    /// Resolves when [`ConnectionHandle::end`] was called or the gateway cut the connection itself (not when the client left).
    pub async fn ended(&self) {
        self.0.cut.cancelled().await;
    }

    /// Answers the id of a subscription; `None` if the client is gone. jsonrpsee writes the answer before it knows the id itself:
    /// without this, a client that unsubscribes at once would be told that there is no such subscription, and keep it.
    pub(crate) async fn accept(&self, pending: PendingSubscriptionSink) -> Option<SubscriptionSink> {
        let _answering = Answering::begin(&self.0.answering);
        pending.accept().await.ok()
    }

    /// Resolves when every id that was answered is known.
    pub(crate) async fn ids_known(&self) {
        // The handle has the sender, so there is always a value.
        let _ = self.0.answering.subscribe().wait_for(|answering| *answering == 0).await;
    }

    /// So many places for an upstream subscription that is made for this connection; `None` if it has not as many left.
    pub(super) fn filters(&self, places: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.filters).try_acquire_many_owned(places).ok()
    }

    /// The connection's turn to ask the journal one question, until dropped; `None` if as many wait as may.
    pub(super) async fn question(&self) -> Option<Turn<'_>> {
        let place = self.0.questions.try_acquire().ok()?;
        let turn = self.0.question.acquire().await.ok()?;
        Some(Turn { _turn: turn, _place: Some(place) })
    }

    /// The connection's turn to have a page of events in hand, until dropped. There is room for the first of them: a client that
    /// does not read holds one page, however many streams it has.
    pub(super) async fn page(&self) -> Option<Turn<'_>> {
        // The semaphore is never closed, so there is always a turn.
        let turn = self.0.page.acquire().await.ok()?;
        drop(self.room(0).await);
        Some(Turn { _turn: turn, _place: None })
    }

    /// What cuts the connection.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.cut
    }

    /// An answer of so many bytes is on its way. Never more than will be written, or the client would not be read from again.
    pub(crate) fn owe(&self, bytes: usize) {
        self.0.owed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes were written. What frames answers, and notifications, make it more than was owed.
    pub(crate) fn pay(&self, bytes: usize) {
        // The closure always has a value, so this cannot fail.
        let before = self.0.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(owed.saturating_sub(bytes)));
        if before.is_ok_and(|before| before > ROOM && before.saturating_sub(bytes) <= ROOM) {
            self.0.room.notify_waiters();
        }
    }

    /// Waits until little enough waits for the client that a notification may join it, and counts it in: so a client that reads
    /// slowly, or is told much at once, costs a bounded amount of memory.
    pub async fn room(&self, bytes: usize) -> Owed {
        loop {
            let mut told = pin!(self.0.room.notified());
            // From here on no change is missed.
            told.as_mut().enable();
            if self.owe_if_room(bytes) {
                return Owed { connection: self.clone(), bytes };
            }
            told.await;
        }
    }

    /// Bytes of answers that are ready and not written, at most.
    pub(crate) fn owed(&self) -> usize {
        self.0.owed.load(Ordering::Relaxed)
    }
}

/// One of a connection's turns.
#[derive(Debug)]
#[must_use = "the turn is over when it is dropped"]
pub(super) struct Turn<'a> {
    _turn: SemaphorePermit<'a>,
    _place: Option<SemaphorePermit<'a>>,
}

/// Counts a subscription while its id is answered, also if that is given up.
struct Answering<'a>(&'a watch::Sender<usize>);

impl<'a> Answering<'a> {
    fn begin(answering: &'a watch::Sender<usize>) -> Self {
        answering.send_modify(|answering| *answering += 1);
        Self(answering)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|answering| *answering -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn ids_are_known_once_every_answer_is_given_or_given_up() {
        let connection = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
        connection.ids_known().await;
        let (one, two) = (Answering::begin(&connection.0.answering), Answering::begin(&connection.0.answering));
        let other = connection.clone();
        let known = tokio::spawn(async move { other.ids_known().await });
        drop(one);
        assert!(connection.ids_known().now_or_never().is_none() && !known.is_finished());
        drop(two);
        known.await.unwrap();
    }

    /// I8: what waits for a client is bounded, however many streams it has.
    #[tokio::test]
    async fn a_notification_waits_for_room_and_is_counted_out_if_it_is_not_queued() {
        let connection = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
        connection.room(ROOM).await.is_queued();
        connection.room(1000).await.is_queued();
        assert_eq!(connection.owed(), ROOM + 1000);
        assert!(connection.room(1).now_or_never().is_none(), "a large one may join what leaves room, and none may join it");
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move { connection.room(ROOM).await.is_queued() })
            })
            .collect();
        tokio::task::yield_now().await;
        connection.pay(999);
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        connection.pay(1);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.iter().filter(|waiting| waiting.is_finished()).count(), 1, "one at a time");
        connection.pay(usize::MAX);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        connection.pay(usize::MAX);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        connection.pay(usize::MAX);
        drop(connection.room(500).await);
        assert_eq!(connection.owed(), 0, "it was not queued: nothing would ever count it out");
    }
}
