//! Where `scripts/parts` has put what the tests run against.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A group of parts that is there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// anvil, cast and the clients in JavaScript.
    Node,
    /// ministack, eth-account and web3.py.
    Python,
    /// geth and the client in Go.
    Go,
    /// OpenRPC's meta-schema and a validator of JSON Schema.
    Documents,
    /// Docker's parsers of Dockerfiles and compose files.
    Deploy,
    /// The libraries of the image's base.
    Image,
    /// prometheus and promtool.
    Prometheus,
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".parts")
}

pub(crate) fn anvil() -> PathBuf {
    folder().join("bin/anvil")
}

pub(crate) fn cast() -> PathBuf {
    folder().join("bin/cast")
}

pub(crate) fn geth() -> PathBuf {
    folder().join("bin/geth")
}

pub(crate) fn ethclient() -> PathBuf {
    folder().join("bin/ethclient")
}

pub(crate) fn ministack() -> PathBuf {
    folder().join("bin/ministack")
}

pub(crate) fn python() -> PathBuf {
    folder().join("python/bin/python")
}

pub(crate) fn prometheus() -> PathBuf {
    folder().join("bin/prometheus")
}

pub(crate) fn promtool() -> PathBuf {
    folder().join("bin/promtool")
}

/// A file of tests/clients.
pub(crate) fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Whether all parts are there; otherwise says that this test is skipped, and why.
pub(crate) fn have(test: &str, parts: &[Part]) -> bool {
    for part in parts {
        let (name, probe) = match part {
            Part::Node => ("node", anvil()),
            Part::Python => ("python", python()),
            Part::Go => ("go", geth()),
            Part::Documents => ("documents", folder().join("documents/node_modules/ajv")),
            Part::Deploy => ("deploy", folder().join("bin/deploy")),
            Part::Image => ("image", folder().join("image/root")),
            Part::Prometheus => ("prometheus", prometheus()),
        };
        if !probe.exists() || !folder().join(format!("{name}.stamp")).exists() {
            let reason = std::fs::read_to_string(folder().join(format!("{name}.missing")));
            let reason = reason.unwrap_or_else(|_| "scripts/parts has not run".into());
            skip(test, &format!("part {name}: {}", reason.trim()));
            return false;
        }
    }
    true
}

/// Whether the machine has this program; otherwise says that this test is skipped.
pub(crate) fn has_tool(test: &str, name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if !has {
        skip(test, &format!("{name} is not installed"));
    }
    has
}

/// Says that this test is skipped. Not by println!: the test harness would keep it to itself.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("\nSKIP {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
