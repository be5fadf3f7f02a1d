//! Streams of every kind, each with the view that it is compared with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::sim_node::{Node, SimNode};
use sluice_load_tests::streams::{HeadView, LogView, Verdict};
use tokio::sync::watch;

use crate::subscriptions::chain::lasting::{About, Lasting};
use crate::subscriptions::chain::told::{Place, Told};
use crate::subscriptions::chain::{Feed, Heads, LogFilter, Logs, OfLogs};

pub(super) const EMITTERS: [Address; 2] = [Address::repeat_byte(1), Address::repeat_byte(2)];

pub(super) fn topic(n: u64) -> B256 {
    B256::with_last_byte(u8::try_from(0x10 + n).unwrap())
}

/// What is looked for, and how the node is asked for it: all; an address; a later topic; what clients read differently.
pub(super) fn filter(n: usize) -> (LogFilter, Value) {
    let topics = |n: u64| Some([topic(n)].into());
    match n % 4 {
        0 => (LogFilter::default(), json!({})),
        1 => (LogFilter { addresses: [EMITTERS[0]].into(), ..LogFilter::default() }, json!({ "address": EMITTERS[0] })),
        2 => (LogFilter { topics: vec![None, topics(1)], ..LogFilter::default() }, json!({ "topics": [null, topic(1)] })),
        _ => (LogFilter { topics: vec![topics(0), None], ..LogFilter::default() }, json!({ "topics": [topic(0), null] })),
    }
}

/// A stream, of which the last two come back when they were away.
enum Stream {
    Heads(Heads),
    Logs(Box<Logs>),
    LastingHeads(Lasting),
    LastingLogs(Lasting),
}

impl Stream {
    async fn next(&mut self) -> Option<Told> {
        match self {
            Self::Heads(heads) => heads.next().await,
            Self::Logs(logs) => logs.next().await,
            Self::LastingHeads(stream) | Self::LastingLogs(stream) => stream.next().await,
        }
    }
}

enum View {
    Heads(HeadView),
    Logs(LogView),
}

/// What was told so far.
struct Seen {
    view: View,
    verdict: Verdict,
    events: u64,
}

/// One observer of a kind and filter.
pub(super) struct Observer {
    seen: Arc<Mutex<Option<Seen>>>,
    name: String,
}

/// How observers that come back are told to go away: for so long.
pub(super) type Away = watch::Receiver<Duration>;

impl Observer {
    /// Number `n`; its task is the runtime's.
    pub(super) fn start(n: usize, node: &SimNode, feed: &Feed, away: Away) -> Self {
        let seen = Arc::new(Mutex::new(None));
        let name = format!("observer {n} ({})", ["heads", "logs", "lasting heads", "lasting logs"][n % 4]);
        tokio::spawn(observe(n, node.clone(), feed.clone(), away, Arc::clone(&seen)));
        Self { seen, name }
    }

    /// Whether it was told everything by now, and how many events.
    pub(super) fn complete(&self, node: &Node) -> (Verdict, u64) {
        let seen = self.seen.lock().unwrap();
        let Some(Seen { view, verdict, events, .. }) = &*seen else { return (Err(format!("{} has not begun", self.name)), 0) };
        let complete = verdict.clone().and_then(|()| match view {
            View::Heads(view) => view.complete(node),
            View::Logs(view) => view.complete(node),
        });
        (complete.map_err(|why| format!("{}, event {events}: {why}", self.name)), *events)
    }

    /// What it should never have been told.
    pub(super) fn fault(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        seen.as_ref().and_then(|seen| seen.verdict.as_ref().err()).map(|why| format!("{}: {why}", self.name))
    }
}

async fn observe(n: usize, node: SimNode, feed: Feed, mut away: Away, seen: Arc<Mutex<Option<Seen>>>) {
    let (wanted, asked) = filter(n / 4);
    let mut after: Option<Place> = None;
    loop {
        let about = || OfLogs { filter: wanted.clone(), ..OfLogs::default() };
        let opened = match n % 4 {
            0 => Heads::open(&feed).await.map(|stream| (stream.position().hash, Stream::Heads(stream))),
            1 => Logs::open(&feed, about()).await.map(|stream| (stream.position().hash, Stream::Logs(Box::new(stream)))),
            2 => Lasting::open(&feed, About::Heads, after).await.map(|stream| (stream.position().hash, Stream::LastingHeads(stream))),
            _ => {
                Lasting::open(&feed, About::Logs(about()), after).await.map(|stream| (stream.position().hash, Stream::LastingLogs(stream)))
            }
        };
        let Ok((start, mut stream)) = opened else { continue };
        seen.lock().unwrap().get_or_insert_with(|| Seen { view: begin(n, &node, start, &asked), verdict: Ok(()), events: 0 });
        away.mark_unchanged();
        loop {
            let told = tokio::select! {
                biased;
                told = stream.next() => told,
                _ = away.changed(), if n % 4 > 1 => {
                    let how_long = *away.borrow_and_update();
                    let Some(place) = left_behind(&node, &seen) else { continue };
                    drop(stream);
                    tokio::time::sleep(how_long).await;
                    after = Some(place);
                    break;
                }
            };
            let event: Value = match told {
                Some(Told::Item(item)) => serde_json::from_str(item.get()).unwrap(),
                Some(Told::Gap(_)) | None => Value::Null,
            };
            let mut seen = seen.lock().unwrap();
            let Some(seen) = seen.as_mut() else { return };
            seen.events += 1;
            seen.verdict = node.with(|node, _| match &mut seen.view {
                View::Heads(view) => view.told(node, &event),
                View::Logs(view) => view.told(node, &event),
            });
            if seen.verdict.is_err() {
                return;
            }
        }
    }
}

fn begin(n: usize, node: &SimNode, start: B256, asked: &Value) -> View {
    node.with(|node, _| match n % 4 {
        0 => View::Heads(HeadView::behind(node, start)),
        2 => View::Heads(HeadView::behind(node, start).explicit()),
        _ => View::Logs(LogView::behind(node, asked.clone(), start)),
    })
}

/// The block that a client saw last; `None` in the middle of one, and while it has seen none.
fn left_behind(node: &SimNode, seen: &Mutex<Option<Seen>>) -> Option<Place> {
    let mut seen = seen.lock().unwrap();
    let Seen { view, .. } = seen.as_mut()?;
    node.with(|node, _| {
        let last = match view {
            View::Heads(view) => view.tip(),
            View::Logs(view) if !view.is_whole(node) => return None,
            View::Logs(view) => {
                view.come_back();
                view.tip()
            }
        };
        let hash = last?;
        Some(Place { number: node.chain().hash(hash)?.number(), hash })
    })
}
