//! The task that owns one endpoint's connection: connects for ever. A socket it works itself: it writes what is asked in order and in few
//! flushes, reads, and waits on nothing downstream. How HTTP is worked is in `http.rs`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use prometheus::IntCounter;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::clocks::{Backoff, Beat, Clocks};
use super::command::Command;
use super::endpoint::{Endpoint, Status};
use super::frame::Ids;
use super::handshake::{Chain, Fault};
use super::http::{Client, Lanes};
use super::session::Session;
use super::socket::{Dial, Socket, connect, system_tls, words};
use crate::config::{NodeClocks, Transport};
use crate::telemetry::chance;
use crate::telemetry::crash::{self, Point, Side};

/// A connection whose chain is proven.
enum Opened {
    Socket(Socket),
    Http(Box<Client>),
}

/// Everything that the task of one endpoint needs.
pub(super) struct Connection {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) url: Url,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) dial: Dial,
    pub(super) chain: Arc<Chain>,
    pub(super) ids: Ids,
    pub(super) clocks: NodeClocks,
    /// Deadline of one request.
    pub(super) deadline: Duration,
    pub(super) reconnects: IntCounter,
    pub(super) stop: CancellationToken,
}

impl Connection {
    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = Backoff::new(self.clocks.reconnect_max);
        let mut sessions = 0;
        while !stop.is_cancelled() {
            match self.open().await {
                Some(Ok(opened)) => {
                    sessions += 1;
                    let started = Instant::now();
                    self.use_it(opened, sessions).await;
                    // A node that ends every connection at once is not asked ever faster.
                    if started.elapsed() >= self.clocks.reconnect_max {
                        backoff.reset();
                    }
                }
                Some(Err(fault)) => self.tell(fault.into()),
                None => break,
            }
            let pause = backoff.pause(chance::share());
            let _stopped = self.refusing(tokio::time::sleep(pause)).await;
        }
        self.tell(Status::Down("stopped".into()));
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            refuse(&self.endpoint, command);
        }
    }

    /// One try to connect and to prove the chain; `None` when told to stop.
    async fn open(&mut self) -> Option<Result<Opened, Fault>> {
        let (url, chain, ids, deadline) = (self.url.clone(), self.chain.clone(), self.ids.clone(), self.clocks.connect);
        let (given, dial, transport) = (self.tls.clone(), self.dial.clone(), self.endpoint.transport);
        let opening = async move {
            let tls = if matches!(url.scheme(), "wss" | "https") && given.is_none() {
                let loaded = tokio::task::spawn_blocking(system_tls).await.map_err(|_| Fault::Down("TLS could not be set up".into()))?;
                Some(loaded.map_err(|error| Fault::Down(words(&error).into()))?)
            } else {
                given
            };
            let prove = async {
                if transport == Transport::Http {
                    let client = Client::new(&url, tls.clone(), dial)?;
                    client.prove(&chain, &ids).await?;
                    return Ok(Opened::Http(Box::new(client)));
                }
                let mut socket = connect(&url, tls.clone(), &dial).await.map_err(|error| Fault::Down(words(&error).into()))?;
                chain.check(&mut socket, &ids).await?;
                Ok(Opened::Socket(socket))
            };
            let proved = tokio::time::timeout(deadline, prove).await;
            proved.unwrap_or_else(|_| Err(Fault::Down(format!("no connection within {deadline:?}").into()))).map(|opened| (opened, tls))
        };
        let (opened, tls) = match self.refusing(Box::pin(opening)).await? {
            Ok(opened) => opened,
            Err(fault) => return Some(Err(fault)),
        };
        self.tls = tls;
        Some(Ok(opened))
    }

    /// Does some work while every command is answered at once: there is no connection. `None` when told to stop.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                done = &mut work => return Some(done),
                // The endpoint holds a sender: the queue never ends before the task.
                Some(command) = self.commands.recv() => refuse(&self.endpoint, command),
            }
        }
    }

    /// Says how the endpoint is, to the pool and to operators, once per change.
    fn tell(&self, status: Status) {
        let (environment, endpoint) = (&self.chain.environment, &self.endpoint.label);
        if let Status::Down(why) | Status::WrongChain(why) = &status
            && !self.stop.is_cancelled()
        {
            self.endpoint.failed(why);
        }
        let changed = self.endpoint.status.send_if_modified(|current| {
            let changed = *current != status;
            if changed {
                *current = status.clone();
            }
            changed
        });
        self.endpoint.show();
        match status {
            _ if !changed => {}
            Status::Up(_) => tracing::info!(%environment, %endpoint, "node connected"),
            Status::Down(why) if self.stop.is_cancelled() => tracing::debug!(%environment, %endpoint, %why, "node not connected"),
            Status::Down(why) => tracing::warn!(%environment, %endpoint, %why, "node not connected"),
            Status::WrongChain(why) => tracing::error!(%environment, %endpoint, "{why}"),
        }
    }

    /// Works a connection until it ends.
    async fn use_it(&mut self, opened: Opened, number: u64) {
        if number > 1 {
            self.endpoint.reconnects.fetch_add(1, Ordering::Relaxed);
            self.reconnects.inc();
        }
        self.tell(Status::Up(number));
        // Readers learn of the end by their streams and answers: they must find the endpoint down by then.
        match opened {
            Opened::Socket(socket) => {
                let mut session = Session::new(self.deadline, self.ids.clone(), self.endpoint.outcomes.clone());
                let why = self.work(socket, &mut session).await;
                self.tell(Status::Down(why));
                session.end();
            }
            Opened::Http(client) => {
                let mut lanes = Lanes::new(self.deadline, self.endpoint.outcomes.clone());
                let why = self.converse(&client, &mut lanes).await;
                self.tell(why.into());
                lanes.end();
            }
        }
    }

    /// Reads and writes until the connection ends, and says why it ended.
    async fn work(&mut self, socket: Socket, session: &mut Session) -> Arc<str> {
        let (sink, mut stream) = socket.split();
        let mut writer = Writer { sink, ping: false, unflushed: false, sending: false };
        let mut clocks = Clocks::new(self.clocks, Instant::now());
        let mut batch = Vec::new();
        let mut alarm = pin!(tokio::time::sleep_until(clocks.due()));
        loop {
            let due = session.due().map_or(clocks.due(), |due| due.min(clocks.due()));
            if due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
            let (room, has_work) = (session.room(), writer.has_work(session));
            // In this order, so that chance has no part in it. Reading and writing take turns: a write empties the backlog, which is filled
            // again only behind a message, or when there is none.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return "stopped".into(),
                () = &mut alarm => {
                    let now = Instant::now();
                    session.expire(now);
                    match clocks.beat(now) {
                        Beat::Wait => {}
                        Beat::Ping => writer.ping = true,
                        Beat::Dead(why) => return why.into(),
                    }
                    alarm.as_mut().reset(session.due().map_or(clocks.due(), |due| due.min(clocks.due())));
                }
                written = poll_fn(|context| writer.poll(context, session)), if has_work => {
                    if let Err(error) = written {
                        return words(&error).into();
                    }
                }
                message = stream.next() => {
                    let message = match message {
                        Some(Ok(message)) => message,
                        Some(Err(error)) => return words(&error).into(),
                        None => return "the node closed the connection".into(),
                    };
                    clocks.frame(Instant::now());
                    self.received(&message, session, &mut clocks);
                    while session.room() > 0
                        && let Ok(command) = self.commands.try_recv()
                    {
                        session.command(command);
                    }
                }
                _ = self.commands.recv_many(&mut batch, room), if room > 0 => {
                    batch.drain(..).for_each(|command| session.command(command));
                }
            }
        }
    }

    fn received(&self, message: &Message, session: &mut Session, clocks: &mut Clocks) {
        match message {
            Message::Pong(_) => clocks.pong(),
            Message::Text(_) | Message::Binary(_) => {
                if !message.to_text().is_ok_and(|text| session.frame(text)) {
                    self.endpoint.stray_frames.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(endpoint = %self.endpoint.label, bytes = message.len(), "a frame that nobody waits for");
                }
            }
            // tungstenite answers pings and closes itself.
            Message::Ping(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
}

/// Answers a command while there is no connection.
fn refuse(endpoint: &Endpoint, command: Command) {
    let fault = endpoint.status.borrow().fault();
    command.refuse(&fault, &endpoint.outcomes);
}

/// Writes what is there, then flushes once.
struct Writer {
    sink: SplitSink<Socket, Message>,
    ping: bool,
    unflushed: bool,
    /// Signed bytes are among what is not flushed; for the crash harness.
    sending: bool,
}

impl Writer {
    fn has_work(&self, session: &Session) -> bool {
        self.ping || self.unflushed || session.has_output()
    }

    fn poll(&mut self, context: &mut Context<'_>, session: &mut Session) -> Poll<Result<(), Error>> {
        while self.ping || session.has_output() {
            ready!(self.sink.poll_ready_unpin(context))?;
            self.unflushed = true;
            if std::mem::take(&mut self.ping) {
                self.sink.start_send_unpin(Message::Ping(Bytes::new()))?;
            } else if let Some((written, text)) = session.output() {
                if crash::ON && text.contains("\"eth_sendRawTransaction\"") {
                    crash::edge(Side::Before, Point::Send);
                    self.sending = true;
                }
                match self.sink.start_send_unpin(Message::Text(text)) {
                    Err(Error::WriteBufferFull(_)) => session.not_written(&written),
                    sent => sent?,
                }
            }
        }
        ready!(self.sink.poll_flush_unpin(context))?;
        self.unflushed = false;
        if std::mem::take(&mut self.sending) {
            crash::edge(Side::After, Point::Send);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
