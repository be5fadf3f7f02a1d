//! `sluice keys list` and `sluice keys create`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_gateway::config::{Config, Configuration, KeySelection, Provider};
use sluice_gateway::gateway::open_directory;
use sluice_gateway::signing::aws_kms::AwsKms;
use sluice_gateway::signing::signature::PinnedKey;
use sluice_gateway::signing::{KeyArn, KeyState, KeyStore as _};
use sluice_gateway::telemetry::metrics::Metrics;

use super::{Failure, keys_on_record, load};

fn metrics() -> Result<Arc<Metrics>, Failure> {
    Metrics::new().map(Arc::new).map_err(|error| Failure::Failed(error.to_string()))
}

pub(crate) async fn list(path: &Path, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let metrics = metrics()?;
    let directory = open_directory(&config, keys_on_record(&config)?, &metrics).await?;
    let aliases = aliases(&config, &metrics).await?;
    let mut rows = Vec::new();
    for service in &config.services {
        for key in directory.select(&service.configurations, &service.keys).await?.iter() {
            let state = match key.state() {
                KeyState::Enabled => "enabled".to_owned(),
                KeyState::Unusable(why) => why,
            };
            let pinned = key.pinned();
            let names: Vec<&String> = pinned.arns().filter_map(|arn| aliases.get(arn)).flatten().collect();
            let arns: Vec<String> = pinned.arns().map(ToString::to_string).collect();
            rows.push(
                json!({ "service": service.name, "address": key.address().to_string(), "state": state, "arns": arns, "aliases": names }),
            );
        }
    }
    if as_json {
        println!("{}", json!(rows));
        return Ok(());
    }
    let cell = |row: &Value, name: &str| match &row[name] {
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        one => one.as_str().unwrap_or_default().to_owned(),
    };
    println!("{:<16} {:<42} {:<16} {:<24} ARN", "SERVICE", "ADDRESS", "STATE", "ALIAS");
    for row in &rows {
        let [service, address, state, alias, arn] = ["service", "address", "state", "aliases", "arns"].map(|name| cell(row, name));
        println!("{service:<16} {address:<42} {state:<16} {alias:<24} {arn}");
    }
    Ok(())
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

pub(crate) async fn create(
    path: &Path,
    configuration: Option<&str>,
    tags: &[String],
    alias: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let config = load(path)?;
    let (name, kms) = kms_configuration(&config, configuration)?;
    let mut pairs = BTreeMap::new();
    for tag in tags {
        let (key, value) = tag.split_once('=').ok_or_else(|| Failure::Usage(format!("--tag {tag}: a tag is NAME=VALUE")))?;
        pairs.insert(key.to_owned(), value.to_owned());
    }
    let store = AwsKms::connect(name, kms, metrics()?).await?;
    let created = store.create_key(&pairs, alias).await?;
    let spki = store.public_key(&created.arn).await?;
    let key = PinnedKey::from_spki(created.arn.clone(), &spki).map_err(|error| Failure::Failed(error.to_string()))?;
    if as_json {
        println!(
            "{}",
            json!({ "address": key.address(), "arn": created.arn.to_string(), "aliases": created.aliases, "tags": created.tags })
        );
    } else {
        println!("{} {}", key.address(), created.arn);
    }
    warn_if_unused(&config, name, &pairs);
    Ok(())
}

fn kms_configuration<'a>(config: &'a Config, wanted: Option<&str>) -> Result<(&'a str, &'a sluice_gateway::config::AwsKms), Failure> {
    let kms = |configuration: &'a Configuration| match &configuration.provider {
        Provider::AwsKms(kms) => Some((configuration.name.as_str(), kms)),
        Provider::Local(_) | Provider::Development { .. } => None,
    };
    let mut all = config.configurations.iter().filter_map(kms);
    match wanted {
        Some(wanted) => all
            .find(|(name, _)| *name == wanted)
            .ok_or_else(|| Failure::Usage(format!("--configuration {wanted}: there is no such configuration with provider aws_kms"))),
        None => match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Failure::Usage("the file has no configuration with provider aws_kms".into())),
            (Some(_), Some(_)) => Err(Failure::Usage("the file has several; say which by --configuration NAME".into())),
        },
    }
}

/// A key that no service will find is most likely a slip.
fn warn_if_unused(config: &Config, configuration: &str, tags: &BTreeMap<String, String>) {
    let used = config.services.iter().filter(|service| service.configurations.iter().any(|name| name == configuration)).any(|service| {
        match &service.keys {
            KeySelection::All => true,
            KeySelection::Tags(wanted) => wanted.iter().all(|(name, value)| tags.get(name) == Some(value)),
            KeySelection::Ids(_) => false,
        }
    });
    if !used {
        eprintln!("sluice: note: no service of this file selects the new key by its tags; name it under keys.ids, or tag it");
    }
}
