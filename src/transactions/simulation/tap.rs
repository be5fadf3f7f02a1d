//! The node's end of a wire: sees what has arrived as soon as the node has taken it in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::edges::Edge;
use super::world::{Life, lock, short};

/// A wire's end that looks at the node's record of arrivals whenever the node comes back to read, and before it answers: after a frame that
/// cuts the connection it does not come back.
pub(super) struct Tap {
    wire: DuplexStream,
    life: Arc<Life>,
}

impl Tap {
    pub(super) fn new(wire: DuplexStream, life: Arc<Life>) -> Self {
        Self { wire, life }
    }
}

impl Life {
    /// Checks what has arrived since it was last looked.
    pub(super) fn look_at_sends(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        let new: Vec<_> = self.world.node.with(|node, _| node.arrivals().get(seen..).map(<[_]>::to_vec).unwrap_or_default());
        self.seen.store(seen + new.len(), Ordering::Relaxed);
        for arrival in new {
            // Connection 0 is a client of its own.
            let Some(sent) = arrival.transaction.filter(|_| arrival.connection != 0) else { continue };
            let world = &self.world;
            world.count("sent");
            if let Some(fault) = &arrival.fault {
                let words = format!("{fault:?}");
                world.count(format!("node {}", words.split([' ', '{']).next().unwrap_or_default()));
            }
            world.note(|| {
                format!(
                    "sent {} nonce {} {} fault {:?} verdict {:?}",
                    world.index(sent.from),
                    sent.nonce,
                    short(sent.hash),
                    arrival.fault,
                    arrival.verdict
                )
            });
            lock(&world.ledger).sent(sent.from, sent.nonce, sent.hash);
            self.pass(Edge::Sent);
        }
    }
}

/// A frame of the node's, without what chance made: 200 characters at most.
fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| c.is_ascii_graphic()).take(200).collect()
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.life.look_at_sends();
        Pin::new(&mut self.wire).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.life.look_at_sends();
        let written = Pin::new(&mut self.wire).poll_write(context, bytes);
        // The handshake has a key of chance.
        if self.life.world.is_detailed() && !bytes.starts_with(b"HTTP") {
            self.life.world.note(|| format!("node: {}", words(bytes)));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
