//! `sluice keys refresh`: the gateway that runs with this configuration finds its keys again.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use sluice_gateway::server::ask::ask;

use super::super::{Failure, load};

pub(crate) async fn refresh(path: &Path, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let answer = ask(&config.admin, Method::POST, "/keys/refresh", Some(&json!({}))).await?;
    let services = answer["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    if as_json {
        println!("{answer}");
    } else {
        services.iter().for_each(|service| println!("{}", said(service)));
    }
    let failed: Vec<&str> =
        services.iter().filter(|service| !service["error"].is_null()).filter_map(|service| service["name"].as_str()).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("not refreshed: {}", failed.join(", ")))) }
}

/// What became of one service, for people.
fn said(service: &Value) -> String {
    let name = service["name"].as_str().unwrap_or("?");
    if let Some(error) = service["error"].as_str() {
        return format!("{name}: its keys stay as they are: {error}");
    }
    let mut lines = vec![format!("{name}: {} keys can sign", service["keys"])];
    let each = |member: &str| service[member].as_array().cloned().unwrap_or_default();
    for word in ["added", "removed"] {
        lines.extend(each(word).iter().filter_map(Value::as_str).map(|address| format!("  {word} {address}")));
    }
    let changed = each("changed");
    lines.extend(changed.iter().filter_map(|key| Some(format!("  {} {}", key["state"].as_str()?, key["address"].as_str()?))));
    lines.join("\n")
}
