//! One client that reads the stream of lifecycle events across all lives of the gateway, and comes back by its cursor.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use tokio::sync::watch;

use super::checker::Told;
use super::ledger::Ledger;
use crate::support::anvil::{parse, quantity};

/// Where the gateway is; `None` while it is not.
type Place = watch::Receiver<Option<String>>;

/// The reader, and how it is told where the gateway is.
pub(super) struct Stream {
    place: watch::Sender<Option<String>>,
    events: watch::Receiver<Vec<Told>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    pub(super) fn start(ledger: Arc<Ledger>) -> Self {
        let (place, at) = watch::channel(None);
        let (sender, events) = watch::channel(Vec::new());
        let task = tokio::spawn(read(at, sender, ledger));
        Self { place, events, task }
    }

    /// The gateway lives here, or does not live.
    pub(super) fn at(&self, url: Option<String>) {
        self.place.send_replace(url);
    }

    /// What was told so far.
    pub(super) fn events(&self) -> Vec<Told> {
        self.events.borrow().clone()
    }
}

async fn read(mut place: Place, events: watch::Sender<Vec<Told>>, ledger: Arc<Ledger>) {
    let mut cursor = "start".to_owned();
    loop {
        let Ok(url) = place.wait_for(Option::is_some).await.map(|url| url.clone().unwrap_or_default()) else { return };
        match follow(&url, &mut cursor, &events, &ledger).await {
            Ok(()) | Err(ClientError::Connection(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            Err(error) => {
                ledger.complain(format!("the cursor {cursor} is not taken: {error}"));
                return;
            }
        }
    }
}

/// Until the connection ends.
async fn follow(url: &str, cursor: &mut String, events: &watch::Sender<Vec<Told>>, ledger: &Ledger) -> Result<(), ClientError> {
    let client = Client::connect(url, &[]).await?;
    let mut lives = client.subscribe_by("sluice_subscribe", json!(["transactions", { "after": cursor.as_str() }])).await?;
    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await?;
    loop {
        tokio::select! {
            event = lives.next() => {
                let Some(event) = event else { return Ok(()) };
                event["cursor"].as_str().unwrap_or_default().clone_into(cursor);
                events.send_modify(|events| events.push(told(&event)));
            }
            block = receipts.next() => {
                let Some(block) = block else { return Ok(()) };
                ledger.read().receipts.extend(block.as_array().cloned().unwrap_or_default());
            }
        }
    }
}

fn told(event: &Value) -> Told {
    let block = &event["block"];
    Told {
        transaction: event["id"].as_str().unwrap_or_default().replace('-', ""),
        hash: event["hash"].as_str().map(|hash| hash.parse().unwrap()),
        state: event["state"].as_str().unwrap_or_default().to_owned(),
        block: (!block.is_null()).then(|| (quantity(&block["number"]), parse(&block["hash"]))),
    }
}
