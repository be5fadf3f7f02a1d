//! The session alone: frames and times in, bytes and answers out.

use prometheus::{Histogram, HistogramOpts};
use tokio::sync::mpsc;

use super::super::StreamItem;
use super::super::command::{Answered, Caller};
use super::*;
use crate::telemetry::metrics::Metrics;

const DEADLINE: Duration = Duration::from_secs(10);

fn session() -> Session {
    let metrics = Metrics::new().unwrap();
    let ids = Ids::default();
    // Ids of the tests are given by hand, far from these.
    while ids.next() < 1000 {}
    Session::new(DEADLINE, ids, Outcomes::new(&metrics.nodes.requests, "dev"))
}

fn call(session: &mut Session, id: u64, queued: Instant) -> oneshot::Receiver<Answered> {
    let (caller, answer) = oneshot::channel();
    let seconds = Histogram::with_opts(HistogramOpts::new("seconds", "Of this test.")).unwrap();
    let reply = Reply::Value(Caller::new(caller, queued, seconds));
    session.command(Command::Call(Call { request: Request::new(id, "eth_x", None), queued, reply }));
    answer
}

fn subscribe(session: &mut Session, id: u64, queued: Instant) -> oneshot::Receiver<Opened> {
    let (caller, answer) = oneshot::channel();
    session.command(Command::Call(Call { request: Request::new(id, "eth_subscribe", None), queued, reply: Reply::Stream(Some(caller)) }));
    answer
}

fn written(session: &mut Session) -> Vec<String> {
    std::iter::from_fn(|| session.output()).map(|(_, text)| text.to_string()).collect()
}

fn notify(session: &mut Session, subscription: &str, item: usize) -> bool {
    session.frame(&format!(r#"{{"method":"eth_subscription","params":{{"subscription":"{subscription}","result":{item}}}}}"#))
}

fn read(stream: &mut mpsc::Receiver<StreamItem>) -> Vec<String> {
    std::iter::from_fn(|| stream.try_recv().ok())
        .map(|item| match item {
            StreamItem::Item(raw) => raw.get().to_owned(),
            StreamItem::Lost => "lost".to_owned(),
            StreamItem::Gap => "gap".to_owned(),
        })
        .collect()
}

#[test]
fn requests_leave_in_order_and_count_as_sent_only_then() {
    let mut session = session();
    let now = Instant::now();
    let mut first = call(&mut session, 1, now);
    let mut second = call(&mut session, 2, now);
    let (id, text) = session.output().unwrap();
    assert_eq!((id, text.as_str()), (Written::One(1), r#"{"jsonrpc":"2.0","id":1,"method":"eth_x","params":[]}"#));
    session.end();
    assert!(matches!(first.try_recv().unwrap(), Err(CallError::Lost)));
    assert!(matches!(second.try_recv().unwrap(), Err(CallError::Unavailable)));
}

#[test]
fn deadlines_tell_sent_from_unsent() {
    let mut session = session();
    let now = Instant::now();
    let mut sent = call(&mut session, 1, now);
    session.output().unwrap();
    let mut unsent = call(&mut session, 2, now + Duration::from_secs(1));
    assert_eq!(session.due(), Some(now + DEADLINE));
    session.expire(now + DEADLINE - Duration::from_millis(1));
    assert!(sent.try_recv().is_err());
    session.expire(now + DEADLINE);
    assert!(matches!(sent.try_recv().unwrap(), Err(CallError::Deadline(DEADLINE))));
    assert_eq!(session.due(), Some(now + Duration::from_secs(1) + DEADLINE));
    session.expire(now + Duration::from_secs(1) + DEADLINE);
    assert!(matches!(unsent.try_recv().unwrap(), Err(CallError::Unavailable)));
    assert_eq!(session.due(), None);
    assert!(!session.frame(r#"{"id":1,"result":1}"#), "a late answer is for nobody");
}

#[test]
fn answered_requests_leave_no_deadline_behind() {
    let mut session = session();
    let now = Instant::now();
    let _answers: Vec<_> = (0..10).map(|id| call(&mut session, id, now)).collect();
    written(&mut session);
    (0..10).for_each(|id| assert!(session.frame(&format!(r#"{{"id":{id},"result":1}}"#))));
    session.expire(now);
    assert_eq!(session.due(), None);
}

#[test]
fn what_waits_and_what_is_in_flight_is_bounded() {
    let mut session = session();
    let now = Instant::now();
    let mut answers = Vec::new();
    for id in 0..IN_FLIGHT as u64 {
        answers.push(call(&mut session, id, now));
        assert!(session.output().is_some());
    }
    answers.push(call(&mut session, 1_000_000, now));
    assert!(!session.has_output() && session.output().is_none());
    assert_eq!(session.room(), BACKLOG - 1);
    assert!(session.frame(r#"{"id":5,"result":1}"#));
    assert_eq!(session.output().unwrap().0, Written::One(1_000_000));
}

#[test]
fn what_the_socket_did_not_take_was_not_sent() {
    let mut session = session();
    let mut answer = call(&mut session, 1, Instant::now());
    let (id, _) = session.output().unwrap();
    session.not_written(&id);
    assert!(matches!(answer.try_recv().unwrap(), Err(CallError::Full)));
}

#[test]
fn early_items_are_kept_for_their_subscription_and_an_overflow_is_a_gap() {
    let mut session = session();
    let mut opened = subscribe(&mut session, 1, Instant::now());
    assert!(!notify(&mut session, "0x5", 0), "nothing was asked for yet");
    written(&mut session);
    (0..EARLY + 1).for_each(|n| assert!(notify(&mut session, "0x5", n)));
    assert!(session.frame(r#"{"id":1,"result":"0x5"}"#));
    let mut stream = opened.try_recv().unwrap().unwrap();
    let items = read(&mut stream);
    assert_eq!((items.len(), items[0].as_str(), items[1].as_str()), (EARLY + 1, "gap", "0"));
    assert!(!notify(&mut session, "0x6", 1), "nothing is kept once all answers are there");
}

#[test]
fn a_late_yes_to_a_subscription_is_undone() {
    let mut session = session();
    let now = Instant::now();
    let mut opened = subscribe(&mut session, 1, now);
    written(&mut session);
    session.expire(now + DEADLINE);
    assert!(matches!(opened.try_recv().unwrap(), Err(CallError::Deadline(_))));
    assert_eq!(session.due(), None);
    assert!(session.frame(r#"{"id":1,"result":"0x5"}"#));
    let out = written(&mut session);
    assert!(out.len() == 1 && out[0].contains(r#""method":"eth_unsubscribe","params":["0x5"]"#), "{out:?}");
}

#[test]
fn a_subscriber_that_left_is_unsubscribed_by_prune_by_an_item_or_by_the_answer() {
    for how in 0..3 {
        let mut session = session();
        let mut opened = subscribe(&mut session, 1, Instant::now());
        written(&mut session);
        if how == 0 {
            drop(opened);
            session.frame(r#"{"id":1,"result":"0x5"}"#);
        } else {
            session.frame(r#"{"id":1,"result":"0x5"}"#);
            drop(opened.try_recv().unwrap().unwrap());
            assert!(written(&mut session).is_empty());
            if how == 1 { session.command(Command::Prune) } else { assert!(notify(&mut session, "0x5", 1)) }
        }
        let out = written(&mut session);
        assert!(out.len() == 1 && out[0].contains("eth_unsubscribe"), "{how}: {out:?}");
        assert!(!notify(&mut session, "0x5", 1));
    }
}

#[test]
fn a_renewal_ends_every_stream_and_an_end_too() {
    let mut session = session();
    let mut streams = Vec::new();
    for id in [1, 2] {
        let mut opened = subscribe(&mut session, id, Instant::now());
        written(&mut session);
        session.frame(&format!(r#"{{"id":{id},"result":"{id}"}}"#));
        streams.push(opened.try_recv().unwrap().unwrap());
    }
    session.command(Command::Renew);
    assert!(streams.iter_mut().all(|stream| matches!(stream.try_recv(), Err(mpsc::error::TryRecvError::Disconnected))));
    assert_eq!(written(&mut session).len(), 2);
}

#[test]
fn a_number_is_a_subscription_id_too() {
    let mut session = session();
    let mut opened = subscribe(&mut session, 1, Instant::now());
    written(&mut session);
    session.frame(r#"{"id":1,"result":77}"#);
    let mut stream = opened.try_recv().unwrap().unwrap();
    session.frame(r#"{"params":{"subscription":77,"result":[1, 2]}}"#);
    assert_eq!(read(&mut stream), ["[1, 2]"]);
}

fn call_batch(session: &mut Session, ids: &[u64], queued: Instant) -> Vec<oneshot::Receiver<Answered>> {
    let (calls, answers): (Vec<_>, Vec<_>) = ids
        .iter()
        .map(|id| {
            let (caller, answer) = oneshot::channel();
            let seconds = Histogram::with_opts(HistogramOpts::new("seconds", "Of this test.")).unwrap();
            let reply = Reply::Value(Caller::new(caller, queued, seconds));
            (Call { request: Request::new(*id, "eth_x", None), queued, reply }, answer)
        })
        .unzip();
    session.command(Command::Batch(calls));
    answers
}

#[test]
fn a_batch_is_one_frame_and_each_item_gets_its_own_answer() {
    let mut session = session();
    let mut answers = call_batch(&mut session, &[1, 2, 3], Instant::now());
    let frames = written(&mut session);
    assert_eq!(frames.len(), 1);
    assert!(frames[0].starts_with(r#"[{"jsonrpc":"2.0","id":1,"#) && frames[0].ends_with("]"), "{}", frames[0]);
    assert!(session.frame(r#"[{"id":3,"result":"c"},{"id":1,"error":{"code":-1,"message":"a"}},{"id":2,"result":"b"}]"#));
    assert!(matches!(answers[0].try_recv().unwrap(), Err(CallError::Node(error)) if error.message == "a"));
    assert_eq!(answers[1].try_recv().unwrap().unwrap().get(), r#""b""#);
    assert_eq!(answers[2].try_recv().unwrap().unwrap().get(), r#""c""#);
    assert!(session.batches.is_empty());
}

#[test]
fn what_the_answer_to_a_batch_leaves_out_is_unknown_and_other_batches_wait_on() {
    let mut session = session();
    let now = Instant::now();
    let mut first = call_batch(&mut session, &[1, 2], now);
    let mut second = call_batch(&mut session, &[3, 4], now);
    written(&mut session);
    assert!(session.frame(r#"[{"id":2,"result":1}]"#));
    assert!(matches!(first[0].try_recv().unwrap(), Err(CallError::Malformed(_))));
    assert!(first[1].try_recv().unwrap().is_ok());
    assert!(second[0].try_recv().is_err() && second[1].try_recv().is_err());
    session.expire(now + DEADLINE);
    assert!(matches!(second[0].try_recv().unwrap(), Err(CallError::Deadline(_))));
    assert!(session.batches.is_empty());
}

/// Never as a refusal of its items, whatever its words are: a node may have taken a part of them.
#[test]
fn an_error_to_a_whole_batch_answers_every_item_as_unknown() {
    let mut session = session();
    let mut answers = call_batch(&mut session, &[1, 2], Instant::now());
    written(&mut session);
    assert!(session.frame(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"intrinsic gas too low"}}"#));
    for answer in &mut answers {
        assert!(matches!(answer.try_recv().unwrap(), Err(CallError::Malformed(words)) if words.contains("intrinsic")));
    }
    // Of two batches nobody knows which is meant.
    let mut answers = call_batch(&mut session, &[3, 4], Instant::now());
    answers.extend(call_batch(&mut session, &[5, 6], Instant::now()));
    written(&mut session);
    assert!(!session.frame(r#"{"id":null,"error":{"code":-32600,"message":"batch too large"}}"#));
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
}

#[test]
fn a_batch_of_one_is_a_plain_request_and_an_unwritten_batch_was_not_sent() {
    let mut session = session();
    let _one = call_batch(&mut session, &[1], Instant::now());
    let (id, text) = session.output().unwrap();
    assert_eq!((id, text.as_str()), (Written::One(1), r#"{"jsonrpc":"2.0","id":1,"method":"eth_x","params":[]}"#));
    let mut two = call_batch(&mut session, &[2, 3], Instant::now());
    let (written, _) = session.output().unwrap();
    session.not_written(&written);
    assert!(two.iter_mut().all(|answer| matches!(answer.try_recv().unwrap(), Err(CallError::Full))));
    assert!(session.batches.is_empty());
    let mut lost = call_batch(&mut session, &[4, 5], Instant::now());
    session.output().unwrap();
    session.end();
    assert!(lost.iter_mut().all(|answer| matches!(answer.try_recv().unwrap(), Err(CallError::Lost))));
}
