//! The chain as a perfect node would show it: blocks in order, each once, whatever the connections to the nodes do in between. A head that
//! does not join what is known is followed back by its parents; blocks that a reorg took back are told before those in their place.

mod block;
mod block_logs;
mod feed;
mod filter;
mod heads;
mod lasting;
mod library;
mod logs;
mod members;
mod meter;
mod ring;
mod shelf;
mod steps;
mod told;
mod walk;

pub(super) use feed::Feed;
pub use filter::{LogFilter, OfLogs};
pub(super) use heads::Heads;
pub use lasting::{About, Lasting};
pub(super) use logs::Logs;
pub(super) use meter::StepMeter;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
