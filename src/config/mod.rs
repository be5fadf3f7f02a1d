//! One TOML file, environment overrides, and errors that name the key path and what would be right.

mod model;

pub use model::*;
