//! The byte stream of one client, with the rules that jsonrpsee does not know: a client that does not read is not read from, and
//! is ended after a while; a connection can be cut from outside; its slot is free when its stream is dropped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::crash;

/// Bytes of answers that may wait for a client while more is read from it.
const OWED: usize = 1 << 20;

/// `S` is kept as long as the stream.
pub(super) struct ClientIo<IO, S> {
    io: IO,
    /// One per direction: each has a waker of its own.
    cut_read: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_write: Pin<Box<WaitForCancellationFutureOwned>>,
    stall: Stall,
    handle: ConnectionHandle,
    _slot: S,
}

/// While a write waits for the peer, the time-out runs and reading rests: otherwise answers to a client that never reads would pile up.
struct Stall {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl<IO, S> ClientIo<IO, S> {
    /// `handle` cuts the stream; `limit` is how long one write may wait for the peer.
    pub(super) fn new(io: IO, handle: ConnectionHandle, limit: Duration, slot: S) -> Self {
        Self {
            io,
            cut_read: Box::pin(handle.token().clone().cancelled_owned()),
            cut_write: Box::pin(handle.token().clone().cancelled_owned()),
            stall: Stall { limit, timer: Box::pin(sleep(limit)), waiting: false, over: false, reader: None, writer: None },
            handle,
            _slot: slot,
        }
    }
}

impl Stall {
    /// A write got on.
    fn end(&mut self) {
        self.waiting = false;
        self.writer = None;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// A write waits.
    fn begin(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        self.writer = Some(context.waker().clone());
        self.poll(context)
    }

    /// The timer has one waker, so whoever sees it fire wakes the other.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
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

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended")
}

impl<IO: AsyncRead + Unpin, S: Unpin> AsyncRead for ClientIo<IO, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cut_read.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(cut()));
        }
        if this.stall.waiting {
            this.stall.reader = Some(context.waker().clone());
            return this.stall.poll(context).map(Err);
        }
        if this.handle.owed() > OWED {
            // Answers queue faster than they are written: the next write wakes the reader.
            this.stall.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut this.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin, S: Unpin> ClientIo<IO, S> {
    fn write(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.watched(context, write))?;
        self.handle.pay(written);
        if crash::ON && self.handle.owed() == 0 {
            crash::written();
        }
        Poll::Ready(Ok(written))
    }

    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.cut_write.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(cut()));
        }
        match write(Pin::new(&mut self.io), context) {
            Poll::Ready(done) => {
                self.stall.end();
                Poll::Ready(done)
            }
            Poll::Pending => self.stall.begin(context).map(Err),
        }
    }
}

impl<IO: AsyncWrite + Unpin, S: Unpin> AsyncWrite for ClientIo<IO, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.get_mut().write(context, |io, context| io.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().watched(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().watched(context, |io, context| io.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn handle() -> ConnectionHandle {
        ConnectionHandle::new(CancellationToken::new())
    }

    const LIMIT: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_not_read_from_and_then_ended() {
        let (near, mut far) = duplex(8);
        let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle(), LIMIT, ()));
        far.write_all(b"more").await.unwrap();
        let mut writing = tokio::spawn(async move { writer.write_all(&[0; 100]).await });
        tokio::task::yield_now().await;
        let mut buffer = [0; 4];
        assert!(reader.read(&mut buffer).now_or_never().is_none(), "bytes are there, but the write side is stuck");
        far.read_exact(&mut [0; 100]).await.unwrap();
        (&mut writing).await.unwrap().unwrap();
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 4);

        let (near, _far) = duplex(8);
        let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle(), SHORT, ()));
        let writing = tokio::spawn(async move { writer.write_all(&[0; 100]).await });
        tokio::task::yield_now().await;
        assert_eq!(reader.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nothing_is_read_while_too_much_is_owed() {
        let (near, mut far) = duplex(4 * OWED);
        let handle = handle();
        let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle.clone(), LIMIT, ()));
        far.write_all(b"more").await.unwrap();
        handle.owe(2 * OWED);
        let reading = tokio::spawn(async move { reader.read(&mut [0; 4]).await });
        tokio::task::yield_now().await;
        writer.write_all(&vec![0; OWED - 1]).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        writer.write_all(&[0]).await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 4);
        writer.write_all(&vec![0; 2 * OWED]).await.unwrap();
        assert_eq!(handle.owed(), 0, "notifications are not owed");
    }

    #[tokio::test]
    async fn a_cut_reaches_both_directions() {
        let (near, _far) = duplex(8);
        let handle = handle();
        let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle.clone(), LIMIT, ()));
        let reading = tokio::spawn(async move { reader.read(&mut [0; 4]).await });
        let writing = tokio::spawn(async move { writer.write_all(&[0; 100]).await });
        tokio::task::yield_now().await;
        handle.end();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
