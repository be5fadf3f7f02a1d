//! A client from which nothing comes, not even the answer to a ping.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// See the module.
pub(super) struct Idle {
    limit: Duration,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, heard: Instant::now(), timer: Box::pin(sleep(limit)) }
    }

    /// Something came.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Resolves when nothing has come for too long. The timer is set anew only when it fires: reading is more frequent.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.timer.as_mut().poll(context).is_ready() {
            let until = self.heard + self.limit;
            if until <= Instant::now() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing comes from the client"));
            }
            self.timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}
