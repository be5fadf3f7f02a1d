//! The members of one relay, in groups: whoever tells thousands lets others run in between.

use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use jsonrpsee::SubscriptionSink;
use serde_json::value::RawValue;

use super::connection::ConnectionHandle;
use super::member::Member;

/// Groups; members are spread evenly over them.
const GROUPS: usize = 16;
/// Shards of each group's map, so that those who come and go do not wait for those who are told.
const SHARDS: usize = 2;
/// Members that are told before others may run.
const TURN: usize = 256;

/// See the module.
pub(super) struct Audience([DashMap<u64, Member>; GROUPS]);

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audience").field("members", &self.0.iter().map(DashMap::len).sum::<usize>()).finish()
    }
}

impl Audience {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| DashMap::with_shard_amount(SHARDS)))
    }

    /// Numbers are given in a row.
    fn group(&self, number: u64) -> Option<&DashMap<u64, Member>> {
        self.0.get((number % GROUPS as u64) as usize)
    }

    pub(super) fn insert(&self, number: u64, member: Member) {
        if let Some(group) = self.group(number) {
            group.insert(number, member);
        }
    }

    /// The member has its id.
    pub(super) fn open(&self, number: u64, sink: SubscriptionSink, connection: Option<ConnectionHandle>) {
        if let Some(mut member) = self.group(number).and_then(|group| group.get_mut(&number)) {
            member.open(sink, connection);
        }
    }

    pub(super) fn remove(&self, number: u64) {
        if let Some(group) = self.group(number) {
            group.remove(&number);
        }
    }

    /// Tells everybody these results, in their order; those who are gone, or did not keep up, are members no more.
    pub(super) async fn tell(&self, results: &[Arc<RawValue>]) {
        let mut told = 0;
        for group in &self.0 {
            group.retain(|_, member| results.iter().all(|result| member.send(result)));
            told += group.len() * results.len();
            if told >= TURN {
                told = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Ends everybody's subscription with these words.
    pub(super) fn end(&self, why: &'static str) {
        for group in &self.0 {
            group.retain(|_, member| {
                member.end(why);
                false
            });
        }
    }
}
