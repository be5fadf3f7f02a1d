//! The pool against scripted nodes.

mod half_open;
mod heads;
mod http;
mod ipc;
mod loss;
mod requests;
mod roles;
mod streams;
mod tls;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use serde_json::value::{RawValue, to_raw_value};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::testing::{Setup, backend, environment, quick, ready, soon, until};
use super::*;
use crate::config::{Environment, NodeClocks, Roles, Transport};
use crate::telemetry::metrics::Metrics;

fn raw(value: impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(&value).unwrap()
}

fn text(item: Option<StreamItem>) -> String {
    match item {
        Some(StreamItem::Item(raw)) => raw.get().to_owned(),
        Some(StreamItem::Lost) => "lost".to_owned(),
        Some(StreamItem::Gap) => "gap".to_owned(),
        None => "end".to_owned(),
    }
}
