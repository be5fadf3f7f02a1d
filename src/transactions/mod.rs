//! From a request to a final receipt. In the order in which a transaction passes: [`request`], [`authorisations`], [`prepare`] (with [`fees`]),
//! [`chain`] (the way in), [`account`] (the single writer) with [`balance`] and [`nonces`], [`outboxes`], [`broadcast`] and [`outcome`], [`tracking`].

pub mod account;
pub mod authorisations;
pub mod balance;
pub mod broadcast;
pub mod chain;
pub mod errors;
pub mod fees;
mod meters;
pub mod nonces;
pub mod outboxes;
pub mod outcome;
pub mod prepare;
pub mod request;
pub mod tracking;
