//! How a socket is written.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::Waker;

use futures_util::{Sink, Stream};
use prometheus::{Histogram, HistogramOpts};
use tokio::sync::oneshot;

use super::super::command::{Call, Caller, Outcomes, Reply};
use super::super::frame::Request;
use super::*;
use crate::telemetry::metrics::Metrics;

/// What was done to a socket, in order.
#[derive(Default, Clone)]
struct Tape(Arc<Mutex<Vec<&'static str>>>);

impl Stream for Tape {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

impl Sink<Message> for Tape {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.0.lock().unwrap().push(if message.is_ping() { "ping" } else { "text" });
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.lock().unwrap().push("flush");
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_is_there_is_written_with_one_flush() {
    let metrics = Metrics::new().unwrap();
    let ids = Ids::default();
    let mut session = Session::new(Duration::from_secs(10), ids.clone(), Outcomes::new(&metrics.nodes.requests, "dev"));
    let seconds = Histogram::with_opts(HistogramOpts::new("seconds", "Of this test.")).unwrap();
    let mut answers = Vec::new();
    for _ in 0..100 {
        let (caller, answer) = oneshot::channel();
        let queued = Instant::now();
        let reply = Reply::Value(Caller::new(caller, queued, seconds.clone()));
        session.command(Command::Call(Call { request: Request::new(ids.next(), "eth_x", None), queued, reply }));
        answers.push(answer);
    }
    let tape = Tape::default();
    let (sink, _stream) = (Box::new(tape.clone()) as Socket).split();
    let mut writer = Writer { sink, ping: true, unflushed: false, sending: false };
    assert!(writer.has_work(&session));
    assert!(matches!(writer.poll(&mut Context::from_waker(Waker::noop()), &mut session), Poll::Ready(Ok(()))));
    let written = std::mem::take(&mut *tape.0.lock().unwrap());
    assert_eq!((written[0], written.last(), written.len()), ("ping", Some(&"flush"), 102));
    assert_eq!(written.iter().filter(|what| **what == "flush").count(), 1);
    assert!(!writer.has_work(&session));
}
