//! `eth_subscribe("transactionReceipts")`, answered here on any node, in geth's shape: each notification is the array of one
//! block's matching receipts. With hashes, those; without, every receipt of the principal's own transactions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::B256;
use dashmap::DashMap;
use jsonrpsee::SubscriptionSink;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::member::{Member, pair};
use crate::subscriptions::connection::ConnectionHandle;
use crate::transactions::chain::Chain;
use crate::transactions::tracking::Receipt;

/// Which receipts a client wants.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Those of these transactions, whoever sent them.
    Hashes(Vec<B256>),
    /// Those of its own transactions.
    Own {
        /// The service it is connected to.
        service: Arc<str>,
        /// Its name.
        principal: Arc<str>,
    },
}

/// Hashes in one subscription (geth's bound).
pub const MAX_HASHES: usize = 200;
/// Receipts that one subscription remembers to have delivered, so that none comes twice for one block.
const REMEMBERED: usize = 16_384;

#[derive(Debug)]
struct Subscriber {
    member: Member,
    hashes: HashSet<B256>,
    wanted: Wanted,
    delivered: Delivered,
    /// Blocks that were seen while what is mined already is looked up, so that it comes first. As bounded as what is watched.
    held: Option<Vec<Vec<Receipt>>>,
}

/// What was delivered: once per transaction and block. A receipt in another block, after a reorg, is new.
#[derive(Debug, Default)]
struct Delivered {
    blocks: HashMap<B256, B256>,
    order: VecDeque<B256>,
}

impl Delivered {
    fn is_new(&mut self, receipt: &Receipt) -> bool {
        match self.blocks.insert(receipt.hash, receipt.block.hash) {
            Some(before) => before != receipt.block.hash,
            None => {
                self.order.push_back(receipt.hash);
                if self.order.len() > REMEMBERED
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.blocks.remove(&oldest);
                }
                true
            }
        }
    }
}

/// The receipt streams of one environment.
#[derive(Debug)]
pub struct Receipts {
    subscribers: DashMap<u64, Subscriber>,
    /// Who waits for one receipt.
    waiting: DashMap<u64, Waiting>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    hash: B256,
    sender: Option<oneshot::Sender<Receipt>>,
}

impl Waiting {
    /// Answers whether it waits on.
    fn seen(&mut self, block: &[Receipt]) -> bool {
        let Some(receipt) = block.iter().find(|receipt| receipt.hash == self.hash) else { return true };
        if let Some(sender) = self.sender.take() {
            // Whoever is gone takes its place away itself.
            let _gone = sender.send(receipt.clone());
        }
        false
    }
}

/// A place among those who wait for one receipt; dropped, nothing is watched for it any more.
struct Place<'a> {
    receipts: &'a Receipts,
    chain: &'a Chain,
    id: u64,
    hash: B256,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.receipts.waiting.remove(&self.id);
        self.chain.tracker().unobserve(vec![self.hash]);
    }
}

impl Receipts {
    /// Fans out what the tracker sees, until the tracker ends.
    pub fn start(mut seen: mpsc::UnboundedReceiver<Vec<Receipt>>) -> Arc<Self> {
        let receipts = Arc::new(Self { subscribers: DashMap::new(), waiting: DashMap::new(), next: AtomicU64::new(0) });
        let hub = Arc::clone(&receipts);
        tokio::spawn(async move {
            while let Some(block) = seen.recv().await {
                hub.waiting.retain(|_, waiting| waiting.seen(&block));
                hub.subscribers.retain(|_, subscriber| subscriber.seen(&block));
            }
        });
        receipts
    }

    /// The receipt of a transaction, whoever sent it: as it is mined already, or when it is.
    pub async fn first(&self, chain: &Chain, hash: B256) -> Receipt {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, seen) = oneshot::channel();
        // In place before it is looked up: what is mined in between arrives by one way or the other.
        self.waiting.insert(id, Waiting { hash, sender: Some(sender) });
        let _place = Place { receipts: self, chain, id, hash };
        if let Some(receipt) = chain.tracker().observe(vec![hash]).await.pop() {
            return receipt;
        }
        match seen.await {
            Ok(receipt) => receipt,
            // The streams end with the process.
            Err(_) => std::future::pending().await,
        }
    }

    /// Serves one client until it goes: first what is mined already, then each as it is mined. The error is the subscription's last
    /// words.
    pub async fn serve(
        &self,
        chain: &Chain,
        wanted: Wanted,
        sink: SubscriptionSink,
        connection: Option<ConnectionHandle>,
    ) -> Result<(), &'static str> {
        let (member, watch) = pair(sink, connection);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let hashes = match &wanted {
            Wanted::Hashes(hashes) => hashes.iter().copied().collect(),
            Wanted::Own { .. } => HashSet::new(),
        };
        let subscriber = Subscriber { member, hashes, wanted: wanted.clone(), delivered: Delivered::default(), held: Some(Vec::new()) };
        // In place before anything is looked up: what is mined in between arrives by one way or the other, and only once.
        self.subscribers.insert(id, subscriber);
        let observed = match wanted {
            Wanted::Hashes(hashes) => Ok(hashes),
            Wanted::Own { service, principal } => {
                let chain_id = chain.environment().chain_id;
                let unconfirmed = chain.journal().unconfirmed(chain_id, service, principal).await;
                unconfirmed.map(|attempts| attempts.into_iter().map(|stored| stored.attempt.hash).collect())
            }
        };
        let over = match observed {
            Ok(hashes) => {
                // By hash as well: what becomes final in this moment has no owner any more.
                if let Some(mut subscriber) = self.subscribers.get_mut(&id) {
                    subscriber.hashes.extend(&hashes);
                }
                let mut mined = chain.tracker().observe(hashes.clone()).await;
                mined.sort_by_key(|receipt| (receipt.block.number, receipt.index));
                if let Some(mut subscriber) = self.subscribers.get_mut(&id) {
                    let seen = subscriber.held.take().unwrap_or_default();
                    let mined = mined.chunk_by(|one, other| one.block == other.block);
                    // A client that is gone or too slow is found out by its watch.
                    let _all = mined.chain(seen.iter().map(Vec::as_slice)).all(|block| subscriber.offer(block));
                }
                let over = watch.over().await;
                chain.tracker().unobserve(hashes);
                over
            }
            Err(error) => {
                tracing::error!(%error, "a receipt stream cannot start");
                Err("the journal cannot be read")
            }
        };
        self.subscribers.remove(&id);
        over
    }
}

impl Subscriber {
    fn wants(&self, receipt: &Receipt) -> bool {
        match &self.wanted {
            Wanted::Hashes(_) => self.hashes.contains(&receipt.hash),
            Wanted::Own { .. } if self.hashes.contains(&receipt.hash) => true,
            Wanted::Own { service, principal } => {
                receipt.owner.as_ref().is_some_and(|owner| owner.service == *service && owner.principal == *principal)
            }
        }
    }

    /// A block that was mined just now; answers whether the client is still there.
    fn seen(&mut self, block: &[Receipt]) -> bool {
        match &mut self.held {
            Some(held) => {
                held.push(block.to_vec());
                true
            }
            None => self.offer(block),
        }
    }

    /// Sends those of one block that the client wants and has not got; answers whether it is still there.
    fn offer(&mut self, block: &[Receipt]) -> bool {
        let mut text = String::new();
        for receipt in block {
            if !self.wants(receipt) || !self.delivered.is_new(receipt) {
                continue;
            }
            text.push(if text.is_empty() { '[' } else { ',' });
            text.push_str(receipt.json.get());
        }
        if text.is_empty() {
            return true;
        }
        text.push(']');
        match RawValue::from_string(text) {
            Ok(array) => self.member.send(&Arc::from(array)),
            Err(_) => true,
        }
    }
}
