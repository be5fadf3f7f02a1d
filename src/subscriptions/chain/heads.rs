//! `newHeads`: the headers of the chain, those of a new branch too, oldest first.

use super::feed::{Feed, Step, Steps};
use crate::node::{CallError, StreamItem};

/// One stream of headers.
#[derive(Debug)]
pub(in crate::subscriptions) struct Heads(Steps);

impl Heads {
    /// Those after the head of now.
    pub(in crate::subscriptions) async fn open(feed: &Feed) -> Result<Self, CallError> {
        feed.follow().await.map(Self)
    }

    /// The next header, or a gap. Cancel safe.
    pub(in crate::subscriptions) async fn next(&mut self) -> Option<StreamItem> {
        loop {
            match self.0.next().await? {
                Step::Added(block, _) => return Some(StreamItem::Item(block.header.clone())),
                Step::Removed(_) => {}
                Step::Gap => return Some(StreamItem::Gap),
            }
        }
    }
}
