//! `sluice keys list` and `sluice keys show`: what key stores, nodes and journal know of the keys of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alloy_primitives::Address;
use alloy_primitives::utils::format_ether;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sluice_gateway::config::{Config, Provider};
use sluice_gateway::gateway::open_directory;
use sluice_gateway::journal::Journal;
use sluice_gateway::journal::inspect::align;
use sluice_gateway::journal::keys_only::KeysOnly;
use sluice_gateway::signing::aws_kms::AwsKms;
use sluice_gateway::signing::{Holder, Key, KeyArn};
use sluice_gateway::telemetry::metrics::Metrics;

use super::super::{Failure, keys_on_record, load};
use super::chain::{OnChain, look};
use super::metrics;

/// What is shown where something is not known.
const UNKNOWN: &str = "-";

/// One key with everything that is known of it.
struct Entry {
    key: Arc<Key>,
    /// Names of the services that may use it.
    services: Vec<String>,
    /// Its environments, those of these services, in the order of the file, with their chain ids.
    environments: Vec<(String, u64, OnChain)>,
    aliases: Vec<String>,
}

pub(crate) async fn list(path: &Path, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let metrics = metrics()?;
    let entries = gather(&config, &metrics, None).await?;
    if as_json {
        println!("{}", Value::Array(entries.iter().map(Entry::json).collect()));
        return Ok(());
    }
    let heads = ["ADDRESS", "STATE", "ENVIRONMENT", "BALANCE", "LATEST", "PENDING", "NEXT", "SERVICES", "ALIASES", "ARNS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().flat_map(Entry::rows));
    for line in align(&rows) {
        println!("{line}");
    }
    for note in notes(&entries) {
        eprintln!("sluice: note: {note}");
    }
    Ok(())
}

pub(crate) async fn show(path: &Path, address: Address, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let metrics = metrics()?;
    let entries = gather(&config, &metrics, Some(address)).await?;
    let entry = entries.first().ok_or_else(|| Failure::Failed(format!("no service of {} has a key of {address}", path.display())))?;
    let tags = tags(&config, &entry.key, &metrics).await?;
    if as_json {
        let mut value = entry.json();
        value["holders"] = entry.key.holders().iter().map(|holder| holder_json(holder, &tags)).collect();
        println!("{value}");
        return Ok(());
    }
    let mut rows = vec![
        vec!["address".to_owned(), entry.key.address().to_string()],
        vec!["state".to_owned(), entry.key.state().word()],
        vec!["services".to_owned(), entry.services.join(" ")],
        vec!["aliases".to_owned(), some_or_dash(&entry.aliases)],
    ];
    for holder in entry.key.holders() {
        let known = match tags.get(&holder.arn) {
            Some(tags) if tags.is_empty() => "no tags".to_owned(),
            Some(tags) => tags.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
            None => "tags unknown".to_owned(),
        };
        let words = format!("{} (configuration {}, {}, {known})", holder.arn, holder.configuration, holder.state.word());
        rows.push(vec!["arn".to_owned(), words]);
    }
    for (name, chain_id, found) in &entry.environments {
        let [balance, latest, pending, next] = cells(found);
        let words = format!("{name} (chain id {chain_id}): balance {balance}, nonces: latest {latest}, pending {pending}, next {next}");
        rows.push(vec!["environment".to_owned(), words]);
    }
    for line in align(&rows) {
        println!("{line}");
    }
    for note in notes(&entries) {
        eprintln!("sluice: note: {note}");
    }
    Ok(())
}

/// The keys of every service, or the one of `only`, sorted by address.
async fn gather(config: &Config, metrics: &Arc<Metrics>, only: Option<Address>) -> Result<Vec<Entry>, Failure> {
    let journal = keys_on_record(config).unwrap_or_else(|failure| {
        eprintln!("sluice: note: {failure}");
        Arc::new(KeysOnly::new(None))
    });
    let directory = open_directory(config, Arc::clone(&journal) as Arc<dyn Journal>, metrics).await?;
    let mut found = BTreeMap::<Address, (Arc<Key>, Vec<&str>, Vec<&str>)>::new();
    for service in &config.services {
        for key in directory.select(&service.configurations, &service.keys).await?.all() {
            if only.is_some_and(|only| only != key.address()) {
                continue;
            }
            let (_, services, environments) = found.entry(key.address()).or_insert_with(|| (key, Vec::new(), Vec::new()));
            services.push(&service.name);
            environments.push(&service.environment);
        }
    }
    let looking = config.environments.iter().map(|environment| {
        let uses = found.iter().filter(|(_, (_, _, environments))| environments.contains(&environment.name.as_str()));
        let addresses: Vec<Address> = uses.map(|(address, _)| *address).collect();
        let journal = Arc::clone(&journal);
        async move {
            match addresses.as_slice() {
                [] => BTreeMap::new(),
                addresses => look(environment, addresses, journal.as_ref(), metrics).await,
            }
        }
    });
    let chains: Vec<BTreeMap<Address, OnChain>> = join_all(looking).await;
    let aliases = if found.is_empty() { BTreeMap::new() } else { aliases(config, metrics).await? };
    let entries = found.into_iter().map(|(address, (key, services, _))| Entry {
        services: services.into_iter().map(str::to_owned).collect(),
        environments: config
            .environments
            .iter()
            .zip(&chains)
            .filter_map(|(environment, chain)| Some((environment.name.clone(), environment.chain_id, chain.get(&address)?.clone())))
            .collect(),
        aliases: key.pinned().arns().filter_map(|arn| aliases.get(arn)).flatten().cloned().collect(),
        key,
    });
    Ok(entries.collect())
}

impl Entry {
    fn arns(&self) -> Vec<String> {
        self.key.pinned().arns().map(ToString::to_string).collect()
    }

    /// A row for each environment.
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |(name, _, found): &(String, u64, OnChain)| {
            let mut row = vec![self.key.address().to_string(), self.key.state().word(), name.clone()];
            row.extend(cells(found));
            row.extend([some_or_dash(&self.services), some_or_dash(&self.aliases), some_or_dash(&self.arns())]);
            row
        };
        self.environments.iter().map(row).collect()
    }

    /// `{ address, state, arns, aliases, services, configurations, environments: [{ name, chainId, balance, nonces: { latest, pending,
    /// next }, error }] }`; the balance is in wei, as a text.
    fn json(&self) -> Value {
        let mut configurations: Vec<String> = self.key.holders().iter().map(|holder| holder.configuration.to_string()).collect();
        configurations.sort();
        configurations.dedup();
        let environments: Vec<Value> = self
            .environments
            .iter()
            .map(|(name, chain_id, found)| {
                json!({
                    "name": name,
                    "chainId": chain_id,
                    "balance": found.balance.map(|balance| balance.to_string()),
                    "nonces": { "latest": found.latest, "pending": found.pending, "next": found.next },
                    "error": found.error,
                })
            })
            .collect();
        json!({
            "address": self.key.address().to_string(),
            "state": self.key.state().word(),
            "arns": self.arns(),
            "aliases": self.aliases,
            "services": self.services,
            "configurations": configurations,
            "environments": environments,
        })
    }
}

fn holder_json(holder: &Holder, tags: &BTreeMap<KeyArn, BTreeMap<String, String>>) -> Value {
    json!({
        "arn": holder.arn.to_string(),
        "configuration": &*holder.configuration,
        "state": holder.state.word(),
        "tags": tags.get(&holder.arn),
    })
}

/// Balance (in ether) and nonces.
fn cells(found: &OnChain) -> [String; 4] {
    let of_the_chain = |value: Option<String>| value.unwrap_or_else(|| "unavailable".to_owned());
    let next = found.next.map_or_else(|| UNKNOWN.to_owned(), |next| next.to_string());
    let balance = found.balance.map(|wei| {
        let ether = format_ether(wei);
        ether.trim_end_matches('0').trim_end_matches('.').to_owned()
    });
    [
        of_the_chain(balance),
        of_the_chain(found.latest.map(|nonce| nonce.to_string())),
        of_the_chain(found.pending.map(|nonce| nonce.to_string())),
        next,
    ]
}

fn some_or_dash(words: &[String]) -> String {
    if words.is_empty() { UNKNOWN.to_owned() } else { words.join(" ") }
}

/// Why chains are unavailable, once for each.
fn notes(entries: &[Entry]) -> Vec<String> {
    let all = entries.iter().flat_map(|entry| &entry.environments);
    let mut notes: Vec<String> =
        all.filter_map(|(name, _, found)| Some(format!("environment \"{name}\" is unavailable: {}", found.error.as_ref()?))).collect();
    notes.sort();
    notes.dedup();
    notes
}

/// Aliases are for people: without the right to list them the table is there all the same.
async fn aliases(config: &Config, metrics: &Arc<Metrics>) -> Result<BTreeMap<KeyArn, Vec<String>>, Failure> {
    let mut all = BTreeMap::new();
    for configuration in &config.configurations {
        if let Provider::AwsKms(kms) = &configuration.provider {
            let store = AwsKms::connect(&configuration.name, kms, Arc::clone(metrics)).await?;
            match store.describe_aliases().await {
                Ok(found) => all.extend(found),
                Err(error) => eprintln!("sluice: note: no aliases of configuration \"{}\": {error}", configuration.name),
            }
        }
    }
    Ok(all)
}

/// The tags of each name of the key, as far as they may be read.
async fn tags(config: &Config, key: &Key, metrics: &Arc<Metrics>) -> Result<BTreeMap<KeyArn, BTreeMap<String, String>>, Failure> {
    let mut all = BTreeMap::new();
    for holder in key.holders() {
        let configuration = config.configurations.iter().find(|configuration| configuration.name == *holder.configuration);
        if let Some(Provider::AwsKms(kms)) = configuration.map(|configuration| &configuration.provider) {
            let store = AwsKms::connect(&holder.configuration, kms, Arc::clone(metrics)).await?;
            match store.describe_tags(&holder.arn).await {
                Ok(found) => drop(all.insert(holder.arn.clone(), found)),
                Err(error) => eprintln!("sluice: note: no tags of {}: {error}", holder.arn),
            }
        }
    }
    Ok(all)
}
