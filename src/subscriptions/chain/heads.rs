//! `newHeads`: the headers of the chain, those of a new branch too, oldest first.

use super::feed::Feed;
use super::steps::{Step, Steps};
use super::told::{Gap, Place, Told};
use crate::node::CallError;

/// One stream of headers.
#[derive(Debug)]
pub(in crate::subscriptions) struct Heads {
    steps: Steps,
    /// Whether headers of blocks that are taken back are told as well, as such.
    tells_removed: bool,
    /// Where the stream stands.
    position: Place,
}

impl Heads {
    /// Those after the head of now. What is taken back is not told, as nodes do not.
    pub(in crate::subscriptions) async fn open(feed: &Feed) -> Result<Self, CallError> {
        let steps = feed.follow().await?;
        Ok(Self { position: steps.start().place(), steps, tells_removed: false })
    }

    /// All that changes behind this position, what is taken back too.
    pub(super) fn behind(position: Place, steps: Steps) -> Self {
        Self { steps, tells_removed: true, position }
    }

    /// Where the stream stands: behind everything that it has told.
    pub(super) fn position(&self) -> Place {
        self.position
    }

    /// Goes on with these, which follow its position.
    pub(super) fn go_on(&mut self, steps: Steps) {
        self.steps = steps;
    }

    /// The next header, or a gap. Cancel safe.
    pub(in crate::subscriptions) async fn next(&mut self) -> Option<Told> {
        loop {
            match self.steps.next().await? {
                Step::Added(block) => {
                    self.position = block.place();
                    return Some(Told::Item(block.header.clone()));
                }
                Step::Removed(block) => {
                    let gap = Gap { from: self.position, to: block.place_below() };
                    self.position = gap.to;
                    if self.tells_removed {
                        // A header was read as an object: it can be written as one.
                        return Some(block.removed_header().map_or(Told::Gap(gap), Told::Item));
                    }
                }
                Step::Gap(gap) => {
                    self.position = gap.to;
                    return Some(Told::Gap(*gap));
                }
            }
        }
    }
}
