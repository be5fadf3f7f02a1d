//! The OpenRPC document of a service: the methods that it answers, each with its parameters, result and errors as JSON Schemas.
//!
//! The files of openrpc/ are the one place where they are described. The document has exactly the methods that are registered: what is
//! described and not registered is left out, what is registered and not described is named and no more (a test forbids it).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use jsonrpsee::RpcModule;
use jsonrpsee::server::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::errors::RpcError;
use super::pass_through::NAMESPACES;
use super::service::Service;

const DOCUMENT: &str = include_str!("openrpc/document.json");
const ERRORS: &str = include_str!("openrpc/errors.json");
const SCHEMAS: &str = include_str!("openrpc/schemas.json");
const METHODS: [&str; 6] = [
    include_str!("openrpc/methods/accounts.json"),
    include_str!("openrpc/methods/transactions.json"),
    include_str!("openrpc/methods/messages.json"),
    include_str!("openrpc/methods/subscriptions.json"),
    include_str!("openrpc/methods/sluice.json"),
    include_str!("openrpc/methods/discovery.json"),
];

/// OpenRPC's own name, and the one of everybody else here.
const NAMES: [&str; 2] = ["rpc.discover", "rpc_discover"];

/// Registers the method, after all others. The document is made at the first call and kept.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), RegisterMethodError> {
    let names: Arc<BTreeSet<&'static str>> = Arc::new(module.method_names().chain(NAMES).collect());
    let made: Arc<OnceLock<Arc<RawValue>>> = Arc::default();
    for name in NAMES {
        let (names, made) = (Arc::clone(&names), Arc::clone(&made));
        module.register_method(name, move |_, service, _| {
            if let Some(document) = made.get() {
                return Ok(Arc::clone(document));
            }
            let document = document(&service.name, [&service.urls.0, &service.urls.1], &service.pass_through, &names)
                .and_then(|document| to_raw_value(&document))
                .map_err(|error| {
                    tracing::error!(%error, "the OpenRPC document cannot be read");
                    ErrorObjectOwned::from(RpcError::internal())
                })?;
            Ok::<_, ErrorObjectOwned>(Arc::clone(made.get_or_init(|| Arc::from(document))))
        })?;
    }
    Ok(())
}

/// The document of the service `name` that answers the methods `names` at `urls`, and passes the namespaces `extra` through.
fn document(name: &str, urls: [&str; 2], extra: &[String], names: &BTreeSet<&str>) -> serde_json::Result<Value> {
    let mut described: Map<String, Value> = Map::new();
    for file in METHODS {
        for method in serde_json::from_str::<Vec<Value>>(file)? {
            if let Some(name) = method["name"].as_str() {
                described.insert(name.to_owned(), method);
            }
        }
    }
    let methods = names.iter().map(|name| described.remove(*name).unwrap_or_else(|| json!({ "name": name, "params": [] })));
    let methods: Vec<Value> = methods.collect();
    let mut document: Value = serde_json::from_str(DOCUMENT)?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["servers"] = urls.iter().map(|url| json!({ "name": name, "url": url })).collect();
    document["methods"] = methods.into();
    document["components"] = json!({
        "schemas": serde_json::from_str::<Value>(SCHEMAS)?,
        "errors": serde_json::from_str::<Value>(ERRORS)?,
    });
    document["x-pass-through"]["namespaces"] = NAMESPACES.into_iter().chain(extra.iter().map(String::as_str)).collect();
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        for file in METHODS {
            for method in serde_json::from_str::<Vec<Value>>(file).unwrap() {
                let name: &'static str = method["name"].as_str().unwrap().to_owned().leak();
                assert!(names.insert(name), "{name} is described twice");
            }
        }
        names
    }

    #[test]
    fn it_has_exactly_the_methods_that_are_registered() {
        let names = BTreeSet::from(["eth_chainId", "eth_novelty", "rpc_discover"]);
        let document =
            document("payments", ["http://127.0.0.1:1/payments", "ws://127.0.0.1:1/payments"], &["txpool".into()], &names).unwrap();
        let listed: Vec<&str> = document["methods"].as_array().unwrap().iter().map(|method| method["name"].as_str().unwrap()).collect();
        assert_eq!(listed, ["eth_chainId", "eth_novelty", "rpc_discover"]);
        assert_eq!(document["methods"][1], json!({ "name": "eth_novelty", "params": [] }));
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let server = |scheme: &str| json!({ "name": "payments", "url": format!("{scheme}://127.0.0.1:1/payments") });
        assert_eq!(document["servers"], json!([server("http"), server("ws")]));
        assert_eq!(document["x-pass-through"]["namespaces"], json!(["eth", "net", "web3", "txpool"]));
    }

    /// Every `$ref` of the document leads somewhere, and every component is used or meant for all methods.
    #[test]
    fn references_lead_somewhere_and_nothing_is_left_over() {
        let document = document("payments", ["", ""], &[], &all()).unwrap();
        let mut references = BTreeSet::new();
        collect(&document, &mut references);
        for reference in &references {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let of_all = ["ParseError", "InvalidRequest", "MethodNotFound", "ResponseTooLarge", "TooManyCalls", "ServiceRemoved", "Internal"];
        for kind in ["schemas", "errors"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                assert!(of_all.contains(&name.as_str()) || references.contains(&format!("#/components/{kind}/{name}")), "{name}");
            }
        }
        for name in of_all {
            assert!(document["info"]["description"].as_str().unwrap().contains(name), "{name}");
        }
    }

    fn collect(value: &Value, references: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    references.insert(reference.clone());
                }
                members.values().for_each(|value| collect(value, references));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }

    /// A client that matches on a code must not find two meanings of it.
    #[test]
    fn the_errors_of_a_method_have_codes_of_their_own() {
        let document = document("payments", ["", ""], &[], &all()).unwrap();
        for method in document["methods"].as_array().unwrap() {
            let references = method["errors"].as_array().cloned().unwrap_or_default();
            let codes: Vec<i64> = references
                .iter()
                .map(|error| document.pointer(error["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap()["code"].as_i64().unwrap())
                .collect();
            assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len(), "{}", method["name"]);
        }
    }
}
