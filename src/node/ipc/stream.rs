//! JSON values over bytes as the messages of a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink, Stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::framer::{Broken, Framer};
use crate::node::socket::MAX_MESSAGE;

/// What stands for a ping; no other request has an id like this.
const PING: &str = r#"{"jsonrpc":"2.0","id":"ping","method":"web3_clientVersion","params":[]}"#;
/// Bytes that are read at once.
const READ: usize = 64 << 10;
/// Bytes gathered before they have to be written.
const WRITE: usize = 128 << 10;

/// One connection.
pub(super) struct Values<S> {
    socket: S,
    framer: Framer,
    buffer: Box<[u8]>,
    out: Vec<u8>,
    written: usize,
    /// Pings whose answers are to come.
    pings: usize,
}

impl<S> Values<S> {
    pub(super) fn new(socket: S) -> Self {
        let buffer = vec![0; READ].into_boxed_slice();
        Self { socket, framer: Framer::new(MAX_MESSAGE), buffer, out: Vec::new(), written: 0, pings: 0 }
    }

    /// Whether this value answers a ping.
    fn is_pong(&mut self, text: &str) -> bool {
        #[derive(Deserialize)]
        struct Id<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
        }
        let pong = self.pings > 0 && serde_json::from_str::<Id<'_>>(text).is_ok_and(|of| of.id.is_some_and(|id| id.get() == "\"ping\""));
        if pong {
            self.pings -= 1;
        }
        pong
    }
}

impl<S: AsyncRead + Unpin> Stream for Values<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.framer.next() {
                Ok(Some(text)) if this.is_pong(&text) => return Poll::Ready(Some(Ok(Message::Pong(Bytes::new())))),
                Ok(Some(text)) => return Poll::Ready(Some(Ok(Message::Text(text.into())))),
                Err(Broken(why)) => return Poll::Ready(Some(Err(Error::Io(io::Error::new(io::ErrorKind::InvalidData, why))))),
                Ok(None) => {}
            }
            let mut buffer = ReadBuf::new(&mut this.buffer);
            match ready!(Pin::new(&mut this.socket).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(None),
                Ok(()) => this.framer.push(buffer.filled()),
                Err(error) => return Poll::Ready(Some(Err(Error::Io(error)))),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Values<S> {
    /// Writes what is gathered.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.written < self.out.len() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(context, &self.out[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(Error::Io(io::ErrorKind::WriteZero.into())));
            }
            self.written += count;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Sink<Message> for Values<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.out.len() >= WRITE { self.drain(context) } else { Poll::Ready(Ok(())) }
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match &message {
            Message::Text(text) => self.out.extend_from_slice(text.as_bytes()),
            Message::Ping(_) => {
                self.pings += 1;
                self.out.extend_from_slice(PING.as_bytes());
            }
            // Nobody sends others.
            Message::Binary(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return Ok(()),
        }
        self.out.push(b'\n');
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.socket).poll_flush(context).map_err(Error::Io)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context).map_err(Error::Io)
    }
}
