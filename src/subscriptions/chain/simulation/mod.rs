//! The feed and the streams of the chain in virtual time (docs/simulation.md): real connections in memory to a simulated node whose connections, heads and
//! answers go wrong as a seed says, and observers who compare what they are told with its chain.

mod observers;
mod run;
mod schedule;
mod tests;
