//! While a write waits for the peer, the time-out runs and reading rests: otherwise answers to a client that never reads would pile up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// See the module. Either side may write: the bytes that one left are written by the other, so a write that gets on wakes both.
pub(super) struct Stall {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    /// A write waits for the peer.
    waiting: bool,
    over: bool,
    /// Who reads.
    reader: Option<Waker>,
    /// Reading rests until something is written.
    resting: bool,
    /// Who writes, if that waits.
    writer: Option<Waker>,
}

impl Stall {
    /// `limit` is how long one write may wait for the peer.
    pub(super) fn new(limit: Duration) -> Self {
        let timer = Box::pin(sleep(limit));
        Self { limit, timer, waiting: false, over: false, reader: None, resting: false, writer: None }
    }

    /// The side that reads is looking.
    pub(super) fn reads(&mut self, context: &Context<'_>) {
        self.resting = false;
        match &mut self.reader {
            Some(reader) => reader.clone_from(context.waker()),
            None => self.reader = Some(context.waker().clone()),
        }
    }

    /// Reading rests until something is written.
    pub(super) fn rest(&mut self) {
        self.resting = true;
    }

    /// The side that writes has to wait.
    pub(super) fn writes(&mut self, context: &Context<'_>) {
        self.writer = Some(context.waker().clone());
    }

    /// Has the side that reads look at once.
    pub(super) fn wake_reader(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }

    /// A write waits for the peer.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// A write got on.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.waiting) || self.resting {
            self.wake_reader();
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// A write waits.
    pub(super) fn begin(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        self.poll(context)
    }

    /// The timer has one waker, so whoever sees it fire wakes the other.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.over {
            ready!(self.timer.as_mut().poll(context));
            self.over = true;
            for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
    }
}
