//! Connections, and what their subscriptions are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::hex;
use serde_json::{Value, json};

use super::chain::Block;
use super::logs::Filter;
use super::node::{Node, Outgoing};
use super::transaction::Transaction;
use super::views;
use super::words::RpcError;
use crate::random::digest;

/// What a subscription is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    NewHeads,
    /// Whole transactions, or only their hashes.
    Pending {
        whole: bool,
    },
    /// Those of the filter.
    Logs(Filter),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::NewHeads => "newHeads",
            Self::Pending { .. } => "newPendingTransactions",
            Self::Logs(_) => "logs",
        }
    }
}

/// One connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    subscriptions: BTreeMap<String, Kind>,
    /// Until then nothing is told: the answer that names the subscription comes first.
    pub(super) quiet_until: Duration,
}

impl Node {
    /// A new connection; answers its number, from 1.
    pub fn connect(&mut self) -> u64 {
        self.accepted += 1;
        self.connections.insert(self.accepted, Connection::default());
        self.accepted
    }

    /// The connection is gone, with its subscriptions.
    pub fn disconnect(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }

    /// Numbers of the connections that there are.
    pub fn connections(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    /// Cuts every connection.
    pub fn cut(&mut self, now: Duration) {
        for connection in self.connections() {
            self.deliver(connection, now, Outgoing::Cut);
        }
    }

    /// Every connection is half-open from here on: it stays, and nothing is heard of it any more. New ones are as usual.
    pub fn hang(&mut self, now: Duration) {
        for connection in self.connections() {
            self.deliver(connection, now, Outgoing::Hang);
        }
    }

    /// Nothing is told to anybody for this long; then all of it, in order. Calls are taken in and done meanwhile.
    pub fn stall(&mut self, now: Duration, how_long: Duration) {
        self.stalled_until = now + how_long;
    }

    /// Cuts every connection, and takes no new one for this long. Chain and pool stay.
    pub fn go_down(&mut self, now: Duration, how_long: Duration) {
        self.cut(now);
        self.down_until = now + how_long;
    }

    /// Whether new connections are refused now.
    pub fn is_down(&self, now: Duration) -> bool {
        now < self.down_until
    }

    /// Subscriptions of this kind (`newHeads`, `logs`, `newPendingTransactions`) that were ever made, and those that there are.
    pub fn subscriptions(&self, kind: &str) -> (u64, usize) {
        let open = self.connections.values().flat_map(|connection| connection.subscriptions.values());
        (self.subscribed.get(kind).copied().unwrap_or(0), open.filter(|open| open.name() == kind).count())
    }

    pub(super) fn subscribe(&mut self, connection: u64, params: &Value) -> Result<Value, RpcError> {
        let kind = match params.get(0).and_then(Value::as_str).unwrap_or_default() {
            "newHeads" => Kind::NewHeads,
            "newPendingTransactions" => Kind::Pending { whole: params.get(1).and_then(Value::as_bool).unwrap_or(false) },
            "logs" => Kind::Logs(Filter::read(params.get(1).unwrap_or(&Value::Null))?),
            other => return Err(RpcError::new(-32601, format!("no \"{other}\" subscription in eth namespace"))),
        };
        let number = self.luck.number();
        let id = hex::encode_prefixed(digest(self.settings.seed, "subscription", number).split_at(16).0);
        let connection = self.connections.get_mut(&connection).ok_or_else(|| RpcError::new(-32000, "notifications not supported"))?;
        let name = kind.name();
        connection.subscriptions.insert(id.clone(), kind);
        *self.subscribed.entry(name).or_default() += 1;
        Ok(id.into())
    }

    pub(super) fn unsubscribe(&mut self, connection: u64, params: &Value) -> Result<Value, RpcError> {
        let id = params.get(0).and_then(Value::as_str).unwrap_or_default();
        let found = self.connections.get_mut(&connection).and_then(|connection| connection.subscriptions.remove(id));
        found.map(|_| true.into()).ok_or_else(|| RpcError::new(-32000, "subscription not found"))
    }

    pub(super) fn announce_head(&mut self, now: Duration, block: &Block) {
        for header in self.announcements.tell(views::header(block), &mut self.head_faults, &mut self.luck) {
            self.notify(now, |kind| (*kind == Kind::NewHeads).then_some(&header));
        }
    }

    pub(super) fn announce_pending(&mut self, now: Duration, transaction: &Arc<Transaction>) {
        let is_pending = |kind: &Kind| matches!(kind, Kind::Pending { .. });
        if !self.connections.values().any(|connection| connection.subscriptions.values().any(is_pending)) {
            return;
        }
        let (hash, whole) = (json!(transaction.hash), views::transaction(transaction, None));
        self.notify(now, |kind| match kind {
            Kind::Pending { whole: true } => Some(&whole),
            Kind::Pending { whole: false } => Some(&hash),
            Kind::NewHeads | Kind::Logs(_) => None,
        });
    }

    pub(super) fn notify<'a>(&mut self, now: Duration, result: impl Fn(&Kind) -> Option<&'a Value>) {
        if !self.is_announcing {
            return;
        }
        let mut told = Vec::new();
        for (number, connection) in &self.connections {
            for (id, kind) in &connection.subscriptions {
                if let Some(result) = result(kind) {
                    let params = json!({ "subscription": id, "result": result });
                    let text = json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": params }).to_string();
                    told.push((*number, connection.quiet_until.max(now), text));
                }
            }
        }
        for (connection, at, text) in told {
            self.deliver(connection, at, Outgoing::Text(text));
        }
    }
}
