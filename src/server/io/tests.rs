use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

fn handle() -> ConnectionHandle {
    ConnectionHandle::new(CancellationToken::new(), 1 << 20)
}

fn rules(stall: Duration) -> Rules {
    Rules { stall, ..Rules::default() }
}

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_from_and_then_ended() {
    let (near, mut far) = duplex(8);
    let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle(), rules(LIMIT), ()));
    far.write_all(b"more").await.unwrap();
    let mut writing = tokio::spawn(async move { writer.write_all(&[0; 100]).await });
    tokio::task::yield_now().await;
    let mut buffer = [0; 4];
    assert!(reader.read(&mut buffer).now_or_never().is_none(), "bytes are there, but the write side is stuck");
    far.read_exact(&mut [0; 100]).await.unwrap();
    (&mut writing).await.unwrap().unwrap();
    assert_eq!(reader.read(&mut buffer).await.unwrap(), 4);

    let (near, _far) = duplex(8);
    let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle(), rules(SHORT), ()));
    let writing = tokio::spawn(async move { writer.write_all(&[0; 100]).await });
    tokio::task::yield_now().await;
    assert_eq!(reader.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn nothing_is_read_while_too_much_is_owed() {
    let (near, mut far) = duplex(4 * OWED);
    let handle = handle();
    let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle.clone(), rules(LIMIT), ()));
    far.write_all(b"more").await.unwrap();
    handle.owe(2 * OWED);
    let reading = tokio::spawn(async move { reader.read(&mut [0; 4]).await });
    tokio::task::yield_now().await;
    writer.write_all(&vec![0; OWED - 1]).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!reading.is_finished());
    message(&mut writer, 1).await;
    assert_eq!(reading.await.unwrap().unwrap(), 4);
    writer.write_all(&vec![0; 2 * OWED]).await.unwrap();
    assert_eq!(handle.owed(), 0, "notifications are not owed");
}

#[tokio::test]
async fn a_cut_reaches_both_directions() {
    let (near, _far) = duplex(8);
    let handle = handle();
    let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle.clone(), rules(LIMIT), ()));
    let reading = tokio::spawn(async move { reader.read(&mut [0; 4]).await });
    let writing = tokio::spawn(async move { writer.write_all(&[0; 100]).await });
    tokio::task::yield_now().await;
    handle.end();
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

/// Takes everything, and says in which pieces it came.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<usize>>>);

impl Recorder {
    fn writes(&self) -> Vec<usize> {
        self.0.lock().unwrap().clone()
    }
}

impl AsyncRead for Recorder {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().push(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One message, as the library writes it.
async fn message(writer: &mut (impl AsyncWrite + Unpin), bytes: usize) {
    writer.write_all(&vec![0; bytes]).await.unwrap();
    writer.flush().await.unwrap();
}

#[tokio::test]
async fn messages_that_follow_each_other_at_once_are_written_as_one() {
    let (recorder, handle) = (Recorder::default(), handle());
    let (_reader, mut writer) = tokio::io::split(ClientIo::new(recorder.clone(), handle.clone(), rules(LIMIT), ()));
    handle.owe(100);
    message(&mut writer, 104).await;
    assert_eq!(recorder.writes(), [104], "nothing follows it: it goes out as it is");
    handle.owe(300);
    for _ in 0..3 {
        message(&mut writer, 100).await;
    }
    assert_eq!(recorder.writes(), [104, 300]);
    handle.owe(200_000);
    for _ in 0..20 {
        message(&mut writer, 10_000).await;
    }
    assert_eq!(recorder.writes()[2..].iter().sum::<usize>(), 200_000);
    assert!(recorder.writes()[2..].iter().all(|written| (10_000..=64 << 10).contains(written)), "{:?}", recorder.writes());
    handle.owe(100_010);
    message(&mut writer, 10).await;
    message(&mut writer, 100_000).await;
    assert_eq!(recorder.writes().last(), Some(&100_000), "what is large is not copied");
    handle.owe(200);
    message(&mut writer, 100).await;
    writer.shutdown().await.unwrap();
    assert_eq!(recorder.writes().last(), Some(&100), "the end leaves nothing behind");
}

#[tokio::test]
async fn what_was_left_for_the_next_message_is_written_if_that_does_not_come() {
    let (recorder, handle) = (Recorder::default(), handle());
    let (mut reader, mut writer) = tokio::io::split(ClientIo::new(recorder.clone(), handle.clone(), rules(LIMIT), ()));
    let reading = tokio::spawn(async move { reader.read(&mut [0; 4]).await });
    tokio::task::yield_now().await;
    handle.owe(1000);
    message(&mut writer, 100).await;
    assert_eq!(recorder.writes(), [0; 0]);
    while recorder.writes().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(recorder.writes(), [100]);
    // And again, for as long as it is owed.
    message(&mut writer, 100).await;
    while recorder.writes().len() < 2 {
        tokio::task::yield_now().await;
    }
    reading.abort();
}

/// Either side may find the peer's window shut; whoever writes on wakes the other.
#[tokio::test]
async fn what_the_reader_could_not_write_the_writer_does_and_the_other_way_round() {
    let (near, mut far) = duplex(64);
    let handle = handle();
    let (mut reader, mut writer) = tokio::io::split(ClientIo::new(near, handle.clone(), rules(LIMIT), ()));
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 4];
        reader.read_exact(&mut buffer).await.map(|_| buffer)
    });
    handle.owe(3000);
    let writing = tokio::spawn(async move {
        for _ in 0..10 {
            message(&mut writer, 200).await;
            tokio::task::yield_now().await;
        }
        message(&mut writer, 100_000).await;
        writer
    });
    far.write_all(b"more").await.unwrap();
    let mut bytes = vec![0; 102_000];
    for chunk in bytes.chunks_mut(50) {
        far.read_exact(chunk).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(writing.await.unwrap());
    assert_eq!(&reading.await.unwrap().unwrap(), b"more");
}

/// Bytes under TLS, and how often they were written.
struct Counted(tokio::io::DuplexStream, Arc<Mutex<usize>>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        *self.1.lock().unwrap() += 1;
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn messages_of_one_moment_are_one_record_under_tls() {
    let (acceptor, connector) = crate::server::tests::tls_pair();
    let (near, far) = duplex(1 << 16);
    let writes = Arc::new(Mutex::new(0));
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(acceptor.accept(Counted(near, writes.clone())), connector.connect(name, far));
    let (server, mut client) = (server.unwrap(), client.unwrap());
    let handle = handle();
    let (_reader, mut writer) = tokio::io::split(ClientIo::new(server, handle.clone(), rules(LIMIT), ()));
    let before = *writes.lock().unwrap();
    handle.owe(5 * 100);
    for _ in 0..5 {
        message(&mut writer, 100).await;
    }
    assert_eq!(*writes.lock().unwrap() - before, 1);
    client.read_exact(&mut [0; 500]).await.unwrap();
    // A client that does not read is seen as one through TLS as well.
    let (mut reader, mut writer) = {
        let (near, far) = duplex(256);
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let (server, client) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        std::mem::forget(client.unwrap());
        tokio::io::split(ClientIo::new(server.unwrap(), handle.clone(), rules(SHORT), ()))
    };
    let writing = tokio::spawn(async move {
        loop {
            writer.write_all(&[0; 100_000]).await?;
            writer.flush().await?;
        }
    });
    assert_eq!(reader.read(&mut [0; 4]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let ended: io::Result<()> = writing.await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// I8: what the library answers before anything of ours sees it is not read faster than it may be.
#[tokio::test(start_paused = true)]
async fn messages_that_are_no_calls_are_read_no_faster_than_small_frames() {
    let (near, mut far) = duplex(1 << 20);
    let handle = handle();
    let (mut reader, _writer) = tokio::io::split(ClientIo::new(near, handle.clone(), rules(LIMIT), ()));
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    reader.read_exact(&mut [0; 18]).await.unwrap();
    handle.upgraded();
    // A text frame of 40 bytes.
    let frame = [&[0x81, 0x80 | 40, 1, 2, 3, 4][..], &[0x20; 40]].concat();
    far.write_all(&frame.repeat(5000)).await.unwrap();
    let read = |count: usize| vec![0; frame.len() * count];
    reader.read_exact(&mut read(4097)).await.unwrap();
    assert!(reader.read(&mut read(1)).now_or_never().is_none(), "more than may be unknown");
    let begun = Instant::now();
    for _ in 0..10 {
        reader.read_exact(&mut read(1)).await.unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(90), "by the clock of the test: {:?}", begun.elapsed());
    // Those that turn out to be calls make room at once.
    handle.known(2000);
    let begun = Instant::now();
    reader.read_exact(&mut read(893)).await.unwrap();
    assert!(begun.elapsed() <= Duration::from_millis(10));
}
