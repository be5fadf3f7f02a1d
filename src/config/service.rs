//! `[[service]]`.

use alloy_primitives::Address;

use super::errors::Fault;
use super::kinds::{Choice, ListOf, NONEMPTY, Parsed, Tags, Wei};
use super::listeners;
use super::model::{FeeCeilings, KeySelection, Service, ServiceLimits, SignTransactionResult};
use super::reader::{Table, advice};

/// The names of tables that variables can address: what is between two double underscores.
pub(super) const NAME: Parsed<String> = Parsed {
    word: "name",
    expected: "1 to 64 letters and digits, with single - or _ between them",
    parse: |text| if is_name(text) { Ok(text.to_owned()) } else { Err("is not a name".to_owned()) },
};

/// The name of a service: it is a segment of its URLs as well, as it stands.
pub(super) const SERVICE_NAME: Parsed<String> = Parsed {
    word: "name",
    expected: "1 to 64 lower-case letters and digits, with single - or _ between them",
    parse: |text| {
        if RESERVED.contains(&text) {
            Err("is a path of Sluice's own".to_owned())
        } else if is_name(text) && !text.chars().any(|c| c.is_ascii_uppercase()) {
            Ok(text.to_owned())
        } else {
            Err("is not a segment of a URL".to_owned())
        }
    },
};

/// What the listeners answer themselves, now or by the plan, and what probes ask for.
const RESERVED: [&str; 12] =
    ["admin", "api", "configurations", "environments", "health", "healthz", "livez", "metrics", "ready", "readyz", "services", "status"];

fn is_name(text: &str) -> bool {
    let words = text.split(['-', '_']);
    text.len() <= 64 && words.clone().all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// A JSON-RPC namespace that is the node's alone.
const NAMESPACE: Parsed<String> = Parsed {
    word: "namespace",
    expected: "a namespace of the node, in lower case and without the underscore, such as \"txpool\"",
    parse: |text| match text {
        "eth" | "net" | "web3" => Err("passes through already".to_owned()),
        "personal" | "account" | "sluice" => Err("is answered by Sluice alone".to_owned()),
        _ if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) => {
            Ok(text.to_owned())
        }
        _ => Err("is not a namespace".to_owned()),
    },
};

const RESULTS: Choice<SignTransactionResult> = Choice(&[("object", SignTransactionResult::Object), ("raw", SignTransactionResult::Raw)]);

/// Stands for the server's limits where those are wrong: nothing is served then.
const NO_LIMITS: ServiceLimits = ServiceLimits {
    max_connections: 0,
    max_subscriptions: 0,
    max_principal_subscriptions: 0,
    max_batch_items: 0,
    max_calls_in_flight: 0,
    max_requests_per_second: None,
};

/// What a service can refer to.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) environments: Vec<String>,
    /// Names, and whether it is known to hold keystore files.
    pub(super) configurations: Vec<(String, bool)>,
}

impl Known {
    fn configuration(&self, name: &str) -> Option<&(String, bool)> {
        self.configurations.iter().find(|(known, _)| known == name)
    }
}

/// Reads one; `limits` are those of the server.
pub(super) fn service(table: &mut Table<'_, '_>, name: String, known: &Known, limits: Option<ServiceLimits>) -> Option<Service> {
    let environment = table.required("environment", NONEMPTY);
    let configurations = table.required("configurations", ListOf { element: NONEMPTY, filled: true });
    let keys = if table.has("keys") { table.optional_section("keys", keys) } else { Some(KeySelection::All) };
    let sign_transaction_result = table.or("sign_transaction_result", RESULTS, "object");
    let pass_through = table.or("pass_through", ListOf { element: NAMESPACE, filled: false }, "[]");
    let ceilings = FeeCeilings { per_gas: table.optional("max_fee_per_gas", Wei), total: table.optional("max_total_fee", Wei) };
    // A server that cannot be read has been reported; the table is looked at all the same.
    let limits = table.section("limits", |table| listeners::limits(table, limits.unwrap_or(NO_LIMITS)));
    if let Some(environment) = environment.as_ref().filter(|name| !known.environments.contains(name)) {
        let advice = advice(environment, known.environments.iter().map(String::as_str));
        table.fail("environment", Fault::Reference, format!("there is no environment of this name{advice}"));
    }
    for (index, name) in configurations.iter().flatten().enumerate() {
        if known.configuration(name).is_none() {
            let advice = advice(name, known.configurations.iter().map(|(name, _)| name.as_str()));
            let mut spot = table.spot("configurations");
            spot.path = spot.path.index(index);
            table.context.fail(&spot, Fault::Reference, format!("there is no configuration of this name{advice}"));
        }
    }
    let only_local = configurations.iter().flatten().all(|name| known.configuration(name).is_some_and(|(_, local)| *local));
    if configurations.is_some() && only_local {
        check_local_keys(table, keys.as_ref());
    }
    Some(Service {
        name,
        environment: environment?,
        configurations: configurations?,
        keys: keys?,
        sign_transaction_result: sign_transaction_result?,
        pass_through: pass_through?,
        ceilings,
        limits: limits?,
    })
}

fn keys(table: &mut Table<'_, '_>) -> Option<KeySelection> {
    let (tagged, listed) = (table.has("tag"), table.has("ids"));
    let tags = table.optional("tag", Tags).map(KeySelection::Tags);
    let ids = table.optional("ids", ListOf { element: NONEMPTY, filled: true }).map(KeySelection::Ids);
    if tagged == listed {
        let message = "must be either { tag = { … } } or { ids = [ … ] }; without keys, every key that can sign is used";
        table.context.fail(&table.spot, Fault::Conflict, message);
        return None;
    }
    tags.or(ids)
}

/// Keystore files have addresses and nothing else.
fn check_local_keys(table: &Table<'_, '_>, keys: Option<&KeySelection>) {
    let mut spot = table.spot("keys");
    match keys {
        Some(KeySelection::Tags(_)) => {
            spot.path = spot.path.key("tag");
            table.context.fail(&spot, Fault::Conflict, "keystore files have no tags: select them by keys = { ids = [\"0x…\"] }");
        }
        Some(KeySelection::Ids(ids)) => {
            for (index, _) in ids.iter().enumerate().filter(|(_, id)| id.parse::<Address>().is_err() || !id.starts_with("0x")) {
                let spot = super::reader::Spot { path: spot.path.key("ids").index(index), origin: spot.origin.clone() };
                table.context.fail(&spot, Fault::Value, "must be an address (0x and 40 hexadecimal digits): keystore files go by it");
            }
        }
        Some(KeySelection::All) | None => {}
    }
}
