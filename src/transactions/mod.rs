//! From a request to a final receipt. In the order in which a transaction passes: [`request`], [`authorisations`], [`prepare`] (with [`fees`] and [`ceilings`]),
//! [`idempotency`] and [`intents`] (what is paid once, and what is finished whatever happens), [`chain`] (the way in), [`account`] (the single writer) with [`balance`], [`nonces`] and [`replacement`], [`outboxes`], [`broadcast`] and [`outcome`], [`tracking`].
//! Beside it what operators do to an account ([`operators`]), and when one of a restored journal goes on ([`reconcile`]).

pub mod account;
pub mod authorisations;
pub mod balance;
pub mod broadcast;
pub mod ceilings;
pub mod chain;
pub mod errors;
pub mod fees;
pub mod idempotency;
pub mod intents;
mod meters;
pub mod nonces;
pub mod operators;
pub mod outboxes;
pub mod outcome;
pub mod prepare;
pub mod reconcile;
pub mod replacement;
pub mod request;
mod room;
mod sign_window;
#[cfg(test)]
mod simulation;
pub mod tracking;
