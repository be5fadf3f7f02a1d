//! The byte stream of one client, with the rules that jsonrpsee does not know: messages of one moment are written as one; a client that
//! does not read is not read from, and is ended after a while; frames that only cost time are counted; a connection can be cut from
//! outside; its slot is free when its stream is dropped.

mod frames;
mod gathered;
mod idle;
mod stall;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use self::frames::Frames;
use self::gathered::Gathered;
use self::idle::Idle;
use self::stall::Stall;
use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::crash;

/// Bytes of answers that may wait for a client while more is read from it.
const OWED: usize = 1 << 20;

/// What a client may do to its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How long one write may wait for a client that does not read.
    pub(super) stall: Duration,
    /// How long nothing may come from a WebSocket's client.
    pub(super) idle: Duration,
    /// Frames per second that carry no call.
    pub(super) small_frames: u32,
    /// Bytes of notifications that may wait for it.
    pub(super) backlog: usize,
}

impl Default for Rules {
    /// For listeners that nobody but operators reaches.
    fn default() -> Self {
        Self { stall: Duration::from_secs(10), idle: Duration::from_secs(60), small_frames: 100, backlog: 1 << 20 }
    }
}

/// `S` is kept as long as the stream.
pub(super) struct ClientIo<IO, S> {
    io: IO,
    /// One per direction: each has a waker of its own.
    cut_read: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_write: Pin<Box<WaitForCancellationFutureOwned>>,
    stall: Stall,
    gathered: Gathered,
    frames: Frames,
    idle: Idle,
    handle: ConnectionHandle,
    _slot: S,
}

impl<IO, S> ClientIo<IO, S> {
    /// `handle` cuts the stream.
    pub(super) fn new(io: IO, handle: ConnectionHandle, rules: Rules, slot: S) -> Self {
        Self {
            io,
            cut_read: Box::pin(handle.token().clone().cancelled_owned()),
            cut_write: Box::pin(handle.token().clone().cancelled_owned()),
            stall: Stall::new(rules.stall),
            gathered: Gathered::default(),
            frames: Frames::new(rules.small_frames),
            idle: Idle::new(rules.idle),
            handle,
            _slot: slot,
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended")
}

impl<IO: AsyncRead + AsyncWrite + Unpin, S: Unpin> AsyncRead for ClientIo<IO, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cut_read.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(cut()));
        }
        this.stall.reads(context);
        // What was left to be written with the next message, and the next has not come.
        if this.gathered.is_left() {
            ready!(this.write_gathered(context))?;
        }
        if this.stall.is_waiting() {
            return this.stall.poll(context).map(Err);
        }
        if this.handle.owed() > OWED {
            // Answers queue faster than they are written: the next write wakes the reader.
            this.stall.rest();
            return Poll::Pending;
        }
        this.handle.known(this.frames.rest_if_many(this.handle.unknown()));
        ready!(this.frames.poll_rest(context));
        let before = buffer.filled().len();
        if Pin::new(&mut this.io).poll_read(context, buffer)?.is_pending() {
            // Not the library's own: it would wait for a write that nothing ends any more.
            return if this.handle.is_upgraded() { this.idle.poll(context).map(Err) } else { Poll::Pending };
        }
        this.idle.heard();
        let read = buffer.filled().get(before..).unwrap_or_default();
        this.handle.heard(this.frames.read(read, this.handle.is_upgraded())?);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin, S: Unpin> ClientIo<IO, S> {
    /// Writes what was gathered, and flushes.
    fn write_gathered(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.empty(context))?;
        ready!(self.watched(context, |io, context| io.poll_flush(context)))?;
        self.gathered.flushed();
        Poll::Ready(Ok(()))
    }

    /// Writes what was gathered.
    fn empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let bytes = self.gathered.take();
            let written = self.watched(context, |io, context| io.poll_write(context, bytes.rest()));
            self.gathered.put_back(bytes, if let Poll::Ready(Ok(written)) = written { written } else { 0 });
            match ready!(written) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.note_written();
        Poll::Ready(Ok(()))
    }

    /// For the crash harness: all that was answered has left.
    fn note_written(&self) {
        if crash::ON && self.handle.owed() == 0 && self.gathered.is_empty() {
            crash::written();
        }
    }

    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.handle.is_ended() {
            return Poll::Ready(Err(cut()));
        }
        match write(Pin::new(&mut self.io), context) {
            Poll::Ready(done) => {
                self.stall.end();
                Poll::Ready(done)
            }
            // Who waits is woken by the cut as well.
            Poll::Pending if self.cut_write.as_mut().poll(context).is_ready() => Poll::Ready(Err(cut())),
            Poll::Pending => self.stall.begin(context).map(Err),
        }
    }
}

impl<IO: AsyncWrite + Unpin, S: Unpin> ClientIo<IO, S> {
    /// Bytes that others will follow at once are gathered, or follow what is: all else goes out as it comes.
    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let is_alone = self.gathered.is_empty() && self.handle.owed() <= bytes.len();
        if !is_alone && self.gathered.has_room(bytes.len()) {
            self.gathered.add(bytes);
            self.handle.pay(bytes.len());
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.empty(context))?;
        self.write_through(context, |io, context| io.poll_write(context, bytes))
    }

    fn write_through(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.watched(context, write))?;
        self.handle.pay(written);
        self.note_written();
        Poll::Ready(Ok(written))
    }

    /// While more is owed, what is gathered waits for it: it is next in the queue. Should it not come, the reader writes.
    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() || self.handle.owed() == 0 {
            return self.write_gathered(context);
        }
        if self.gathered.leave() {
            self.stall.wake_reader();
        }
        Poll::Ready(Ok(()))
    }

    fn shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.empty(context))?;
        self.watched(context, |io, context| io.poll_shutdown(context))
    }

    /// Who writes is woken when a write got on, whoever did it.
    fn waiting<T>(&mut self, context: &Context<'_>, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.stall.writes(context);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin, S: Unpin> AsyncWrite for ClientIo<IO, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = this.write(context, bytes);
        this.waiting(context, polled)
    }

    /// As hyper writes answers over HTTP: head and body at once.
    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = if this.gathered.is_empty() && !this.handle.is_upgraded() {
            this.write_through(context, |io, context| io.poll_write_vectored(context, bytes))
        } else {
            let first = bytes.iter().find(|bytes| !bytes.is_empty()).map_or(&[][..], |bytes| bytes);
            this.write(context, first)
        };
        this.waiting(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.flush(context);
        this.waiting(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.shutdown(context);
        this.waiting(context, polled)
    }
}

#[cfg(test)]
mod tests;
