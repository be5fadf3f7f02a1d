//! The command line: serve, dev, check, keys, journal.

fn main() {}
