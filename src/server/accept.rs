//! The accept loop: sockets, TLS, HTTP/1.1, and the end of all connections at a stop. What is served, and by which rules, comes from
//! a [`Handler`].

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonrpsee::server::HttpBody;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ServerError;
use super::idle::{Idle, Place};
use super::io::{ClientIo, Rules};
use crate::subscriptions::connection::ConnectionHandle;
use crate::telemetry::metrics::ConnectionMeter;

/// Connections that the system holds for us while we are busy: bursts of clients that reconnect.
const BACKLOG: u32 = 1024;
/// From the connection to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// See [`Handler::patience`].
const HEADERS: Duration = Duration::from_secs(30);
/// Bytes of one request's headers.
const HEADER_BYTES: usize = 64 * 1024;
/// Time between two tries when the system has no more sockets for us.
const PAUSE: Duration = Duration::from_millis(250);
/// How long connections that were cut may take to go away.
const CUT: Duration = Duration::from_secs(2);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 32\r\nretry-after: 1\r\nconnection: close\r\n\r\n{\"error\":\"too many connections\"}";

/// What one listener serves. Clones share everything. The rules hold for connections that come after a change of them.
pub(super) trait Handler: Clone + Send + Sync + 'static {
    /// How the next connection is encrypted, if it is.
    fn tls(&self) -> Option<TlsAcceptor>;

    /// Connections that may be open at the same time.
    fn max_connections(&self) -> u32;

    /// From the connection, or the response before, to the end of a request's headers; an idle connection is closed after it too.
    fn patience(&self) -> Duration {
        HEADERS
    }

    /// Whether, while as many as may are open, the connection that has been in no request for longest makes room for the next.
    /// Not for clients: a request that crosses the close on its way would be lost, and who sent it could not know.
    fn makes_room(&self) -> bool {
        false
    }

    /// What the client of the next connection may do to it.
    fn rules(&self) -> Rules {
        Rules::default()
    }

    /// How long a stop waits for the open connections.
    fn drain(&self) -> Duration;

    /// Answers one request.
    fn handle(&self, request: Request<Incoming>, connection: ConnectionHandle) -> impl Future<Output = Response<HttpBody>> + Send;

    /// No more connections come; the open ones should finish what they do.
    fn stop(&self) {}
}

/// A bound socket.
pub(super) struct Door {
    listener: TcpListener,
    local: SocketAddr,
    meter: Option<ConnectionMeter>,
}

/// One open connection: free again when dropped.
pub(super) struct Slot {
    meter: Option<ConnectionMeter>,
    // In this order: who waits for the place finds it free.
    _open: TaskTrackerToken,
    _gone: DropGuard,
}

impl Slot {
    /// `gone` is cancelled when it is free again.
    fn new(open: &TaskTracker, meter: Option<ConnectionMeter>, gone: CancellationToken) -> Self {
        if let Some(meter) = &meter {
            meter.open.inc();
        }
        Self { meter, _open: open.token(), _gone: gone.drop_guard() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.open.dec();
        }
    }
}

impl Door {
    /// Opens the socket; `meter` counts its connections.
    pub(super) fn open(address: SocketAddr, meter: Option<ConnectionMeter>) -> Result<Self, ServerError> {
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = listen().map_err(|source| ServerError::Listen { address, source })?;
        Ok(Self { listener, local, meter })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `stop`, then lets the open connections finish for [`Handler::drain`] and cuts the rest. Answers whether none was cut.
    pub(super) async fn run<H: Handler>(self, handler: H, stop: CancellationToken) -> bool {
        let open = TaskTracker::new();
        let cut = CancellationToken::new();
        let idle = handler.makes_room().then(Arc::<Idle>::default);
        let is_full = || u32::try_from(open.len()).is_ok_and(|open| open >= handler.max_connections());
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let tls = handler.tls();
                    if is_full()
                        && let Some(gone) = idle.as_ref().and_then(|idle| idle.end_oldest())
                    {
                        let _ = timeout(CUT, gone.cancelled()).await;
                    }
                    // Only this loop opens slots, so that no more than these can be open.
                    if !is_full() {
                        let (cut, gone) = (cut.child_token(), CancellationToken::new());
                        let place = idle.as_ref().map(|idle| Place::new(Arc::clone(idle), cut.clone(), gone.clone()));
                        let slot = Slot::new(&open, self.meter.clone(), gone);
                        let connection = Connection { handler: handler.clone(), cut, stop: stop.clone(), place };
                        tokio::spawn(connection.accept(stream, tls, slot));
                    } else {
                        if let Some(meter) = &self.meter {
                            meter.refused.inc();
                        }
                        refuse(stream, tls.is_some());
                    }
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, pause = ?PAUSE, "no connection can be accepted");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(PAUSE) => {}
                    }
                }
            }
        }
        drop(self.listener);
        handler.stop();
        open.close();
        let drain = handler.drain();
        if timeout(drain, open.wait()).await.is_ok() {
            return true;
        }
        tracing::warn!(connections = open.len(), after = ?drain, "connections are cut");
        cut.cancel();
        if timeout(CUT, open.wait()).await.is_err() {
            tracing::error!(connections = open.len(), "connections do not end");
        }
        false
    }
}

/// The client gave up before we got to it; everything else (no more file descriptors, no memory) lasts a while.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Tells the client why, if that takes no waiting. Under TLS the handshake would be the expensive part: just closed.
fn refuse(stream: TcpStream, tls: bool) {
    tracing::debug!("too many connections");
    if !tls && let Ok(mut stream) = stream.into_std() {
        // A client that gets no answer sees the close.
        let _ = stream.write(FULL);
    }
}

struct Connection<H> {
    handler: H,
    cut: CancellationToken,
    stop: CancellationToken,
    /// Where it stands among the idle, if that matters.
    place: Option<Place>,
}

impl<H: Handler> Connection<H> {
    async fn accept(self, stream: TcpStream, tls: Option<TlsAcceptor>, slot: Slot) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let Some(tls) = tls else { return self.serve(stream, slot).await };
        let handshake = tokio::select! {
            () = self.cut.cancelled() => return,
            () = self.stop.cancelled() => return,
            handshake = timeout(HANDSHAKE.min(self.handler.patience()), tls.accept(stream)) => handshake,
        };
        match handshake {
            Ok(Ok(stream)) => self.serve(stream, slot).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("no TLS handshake in time"),
        }
    }

    /// Ends with the last HTTP request. A WebSocket lives on in a task of jsonrpsee and takes stream and slot with it.
    async fn serve<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: IO, slot: Slot) {
        let Self { handler, cut, stop, place } = self;
        let (patience, place) = (handler.patience(), place.map(Arc::new));
        let rules = handler.rules();
        let handle = ConnectionHandle::new(cut.clone(), rules.backlog);
        let stream = ClientIo::new(stream, handle.clone(), rules, slot);
        let service = service_fn(move |request| {
            let (handler, handle, place) = (handler.clone(), handle.clone(), place.clone());
            async move {
                let _busy = place.as_deref().map(Place::request);
                Ok::<_, Infallible>(handler.handle(request, handle).await)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let finished = tokio::select! {
            () = cut.cancelled() => return,
            finished = &mut connection => finished,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    () = cut.cancelled() => return,
                    finished = &mut connection => finished,
                }
            }
        };
        if let Err(error) = finished {
            tracing::debug!(%error, "a connection ended");
        }
    }
}
