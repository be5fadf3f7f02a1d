//! Clients that stream, each comparing what it is told with the chain while it is told.

use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, Subscription};
use sluice_load_tests::sim_node::{Node, SimNode};
use sluice_load_tests::streams::{HeadView, LifeView, LogView, ReceiptView, Verdict};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// What one subscription was told so far.
#[derive(Debug)]
enum View {
    Heads(HeadView),
    Logs(LogView),
    /// Of the receipts of a principal's own transactions.
    Receipts(ReceiptView),
    /// Of the lives of the same.
    Lives(LifeView),
}

impl View {
    fn told(&mut self, node: &Node, event: &Value) -> Verdict {
        match self {
            Self::Heads(view) => view.told(node, event),
            Self::Logs(view) => view.told(node, event),
            Self::Receipts(view) => view.told(node, event),
            Self::Lives(view) => view.told(node, event),
        }
    }

    fn complete(&self, node: &Node, own: &[B256]) -> Verdict {
        match self {
            Self::Heads(view) => view.complete(node),
            Self::Logs(view) => view.complete(node),
            Self::Receipts(view) => view.complete(node, own),
            Self::Lives(view) => view.complete(node, own),
        }
    }
}

/// How far a subscription is: how many events were told, and what was wrong with the last one.
#[derive(Debug, Clone)]
struct Progress {
    events: u64,
    verdict: Verdict,
}

/// One subscription that is read and compared.
#[derive(Debug)]
pub(super) struct Observer {
    name: String,
    node: SimNode,
    view: Arc<Mutex<View>>,
    progress: watch::Receiver<Progress>,
    reading: JoinHandle<()>,
    /// Its connection.
    _client: Arc<Client>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Observer {
    pub(super) async fn heads(name: String, client: &Arc<Client>, node: &SimNode) -> Self {
        let stream = client.subscribe(json!(["newHeads"])).await.unwrap();
        let view = node.with(|node, _| View::Heads(HeadView::new(node)));
        Self::read(format!("{name}: heads"), client, node, stream, view)
    }

    pub(super) async fn logs(name: String, client: &Arc<Client>, node: &SimNode, filter: &Value) -> Self {
        let stream = client.subscribe(json!(["logs", filter])).await.unwrap();
        let view = node.with(|node, _| View::Logs(LogView::new(node, filter.clone())));
        Self::read(format!("{name}: logs {filter}"), client, node, stream, view)
    }

    pub(super) async fn receipts(name: String, client: &Arc<Client>, node: &SimNode) -> Self {
        let stream = client.subscribe(json!(["transactionReceipts"])).await.unwrap();
        Self::read(format!("{name}: receipts"), client, node, stream, View::Receipts(ReceiptView::default()))
    }

    pub(super) async fn lives(name: String, client: &Arc<Client>, node: &SimNode) -> Self {
        let stream = client.subscribe_by("sluice_subscribe", json!(["transactions", {}])).await.unwrap();
        Self::read(format!("{name}: lives"), client, node, stream, View::Lives(LifeView::default()))
    }

    fn read(name: String, client: &Arc<Client>, node: &SimNode, mut stream: Subscription, view: View) -> Self {
        let view = Arc::new(Mutex::new(view));
        let (progress, told) = watch::channel(Progress { events: 0, verdict: Ok(()) });
        let (truth, seen) = (node.clone(), Arc::clone(&view));
        let reading = tokio::spawn(async move {
            loop {
                // The end of a stream is told as nothing, which is an event that is none.
                let event = stream.next().await.unwrap_or_default();
                let verdict = truth.with(|node, _| seen.lock().unwrap().told(node, &event));
                let is_wrong = verdict.is_err();
                progress.send_modify(|progress| *progress = Progress { events: progress.events + 1, verdict });
                if is_wrong {
                    return;
                }
            }
        });
        Self { name, node: node.clone(), view, progress: told, reading, _client: Arc::clone(client) }
    }

    /// Waits until it was told everything that a node without a gap would have told it by now; how many events. An error says what it was told
    /// instead, or never.
    pub(super) async fn complete(&self, own: &[B256]) -> Result<u64, String> {
        let mut progress = self.progress.clone();
        loop {
            let Progress { events, verdict } = progress.borrow_and_update().clone();
            verdict.map_err(|why| format!("{}, event {events}: {why}", self.name))?;
            let complete = self.node.with(|node, _| self.view.lock().unwrap().complete(node, own));
            let Err(why) = complete else { return Ok(events) };
            if timeout(PATIENCE, progress.changed()).await.is_err() {
                return Err(format!("{}, after {events} events nothing more came: {why}", self.name));
            }
        }
    }
}

/// Addresses that logs are of.
pub(super) const EMITTERS: [Address; 3] = [Address::repeat_byte(1), Address::repeat_byte(2), Address::repeat_byte(3)];

/// Their topics.
pub(super) fn topic(n: u8) -> B256 {
    B256::repeat_byte(0x10 + n)
}

/// Filters of logs: everything; by address; by both; by a later topic; one that geth and reth read differently; one that nothing meets.
pub(super) fn filters() -> [Value; 6] {
    [
        json!({}),
        json!({ "address": EMITTERS[0] }),
        json!({ "address": [EMITTERS[0], EMITTERS[1]], "topics": [[topic(0), topic(1)]] }),
        json!({ "topics": [null, topic(1)] }),
        json!({ "topics": [topic(0), null] }),
        json!({ "address": Address::repeat_byte(0xee) }),
    ]
}
