//! The chain as a perfect node would show it: blocks in order, each once, whatever the connections to the nodes do in between. A head that
//! does not join what is known is followed back by its parents; blocks that a reorg took back are told before those in their place.

mod block;
mod feed;
mod filter;
mod heads;
mod logs;
mod members;
mod meter;
mod ring;

pub(super) use feed::Feed;
pub use filter::LogFilter;
pub(super) use heads::Heads;
pub(super) use logs::Logs;
pub(super) use meter::StepMeter;

#[cfg(test)]
mod tests;
