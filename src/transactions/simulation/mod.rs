//! The deterministic simulation (docs/simulation.md): the real machine, account tasks, tracker, scheduler of Signs, journal and connections,
//! on one thread and in virtual time, over a simulated node and KMS, with kills. A seed decides everything; the same seed runs the same way.

mod checker;
mod client;
mod edges;
mod ledger;
mod once;
mod run;
mod schedule;
mod store;
mod tap;
mod tests;
mod world;
