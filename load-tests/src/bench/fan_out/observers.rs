//! Many clients that only listen, a socket each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::super::Failure;

/// Handshakes at the same time.
const TOGETHER: usize = 256;
/// How long everybody may take to be told.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked whether they are.
const LOOK: Duration = Duration::from_millis(1);

/// What they saw.
#[derive(Debug)]
struct Seen {
    start: Instant,
    notifications: AtomicU64,
    /// When the last one came, in nanoseconds from the start.
    last: AtomicU64,
    /// Those who were told something else than the next in the row.
    out_of_order: AtomicU64,
    ended: AtomicU64,
}

/// Connected and subscribed; gone when dropped.
#[derive(Debug)]
pub(super) struct Observers {
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
    /// Notifications that each has to see by now.
    expected: u64,
}

impl Observers {
    /// So many, each with this subscription; how long it took until all had their ids.
    pub(super) async fn connect(url: &str, count: u64, params: &str) -> Result<(Self, Duration), Failure> {
        let begun = Instant::now();
        let counter = || AtomicU64::new(0);
        let seen = Arc::new(Seen { start: begun, notifications: counter(), last: counter(), out_of_order: counter(), ended: counter() });
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":{params}}}"#);
        let connecting = stream::iter(0..count).map(|_| subscribed(url, &request)).buffer_unordered(TOGETHER);
        let sockets: Vec<_> = connecting.collect().await;
        let sockets = sockets.into_iter().collect::<Result<Vec<_>, Failure>>()?;
        let took = begun.elapsed();
        let tasks = sockets.into_iter().map(|socket| tokio::spawn(listen(socket, Arc::clone(&seen)))).collect();
        Ok((Self { seen, tasks, expected: 0 }, took))
    }

    pub(super) fn count(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// Waits until each has seen so many more; how long after `from` the last of them did.
    pub(super) async fn told(&mut self, more: u64, from: Instant) -> Result<Duration, Failure> {
        self.expected += more;
        let all = self.expected * self.count();
        let late = Instant::now() + PATIENCE;
        while self.seen.notifications.load(Ordering::Relaxed) < all {
            if Instant::now() > late {
                let seen = self.seen.notifications.load(Ordering::Relaxed);
                return Err(format!("{seen} of {all} notifications came, {} clients were ended", self.ended()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
        let last = self.seen.start + Duration::from_nanos(self.seen.last.load(Ordering::Relaxed));
        Ok(last.saturating_duration_since(from))
    }

    /// Whose connection was ended.
    pub(super) fn ended(&self) -> u64 {
        self.seen.ended.load(Ordering::Relaxed)
    }

    /// Notifications that were not the next in their row.
    pub(super) fn out_of_order(&self) -> u64 {
        self.seen.out_of_order.load(Ordering::Relaxed)
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Socket = WebSocketStream<TcpStream>;

/// A socket to this URL.
pub(super) async fn socket(url: &str) -> Result<Socket, Failure> {
    let authority = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
    let address: SocketAddr = authority.parse()?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // Thousands of them: small buffers.
    let config = WebSocketConfig::default().read_buffer_size(8 << 10).write_buffer_size(0);
    Ok(Box::pin(client_async_with_config(url, stream, Some(config))).await?.0)
}

async fn subscribed(url: &str, request: &str) -> Result<Socket, Failure> {
    let mut socket = socket(url).await?;
    socket.send(Message::text(request)).await?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(answer))) if answer.contains("\"result\"") => return Ok(socket),
            Some(Ok(Message::Ping(_))) => {}
            other => return Err(format!("no subscription: {other:?}").into()),
        }
    }
}

async fn listen(mut socket: Socket, seen: Arc<Seen>) {
    let mut before = None;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let place = place(&text);
        if before.is_some_and(|before| place.is_none_or(|place| place <= before)) {
            seen.out_of_order.fetch_add(1, Ordering::Relaxed);
        }
        before = place.or(before);
        let now = u64::try_from(seen.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        seen.last.fetch_max(now, Ordering::Relaxed);
        seen.notifications.fetch_add(1, Ordering::Relaxed);
    }
    seen.ended.fetch_add(1, Ordering::Relaxed);
}

/// Where a header or a log is in the chain: its block, and its index there.
fn place(text: &str) -> Option<(u64, u64)> {
    let quantity = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        let digits = rest.split('"').next()?;
        u64::from_str_radix(digits, 16).ok()
    };
    match quantity("\"blockNumber\":\"0x") {
        Some(number) => Some((number, quantity("\"logIndex\":\"0x")?)),
        None => Some((quantity("\"number\":\"0x")?, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_logs_have_their_places() {
        assert_eq!(place(r#"{"params":{"result":{"number":"0x1f","hash":"0x2"}}}"#), Some((31, 0)));
        assert_eq!(place(r#"{"blockNumber":"0x10","data":"0x","logIndex":"0xb","x":"0x1"}"#), Some((16, 11)));
        assert_eq!(place(r#"{"params":{"error":"the client does not keep up"}}"#), None);
    }
}
